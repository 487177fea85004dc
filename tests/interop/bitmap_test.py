#!/usr/bin/python3
"""Dirty bitmaps that a qcow2 image keeps: QEMU's tools see what gantry noted, gantry what they noted."""
import contextlib
import json
import subprocess

from gantry import command_line, equal, main, refused, run, serve_toml, test
from qmp import Qmp, connect

MiB = 1 << 20
SIZE = 5 * MiB + 7 * 512  # no multiple of anything
SHAPES = ["512", "64k"]


def bitmap(*words):
    return run(*command_line("bitmap", *words))


def listed(image):
    return {each["name"]: each for each in json.loads(bitmap("list", image, "--json"))}


def info(image):
    said = json.loads(run("qemu-img", "info", "--output=json", image))["format-specific"]["data"]
    return {each["name"]: sorted(each["flags"]) for each in said.get("bitmaps", [])}


def make(folder, cluster_size, more=""):
    image = folder / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster_size}{more}", image, SIZE)
    return image


def write(where, *ranges):
    words = [word for start, length in ranges for word in ("-c", f"write {start} {length}")]
    run("qemu-io", *words, *where)


@contextlib.contextmanager
def served(folder):
    """The image, with a control socket; it ends well with the block."""
    toml = ('control = "unix:control"\n'
            '[nodes.disk]\ndriver = "qcow2"\nfile = { driver = "file", filename = "disk.qcow2" }\n'
            '[exports.""]\nnode = "disk"\nwritable = true\n')
    with serve_toml(folder, toml) as server, Qmp(folder / "control") as qmp:
        yield server, qmp.agree()


def dirty(folder, image, name):
    """[start, end] of what qemu-nbd calls dirty."""
    socket = folder / "qemu.sock"
    process = subprocess.Popen(["qemu-nbd", "--read-only", "--persistent", "--format", "qcow2", "--bitmap", name,
                                "--socket", socket, image], stderr=subprocess.DEVNULL)
    try:
        connect(socket).close()
        said = run("nbdinfo", "--json", f"--map=qemu:dirty-bitmap:{name}", f"nbd+unix:///?socket={socket}")
    finally:
        process.terminate()
        process.wait(60)
    return [[each["offset"], each["offset"] + each["length"]] for each in json.loads(said) if each["type"] == 1]


@test("what gantry notes in clusters of {} bytes QEMU shows", *SHAPES)
def _(folder, cluster_size):
    image = make(folder, cluster_size)
    with served(folder) as (server, qmp):
        qmp.command("block-dirty-bitmap-add", node="disk", name="b", granularity=4096, persistent=True)
        qmp.command("block-dirty-bitmap-add", node="disk", name="off", persistent=True, disabled=True)
        write(["-f", "raw", server.uri()], (MiB + 5, 3), (3 * MiB, 8192), (SIZE - 1, 1))

    equal(info(image), {"b": ["auto"], "off": []})
    run("qemu-img", "check", "-q", image)
    equal(dirty(folder, image, "b"), [[MiB, MiB + 4096], [3 * MiB, 3 * MiB + 8192], [5 * MiB, SIZE]])
    equal(dirty(folder, image, "off"), [])


@test("what QEMU notes in clusters of {} bytes gantry goes on with", *SHAPES)
def _(folder, cluster_size):
    image = make(folder, cluster_size)
    run("qemu-img", "bitmap", "--add", "-g", "4096", image, "b")
    run("qemu-img", "bitmap", "--add", "-g", "4096", image, "other")
    write(["-f", "qcow2", image], (MiB, 1))
    run("qemu-img", "bitmap", "--disable", image, "other")
    equal([(each["dirty-bytes"], each["flags"]) for each in listed(image).values()], [(4096, ["auto"]), (4096, [])])

    with served(folder) as (server, _):
        write(["-f", "raw", server.uri()], (2 * MiB, 1))

    run("qemu-img", "check", "-q", image)
    both = [[MiB, MiB + 4096], [2 * MiB, 2 * MiB + 4096]]
    equal(dirty(folder, image, "b"), both)
    equal(dirty(folder, image, "other"), both[:1])
    run("qemu-img", "bitmap", "--clear", image, "other")
    run("qemu-img", "bitmap", "--merge", "b", image, "other")
    equal(listed(image)["other"]["dirty-bytes"], 8192)


@test("a bitmap that is dirty all over in clusters of {} bytes is so for QEMU", *SHAPES)
def _(folder, cluster_size):
    image = make(folder, cluster_size)
    bitmap("add", image, "all", "--granularity", "512")
    with served(folder) as (server, _):
        write(["-f", "raw", server.uri()], (0, SIZE))
    equal(dirty(folder, image, "all"), [[0, SIZE]])
    run("qemu-img", "check", "-q", image)


@test("bitmaps of a server in clusters of {} bytes that was killed are in use, and can be removed", *SHAPES)
def _(folder, cluster_size):
    image = make(folder, cluster_size)
    bitmap("add", image, "b")
    bitmap("add", image, "c")
    with contextlib.suppress(AssertionError), served(folder) as (server, _):
        write(["-f", "raw", server.uri()], (0, 65536))
        server.process.kill()
        server.process.wait()

    equal(info(image), {"b": ["auto", "in-use"], "c": ["auto", "in-use"]})
    checked = json.loads(run("qemu-img", "check", "--output=json", "-r", "leaks", image))
    equal(checked.get("corruptions", 0), 0)
    equal(listed(image)["b"]["flags"], ["in-use", "auto"])
    refused(*command_line("bitmap", "clear", image, "b"))
    bitmap("remove", image, "b")
    run("qemu-img", "bitmap", "--remove", image, "c")
    equal(listed(image), {})
    run("qemu-img", "check", "-q", image)


@test("commands change the bitmaps of an image in clusters of {} bytes", *SHAPES)
def _(folder, cluster_size):
    base = folder / "base.raw"
    base.write_bytes(b"b" * MiB)
    image = make(folder, cluster_size, f",backing_file={base},backing_fmt=raw")
    bitmap("add", image, "b")
    equal(info(image), {"b": ["auto"]})
    bitmap("disable", image, "b")
    equal(info(image), {"b": []})
    bitmap("enable", image, "b")
    equal(info(image), {"b": ["auto"]})
    write(["-f", "qcow2", image], (0, 1))
    assert listed(image)["b"]["dirty-bytes"] > 0
    bitmap("clear", image, "b")
    equal(listed(image)["b"]["dirty-bytes"], 0)
    equal(bitmap("list", image), f"b: granularity {'4K' if cluster_size == '512' else '64K'}, enabled, 0 bytes dirty\n")
    bitmap("remove", image, "b")
    equal(info(image), {})
    equal(json.loads(run("qemu-img", "info", "--output=json", image))["backing-filename"], str(base))
    run("qemu-img", "check", "-q", image)


@test("what can't be is one line")
def _(folder):
    image = make(folder, "64k")
    bitmap("add", image, "b")

    def line(*words):
        said = refused(*command_line("bitmap", *words))
        equal(said.count("\n"), 1)
        return said

    assert "already exists: b" in line("add", image, "b")
    assert "'c' not found" in line("remove", image, "c")
    assert "power of 2" in line("add", image, "c", "--granularity", "1000")
    old = folder / "old.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", old, MiB)
    assert "version 2" in line("add", old, "b")
    raw = folder / "raw"
    raw.write_bytes(bytes(MiB))
    assert "qcow2" in line("list", raw)
    refused(*command_line("bitmap", "add", image), status=2)
    with served(folder):
        assert "lock" in line("clear", image, "b")
    equal(info(image), {"b": ["auto"]})


main()
