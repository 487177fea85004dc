#!/usr/bin/python3
"""Real disks that are full, limited, cut, or lose what they were given, beneath the running program."""
import contextlib
import errno
import os
import pathlib
import subprocess

import nbd

from gantry import PATIENCE, Server, Skip, equal, main, noise, run, sparse_file, test

MiB = 1 << 20
ENGINES = "io_uring", "threads"


@contextlib.contextmanager
def mounted(*words):
    """The place of what `mount words place` mounts."""
    place = pathlib.Path(words[-1])
    place.mkdir()
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Skip(f"nothing can be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextlib.contextmanager
def tmpfs(folder, size):
    with mounted("-t", "tmpfs", "-o", f"size={size}", "none", folder / "tmpfs") as place:
        yield place


@contextlib.contextmanager
def ext4(image, place, *options):
    """An ext4 file system of 16 MiB, over a loop device."""
    run("mkfs.ext4", "-q", *options, sparse_file(image, 16 * MiB))
    with mounted("-o", "loop", image, place) as mount:
        yield mount


@contextlib.contextmanager
def loop_device(file):
    made = subprocess.run(["losetup", "--find", "--show", str(file)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise Skip(f"no loop device: {made.stderr.strip()}")
    try:
        yield made.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def serving(folder, disk, engine, driver="file", launcher=()):
    """Exports `disk`, and `other` on the disk of the machine."""
    other = folder / "other"
    config = folder / "gantry.toml"
    config.write_text(f'[server]\nlisten = "unix:sock"\nworkers = 1\nio-engine = "{engine}"\n' + "".join(
        f'[nodes.{name}]\ndriver = "{kind}"\nfilename = "{file}"\n[exports.{name}]\nnode = "{name}"\nwritable = true\n'
        for name, kind, file in (("disk", driver, disk), ("other", "file", sparse_file(other, MiB)))))
    return Server(["serve", config], 1, folder, launcher)


def client_of(server, name="disk"):
    client = nbd.NBD()
    client.set_strict_mode(0)
    client.connect_uri(server.uri(name))
    return client


def fails(expected, function, *arguments):
    try:
        function(*arguments)
    except nbd.Error as error:
        equal(error.errno, errno.errorcode[expected])
    else:
        raise AssertionError(f"should fail with {errno.errorcode[expected]}")


def goes_on(server):
    """The neighbour of an export that fails."""
    client = client_of(server, "other")
    client.pwrite(noise(4096), 4096)
    client.flush()
    equal(client.pread(4096, 4096) == noise(4096), True)
    client.shutdown()


def fill(client, size):
    """Writes MiB after MiB until there is no room; where that was."""
    for offset in range(0, size, MiB):
        try:
            client.pwrite(noise(MiB), offset)
        except nbd.Error as error:
            equal(error.errno, "ENOSPC")
            return offset
    raise AssertionError(f"{size} bytes found room")


def fills_up_and_recovers(folder, place, engine):
    ballast, disk = place / "ballast", place / "disk"
    ballast.write_bytes(noise(4 * MiB))
    sparse_file(disk, 32 * MiB)
    with serving(folder, disk, engine) as server:
        client = client_of(server)
        full = fill(client, 32 * MiB)
        assert full > 0
        fails(errno.ENOSPC, client.pwrite, noise(MiB), full, nbd.CMD_FLAG_FUA)
        fails(errno.ENOSPC, client.zero, 8 * MiB, 24 * MiB, nbd.CMD_FLAG_NO_HOLE)
        equal(client.pread(MiB, 0) == noise(MiB), True)
        goes_on(server)

        ballast.unlink()
        client.pwrite(noise(MiB, seed=2), full)
        client.flush()
        equal(client.pread(MiB, full) == noise(MiB, seed=2), True)
        client.shutdown()


@test("a full tmpfs is ENOSPC until there is room again, through {}", *ENGINES)
def _(folder, engine):
    with tmpfs(folder, "10M") as place:
        fills_up_and_recovers(folder, place, engine)


@test("a full ext4 is ENOSPC until there is room again, through {}", *ENGINES)
def _(folder, engine):
    with ext4(folder / "image", folder / "ext4", "-m", 0) as place:
        fills_up_and_recovers(folder, place, engine)


@test("a limit of the size of files is ENOSPC, and ends no daemon, through {}", *ENGINES)
def _(folder, engine):
    disk = sparse_file(folder / "disk", 4 * MiB)
    with serving(folder, disk, engine, launcher=["prlimit", f"--fsize={2 * MiB}:unlimited"]) as server:
        client = client_of(server)
        client.pwrite(noise(MiB), 0)
        fails(errno.ENOSPC, client.pwrite, noise(65536), 3 * MiB)  # at once, as it is whole pages
        fails(errno.ENOSPC, client.pwrite, noise(65536), 3 * MiB + 1)
        fails(errno.ENOSPC, client.pwrite, noise(MiB), 3 * MiB, nbd.CMD_FLAG_FUA)
        client.flush()
        goes_on(server)
        run("prlimit", f"--pid={server.process.pid}", "--fsize=unlimited")
        client.pwrite(noise(MiB), 3 * MiB, nbd.CMD_FLAG_FUA)
        client.shutdown()


@test("an image that is cut under its export is EIO behind its end, through {}", *ENGINES)
def _(folder, engine):
    disk = sparse_file(folder / "disk", 2 * MiB, [(0, noise(2 * MiB))])
    with serving(folder, disk, engine) as server:
        client = client_of(server)
        os.truncate(disk, MiB)
        for offset, length in (MiB, 512), (MiB - 512, 1024), (2 * MiB - 1, 1), (MiB // 2, MiB):
            fails(errno.EIO, client.pread, length, offset)
        equal(client.pread(MiB, 0) == noise(2 * MiB)[:MiB], True)
        goes_on(server)
        client.shutdown()


def loses_what_it_was_given(folder, disk, engine, driver):
    """Writes find a place in the page cache, and none on the medium."""
    server = serving(folder, disk, engine, driver)
    try:
        client = client_of(server)
        client.pwrite(noise(8 * MiB), MiB)
        fails(errno.EIO, client.flush)
        for _ in range(2):  # the kernel tells it once
            fails(errno.EIO, client.flush)
            fails(errno.EIO, client.pwrite, noise(512), MiB, nbd.CMD_FLAG_FUA)
        goes_on(server)
        client.shutdown()
        server.process.terminate()
        equal(server.process.wait(PATIENCE), 1)
        assert any("export 'disk': the last flush failed, data may be lost" in line for line in server.log), server.log
    finally:
        server.process.kill()
        server.process.wait()


@test("a device that lost writes never flushes with success again, and a stop ends with status 1, through {}", *ENGINES)
def _(folder, engine):
    with tmpfs(folder, "6M") as place, loop_device(sparse_file(place / "image", 16 * MiB)) as device:
        loses_what_it_was_given(folder, device, engine, "host_device")


@test("a file that lost writes never flushes with success again, and a stop ends with status 1, through {}", *ENGINES)
def _(folder, engine):
    with tmpfs(folder, "7M") as place, ext4(place / "image", folder / "ext4", "-O", "^has_journal") as mount:
        disk = sparse_file(mount / "disk", 12 * MiB)
        loses_what_it_was_given(folder, disk, engine, "file")


main()
