#!/usr/bin/python3
"""Storage that hangs: files on a FUSE mount whose server is stopped by SIGSTOP, and a block device that lies in one,
beside a file on a local disk; all of them exports of one worker. The kernel lets nobody out of a call into such a mount
before its server goes on; a process that ends it lets out of most."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import nbd

from gantry import PATIENCE, Server, Skip, equal, main, noise, run, sparse_file, test

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import replay  # noqa: E402

MiB = 1 << 20
ENGINES = "io_uring", "threads"
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


def head(engine, more=""):
    return f'[server]\nlisten = "unix:sock"\nworkers = 1\nio-engine = "{engine}"\n{more}'


@contextlib.contextmanager
def serving(folder, mount, engine):
    """Exports `quick`, on a local disk, and others on the mount: gives the server and their names."""
    files = {f"stuck{i}": sparse_file(mount / f"stuck{i}", 4 * MiB) for i in range(STUCK)}
    toml = head(engine)
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


EVERYTHING = "read", "write", "read", "write", "read", "write", "read", "flush", "zero", "trim"
CHANGES = "write", "write", "flush", "zero", "trim"


def send_many(client, kinds=EVERYTHING):
    """Requests that are not waited for; gives what will hold their errors."""
    errors = []

    def done(error):
        errors.append(error.value)
        return 1

    ask = {"read": lambda offset: client.aio_pread(nbd.Buffer(4096), offset, done),
           "write": lambda offset: client.aio_pwrite(nbd.Buffer.from_bytearray(noise(4096)), offset, done),
           "flush": lambda offset: client.aio_flush(done),
           "zero": lambda offset: client.aio_zero(4096, offset, done),
           "trim": lambda offset: client.aio_trim(4096, offset, done)}
    for i in range(REQUESTS):
        ask[kinds[i % len(kinds)]](i * 8192)
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


@test("exports on a mount that hangs delay no request of another one of their worker, through {}", *ENGINES)
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

        for client, ended in zip(stuck, errors):
            while client.aio_in_flight() > 0:
                assert client.poll(PATIENCE * 1000) > 0, f"{client.aio_in_flight()} requests are not answered"
            equal(ended, [0] * REQUESTS)
            client.shutdown()
        quick.shutdown()


@contextlib.contextmanager
def stuck_for_ever(folder, engine, drain_timeout):
    """Gives a server whose exports `stuck0`... have requests that hang, and whose `quick` has data that nobody flushed.
    Reads and changes hang in different files: the kernel lets no process end that waits to change a page which is
    being read."""
    with fuse_mount(folder) as (mount, process):
        names = [f"stuck{i}" for i in range(STUCK)]
        (folder / "log").touch()
        logged = (f'[nodes.quick]\ndriver = "blklogwrites"\nlog = {{ driver = "file", filename = "log" }}\n'
                  f'file = {{ driver = "file", filename = "{sparse_file(folder / "quick", 4 * MiB)}" }}\n'
                  '[exports.quick]\nnode = "quick"\nwritable = true\n')
        config = folder / "gantry.toml"
        config.write_text(head(engine, f'drain-timeout = "{drain_timeout}"\n') + logged + "".join(
            node_and_export(name, "file", sparse_file(mount / name, 4 * MiB)) for name in names))
        server = Server(["serve", config], 1, folder)
        try:
            quick = client_of(server, "quick")
            stuck = [client_of(server, name) for name in names]
            with stopped(process):
                ended = [send_many(client, kinds) for client, kinds in zip(stuck, [["read"], CHANGES, CHANGES])]
                quick.pwrite(noise(MiB), MiB)
                yield server
                equal(ended, [[] for _ in stuck])  # nothing that hung was called a success
        finally:
            server.process.kill()
            server.process.wait()


def says(server, *sentences):
    for sentence in sentences:
        assert any(sentence in line for line in server.log), f"the log does not say: {sentence}"


def wait_until_it_says(server, sentence):
    for _ in range(PATIENCE * 100):
        if any(sentence in line for line in server.log):
            return
        time.sleep(0.01)
    says(server, sentence)


@test("a stop while storage hangs is bounded, says what it cut off, and flushes the rest, through {}", *ENGINES)
def _(folder, engine):
    with stuck_for_ever(folder, engine, "1s") as server:
        server.process.terminate()
        equal(server.process.wait(15), 1)  # twice drain-timeout and a second: 3 s

        server.reader.join()
        says(server, *(f"export 'stuck{i}': cut off, its medium does not answer" for i in range(STUCK)))
        equal([line for line in server.log if "'quick': cut off" in line], [])
    with open(folder / "log", "rb") as log:  # its superblock tells of what came before a flush
        entries = replay.read_log(log)
    equal([entry.flags for entry in entries], [0, replay.FLUSH])
    equal((folder / "quick").read_bytes() == bytes(MiB) + noise(MiB) + bytes(2 * MiB), True)


@test("a second SIGTERM in such a stop ends it at once, through {}", *ENGINES)
def _(folder, engine):
    with stuck_for_ever(folder, engine, "1h") as server:
        server.process.terminate()
        wait_until_it_says(server, "SIGTERM: stopping; once more stops at once")
        server.process.terminate()
        equal(server.process.wait(PATIENCE), 1)

        server.reader.join()
        says(server, "SIGTERM again: stopped at once, what was not flushed may be lost")
        equal((folder / "sock").exists(), False)


def wait_until_it_opens(server):
    tasks = pathlib.Path(f"/proc/{server.process.pid}/task")
    for _ in range(PATIENCE * 100):
        if any((task / "comm").read_text() == "blocking calls\n" for task in tasks.iterdir()):
            return
        time.sleep(0.01)
    raise AssertionError("no thread opens anything")


@test("a stop while a start hangs is bounded, too, and says what does not answer, through {}", *ENGINES)
def _(folder, engine):
    with fuse_mount(folder) as (mount, process):
        config = folder / "gantry.toml"
        quick, stuck = sparse_file(folder / "quick", 4 * MiB), sparse_file(mount / "stuck", 4 * MiB)
        config.write_text(head(engine, 'drain-timeout = "1s"\n') + node_and_export("quick", "file", quick) +
                          node_and_export("stuck", "file", stuck))
        with stopped(process):
            server = Server(["serve", config], 0, folder)
            try:
                wait_until_it_opens(server)
                server.process.terminate()
                equal(server.process.wait(15), 1)
            finally:
                server.process.kill()
                server.process.wait()
        server.reader.join()
        says(server, "export 'stuck': its medium does not answer", "stopped before everything was open")
        equal([line for line in server.log if "'quick'" in line], [])


main()
