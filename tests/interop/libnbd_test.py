#!/usr/bin/python3
"""libnbd, as a program uses it: structured replies, block status, zeroes, trim, flush, errors."""
import contextlib
import errno

import nbd

from gantry import allocated, equal, export, main, noise, serve, sparse_file, test

KiB, MiB = 1 << 10, 1 << 20
DATA, HOLE = 0, nbd.STATE_HOLE | nbd.STATE_ZERO


@contextlib.contextmanager
def connected(uri, *contexts, structured=True):
    """A client that checks nothing by itself, so that the server has to."""
    client = nbd.NBD()
    client.set_strict_mode(0)
    client.set_request_structured_replies(structured)
    for context in contexts:
        client.add_meta_context(context)
    client.connect_uri(uri)
    yield client
    client.shutdown()


@contextlib.contextmanager
def client_of(image, *options, **settings):
    """A client of a server of its own."""
    with export(image, *options) as server:
        with connected(server.uri(), nbd.CONTEXT_BASE_ALLOCATION, **settings) as client:
            yield client


def disk_in(folder):
    """64 KiB of data, 192 KiB of hole, 64 KiB of data, and a hole up to 1 MiB."""
    return sparse_file(folder / "disk", MiB, [(0, noise(64 * KiB)), (256 * KiB, noise(64 * KiB))])


def status(client, offset, length, flags=0):
    """Block status of the range as [(length, state)]. A reply may end before the range does, or after it."""
    found, end = [], offset + length
    while offset < end:
        reply = []
        client.block_status(end - offset, offset, lambda name, start, entries, error: reply.extend(entries) or 0, flags)
        for size, state in zip(reply[::2], reply[1::2]):
            size = min(size, end - offset)
            offset += size
            found.append((size, state))
        if flags & nbd.CMD_FLAG_REQ_ONE:
            break
    return found


def chunks(client, offset, length, flags=0):
    """The content, and the reply's pieces as {(offset, length, kind)}."""
    found = set()
    content = client.pread_structured(
        length, offset, lambda piece, start, kind, error: found.add((start, len(piece), kind)) or 0, flags)
    return content, found


def fails(expected, function, *arguments):
    try:
        function(*arguments)
    except nbd.Error as error:
        equal(error.errno, errno.errorcode[expected])
    else:
        raise AssertionError(f"should fail with {errno.errorcode[expected]}")


@test("a structured read sends no bytes for a hole")
def _(folder):
    with client_of(disk_in(folder)) as client:
        equal(client.get_structured_replies_negotiated(), True)
        content, found = chunks(client, 0, MiB)

    equal(content == (folder / "disk").read_bytes(), True)
    equal(sum(length for _, length, kind in found if kind == nbd.READ_DATA), 128 * KiB)
    equal(sum(length for _, length, kind in found if kind == nbd.READ_HOLE), 896 * KiB)


@test("a structured read with DF comes in one piece")
def _(folder):
    with client_of(disk_in(folder)) as client:
        content, found = chunks(client, 32 * KiB, 256 * KiB, nbd.CMD_FLAG_DF)

    equal(content == (folder / "disk").read_bytes()[32 * KiB:288 * KiB], True)
    equal(found, {(32 * KiB, 256 * KiB, nbd.READ_DATA)})


@test("a client without structured replies reads the same")
def _(folder):
    with client_of(disk_in(folder), structured=False) as client:
        equal(client.get_structured_replies_negotiated(), False)
        equal(client.pread(MiB, 0) == (folder / "disk").read_bytes(), True)


@test("block status shows holes, from any byte to any byte")
def _(folder):
    with client_of(disk_in(folder)) as client:
        equal(status(client, 0, MiB), [(64 * KiB, DATA), (192 * KiB, HOLE), (64 * KiB, DATA), (704 * KiB, HOLE)])
        equal(status(client, 1, 64 * KiB), [(64 * KiB - 1, DATA), (1, HOLE)])
        equal(status(client, 300 * KiB, 1), [(1, DATA)])


@test("block status with REQ_ONE shows one extent")
def _(folder):
    with client_of(disk_in(folder)) as client:
        equal(status(client, 32 * KiB, 512 * KiB, nbd.CMD_FLAG_REQ_ONE), [(32 * KiB, DATA)])
        equal(status(client, 64 * KiB, 512 * KiB, nbd.CMD_FLAG_REQ_ONE), [(192 * KiB, HOLE)])


@test("a client learns only the contexts that it asked for")
def _(folder):
    with export(disk_in(folder)) as server:
        with connected(server.uri(), "base:allocation", "qemu:dirty-bitmap:none", "nonsense") as client:
            equal([client.can_meta_context(name) for name in ("base:allocation", "nonsense")], [True, False])
        with connected(server.uri()) as client:
            equal(client.can_meta_context("base:allocation"), False)
            fails(errno.EINVAL, status, client, 0, MiB)


@test("zeroes read as zeroes, and become a hole unless NO_HOLE forbids it")
def _(folder):
    disk = folder / "disk"
    disk.write_bytes(noise(MiB))

    with client_of(disk, "--writable") as client:
        client.zero(256 * KiB, 0)
        client.zero(256 * KiB, 512 * KiB, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
        client.zero(1001, 300001)
        equal(status(client, 0, 256 * KiB), [(256 * KiB, HOLE)])

    assert allocated(disk) <= 768 * KiB, allocated(disk)
    assert allocated(disk) > 512 * KiB, f"a part that must stay allocated is not: {allocated(disk)}"
    expected = bytearray(noise(MiB))
    for offset, length in (0, 256 * KiB), (512 * KiB, 256 * KiB), (300001, 1001):
        expected[offset:offset + length] = bytes(length)
    equal(disk.read_bytes() == expected, True)


@test("a fast zero either is done or leaves the data alone")
def _(folder):
    disk = folder / "disk"
    disk.write_bytes(noise(MiB))

    with client_of(disk, "--writable") as client:
        equal(client.can_fast_zero(), True)
        try:
            client.zero(256 * KiB, 0, nbd.CMD_FLAG_FAST_ZERO)
            expected = bytes(256 * KiB)
        except nbd.Error as error:
            equal(error.errno, "EOPNOTSUPP")
            expected = noise(MiB)[:256 * KiB]
        equal(client.pread(256 * KiB, 0) == expected, True)


@test("a trimmed range is a hole of the image")
def _(folder):
    disk = folder / "disk"
    disk.write_bytes(noise(MiB))

    with client_of(disk, "--writable") as client:
        client.trim(512 * KiB, 256 * KiB)
        client.trim(1000, 1000, nbd.CMD_FLAG_FUA)
        equal(status(client, 256 * KiB, 512 * KiB), [(512 * KiB, HOLE)])
        equal(client.pread(256 * KiB, 768 * KiB) == noise(MiB)[768 * KiB:], True)

    assert allocated(disk) <= 512 * KiB, allocated(disk)
    equal(disk.stat().st_size, MiB)


@test("what a client wrote is read by another one, after FUA as after flush")
def _(folder):
    with export(disk_in(folder), "--writable") as server:
        with connected(server.uri()) as writer, connected(server.uri(over="tcp")) as reader:
            writer.pwrite(b"with FUA", 1000, nbd.CMD_FLAG_FUA)
            writer.pwrite(b"and flushed", 100000)
            writer.flush()
            equal(bytes(reader.pread(8, 1000)), b"with FUA")
            equal(bytes(reader.pread(11, 100000)), b"and flushed")

    equal((folder / "disk").read_bytes()[1000:1008], b"with FUA")


@test("cache accepts any range of the disk")
def _(folder):
    with client_of(disk_in(folder)) as client:
        client.cache(MiB, 0)
        client.cache(1, MiB - 1)


@test("a request past the end is refused by its own error, and the client lives on")
def _(folder):
    with client_of(disk_in(folder), "--writable") as client:
        for start in MiB - 1, MiB, MiB + 1, (1 << 63) - 2, (1 << 64) - 1:
            fails(errno.ENOSPC, client.pwrite, b"12", start)
            fails(errno.ENOSPC, client.zero, 2, start)
            fails(errno.EINVAL, client.pread, 2, start)
            fails(errno.EINVAL, client.trim, 2, start)
            fails(errno.EINVAL, client.cache, 2, start)
            fails(errno.EINVAL, status, client, start, 2)
        equal(client.pread(MiB, 0) == (folder / "disk").read_bytes(), True)

    equal((folder / "disk").stat().st_size, MiB)


@test("a read-only export refuses whatever writes, with EPERM")
def _(folder):
    before = disk_in(folder).read_bytes()

    with client_of(folder / "disk") as client:
        equal(client.is_read_only(), True)
        fails(errno.EPERM, client.pwrite, b"12", 0)
        fails(errno.EPERM, client.zero, 4096, 0)
        fails(errno.EPERM, client.trim, 4096, 0)
        fails(errno.EPERM, client.pwrite, b"12", MiB)
        client.flush()
        equal(client.pread(MiB, 0) == before, True)

    equal((folder / "disk").read_bytes() == before, True)


@test("one handshake lists exports, looks at some and takes another one")
def _(folder):
    for name in "one", "two":
        sparse_file(folder / name, 4096, [(0, name.encode())])

    with serve(folder, {"one": ("one", ""), "two": ("two", 'description = "second"')}) as server:
        client = nbd.NBD()
        client.set_opt_mode(True)
        client.connect_uri(server.uri("one"))
        names = []
        equal(client.opt_list(lambda name, description: names.append((name, description)) or 0), 2)
        client.set_export_name("none of them")
        fails(errno.ENOENT, client.opt_info)
        client.set_export_name("two")
        client.set_full_info(True)
        client.opt_info()
        equal((client.get_size(), client.get_export_description()), (4096, "second"))
        client.opt_go()
        equal(bytes(client.pread(3, 0)), b"two")
        client.shutdown()

    equal(sorted(names), [("one", ""), ("two", "second")])


@test("the largest block that is advertised is read and written in one request")
def _(folder):
    with client_of(sparse_file(folder / "disk", 64 * MiB), "--writable") as client:
        largest = min(client.get_block_size(nbd.SIZE_MAXIMUM), 64 * MiB)
        content = noise(largest)
        client.pwrite(content, 0)
        equal(client.pread(largest, 0) == content, True)


@test("a clean stop does not wait for an idle client, nor lose what it wrote")
def _(folder):
    with export(disk_in(folder), "--writable") as server:
        client = nbd.NBD()
        client.connect_uri(server.uri())
        client.pwrite(b"last words", 4096)
        server.stop()

    equal((folder / "disk").read_bytes()[4096:4106], b"last words")


main()
