#!/usr/bin/python3
"""Storage that hangs: files on a FUSE mount whose server is stopped by SIGSTOP, and a block device that lies in one,
beside a file on a local disk; all of them exports of one worker. The kernel lets nobody out of a call into such a mount
before its server goes on."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

import nbd

from gantry import PATIENCE, Server, Skip, equal, main, noise, run, sparse_file, test

MiB = 1 << 20
STUCK = 3  # files on the mount
REQUESTS = 100  # at once, of each of them


@contextlib.contextmanager
def fuse_mount(folder):
    """An ext4 file system of its own, mounted by a process: gives the place and the process."""
    if os.getuid() != 0 or not os.path.exists("/dev/fuse"):
        raise Skip("mounting takes root and /dev/fuse")
    if shutil.which("fuse2fs") is None:
        raise Skip("fuse2fs is not installed")
    image, place = sparse_file(folder / "image", 64 * MiB), folder / "mount"
    place.mkdir()
    run("mkfs.ext4", "-q", image)
    server = subprocess.Popen(["fuse2fs", "-f", image, place, "-o", "rw"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(PATIENCE * 10):
            if os.path.ismount(place):
                break
            if server.poll() is not None:
                raise Skip("this machine mounts no FUSE")
            time.sleep(0.1)
        yield place, server
    finally:
        server.send_signal(signal.SIGCONT)
        subprocess.run(["umount", str(place)], check=False)
        server.kill()
        server.wait()


@contextlib.contextmanager
def stopped(process):
    process.send_signal(signal.SIGSTOP)
    tasks = pathlib.Path(f"/proc/{process.pid}/task")
    while any("State:\tT" not in (task / "status").read_text() for task in tasks.iterdir()):
        time.sleep(0.01)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def loop_device(file):
    """The block device over the file, or None where there is none to be had."""
    made = subprocess.run(["losetup", "--find", "--show", str(file)], capture_output=True, text=True, check=False)
    try:
        yield made.stdout.strip() if made.returncode == 0 else None
    finally:
        if made.returncode == 0:
            subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def node_and_export(name, driver, file, more=""):
    return (f'[nodes.{name}]\ndriver = "{driver}"\nfilename = "{file}"\n{more}'
            f'[exports.{name}]\nnode = "{name}"\nwritable = true\n')


@contextlib.contextmanager
def serving(folder, mount, engine):
    """Exports `quick`, on a local disk, and others on the mount: gives the server and their names."""
    files = {f"stuck{i}": sparse_file(mount / f"stuck{i}", 4 * MiB) for i in range(STUCK)}
    toml = f'[server]\nlisten = "unix:sock"\nworkers = 1\nio-engine = "{engine}"\n'
    toml += node_and_export("quick", "file", sparse_file(folder / "quick", 4 * MiB))
    toml += "".join(node_and_export(name, "file", file) for name, file in files.items())
    with loop_device(sparse_file(mount / "device", 4 * MiB)) as device:
        if device:  # not through the page cache, which would take the writes
            toml += node_and_export("device", "host_device", device, "cache.direct = true\n")
        config = folder / "gantry.toml"
        config.write_text(toml)
        with Server(["serve", config], 1, folder) as server:
            yield server, [*files, *(["device"] if device else [])]


def client_of(server, name):
    client = nbd.NBD()
    client.connect_uri(server.uri(name))
    return client


def send_many(client):
    """Reads, writes, flushes and the like, none of which is waited for; gives what will hold their errors."""
    errors = []

    def done(error):
        errors.append(error.value)
        return 1

    for i in range(REQUESTS):
        offset = i * 8192
        if i % 10 == 7:
            client.aio_flush(done)
        elif i % 10 == 8:
            client.aio_zero(4096, offset, done)
        elif i % 10 == 9:
            client.aio_trim(4096, offset, done)
        elif i % 2 == 0:
            client.aio_pread(nbd.Buffer(4096), offset, done)
        else:
            client.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(noise(4096))), offset, done)
    for _ in range(REQUESTS):
        client.poll(0)  # until all is sent
    return errors


def use_all_of(client, rounds):
    """Everything that takes a thread or the ring, and has to be answered."""
    for i in range(rounds):
        client.pwrite(noise(5000, seed=i), i * 4096 + 1)  # parts of pages
        client.flush()
        equal(client.pread(5000, i * 4096 + 1) == noise(5000, seed=i), True)
        client.zero(4096, 3 * MiB)
        client.trim(4096, 3 * MiB)


@test("exports on a mount that hangs delay no request of another one of their worker, through {}", "io_uring", "threads")
def _(folder, engine):
    with fuse_mount(folder) as (mount, process), serving(folder, mount, engine) as (server, names):
        quick = client_of(server, "quick")
        stuck = [client_of(server, name) for name in names]
        with stopped(process):
            errors = [send_many(client) for client in stuck]
            use_all_of(quick, 100)
            use_all_of(client_of(server, "quick"), 10)  # who comes now, too
            for client, ended in zip(stuck, errors):
                client.poll(0)
                equal((client.aio_in_flight(), ended), (REQUESTS, []))
            # a stop that comes now has to end within drain-timeout, whatever hangs

        for client, ended in zip(stuck, errors):
            while client.aio_in_flight() > 0:
                assert client.poll(PATIENCE * 1000) > 0, f"{client.aio_in_flight()} requests are not answered"
            equal(ended, [0] * REQUESTS)
            client.shutdown()
        quick.shutdown()


main()
