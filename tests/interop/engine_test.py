#!/usr/bin/python3
"""The engines that read and write files: which one is taken, and that it serves where io_uring is forbidden."""
import pathlib
import sys

import nbd

from gantry import Skip, command_line, equal, export, main, noise, refused, sparse_file, test

MiB = 1 << 20
WITHOUT_IO_URING = sys.executable, pathlib.Path(__file__).with_name("without_io_uring.py")
TAKEN = "files are read and written by "


def engine_of(server):
    """What the log says of the engine."""
    return next(line for line in server.log if TAKEN in line).partition(TAKEN)[2].strip()


def write_and_read(server):
    client = nbd.NBD()
    client.connect_uri(server.uri())
    client.pwrite(noise(MiB), 12345)
    client.flush()
    client.trim(4096, 0)
    equal(client.pread(MiB, 12345) == noise(MiB), True)
    client.shutdown()


@test("where io_uring is forbidden threads serve, and the log says why")
def _(folder):
    disk = sparse_file(folder / "disk", 2 * MiB)

    with export(disk, "--io-engine", "auto", "--writable", launcher=WITHOUT_IO_URING) as server:
        write_and_read(server)

    equal(engine_of(server), "a thread pool: io_uring: Operation not permitted")
    equal(disk.read_bytes()[12345:12345 + MiB] == noise(MiB), True)


@test("who asks for io_uring where it is forbidden is told so in one line")
def _(folder):
    disk = sparse_file(folder / "disk", 2 * MiB)
    config = folder / "gantry.toml"
    config.write_text('[server]\nlisten = "unix:sock"\nio-engine = "io_uring"\n[nodes.disk]\ndriver = "file"\n'
                      'filename = "disk"\n[exports.disk]\nnode = "disk"\n')

    for words in ("serve", config), ("export", disk, "--io-engine", "io_uring"):
        equal(refused(*WITHOUT_IO_URING, *command_line(*words)),
              'io-engine = "io_uring" can\'t be had: io_uring: Operation not permitted; "auto" or "threads" works here\n')


@test("each engine is taken by its name: {}", "io_uring", "threads")
def _(folder, engine):
    disk = sparse_file(folder / "disk", 2 * MiB)
    words = "export", disk, "--format", "raw", "--io-engine", engine, "--writable"
    try:
        with export(disk, "--io-engine", engine, "--writable") as server:
            write_and_read(server)
    except AssertionError:
        if engine == "io_uring":
            raise Skip(refused(*command_line(*words)).strip()) from None
        raise

    equal(engine_of(server), "io_uring" if engine == "io_uring" else "a thread pool")


main()
