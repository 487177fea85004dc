#!/usr/bin/python3
"""device_test.py GANTRY CACHE: GANTRY serve in a virtual machine, over block devices that change.

A virtio disk and a loop device of the guest are exported; clients on this side reach them over TCP
and, through a bridge in the guest, over vsock. The disks grow, shrink, and one is pulled out under
load; what lies below them is looked at behind the server's back. All of it once for each engine; a
disk that is pulled out while nothing is cached is another story, and told last.
CACHE keeps the guest's kernel between runs."""
import hashlib
import random
import re
import socket
import sys
from contextlib import contextmanager
from pathlib import Path

import nbd

from guest_disks import LoopDevice, VirtioDisk
from guest_server import (BRIDGES, FOREIGN_PORT, PORTS, TCP_PORT, VSOCK_PORT, GuestServer, Load,
                          build_bridges)
from machine import Kernel, Machine
from scenario import play
from tap import expect

TIME_LIMIT_S = 240
MiB = 1 << 20
SIZE = 24 * MiB
GROWN = 32 * MiB
SHRUNK = 16 * MiB
ENGINES = {"io_uring": "io_uring", "threads": "a thread pool"}  # and their names in the log
NOISE = random.Random(4).randbytes(SIZE)
MODULES = ("virtio_blk", "loop", "vsock", "vsock_loopback", "vmw_vsock_virtio_transport_common")
# One worker: a lost disk has to share it with the others.
CONFIG = """
[server]
listen = ["tcp:0.0.0.0:{tcp}", {{ vsock = "any:{vsock}", allow = [1] }},
          {{ vsock = "any:{foreign}", allow = [3] }}]
workers = 1
io-engine = "{engine}"
[nodes.virtio]
driver = "host_device"
filename = "{virtio}"
cache.direct = {direct}
[nodes.loop]
driver = "host_device"
filename = "{loop}"
[nodes.ram]
driver = "memory"
size = "16M"
[exports.virtio]
node = "virtio"
writable = true
[exports.loop]
node = "loop"
writable = true
[exports.ram]
node = "ram"
writable = true
"""


class Scene:
    """A guest with two disks, and the server that runs there at the moment."""

    def __init__(self, guest, program, image, engine, direct="false"):
        self._guest = guest
        self._program = program
        self.virtio = VirtioDisk(guest, image)
        self.loop = LoopDevice(guest, f"/mnt/{image.name}", SIZE)
        self.disks = {"virtio": self.virtio, "loop": self.loop}
        self.engine = engine
        self._config = CONFIG.format(
            engine=engine, direct=direct, tcp=TCP_PORT, vsock=VSOCK_PORT, foreign=FOREIGN_PORT,
            virtio=self.virtio.device, loop=self.loop.device)
        self.start()

    def start(self):
        self.server = GuestServer(self._guest, self._program, self._config)

    def port(self, number):
        return self._guest.port(number)

    @contextmanager
    def client(self, export, port=TCP_PORT):
        client = self.server.connect(export, port)
        yield client
        client.shutdown()


def refused(request, *arguments):
    """The error's name on the wire."""
    try:
        request(*arguments)
    except nbd.Error as error:
        return error.errno
    raise AssertionError(f"{request.__name__}{arguments[1:]} succeeded")


def expect_log(scene, pattern):
    log = scene.server.log()
    assert re.search(pattern, log), f"the log has no {pattern!r}:\n{log}"


def md5(content):
    return hashlib.md5(content).hexdigest()


def serving(tap, scene):
    with tap.fact(f"{scene.engine}: a device has its size, and the log names the engine"):
        for name in scene.disks:
            with scene.client(name) as client:
                expect(f"{name}: size", client.get_size(), SIZE)
        expect_log(scene, f"read and written by {ENGINES[scene.engine]}")

    for name, disk in scene.disks.items():
        with tap.fact(f"{scene.engine}: {name}: what is written arrives below the device"):
            with scene.client(name) as client:
                for offset in range(0, SIZE, MiB):
                    client.pwrite(NOISE[offset:offset + MiB], offset)
                client.pwrite(b"odd", 12345)
                client.flush()
            expect("digest", disk.digest(), md5(NOISE[:12345] + b"odd" + NOISE[12348:]))

        with tap.fact(f"{scene.engine}: {name}: the space of what is trimmed is free below"):
            full = disk.allocated()
            with scene.client(name) as client:
                client.trim(8 * MiB, 4 * MiB)
                client.flush()
                freed = full - disk.allocated()
                client.pwrite(NOISE[4 * MiB:12 * MiB], 4 * MiB)
            assert freed >= 8 * MiB, f"only {freed} bytes of {full}"

        with tap.fact(f"{scene.engine}: {name}: ENOSPC at the end, and nothing is written"):
            with scene.client(name) as client:
                expect("write", refused(client.pwrite, bytes(4096), SIZE - 512), "ENOSPC")
                expect("zero", refused(client.zero, 4096, SIZE - 512), "ENOSPC")
                expect("read", refused(client.pread, 4096, SIZE - 512), "EINVAL")
                expect("last sector", client.pread(512, SIZE - 512), NOISE[-512:])


def speaking_vsock(tap, scene):
    with tap.fact(f"{scene.engine}: a client of vsock is served, and the log has its CID"):
        with scene.client("ram", BRIDGES[VSOCK_PORT]) as client:
            client.pwrite(b"over vsock", 5)
            expect("content", bytes(client.pread(12, 4)), b"\0over vsock\0")
        expect_log(scene, r"client vsock:1:\d+: attached to export 'ram'")

    with tap.fact(f"{scene.engine}: a client of vsock with the wrong CID is left without a word"):
        with socket.create_connection(("127.0.0.1", scene.port(BRIDGES[FOREIGN_PORT]))) as client:
            expect("greeting", client.recv(8), b"")
        expect_log(scene, rf"vsock:1:\d+: refused, vsock:any:{FOREIGN_PORT} does not allow it")


def growing(tap, scene):
    with tap.fact(f"{scene.engine}: a device that grows leaves the exports as they are"):
        with scene.client("virtio") as virtio, scene.client("loop") as loop:
            for disk in scene.disks.values():
                disk.resize(GROWN)
            for client in (virtio, loop):
                expect("write behind the end", refused(client.pwrite, bytes(512), SIZE), "ENOSPC")
                expect("last sector", client.pread(512, SIZE - 512), NOISE[-512:])
        for name in scene.disks:
            with scene.client(name) as client:
                expect(f"{name}: size", client.get_size(), SIZE)

    with tap.fact(f"{scene.engine}: a stop ends well, and the next start finds the new size"):
        expect("status", scene.server.stop(), 0)
        scene.start()
        for name, disk in scene.disks.items():
            with scene.client(name) as client:
                expect(f"{name}: size", client.get_size(), GROWN)
                client.pwrite(NOISE[12345:12348], 12345)
                client.pwrite(NOISE[:GROWN - SIZE], SIZE)
                client.flush()
            expect(f"{name}: digest", disk.digest(), md5(NOISE + NOISE[:GROWN - SIZE]))


def shrinking(tap, scene):
    with tap.fact(f"{scene.engine}: what a device lost by shrinking is EIO, the rest is there"):
        with scene.client("virtio") as virtio, scene.client("loop") as loop:
            for disk in scene.disks.values():
                disk.resize(SHRUNK)
            for client in (virtio, loop):
                expect("read", refused(client.pread, 4096, SHRUNK), "EIO")
                expect("write", refused(client.pwrite, bytes(4096), SHRUNK), "EIO")
                expect("last sector", client.pread(512, SHRUNK - 512), NOISE[SHRUNK - 512:SHRUNK])
        for name in scene.disks:
            expect_log(scene, f"export '{name}': .*: the device has only {SHRUNK} bytes now")


def pulling(tap, scene, how=""):
    title = f"{scene.engine}{how}"
    lost = [Load(scene.server.connect("virtio"), number) for number in range(4)]
    others = [Load(scene.server.connect(name), 0) for name in ("ram", "loop")]

    with tap.fact(f"{title}: a disk is pulled out under load: its clients get EIO"):
        for load in (*lost, *others):
            load.go_on(64)
        scene.virtio.pull()
        for load in lost:
            load.join(60)
            expect("error", getattr(load.error, "errno", load.error), "EIO")

    with tap.fact(f"{title}: the other exports go on"):
        for load in others:
            load.go_on(64)
            load.end()
            expect("error", load.error, None)

    with tap.fact(f"{title}: who asks for the lost disk later gets EIO, too"):
        with scene.client("virtio") as client:
            expect("read", refused(client.pread, 4096, 8 * MiB), "EIO")
            expect("write", refused(client.pwrite, bytes(4096), 8 * MiB), "EIO")
            expect("flush", refused(client.flush), "EIO")

    with tap.fact(f"{title}: a stop ends, with status 1 for what is lost"):
        expect("status", scene.server.stop(), 1)
        expect_log(scene, "export 'virtio': the last flush failed, data may be lost")


def scenario(tap, gantry, cache, folder):
    images = [folder / f"{name}.img" for name in (*ENGINES, "direct")]
    for image in images:
        with open(image, "xb") as file:
            file.truncate(SIZE)
    with Machine(Kernel(cache), folder, (gantry, "socat"), MODULES, disks=images,
                 ports=PORTS) as guest:
        scene = None
        try:
            with tap.fact("the kernel boots"):
                guest.wait_until_ready()
                guest.sh("mount -t tmpfs tmpfs /mnt")
                build_bridges(guest)
            for engine, image in zip(ENGINES, images):
                scene = Scene(guest, Path(gantry).name, image, engine)
                serving(tap, scene)
                speaking_vsock(tap, scene)
                growing(tap, scene)
                shrinking(tap, scene)
                pulling(tap, scene)
            scene = Scene(guest, Path(gantry).name, images[-1], "io_uring", direct="true")
            pulling(tap, scene, " with cache.direct")
        finally:
            if tap.failures:
                tap.explain("\n".join(guest.log()))
                if scene:
                    tap.explain(scene.server.log())


if __name__ == "__main__":
    sys.exit(play(scenario, *sys.argv[1:], limit_s=TIME_LIMIT_S))
