#!/usr/bin/python3
"""What people type at an export: nbdinfo, nbdcopy, qemu-img and qemu-io understand all that gantry says."""
import json
import socket

from gantry import Skip, equal, export, main, noise, refused, run, serve, sparse_file, test

MiB = 1 << 20
ABILITIES = "cache", "df", "fast-zero", "flush", "fua", "multi-conn", "structured-reply", "trim", "write", "zero"


def disk_in(folder):
    """64 KiB of data, a hole, 64 KiB of data, a hole up to 1 MiB."""
    return sparse_file(folder / "disk", MiB, [(0, noise(65536)), (262144, noise(65536))])


def described(uri):
    """What nbdinfo --json says of an export."""
    return json.loads(run("nbdinfo", "--json", uri))["exports"][0]


def listed(uri):
    """The exports of a server, as nbdinfo --list finds them: {name: (size, description)}."""
    exports = json.loads(run("nbdinfo", "--list", "--json", uri))["exports"]
    return {each["export-name"]: (each["export-size"], each.get("description")) for each in exports}


@test("nbdinfo shows name, description, size and abilities of an export over {}", "unix", "tcp")
def _(folder, over):
    with export(disk_in(folder), "--writable", "--name", "disk", "--description", "the live disk") as server:
        said = run("nbdinfo", server.uri("disk", over)).splitlines()
        facts = described(server.uri("disk", over))

    assert 'export="disk":' in said and "\tdescription: the live disk" in said, said
    equal((facts["export-name"], facts["description"], facts["export-size"]), ("disk", "the live disk", MiB))
    equal((facts["contexts"], facts["is_read_only"]), (["base:allocation"], False))
    equal(facts["block_size_minimum"], 1)


@test("nbdinfo --can {} agrees on a writable export", *ABILITIES)
def _(folder, ability):
    with export(disk_in(folder), "--writable") as server:
        run("nbdinfo", "--can", ability, server.uri())


@test("an export is read-only unless it is said to be writable")
def _(folder):
    with export(disk_in(folder)) as server:
        run("nbdinfo", "--is", "read-only", server.uri())
        refused("nbdinfo", "--can", "write", server.uri(), status=2)
        refused("qemu-io", "-f", "raw", "-c", "write 0 512", server.uri())
        equal(described(server.uri())["is_read_only"], True)


@test("nbdinfo --map and qemu-img map see the holes of the image over {}", "unix", "tcp")
def _(folder, over):
    with export(disk_in(folder)) as server:
        nbdinfo = json.loads(run("nbdinfo", "--map", "--json", server.uri(over=over)))
        qemu = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", server.uri(over=over)))

    layout = [(0, 65536, "data"), (65536, 196608, "hole,zero"), (262144, 65536, "data"), (327680, 720896, "hole,zero")]
    equal([(each["offset"], each["length"], each["description"]) for each in nbdinfo], layout)
    equal([(each["start"], each["length"], each["data"], each["zero"]) for each in qemu],
          [(start, length, kind == "data", kind != "data") for start, length, kind in layout])


@test("qemu-img info shows the size of an export over {}", "unix", "tcp")
def _(folder, over):
    with export(disk_in(folder), "--name", "disk") as server:
        facts = json.loads(run("qemu-img", "info", "--output=json", server.uri("disk", over)))

    equal((facts["virtual-size"], facts["format"]), (MiB, "raw"))


@test("qemu-io reads what it wrote, in sectors and between them, zeroes and discards over {}", "unix", "tcp")
def _(folder, over):
    steps = ["write -P 0xab 0 64k", "read -P 0xab 0 64k",
             "write -P 0xcd 513 1000", "read -P 0xab 0 513", "read -P 0xcd 513 1000", "read -P 0xab 1513 64023",
             "write -P 0xef 1048575 1", "read -P 0xef 1048575 1",
             "write -f -P 0x12 128k 64k", "write -z 128k 4k", "write -z -u 132k 4k", "write -z 136001 999",
             "read -P 0 128k 8k", "read -P 0 136001 999", "read -P 0x12 140000 1000",
             "discard 0 64k", "flush", "read -P 0 0 64k"]

    with export(sparse_file(folder / "disk", MiB), "--writable") as server:
        run("qemu-io", "-f", "raw", *(word for step in steps for word in ("-c", step)), server.uri(over=over))

    equal((folder / "disk").read_bytes()[-2:], b"\0\xef")


@test("a disk of {} bytes has exactly this size, and is written and read to its last byte",
      1, 1000, MiB + 1, 3 * MiB - 511)
def _(folder, size):
    source, disk, out = folder / "source", sparse_file(folder / "disk", size), folder / "out"
    source.write_bytes(noise(size))

    with export(disk, "--writable") as server:
        equal(run("nbdinfo", "--size", server.uri()), f"{size}\n")
        run("nbdcopy", source, server.uri())
        run("nbdcopy", server.uri(), out)

    equal(disk.read_bytes() == source.read_bytes(), True)
    equal(out.read_bytes() == source.read_bytes(), True)


@test("an empty disk is served, with size 0")
def _(folder):
    with export(sparse_file(folder / "disk", 0), "--writable") as server:
        equal(run("nbdinfo", "--size", server.uri()), "0\n")


@test("several exports of one server are listed with their descriptions, and each shows its own image, over {}",
      "unix", "tcp")
def _(folder, over):
    names = "", "disk", "a name / with % and ü"
    for number, name in enumerate(names):
        sparse_file(folder / f"disk{number}", (number + 1) * 4096, [(0, noise(4096, seed=number))])
    exports = {name: (f"disk{number}", f'description = "disk {number}"') for number, name in enumerate(names)}

    with serve(folder, exports) as server:
        equal(listed(server.uri(over=over)),
              {name: ((number + 1) * 4096, f"disk {number}") for number, name in enumerate(names)})
        for number, name in enumerate(names):
            run("nbdcopy", server.uri(name, over), folder / "out")
            equal((folder / "out").read_bytes() == (folder / f"disk{number}").read_bytes(), True)


@test("an export without a description has none, and one that is not there is refused")
def _(folder):
    sparse_file(folder / "disk", 4096)

    with serve(folder, {"disk": ("disk", "")}) as server:
        equal(listed(server.uri("disk")), {"disk": (4096, None)})
        for name in "", "dis", "disk2", "Disk":
            refused("nbdinfo", server.uri(name))


@test("writable and read-only exports stand side by side in one server")
def _(folder):
    sparse_file(folder / "live", MiB)
    sparse_file(folder / "base", MiB)

    with serve(folder, {"live": ("live", "writable = true"), "base": ("base", "")}) as server:
        run("qemu-io", "-f", "raw", "-c", "write -P 1 0 64k", server.uri("live"))
        refused("qemu-io", "-f", "raw", "-c", "write -P 1 0 64k", server.uri("base"))
        run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 64k", server.uri("base"))


@test("an export is reached over IPv6")
def _(folder):
    try:
        socket.socket(socket.AF_INET6).bind(("::1", 0))
    except OSError as error:
        raise Skip(f"no IPv6 here: {error}") from error

    with export(disk_in(folder), listen=["tcp:[::1]:0"]) as server:
        equal(run("nbdinfo", "--size", server.uri(over="tcp")), f"{MiB}\n")
        run("nbdcopy", server.uri(over="tcp"), folder / "out")

    equal((folder / "out").read_bytes() == (folder / "disk").read_bytes(), True)


@test("a client on each of three listeners writes, and a client on another one reads it")
def _(folder):
    listen = [f"unix:{folder}/one", f"unix:{folder}/two", "tcp:127.0.0.1:0"]

    with export(sparse_file(folder / "disk", MiB), "--writable", listen=listen) as server:
        one = f"nbd+unix:///?socket={folder}/one"
        for byte, (writer, reader) in enumerate([(one, server.uri()), (server.uri(), server.uri(over="tcp")),
                                                 (server.uri(over="tcp"), one)], 1):
            run("qemu-io", "-f", "raw", "-c", f"write -P {byte} 0 1000", writer)
            run("qemu-io", "-f", "raw", "-c", f"read -P {byte} 0 1000", reader)


@test("the Unix socket is gone after a clean stop, and can be listened on again")
def _(folder):
    disk = disk_in(folder)
    for _ in range(2):
        with export(disk, listen=[f"unix:{folder}/sock"]) as server:
            run("nbdinfo", "--size", server.uri())
        equal((folder / "sock").exists(), False)


main()
