#!/usr/bin/env python3
"""kernel_client_test.py GANTRY CACHE: the real Linux kernel client uses the exports of GANTRY serve.

A virtual machine attaches an export with nbd-client, lives on it with ext4, trims it, detaches,
reads it through a read-only export, finds it again when the server has been restarted, loses its
client in the middle of writing and repairs what that left, and last is cut off itself in the middle
of writing. Each fact is one line of TAP; what the guest sees and what happens to the image on this
side are both looked at. CACHE keeps the guest's kernel between runs."""
import hashlib
import random
import sys

from machine import HOST, Kernel, Machine
from server import DISK_SIZE, Image, Server
from scenario import play
from tap import expect

TIME_LIMIT_S = 240
MODULES = ("nbd", "ext4")
PROGRAMS = ("nbd-client", "mke2fs", "e2fsck")
ENDLESS = "dd if=/payload of=/mnt/endless bs=64k oflag=direct conv=notrunc"
PAYLOAD = random.Random(10809).randbytes(8 << 20)
SMALL_FILES = 100


def booting(tap, guest, server):
    with tap.fact("the server listens"):
        server.wait_until_listening()

    with tap.fact("the kernel boots with its NBD client"):
        guest.wait_until_ready()
        guest.sh("test -b /dev/nbd0")


def attaching(tap, guest, server):
    with tap.fact("nbd-client lists the exports over TCP"):
        listed = guest.sh(f"nbd-client -l {HOST} {server.port}").splitlines()
        expect("exports", sorted(set(listed) & {"disk", "ro"}), ["disk", "ro"])

    with tap.fact("the kernel attaches a writable export and learns its size"):
        attach(guest, server, "disk")
        expect("size", guest.sh("blockdev --getsize64 /dev/nbd0"), str(DISK_SIZE))
        expect("read-only", guest.sh("blockdev --getro /dev/nbd0"), "0")

    with tap.fact("the kernel learns that the export flushes, takes FUA and trims"):
        expect("write cache", guest.sh("cat /sys/block/nbd0/queue/write_cache"), "write back")
        expect("FUA", guest.sh("cat /sys/block/nbd0/queue/fua"), "1")
        assert int(guest.sh("cat /sys/block/nbd0/queue/discard_max_bytes")) > 0, "no discard"


def living_on_it(tap, guest, image):
    with tap.fact("mkfs.ext4 makes a file system on it and the kernel mounts it"):
        guest.sh("/sbin/mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0")
        guest.sh("mount -t ext4 /dev/nbd0 /mnt")

    with tap.fact("files written come back from the server with their checksum"):
        guest.sh("cp /payload /mnt/payload && mkdir /mnt/small")
        guest.sh(f"for i in $(seq {SMALL_FILES}); do echo $i > /mnt/small/$i; done; sync")
        guest.sh("echo 3 > /proc/sys/vm/drop_caches")
        before = bytes_read(guest)
        expect_files(guest)
        assert bytes_read(guest) - before >= len(PAYLOAD), "read from the cache, not the server"

    with tap.fact("a copy of the image, its journal replayed, holds what the guest synced"):
        copy = image.copy()
        copy.replay_journal()
        expect("checksum", copy.digest_of("/payload"), md5(PAYLOAD))


def trimming(tap, guest, image):
    with tap.fact("fstrim after deleting a big file gives its blocks back to this machine"):
        repeats = 6
        nearly_all = repeats * len(PAYLOAD) * 9 // 10  # the journal may grow into holes meanwhile
        guest.sh(f"for i in $(seq {repeats}); do cat /payload; done > /mnt/big; sync")
        full = image.allocated()
        guest.sh("rm /mnt/big && sync && fstrim /mnt")
        given_back = full - image.allocated()
        assert given_back >= nearly_all, f"only {given_back} bytes given back"


def detaching(tap, guest, image):
    with tap.fact("e2fsck finds the unmounted file system clean through the export"):
        guest.sh("umount /mnt && echo 3 > /proc/sys/vm/drop_caches && /sbin/e2fsck -fn /dev/nbd0")

    with tap.fact("nbd-client detaches it"):
        detach(guest)

    with tap.fact("e2fsck finds the image itself clean"):
        image.fsck()


def reading_only(tap, guest, server, image):
    untouched = image.digest()

    with tap.fact("the kernel sees that the other export is read-only"):
        attach(guest, server, "ro", "-C 2")
        expect("read-only", guest.sh("blockdev --getro /dev/nbd0"), "1")
        assert guest.fails("dd if=/dev/zero of=/dev/nbd0 bs=4096 count=1 conv=fsync"), "it wrote"

    with tap.fact("the kernel reads it over two connections"):
        guest.sh("mount -t ext4 -o ro /dev/nbd0 /mnt")
        expect_files(guest)
        connections = guest.sh(f"netstat -tn | grep {HOST}:{server.port}.*ESTABLISHED")
        expect("connections", len(connections.splitlines()), 2)

    with tap.fact("reading left the image as it was"):
        guest.sh("umount /mnt")
        detach(guest)
        expect("image", image.digest(), untouched)


def restarting(tap, guest, server, image):
    with tap.fact("the server is restarted between umount and mount, and every file is the same"):
        attach(guest, server, "disk")
        guest.sh("mount -t ext4 /dev/nbd0 /mnt && cp /payload /mnt/restarted && umount /mnt")
        detach(guest)
        before = image.digest()
        expect("status", server.stop(), 0)
        server.start()
        server.wait_until_listening()
        expect("image", image.digest(), before)
        attach(guest, server, "disk")
        guest.sh("echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 /dev/nbd0 /mnt")
        expect_files(guest)
        expect("checksum", guest.sh("md5sum < /mnt/restarted").split()[0], md5(PAYLOAD))
        guest.sh("umount /mnt")
        detach(guest)


def losing_the_client(tap, guest, server):
    with tap.fact("nbd-client is killed while the kernel writes, and the writes fail"):
        # without netlink the program stays, and the connection goes with it
        attach(guest, server, "disk", "-nonetlink")
        guest.sh("mount -t ext4 /dev/nbd0 /mnt && cp /payload /mnt/before && sync")
        write_endlessly(guest)
        guest.sh("kill -9 $(pidof nbd-client); until [ -e /tmp/over ]; do sleep 0.05; done")
        guest.sh("umount /mnt")

    with tap.fact("a new client repairs and mounts the file system: every synced file is there"):
        attach(guest, server, "disk")
        said = guest.sh("/sbin/e2fsck -fp /dev/nbd0; [ $? -le 1 ]")
        assert "recovering journal" in said, f"there was nothing to repair:\n{said}"
        guest.sh("echo 3 > /proc/sys/vm/drop_caches; mount -t ext4 /dev/nbd0 /mnt")
        expect_files(guest)
        expect("checksum", guest.sh("md5sum < /mnt/before").split()[0], md5(PAYLOAD))

    with tap.fact("and it goes on writing"):
        guest.sh("cp /payload /mnt/after && umount /mnt")
        guest.sh("echo 3 > /proc/sys/vm/drop_caches && /sbin/e2fsck -fn /dev/nbd0")
        detach(guest)


def vanishing(tap, guest, server):
    with tap.fact("the kernel attaches again and syncs a file"):
        attach(guest, server, "disk")
        guest.sh("mount -t ext4 /dev/nbd0 /mnt && cp /payload /mnt/kept && sync")

    with tap.fact("the server outlives a client that vanishes while it writes"):
        write_endlessly(guest)
        guest.kill()
        for export, read_only in (("disk", False), ("ro", True)):
            info = server.info(export)
            expect(f"{export}: size", info["export-size"], DISK_SIZE)
            expect(f"{export}: read-only", info["is_read_only"], read_only)


def afterwards(tap, server, image):
    with tap.fact("SIGTERM stops the server with status 0"):
        expect("status", server.stop(), 0)

    with tap.fact("the journal repairs what the vanished client left"):
        image.replay_journal()
        image.fsck()

    with tap.fact("every file synced before the end has its checksum"):
        for name in ("/payload", "/restarted", "/before", "/after", "/kept"):
            expect(f"{name}: checksum", image.digest_of(name), md5(PAYLOAD))


def attach(guest, server, export, options=""):
    guest.sh(f"nbd-client -N {export} {HOST} {server.port} /dev/nbd0 {options}")


def detach(guest):
    guest.sh("nbd-client -d /dev/nbd0")
    assert guest.fails("nbd-client -c /dev/nbd0"), "still attached"


def write_endlessly(guest):
    """Returns when writing is under way. It ends with the first write that fails."""
    guest.sh("rm -f /tmp/under-way /tmp/over && mkfifo /tmp/under-way")
    guest.sh(f"({ENDLESS} && echo > /tmp/under-way; while {ENDLESS}; do :; done; echo > /tmp/over)"
             " > /dev/null 2>&1 & cat /tmp/under-way")


def md5(content):
    return hashlib.md5(content).hexdigest()


def bytes_read(guest):
    return 512 * int(guest.sh("cat /sys/block/nbd0/stat").split()[2])


def expect_files(guest):
    expect("checksum", guest.sh("md5sum < /mnt/payload").split()[0], md5(PAYLOAD))
    small = guest.sh(f"for i in $(seq {SMALL_FILES}); do cat /mnt/small/$i; done | md5sum")
    wanted = "".join(f"{i}\n" for i in range(1, SMALL_FILES + 1))
    expect("checksum of small files", small.split()[0], md5(wanted.encode()))


def scenario(tap, gantry, cache, folder):
    image = Image(folder / "disk.img")
    image.create()
    payload = folder / "payload"
    payload.write_bytes(PAYLOAD)
    kernel = Kernel(cache)

    with (Server(gantry, folder) as server,
          Machine(kernel, folder, PROGRAMS, MODULES, [payload]) as guest):
        try:
            booting(tap, guest, server)
            attaching(tap, guest, server)
            living_on_it(tap, guest, image)
            trimming(tap, guest, image)
            detaching(tap, guest, image)
            reading_only(tap, guest, server, image)
            restarting(tap, guest, server, image)
            losing_the_client(tap, guest, server)
            vanishing(tap, guest, server)
            afterwards(tap, server, image)
        finally:
            if tap.failures:
                tap.explain("\n".join([*guest.log(), "server log:", *server.log]))


if __name__ == "__main__":
    sys.exit(play(scenario, *sys.argv[1:], limit_s=TIME_LIMIT_S))
