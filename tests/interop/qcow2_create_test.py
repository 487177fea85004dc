#!/usr/bin/python3
"""An image made by gantry is the image that qemu-img makes: the same to its tools, clean, and good for reading and
writing."""
import json
import os
import subprocess

from gantry import allocated, command_line, equal, main, qemu_holds, refused, run, test

MiB = 1 << 20
GiB = 1 << 30

IMAGES = [
    ("", "1G"), ("", 0), ("", 512), ("", "1T"), ("compat=0.10", "1G"), ("compat=v3", "1G"), ("cluster_size=512", "100M"),
    ("cluster_size=2M", "8T"), ("refcount_bits=1", "1G"), ("refcount_bits=64,cluster_size=512", "50M"),
    ("lazy_refcounts=on", "1G"), ("extended_l2=on", "1G"), ("extended_l2=on,cluster_size=16k", "1G"),
    ("compression_type=zstd", "1G"), ("backing_file=base.raw,backing_fmt=raw", "2M"),
    ("backing_file=base.raw,backing_fmt=raw,extended_l2=on,preallocation=metadata", "2M"),
    ("data_file=data.raw", "3M"), ("data_file=data.raw,data_file_raw=on", "3M"),
    ("data_file=data.raw,data_file_raw=on,preallocation=falloc", "3M"),
    ("data_file=data.raw,data_file_raw=on,preallocation=full,extended_l2=on", "3M"),
    ("preallocation=metadata", "1G"), ("preallocation=metadata,cluster_size=512,refcount_bits=64", "3M"),
    ("preallocation=metadata,extended_l2=on", "1G"), ("preallocation=falloc", "20M"), ("preallocation=full", "20M"),
    ("preallocation=full,compat=0.10", 20 * MiB + 512), ("preallocation=metadata,cluster_size=2M", "1T"),
]


def gantry_create(folder, *words):
    return subprocess.run([*command_line("create")[:2], *map(str, words)], cwd=folder, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=120)


def create(folder, *words):
    done = gantry_create(folder, *words)
    equal((done.returncode, done.stdout, done.stderr), (0, "", ""))


def info(folder):
    said = json.loads(run("qemu-img", "info", "--output=json", "disk.qcow2", folder=folder))
    for volatile in ("actual-size", "children"):
        said.pop(volatile, None)
    return said


def allocation(folder):
    """What is allocated in the image, and of that what holds data: [end, present, data]. Where it lies is our own choice,
    and so are the holes of the file."""
    pieces = []
    for extent in json.loads(run("qemu-img", "map", "--output=json", "disk.qcow2", folder=folder)):
        end = extent["start"] + extent["length"]
        if pieces and pieces[-1][1:] == [extent["present"], extent["data"]]:
            pieces[-1][0] = end
        else:
            pieces.append([end, extent["present"], extent["data"]])
    return pieces


def base_image(folder):
    (folder / "base.raw").write_bytes(b"base" * (2 * MiB // 4))


for options, size in IMAGES:
    @test(f"an image of {size} with '{options}' is what qemu-img makes of it")
    def _(folder, options=options, size=size):
        ours, theirs = folder / "ours", folder / "theirs"
        for place in ours, theirs:
            place.mkdir()
            base_image(place)
        words = ["-o", options] if options else []

        create(ours, "--format", "qcow2", *words, "disk.qcow2", size)
        run("qemu-img", "create", "-q", "-f", "qcow2", *words, "disk.qcow2", size, folder=theirs)

        equal(info(ours), info(theirs))
        run("qemu-img", "check", "-q", "disk.qcow2", folder=ours)
        checked = [json.loads(run("qemu-img", "check", "--output=json", "disk.qcow2", folder=place))
                   for place in (ours, theirs)]
        for key in ("allocated-clusters", "fragmented-clusters", "total-clusters"):
            equal(checked[0].get(key), checked[1].get(key))
        equal(*[allocation(place) for place in (ours, theirs)])


for options, size in IMAGES:
    @test(f"QEMU writes to an image of {size} with '{options}' as to its own")
    def _(folder, options=options, size=size):
        if size in (0, 512):
            return
        base_image(folder)
        create(folder, "--format", "qcow2", *(["-o", options] if options else []), "disk.qcow2", size)

        run("qemu-io", "-c", "write -P 7 1000k 40k", "-c", "read -P 7 1000k 40k", "-c", "write -z 64k 64k", "disk.qcow2",
            folder=folder)

        run("qemu-img", "check", "-q", "disk.qcow2", folder=folder)
        pattern = "read -P 0x62 0 1" if "backing" in options else "read -P 0 0 64k"
        run("qemu-io", "-r", "-c", pattern, "-c", "read -P 0 64k 64k", "disk.qcow2", folder=folder)


@test("preallocation takes the space that it promises")
def _(folder):
    sizes = {}
    for mode in ("off", "metadata", "falloc", "full"):
        create(folder, "--format", "qcow2", "-o", f"preallocation={mode}", f"{mode}.qcow2", "20M")
        create(folder, "--format", "raw", "-o", f"preallocation={'off' if mode == 'metadata' else mode}",
               f"{mode}.raw", "20M")
        sizes[mode] = allocated(folder / f"{mode}.qcow2")
        equal(allocated(folder / f"{mode}.raw") >= 20 * MiB, mode in ("falloc", "full"))
    assert sizes["off"] <= MiB and sizes["metadata"] <= MiB, sizes
    assert sizes["falloc"] >= 20 * MiB and sizes["full"] >= 20 * MiB, sizes


@test("a size that is no multiple of 512 is rounded up, since QEMU would cut the disk")
def _(folder):
    create(folder, "--format", "qcow2", "a.qcow2", 1000)
    equal(json.loads(run("qemu-img", "info", "--output=json", folder / "a.qcow2"))["virtual-size"], 1024)


@test("a raw image has exactly the size that was asked for")
def _(folder):
    create(folder, "--format", "raw", "a.raw", 1001)
    equal((folder / "a.raw").stat().st_size, 1001)


@test("a file that is there keeps what it holds, unless --force is given")
def _(folder):
    for kind in "raw", "qcow2":
        image = folder / kind
        image.write_bytes(b"precious" * MiB)
        done = gantry_create(folder, "--format", kind, kind, "1M")
        equal((done.returncode, done.stderr), (1, f"{kind} is there already: add --force to lose what it holds\n"))
        equal(image.read_bytes(), b"precious" * MiB)
        create(folder, "--format", kind, "--force", kind, "1M")
        assert b"precious" not in image.read_bytes()
    run("qemu-img", "check", "-q", folder / "qcow2")
    (folder / "data.raw").write_bytes(b"precious")
    done = gantry_create(folder, "--format", "qcow2", "-o", "data_file=data.raw", "new.qcow2", "1M")
    equal(done.returncode, 1)
    assert not (folder / "new.qcow2").exists()
    equal((folder / "data.raw").read_bytes(), b"precious")


@test("an image that is in use is not overwritten, even with --force")
def _(folder):
    create(folder, "--format", "qcow2", "a.qcow2", "1M")
    with qemu_holds(folder / "a.qcow2"):
        done = gantry_create(folder, "--format", "qcow2", "--force", "a.qcow2", "2M")
        equal(done.returncode, 1)
        assert "lock" in done.stderr, done.stderr
    equal(json.loads(run("qemu-img", "info", "--output=json", folder / "a.qcow2"))["virtual-size"], MiB)


# What tools read in the messages of qemu-img.
MISTAKES = [
    ("cluster_size=1000", "1G", "Cluster size must be a power of two between 512 and 2048k"),
    ("cluster_size=4M", "1G", "Cluster size must be a power of two between 512 and 2048k"),
    ("refcount_bits=7", "1G", "Refcount width must be a power of two and may not exceed 64 bits"),
    ("refcount_bits=128", "1G", "Refcount width must be a power of two and may not exceed 64 bits"),
    ("compat=0.10,refcount_bits=8", "1G", "Different refcount widths than 16 bits require compatibility level 1.1"),
    ("compat=0.10,lazy_refcounts=on", "1G", "Lazy refcounts only supported with compatibility level 1.1 and above"),
    ("compat=0.10,extended_l2=on", "1G", "Extended L2 entries are only supported with compatibility level 1.1"),
    ("compat=0.10,compression_type=zstd", "1G", "Non-zlib compression type is only supported with compatibility level"),
    ("compat=0.10,data_file=d", "1G", "External data files are only supported with compatibility level 1.1"),
    ("extended_l2=on,cluster_size=8k", "1G", "Extended L2 entries are only supported with cluster sizes of at least 16384"),
    ("data_file_raw=on", "1G", "data-file-raw requires data-file"),
    ("data_file=d,data_file_raw=on,backing_file=base.raw,backing_fmt=raw", "1G",
     "Backing file and data-file-raw cannot be used at the same time"),
    ("backing_file=base.raw,backing_fmt=raw,preallocation=full", "1M",
     "Backing file and preallocation can only be used at the same time if extended_l2 is on"),
    ("backing_fmt=raw", "1G", "Backing format cannot be used without backing file"),
]
for options, size, words in MISTAKES:
    @test(f"'{options}' is refused in qemu-img's words")
    def _(folder, options=options, size=size, words=words):
        base_image(folder)
        theirs = subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "theirs", size], cwd=folder,
                                capture_output=True, text=True)
        equal(theirs.returncode, 1)
        assert words in theirs.stderr, theirs.stderr
        done = gantry_create(folder, "--format", "qcow2", "-o", options, "ours", size)
        equal(done.returncode, 1)
        assert words in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert not (folder / "ours").exists()


@test("what else is wrong is one line, and no file is left")
def _(folder):
    for words, said in [
            (["-o", "cluster_sise=64k", "a", "1M"], "qcow2 has no option 'cluster_sise', did you mean 'cluster_size'?"),
            (["a"], "Image creation needs a size parameter"),
            (["-o", "backing_file=b", "a", "1M"], "backing_file needs backing_fmt"),
            (["-o", "backing_file=b,backing_fmt=raw", "a", "1M"], "the backing file b is not there"),
            (["a", "4E"], "The image size is too large for file format 'qcow2'"),
            (["-o", "lazy_refcounts=maybe", "a", "1M"], "Parameter 'lazy_refcounts' expects 'on' or 'off'"),
            (["-o", "cluster_size=512,preallocation=metadata,refcount_bits=64", "a", "120G"], ""),
            (["missing/a", "1M"], "missing/a: No such file or directory")]:
        done = gantry_create(folder, "--format", "qcow2", *words)
        equal((done.returncode, done.stderr.count("\n")), (1, 1))
        assert said in done.stderr, done.stderr
        equal(os.listdir(folder), [])


@test("two commas in an option are one comma of its value")
def _(folder):
    (folder / "a,b").write_bytes(bytes(MiB))
    create(folder, "--format", "qcow2", "-o", "backing_file=a,,b,backing_fmt=raw", "c.qcow2", MiB)
    equal(json.loads(run("qemu-img", "info", "--output=json", folder / "c.qcow2"))["backing-filename"], "a,b")


def check_config(folder, create, file='file = { driver = "file", filename = "disk.qcow2" }', driver="qcow2"):
    """Opens a configuration once, and ends."""
    (folder / "a.toml").write_text(f'''[nodes.disk]
driver = "{driver}"
{file}
{create}
[exports.disk]
node = "disk"
writable = true
''')
    return subprocess.run([*command_line("serve")[:2], "--check", str(folder / "a.toml")], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60)


@test("a configuration makes the image that is not there, and leaves one that is there alone")
def _(folder):
    for number, (create, file) in enumerate([
            ('create = { size = "10M" }', 'file = { driver = "file", filename = "disk.qcow2" }'),
            ('create = { size = 10485760, cluster_size = "4K", lazy_refcounts = true, refcount_bits = 8 }',
             'file = { driver = "file", filename = "disk.qcow2" }'),
            ('create.size = "10M"', 'file = "disk-file"')]):
        place = folder / str(number)
        place.mkdir()
        if "disk-file" in file:
            create += '\n[nodes.disk-file]\ndriver = "file"\nfilename = "disk.qcow2"'
        done = check_config(place, create, file)
        equal(done.returncode, 0)
        known = json.loads(run("qemu-img", "info", "--output=json", place / "disk.qcow2"))
        equal(known["virtual-size"], 10 * MiB)
        if number == 1:
            equal((known["cluster-size"], known["format-specific"]["data"]["refcount-bits"]), (4096, 8))
            assert known["format-specific"]["data"]["lazy-refcounts"]

        run("qemu-io", "-c", "write -P 9 1M 64k", place / "disk.qcow2")
        equal(check_config(place, create, file).returncode, 0)
        run("qemu-io", "-r", "-c", "read -P 9 1M 64k", place / "disk.qcow2")


@test("a mistake in the key 'create' is one line with its place, and nothing is made")
def _(folder):
    for create, said in [("create = { }", "a.toml:4:1: 'create': the key 'size' is missing"),
                         ("create = 7", "a.toml:4:1: 'create': expected a table, not an integer"),
                         ('create = { size = "1M", cluster_sise = 7 }', "a.toml:4:1: qcow2 has no option 'cluster_sise', did"),
                         ('create = { size = "1M", cluster_size = 7 }', "a.toml:4:1: Cluster size must be a power of two"),
                         ('create = { size = [7] }', "a.toml:4:12: 'create.size': expected a single value, not a"),
                         ('create = { size = "1M", backing_file = "b", backing_fmt = "raw" }', "a.toml:4:1: the backing file ")]:
        done = check_config(folder, create)
        equal((done.returncode, done.stderr.count("\n")), (1, 1))
        assert said in done.stderr, f"{said}: {done.stderr}"
        equal(os.listdir(folder), ["a.toml"])
    done = check_config(folder, 'create = { size = "1M" }', 'file = { driver = "memory" }')
    assert "a.toml:4:1: 'create' makes files only" in done.stderr, done.stderr
    done = check_config(folder, 'create = { size = "1M" }', driver="raw")
    assert "unknown key 'create'" in done.stderr, done.stderr


@test("wrong use ends with status 2")
def _(folder):
    for words in (["a", "1M"], ["--format", "vmdk", "a", "1M"], ["--format", "qcow2", "a", "many"],
                  ["--format", "qcow2", "-o", "nonsense", "a", "1M"], ["--format", "qcow2"]):
        equal(gantry_create(folder, *words).returncode, 2)


main()
