#!/usr/bin/python3
"""gantry map says where the bytes of an image live as qemu-img map does, layer by layer."""
import json
import subprocess

from gantry import command_line, equal, main, noise, run, sparse_file, test

KiB, MiB = 1 << 10, 1 << 20
MAP = "start", "length", "depth", "present", "zero", "data", "offset"


def gantry_map(folder, *words):
    return subprocess.run([*command_line("map")[:2], *map(str, words)], cwd=folder, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60)


def ours(folder, image, kind):
    done = gantry_map(folder, "--json", "--format", kind, image)
    equal((done.returncode, done.stderr), (0, ""))
    return json.loads(done.stdout)


def theirs(folder, image, kind):
    """Without the place that a subcluster would have that is not there: qemu-img tells it, gantry does not."""
    entries = []
    for each in json.loads(run("qemu-img", "map", "--output=json", "-f", kind, image, folder=folder)):
        if not each["present"]:
            each.pop("offset", None)
            if entries and is_alike(entries[-1], each):
                entries[-1]["length"] += each["length"]
                continue
        entries.append(each)
    return entries


def is_alike(one, other):
    return all(one.get(key) == other.get(key) for key in MAP[2:])


def the_same(folder, image, kind="qcow2"):
    """All that qemu-img tells; `compressed` is younger than its version here."""
    mine = [{key: each[key] for key in MAP if key in each} for each in ours(folder, image, kind)]
    equal(mine, theirs(folder, image, kind))
    return mine


def write(folder, image, *commands):
    words = [word for each in commands for word in ("-c", each)]
    run("qemu-io", "-f", "qcow2", *words, image, folder=folder)


def without_holes(folder, image):
    """gantry sees holes of the file under an image's data; qemu-img looks for them only where it suspects
    preallocation. In a file without holes both see the same."""
    run("cp", "--sparse=never", image, "whole", folder=folder)
    run("mv", "whole", image, folder=folder)


MATRIX = ["", "compat=0.10", "cluster_size=512", "cluster_size=2M", "refcount_bits=1", "extended_l2=on",
          "extended_l2=on,cluster_size=16k", "compression_type=zstd", "data_file=data.raw",
          "data_file=data.raw,data_file_raw=on", "backing_file=base.raw,backing_fmt=raw",
          "backing_file=base.qcow2,backing_fmt=qcow2",
          "backing_file=base.qcow2,backing_fmt=qcow2,extended_l2=on", "preallocation=metadata"]
for options in MATRIX:
    @test(f"an image made with '{options}' lies where qemu-img says that it does")
    def _(folder, options=options):
        sparse_file(folder / "base.raw", 3 * MiB, [(0, noise(5 * KiB)), (MiB, noise(64 * KiB))])
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "base.qcow2", 5 * MiB,
            folder=folder)
        write(folder, "base.qcow2", "write -P 7 2M 200k", "write -z 2100k 100k", "write -c -P 8 4M 64k")
        words = ["-o", options] if options else []
        run("qemu-img", "create", "-q", "-f", "qcow2", *words, "a.qcow2", "9M", folder=folder)
        write(folder, "a.qcow2", "write -P 1 0 64k", "write -P 2 96k 4k", "write -P 3 3M 300k", "write -P 4 8M 1M")
        if "0.10" not in options:
            write(folder, "a.qcow2", "write -z 3100k 100k", "write -z 6M 70k", "write -z -u 8200k 300k")
        if "data_file" not in options and "preallocation" not in options:
            write(folder, "a.qcow2", "write -c -P 5 4M 2M")
        for image in "base.qcow2", "a.qcow2":
            without_holes(folder, image)
        if "preallocation" not in options and "data_file" not in options:
            the_same(folder, "a.qcow2")
            return
        # holes of what was allocated before: whoever looks for them finds them
        mine, qemu = ours(folder, "a.qcow2", "qcow2"), theirs(folder, "a.qcow2", "qcow2")
        equal([each["start"] for each in mine][:1] + [sum(each["length"] for each in mine)],
              [0, sum(each["length"] for each in qemu)])
        for each in mine:
            [over] = [other for other in qemu
                      if other["start"] <= each["start"] < other["start"] + other["length"]]
            equal([each[key] for key in ("depth", "present", "data")],
                  [over[key] for key in ("depth", "present", "data")])
            assert each["zero"] or not over["zero"], (each, over)
            equal("offset" in each, "offset" in over)
            if "offset" in each:
                equal(each["offset"] - each["start"], over["offset"] - over["start"])


@test("a raw image lies in its own file, holes and all")
def _(folder):
    sparse_file(folder / "a.raw", 3 * MiB, [(64 * KiB, noise(100 * KiB)), (2 * MiB, noise(4 * KiB))])
    the_same(folder, "a.raw", "raw")
    (folder / "full.raw").write_bytes(noise(MiB))
    the_same(folder, "full.raw", "raw")
    sparse_file(folder / "odd.raw", 1001)
    equal(ours(folder, "odd.raw", "raw")[-1]["length"], 1001)  # qemu-img rounds up
    sparse_file(folder / "empty.raw", 0)
    equal(ours(folder, "empty.raw", "raw"), [])


@test("compressed clusters are said to be")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", MiB, folder=folder)
    write(folder, "a.qcow2", "write -c -P 5 64k 64k")
    equal([each["compressed"] for each in ours(folder, "a.qcow2", "qcow2")], [False, True, False])
    assert "compressed" in gantry_map(folder, "a.qcow2").stdout


@test("without --json there are lines for what is stored, those of qemu-img")
def _(folder):
    sparse_file(folder / "base.raw", MiB, [(64 * KiB, noise(128 * KiB))])
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "a.qcow2", folder=folder)
    write(folder, "a.qcow2", "write -P 1 512k 64k", "write -z 640k 64k")
    without_holes(folder, "a.qcow2")
    equal(gantry_map(folder, "a.qcow2").stdout, run("qemu-img", "map", "a.qcow2", folder=folder))


@test("what is wrong is one line")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "vmdk", "a.vmdk", MiB, folder=folder)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "gone", "-F", "raw", "a.qcow2", MiB, folder=folder)
    for words, said in ((["missing"], "missing: No such file or directory"), (["a.vmdk"], "is vmdk"),
                        (["a.qcow2"], "gone")):
        done = gantry_map(folder, "--json", *words)
        equal((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1))
        assert said in done.stderr, done.stderr
    equal(gantry_map(folder).returncode, 2)


main()
