#!/usr/bin/python3
"""gantry resize makes images larger and smaller as qemu-img resize does, which finds nothing wrong with them."""
import json
import subprocess

from gantry import allocated, command_line, equal, main, noise, qemu_holds, run, sparse_file, test
from qcow2_image import Image

MiB = 1 << 20


def resize(folder, *words):
    return subprocess.run([*command_line("resize")[:2], *map(str, words)], cwd=folder, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60)


def resized(folder, *words):
    done = resize(folder, *words)
    equal((done.returncode, done.stdout, done.stderr), (0, "", ""))


def refused(folder, *words, said):
    before = (folder / words[0]).read_bytes()
    done = resize(folder, *words)
    equal((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1))
    assert said in done.stderr, done.stderr
    assert (folder / words[0]).read_bytes() == before, "a refusal changes nothing"


def content(folder, image):
    """As qemu-img reads it, having checked it."""
    run("qemu-img", "check", "-q", image, folder=folder)
    run("qemu-img", "convert", "-O", "raw", image, "content", folder=folder)
    return (folder / "content").read_bytes()


MATRIX = ["", "compat=0.10", "cluster_size=512", "cluster_size=2M", "refcount_bits=1", "extended_l2=on",
          "lazy_refcounts=on", "preallocation=metadata", "data_file=data.raw", "data_file=data.raw,data_file_raw=on",
          "backing_file=base.raw,backing_fmt=raw", "compat=0.10,backing_file=base.raw,backing_fmt=raw"]
for options in MATRIX:
    @test(f"an image made with '{options}' keeps what it has, what is new is zero, what goes is gone")
    def _(folder, options=options):
        (folder / "base.raw").write_bytes(noise(9 * MiB))
        words = ["-o", options] if options else []
        run("qemu-img", "create", "-q", "-f", "qcow2", *words, "a.qcow2", 5 * MiB, folder=folder)
        run("qemu-io", "-c", "write -P 1 1M 2M", "-c", "write -P 2 4M 1M", "a.qcow2", folder=folder)
        first = content(folder, "a.qcow2")
        equal(len(first), 5 * MiB)

        resized(folder, "a.qcow2", "8M")
        equal(content(folder, "a.qcow2"), first + bytes(3 * MiB))
        resized(folder, "a.qcow2", "+100M")
        equal(content(folder, "a.qcow2"), first + bytes(103 * MiB))
        resized(folder, "a.qcow2", "--shrink", "--", "-105M")
        equal(content(folder, "a.qcow2"), first[:3 * MiB])
        data = folder / ("data.raw" if "data_file" in options else "a.qcow2")
        assert data.stat().st_size <= (16 if "2M" in options else 7) * MiB, "the file was cut, too"
        resized(folder, "a.qcow2", "5M")
        equal(content(folder, "a.qcow2"), first[:3 * MiB] + bytes(2 * MiB))


@test("space of what is new can be written, or be left alone")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", MiB, folder=folder)
    resized(folder, "a.qcow2", "9M", "--preallocation", "full")
    equal(content(folder, "a.qcow2"), bytes(9 * MiB))
    assert allocated(folder / "a.qcow2") >= 8 * MiB
    for how, least in ("off", 0), ("metadata", 0), ("falloc", 8 * MiB):
        run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", MiB, folder=folder)
        resized(folder, "a.qcow2", "9M", "--preallocation", how)
        equal(content(folder, "a.qcow2"), bytes(9 * MiB))
        assert least <= allocated(folder / "a.qcow2") <= least + MiB, (how, allocated(folder / "a.qcow2"))
        places = [each["offset"] for each in json.loads(run("qemu-img", "map", "--output=json", "a.qcow2",
                                                            folder=folder)) if "offset" in each]
        equal(how != "off", bool(places))
    for how, least in ("off", 0), ("falloc", 8 * MiB), ("full", 8 * MiB):
        sparse_file(folder / "a.raw", MiB)
        resized(folder, "a.raw", "9M", "--preallocation", how)
        equal((folder / "a.raw").read_bytes(), bytes(9 * MiB))
        assert least <= allocated(folder / "a.raw") <= least + MiB


@test("a raw image may have any number of bytes")
def _(folder):
    (folder / "a.raw").write_bytes(noise(1000))
    resized(folder, "a.raw", "1001")
    resized(folder, "a.raw", "--shrink", "99")
    equal((folder / "a.raw").read_bytes(), noise(1000)[:99])


@test("snapshots keep their size, bitmaps take the disk's")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", 4 * MiB, folder=folder)
    run("qemu-io", "-c", "write -P 1 1M 2M", "a.qcow2", folder=folder)
    run("qemu-img", "snapshot", "-c", "one", "a.qcow2", folder=folder)
    run("qemu-img", "bitmap", "--add", "-g", "64k", "a.qcow2", "b", folder=folder)
    run("qemu-io", "-c", "write -P 2 0 3M", "a.qcow2", folder=folder)
    first = content(folder, "a.qcow2")
    resized(folder, "a.qcow2", "200M")
    equal(content(folder, "a.qcow2"), first + bytes(196 * MiB))
    run("qemu-img", "bitmap", "--clear", "a.qcow2", "b", folder=folder)
    resized(folder, "a.qcow2", "--shrink", "1M")
    run("qemu-img", "bitmap", "--remove", "a.qcow2", "b", folder=folder)
    equal(content(folder, "a.qcow2"), first[:MiB])
    run("qemu-img", "snapshot", "-a", "one", "a.qcow2", folder=folder)
    equal(content(folder, "a.qcow2"), bytes(MiB) + b"\1" * 2 * MiB + bytes(MiB))


@test("what qemu-img refuses is refused, in one line, and nothing is changed")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", MiB, folder=folder)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "old.qcow2", MiB, folder=folder)
    run("qemu-img", "snapshot", "-c", "one", "old.qcow2", folder=folder)
    sparse_file(folder / "a.raw", MiB)
    refused(folder, "a.qcow2", "512K", said="add --shrink")
    refused(folder, "a.raw", "--", "-1K", said="add --shrink")
    refused(folder, "a.qcow2", "--shrink", "--", "-2M", said="must be positive")
    refused(folder, "a.qcow2", "0", said="must be positive")
    refused(folder, "a.qcow2", "2000001", said="a multiple of 512")
    refused(folder, "old.qcow2", "2M", said="version 2")
    refused(folder, "a.qcow2", "--shrink", "512K", "--preallocation", "full", said="becomes larger")
    refused(folder, "a.raw", "2M", "--preallocation", "metadata", said="raw")
    refused(folder, "a.qcow2", "8000000T", said="too large")
    run("qemu-img", "bitmap", "--add", "a.qcow2", "b", folder=folder)
    image = Image(folder / "a.qcow2")
    image.put(image.bitmaps[0] + 12, 3, 4)  # in use
    image.save(folder / "a.qcow2")
    refused(folder, "a.qcow2", "2M", said="inconsistent")
    for words in ["a.qcow2"], ["a.qcow2", "much"], ["a.qcow2", "2M", "--preallocation", "some"]:
        equal(resize(folder, *words).returncode, 2)


@test("an image that is in use is left alone")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", MiB, folder=folder)
    with qemu_holds(folder / "a.qcow2"):
        done = resize(folder, "a.qcow2", "2M")
        equal((done.returncode, done.stderr.count("\n")), (1, 1))


main()
