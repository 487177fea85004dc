#!/usr/bin/python3
"""blkdebug in a configuration: what is injected reaches the client as it is, and hurts nothing else."""
import errno
import json

import nbd

from gantry import equal, main, refused, run, serve_toml, test

KiB = 1 << 10
NUMBERS = {"EPERM": errno.EPERM, "EIO": errno.EIO, "EINVAL": errno.EINVAL, "ENOSPC": errno.ENOSPC,
           "ENOTSUP": errno.EINVAL, "EROFS": errno.EPERM, "EMEDIUMTYPE": errno.EIO}  # injected -> on the wire


def faulty(folder, keys, offset=0):
    """A writable export of blkdebug over raw over a file of 64 KiB of 0xaa."""
    (folder / "disk").write_bytes(b"\xaa" * (64 * KiB))
    return serve_toml(folder, f"""
[nodes.raw]
driver = "raw"
file = {{ driver = "file", filename = "disk" }}
[nodes.faulty]
driver = "blkdebug"
image = "raw"
{keys}
[exports.""]
node = "faulty"
writable = true
offset = {offset}
""")


def client_of(server):
    client = nbd.NBD()
    client.set_strict_mode(0)
    client.set_request_block_size(False)  # told no block size, it may ask for single bytes: we pad
    client.connect_uri(server.uri())
    return client


def error_of(function, *arguments):
    try:
        function(*arguments)
    except nbd.Error as error:
        return error.errno
    return None


@test("a failed read in a read-modify-write is EIO for the client, and the file is untouched")
def _(folder):
    rule = 'align = 4096\ninject-error = [{ event = "pwritev_rmw_head", iotype = "read", errno = 5, once = true }]'
    with faulty(folder, rule) as server:
        client = client_of(server)
        equal(error_of(client.pwrite, b"\xbb" * 512, 512), "EIO")
        equal((folder / "disk").read_bytes() == b"\xaa" * (64 * KiB), True)

        client.pwrite(b"\xbb" * 512, 512)  # the rule was for once
        equal(client.pread(1536, 0), b"\xaa" * 512 + b"\xbb" * 512 + b"\xaa" * 512)
        client.shutdown()


@test("the same with qemu-io as the client, in an export that starts inside a unit")
def _(folder):
    rule = 'align = 4096\ninject-error = [{ event = "pwritev_rmw_head", iotype = "read", once = true }]'
    with faulty(folder, rule, offset=512) as server:
        refused("qemu-io", "-f", "raw", "-c", "write -P 0xbb 0 512", server.uri())
        equal((folder / "disk").read_bytes() == b"\xaa" * (64 * KiB), True)
        run("qemu-io", "-f", "raw", "-c", "write -P 0xbb 0 512", server.uri())


@test("an injected {} is a client's error of the same kind", *NUMBERS)
def _(folder, name):
    rules = f'inject-error = [{{ event = "none", iotype = "write", errno = {getattr(errno, name)} }}]'
    with faulty(folder, rules) as server:
        client = client_of(server)
        equal(error_of(client.pwrite, b"x" * 512, 0), errno.errorcode[NUMBERS[name]])
        equal(client.pread(512, 0), b"\xaa" * 512)
        client.shutdown()


@test("rules and states steer which request fails: {}", "in the configuration", "in a file of QEMU's syntax")
def _(folder, where):
    (folder / "rules.cfg").write_text('[set-state]\nevent = "pwritev"\nstate = "1"\nnew_state = "2"\n\n'
                                      '[inject-error]\nevent = "pwritev"\nstate = "2"\nerrno = "28"\nonce = "on"\n')
    rules = 'config = "rules.cfg"'
    if where == "in the configuration":
        rules = ('[[nodes.faulty.set-state]]\nevent = "pwritev"\nstate = 1\nnew_state = 2\n'
                 '[[nodes.faulty.inject-error]]\nevent = "pwritev"\nstate = 2\nerrno = 28\nonce = true\n')
    with faulty(folder, rules) as server:
        client = client_of(server)
        equal([error_of(client.pwrite, b"x", 0) for _ in range(3)], [None, "ENOSPC", None])
        client.shutdown()


@test("a failing flush is reported, and a later one that works, too")
def _(folder):
    rules = 'inject-error = [{ event = "none", iotype = "flush", once = true }]'
    with faulty(folder, rules) as server:
        client = client_of(server)
        client.pwrite(b"x", 0)
        equal(error_of(client.flush), "EIO")
        client.flush()
        client.shutdown()


@test("limits of a blkdebug node shape what clients are told and what they may do")
def _(folder):
    with faulty(folder, "align = 4096\nmax-transfer = 8192") as server:
        client = client_of(server)
        data = bytes(range(256)) * 100
        client.pwrite(data, 1000)
        equal(client.pread(len(data) + 2, 999) == b"\xaa" + data + b"\xaa", True)
        client.zero(5000, 1001)
        equal(client.pread(5002, 1000) == data[:1] + bytes(5000) + data[5001:5002], True)
        client.shutdown()
        equal(json.loads(run("nbdinfo", "--json", server.uri()))["exports"][0]["block_size_minimum"], 4096)


main()
