#!/usr/bin/python3
"""gantry info says of an image what qemu-img info says, and opens nothing that a name in the image leads to."""
import json
import os
import subprocess

from gantry import command_line, equal, main, qemu_holds, refused, run, test
from qcow2_image import Image

MiB = 1 << 20


def gantry_info(folder, *words):
    return subprocess.run([*command_line("info")[:2], *map(str, words)], cwd=folder, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60)


def info(folder, *words):
    done = gantry_info(folder, "--json", *words)
    equal((done.returncode, done.stderr), (0, ""))
    return json.loads(done.stdout)


def theirs(folder, *words):
    return json.loads(run("qemu-img", "info", "--output=json", *words, folder=folder))


def expect_the_same(ours, qemu):
    """What both tell; of encryption qemu-img opens the header, which is another format."""
    for each in ours, qemu:
        if "format-specific" in each and "encrypt" in each["format-specific"]["data"]:
            each["format-specific"]["data"]["encrypt"] = {
                "format": each["format-specific"]["data"]["encrypt"]["format"]}
    equal(ours, qemu)


MATRIX = ["", "compat=0.10", "cluster_size=512", "cluster_size=2M", "refcount_bits=1", "refcount_bits=64",
          "lazy_refcounts=on", "extended_l2=on", "compression_type=zstd", "preallocation=metadata",
          "data_file=data.raw", "data_file=data.raw,data_file_raw=on", "backing_file=base.raw,backing_fmt=raw",
          "backing_file=sub/base.qcow2,backing_fmt=qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]
for options in MATRIX:
    @test(f"an image made with '{options}' is to gantry what it is to qemu-img")
    def _(folder, options=options):
        (folder / "sub").mkdir()
        (folder / "base.raw").write_bytes(bytes(MiB))
        run("qemu-img", "create", "-q", "-f", "qcow2", "sub/base.qcow2", MiB, folder=folder)
        words = ["-o", options] if options else []
        run("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", *words, "a.qcow2", "20M",
            folder=folder)
        expect_the_same(info(folder, "a.qcow2"), theirs(folder, "a.qcow2"))
        if "data_file" in options or "encrypt" in options or "preallocation" in options:
            return  # with these it makes no snapshots
        run("qemu-img", "snapshot", "-c", "one", "a.qcow2", folder=folder)
        run("qemu-img", "snapshot", "-c", "the second, ü", "a.qcow2", folder=folder)
        if "0.10" not in options:
            run("qemu-img", "bitmap", "--add", "a.qcow2", "first", folder=folder)
            run("qemu-img", "bitmap", "--add", "--disable", "-g", "1M", "a.qcow2", "second", folder=folder)
        expect_the_same(info(folder, "a.qcow2"), theirs(folder, "a.qcow2"))


@test("an image that is dirty, corrupt or has a bitmap in use says so")
def _(folder):
    image = folder / "a.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, MiB)
    run("qemu-img", "bitmap", "--add", image, "b")
    spoiled = Image(image)
    spoiled.put(72, spoiled.u64(72) | 3)
    spoiled.put(spoiled.bitmaps[0] + 12, 3, 4)
    spoiled.save(image)
    expect_the_same(info(folder, "a.qcow2"), theirs(folder, "a.qcow2"))
    said = gantry_info(folder, "a.qcow2").stdout
    for words in ("dirty: yes", "corrupt: yes", "b: granularity 65536, in-use, auto"):
        assert words in said, said


@test("a raw image is its bytes, of any number")
def _(folder):
    (folder / "a.raw").write_bytes(bytes(MiB))
    expect_the_same(info(folder, "a.raw"), theirs(folder, "-f", "raw", "a.raw"))
    (folder / "b.raw").write_bytes(bytes(1001))
    equal(info(folder, "b.raw")["virtual-size"], 1001)  # qemu-img rounds up


@test("other formats are named, no more")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "vmdk", "a.vmdk", MiB, folder=folder)
    ours = info(folder, "a.vmdk")
    equal((ours["format"], "virtual-size" in ours), ("vmdk", False))
    equal(info(folder, "--format", "raw", "a.vmdk")["format"], "raw")


@test("a chain is followed when that is asked for, by the formats that it tells")
def _(folder):
    (folder / "sub").mkdir()
    run("qemu-img", "create", "-q", "-f", "raw", "sub/base.raw", MiB, folder=folder)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "sub/mid.qcow2", folder=folder)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "sub/mid.qcow2", "-F", "qcow2", "top.qcow2", folder=folder)
    expect_the_same(info(folder, "--backing-chain", "top.qcow2"), theirs(folder, "--backing-chain", "top.qcow2"))

    run("qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", "top.qcow2", "-F", "qcow2", "top.qcow2", folder=folder)
    done = gantry_info(folder, "--backing-chain", "top.qcow2")
    equal(done.returncode, 1)
    assert "is it a circle?" in done.stderr, done.stderr


@test("a raw image with a header that a guest has written is not followed")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", "evil", MiB, folder=folder)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "evil", "-F", "raw", "told.qcow2", MiB, folder=folder)
    chain = info(folder, "--backing-chain", "told.qcow2")
    equal([each["format"] for each in chain], ["qcow2", "raw"])

    untold = Image(folder / "told.qcow2")
    kind = untold.extension(0xe2792aca) - 8
    untold.put(kind, 0x12345678, 4)
    untold.save(folder / "untold.qcow2")
    done = gantry_info(folder, "--backing-chain", "untold.qcow2")
    equal((done.returncode, done.stdout), (1, ""))
    assert "it is not guessed" in done.stderr, done.stderr


@test("names in an image are names of files, and not opened")
def _(folder):
    for name in ("json:{\"driver\":\"file\",\"filename\":\"secret\"}", "nbd://127.0.0.1:1/x", "fifo", "/dev/zero"):
        os.path.exists(folder / "fifo") or os.mkfifo(folder / "fifo")  # whoever opens it waits for ever
        run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", "raw", "a.qcow2", MiB, folder=folder)
        equal(info(folder, "a.qcow2")["backing-filename"], name)

        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=d", "b.qcow2", MiB, folder=folder)
        image = Image(folder / "b.qcow2")
        at = image.extension(0x44415441)
        image.put(at - 4, len(name), 4)
        image.bytes[at:at + 256] = name.encode().ljust(256, b"\0")
        image.save(folder / "b.qcow2")
        equal(info(folder, "b.qcow2")["format-specific"]["data"]["data-file"], name)
        os.remove(folder / "d")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "json:{}", "-F", "raw", "a.qcow2", MiB, folder=folder)
    done = gantry_info(folder, "--backing-chain", "a.qcow2")
    equal(done.returncode, 1)
    assert "json:{}: No such file or directory" in done.stderr or "json:{}" in done.stderr, done.stderr


@test("an image that is in use is looked at all the same")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", MiB, folder=folder)
    with qemu_holds(folder / "a.qcow2"):
        equal(info(folder, "a.qcow2")["virtual-size"], MiB)


@test("control characters in names do not reach the terminal")
def _(folder):
    run("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", MiB, folder=folder)
    run("qemu-img", "snapshot", "-c", "a\x1b[2Jb", "a.qcow2", folder=folder)
    assert "\x1b" not in gantry_info(folder, "a.qcow2").stdout
    equal(info(folder, "a.qcow2")["snapshots"][0]["name"], "a\x1b[2Jb")


@test("what is wrong is one line")
def _(folder):
    (folder / "short").write_bytes(b"QFI\xfb\0\0\0\3")
    for words, said in ((["missing"], "missing: No such file or directory"), (["short"], "short: qcow2: "),
                        (["."], "")):
        done = gantry_info(folder, *words)
        equal((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1))
        assert said in done.stderr, done.stderr
    equal(gantry_info(folder).returncode, 2)


main()
