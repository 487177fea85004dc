#!/usr/bin/python3
"""fio writes through its nbd engine, reads everything back, and finds the checksum of each block right."""
import json

from gantry import equal, export, main, run, sparse_file, test

SIZE = 64 << 20


def fio(folder, server, **options):
    """Runs a job that stops at the first error or bad checksum; how many requests were (written, read)."""
    job = {"name": "job", "ioengine": "nbd", "uri": server.uri(over=options.pop("over", "unix")), "rw": "randwrite",
           "verify": "crc32c", "verify_fatal": 1, "verify_state_save": 0, "group_reporting": 1} | options
    said = run("fio", "--output-format=json", *(f"--{key}={value}" for key, value in job.items()), folder=folder)
    result = json.loads(said[said.index("{"):])["jobs"][0]
    equal(result["error"], 0)
    return result["write"]["total_ios"], result["read"]["total_ios"]


def verifies(folder, requests, **options):
    """Writes that many blocks and reads each of them back, on a fresh disk."""
    with export(sparse_file(folder / "disk", SIZE), "--writable") as server:
        written, read = fio(folder, server, **options)

    equal((written, read), (requests, requests))


@test("blocks of 4 KiB written at depth {} verify", 1, 4, 16, 64)
def _(folder, depth):
    verifies(folder, 4096, bs="4k", iodepth=depth, size="16m")


@test("blocks of {} bytes written at depth 16 verify", 512, 65536, 1048576)
def _(folder, size):
    verifies(folder, 64, bs=size, iodepth=16, size=64 * size)


@test("blocks of {} bytes, no multiple of a sector, written at depth 64 verify", 1000, 33333)
def _(folder, size):
    verifies(folder, 1000, bs=size, iodepth=64, size=1000 * size)


@test("blocks of 1 MiB written at depth 64 over TCP verify")
def _(folder):
    verifies(folder, 64, bs="1m", iodepth=64, size="64m", over="tcp")


@test("blocks of all sizes from 512 bytes to 1 MiB verify, read back while others are written")
def _(folder):
    with export(sparse_file(folder / "disk", SIZE), "--writable") as server:
        written, read = fio(folder, server, bsrange="512-1m", bs_unaligned=1, iodepth=32, size="48m", verify_backlog=64)

    equal(written, read)


@test("four connections that share an export verify, each in its own quarter")
def _(folder):
    quarter = SIZE // 4
    verifies(folder, SIZE // 16384, bs="16k", iodepth=16, size=quarter, offset_increment=quarter, numjobs=4)


@test("four connections that write neighbouring pieces of the same pages verify")
def _(folder):
    interleaved = {"rw": "write:3000", "offset_increment": 1000, "numjobs": 4}
    verifies(folder, 4000, bs=1000, iodepth=16, size=4000 * 1000, io_size=1000 * 1000, **interleaved)


@test("what was written verifies after a restart of the server")
def _(folder):
    disk = sparse_file(folder / "disk", SIZE)
    job = {"bs": "4k", "iodepth": 16, "size": "16m"}

    with export(disk, "--writable") as server:
        fio(folder, server, do_verify=0, **job)
    with export(disk) as server:
        fio(folder, server, rw="randread", verify_only=1, **job)


main()
