#!/usr/bin/python3
"""blklogwrites and ./dev replay: the log is the one that QEMU's driver writes, and every moment comes back from it."""
import contextlib
import io
import os
import pathlib
import random
import struct
import sys

import nbd

from gantry import equal, main, refused, run, serve_toml, sparse_file, test

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import replay  # noqa: E402

KiB, MiB = 1 << 10, 1 << 20
REPLAY = pathlib.Path(replay.__file__)
SEED = int(os.environ.get("GANTRY_SEED") or str(random.randrange(1 << 32)), 0)


def logged(folder, keys="", size=MiB, image="disk"):
    """A writable export of a raw image whose changes go to the file log."""
    sparse_file(folder / image, size)
    if not (folder / "log").exists():
        (folder / "log").touch()
    return serve_toml(folder, f"""
[nodes.disk]
driver = "raw"
file = {{ driver = "file", filename = "{image}" }}
[nodes.logged]
driver = "blklogwrites"
file = "disk"
log = {{ driver = "file", filename = "log" }}
{keys}
[exports.""]
node = "logged"
writable = true
""")


def client_of(server):
    client = nbd.NBD()
    client.set_strict_mode(0)
    client.set_request_block_size(False)
    client.connect_uri(server.uri())
    return client


def number(text):
    """4096, "64k" or "1M" in bytes."""
    return int(text[:-1]) << {"k": 10, "M": 20}[text[-1]] if text[-1] in "kM" else int(text)


def play(client, step):
    """A command of qemu-io, said by an NBD client."""
    words = step.split()
    numbers = [number(word) for word in words if word[0].isdigit()]
    if words[0] == "flush":
        return client.flush()
    if words[0] == "discard":
        return client.trim(numbers[1], numbers[0])
    flags = nbd.CMD_FLAG_FUA if "-f" in words else 0
    if "-z" in words:
        return client.zero(numbers[1], numbers[0], flags | (0 if "-u" in words else nbd.CMD_FLAG_NO_HOLE))
    pattern, offset, length = numbers  # write -P PATTERN OFFSET LENGTH
    return client.pwrite(bytes([pattern]) * length, offset, flags)


SEQUENCES = {  # name: (keys of gantry, options of QEMU, steps)
    "writes, FUA, zeroes, discards and flushes": ("", "", [
        "write -P 1 0 4k", "write -f -P 2 4k 512", "write -z 8k 4k", "write -z -f 20k 4k", "write -z -u 16k 4k",
        "discard 32k 8k", "flush", "write -P 3 100 10", "write -P 4 1000 30k", "flush", "write -P 5 1M 64k", "flush"]),
    "flushes without a change before them": ("", "", [
        "flush", "write -P 1 0 512", "flush", "flush", "write -f -P 1 0 512", "flush", "discard 0 1M", "flush"]),
    "sectors of 4096 bytes": ("log-sector-size = 4096", ",log-sector-size=4096", [
        "write -P 1 0 4k", "write -P 2 512 512", "write -P 3 10k 10k", "write -z 8k 4k", "write -z 512 4k",
        "write -z 33k 40k", "discard 128k 8k", "flush", "write -z 0 1M"]),
    "the superblock every third entry": ("log-super-update-interval = 3", ",log-super-update-interval=3", [
        "write -P 1 0 4k", "discard 8k 4k", "write -z 16k 4k", "write -P 2 0 4k"]),
}


@test("the log is QEMU's, byte by byte: {}", *SEQUENCES)
def _(folder, name):
    keys, options, steps = SEQUENCES[name]
    with logged(folder, keys, 2 * MiB) as server:
        client = client_of(server)
        for step in steps:
            play(client, step)
        client.shutdown()
    sparse_file(folder / "qemu-disk", 2 * MiB)
    (folder / "qemu-log").touch()
    commands = [word for step in steps for word in ("-c", step)]
    run("qemu-io", "-t", "writeback", "--image-opts", f"driver=blklogwrites,file.driver=file,file.filename={folder}/"
        f"qemu-disk,log.driver=file,log.filename={folder}/qemu-log{options}", *commands)

    equal(described(folder / "log"), described(folder / "qemu-log"))
    equal((folder / "log").read_bytes() == (folder / "qemu-log").read_bytes(), True)
    equal((folder / "disk").read_bytes() == (folder / "qemu-disk").read_bytes(), True)


@test("a log that QEMU began is gone on with")
def _(folder):
    (folder / "log").touch()
    sparse_file(folder / "disk", MiB)
    run("qemu-io", "-t", "writeback", "--image-opts", f"driver=blklogwrites,file.driver=file,file.filename={folder}/"
        f"disk,log.driver=file,log.filename={folder}/log,log-sector-size=1024", "-c", "write -P 1 0 4k")
    with logged(folder, "log-append = true") as server:
        client = client_of(server)
        client.pwrite(b"\2" * 1024, 64 * KiB)
        client.shutdown()

    equal(described(folder / "log"), ["write 0+4096", "flush", "write 65536+1024", "flush"])


def described(path):
    """The entries of a log as text."""
    with open(path, "rb") as log:
        return [described_entry(entry) for entry in replay.read_log(log)]


def described_entry(entry):
    if entry.flags & replay.MARK:
        return "mark " + entry.text.decode()
    if entry.flags & replay.FLUSH:
        return "flush"
    kind = "discard" if entry.flags & replay.DISCARD else "write"
    return f"{kind} {entry.start}+{entry.length}"


def replayed(*arguments):
    """What the program says and its exit status, without the cost of starting it."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = replay.main([str(argument) for argument in arguments])
    return said.getvalue(), status


class LogWriter:
    """Writes a log as the kernel does, marks included."""

    def __init__(self, path, sector=512):
        self.file, self.sector, self.count = open(path, "wb"), sector, 0
        self.file.write(bytes(sector))

    def add(self, start, length, flags=0, data=b"", text=b""):
        head = replay.HEAD.pack(start // self.sector, length // self.sector, flags, len(text)) + text
        self.file.write(head.ljust(self.sector, b"\0") + data)
        self.count += 1

    def finish(self):
        self.file.seek(0)
        self.file.write(replay.SUPERBLOCK.pack(replay.MAGIC, replay.VERSION, self.count, self.sector))
        self.file.close()


@test("every prefix of a random log that ends at a flush replays to what a model says, and so does every mark")
def _(folder):
    print(f"# to repeat: GANTRY_SEED={SEED}")
    chance = random.Random(SEED)
    log, disk, moments = LogWriter(folder / "log", 1024), bytearray(), {}
    for step in range(100):
        start, length = chance.randrange(128) << 10, chance.randrange(1, 32) << 10
        kind = chance.choice(["write", "write", "fua", "discard", "flush", "mark"])
        if kind in ("write", "fua"):
            data = chance.randbytes(length)
            disk.extend(bytes(max(0, start + length - len(disk))))
            disk[start:start + length] = data
            log.add(start, length, replay.FUA if kind == "fua" else 0, data)
        elif kind == "discard":
            end = min(start + length, len(disk))
            disk[start:end] = bytes(max(0, end - start))
            log.add(start, length, replay.DISCARD)
        elif kind == "flush":
            log.add(0, 0, replay.FLUSH)
            moments[f"#{log.count}"] = bytes(disk)
        else:
            moments[f"step {step}"] = bytes(disk)
            log.add(0, 0, replay.MARK, text=f"step {step}".encode())
    log.finish()

    for moment, content in moments.items():
        (folder / "image").unlink(missing_ok=True)
        said, status = replayed(folder / "log", folder / "image", moment)
        equal((said.split()[0], status), ("replayed", 0))
        equal((folder / "image").read_bytes() == content, True)
    (folder / "image").unlink()
    equal(run(REPLAY, folder / "log", folder / "image"), f"replayed {log.count} of {log.count} entries\n")
    equal((folder / "image").read_bytes() == bytes(disk), True)


@test("a log that is none, or broken, is refused in one line, and the image is not touched")
def _(folder):
    def refusal(content, *mark):
        (folder / "log").write_bytes(content)
        said, status = replayed(folder / "log", folder / "image", *mark)
        equal(((folder / "image").exists(), status), (False, 1))
        return said.removeprefix(f"{folder}/log: ")

    def log(sector=0, sectors=0, flags=0, length=0, count=1, size=512, version=1, rest=b""):
        head = replay.HEAD.pack(sector, sectors, flags, length).ljust(512, b"\0")
        return replay.SUPERBLOCK.pack(replay.MAGIC, version, count, size).ljust(512, b"\0") + head + rest

    equal(refusal(b""), "0 bytes are too few for a log\n")
    equal(refusal(bytes(512)), "no log of dm-log-writes: the magic number is wrong\n")
    equal(refusal(log(version=2)), "version 2 is not 1\n")
    equal(refusal(log(size=1000)), "sectors of 1000 bytes: no power of two from 512 to 8388608\n")
    equal(refusal(log(count=2)), "entry 1 of 2 at byte 1024 lies past the end, 1024\n")
    equal(refusal(log(count=1 << 63)), f"entry 1 of {1 << 63} at byte 1024 lies past the end, 1024\n")
    equal(refusal(log(sectors=1)), "entry 0 ends at byte 1536, the log at 1024\n")
    equal(refusal(log(sectors=1 << 60)), f"entry 0: {1 << 60} sectors at 0 lie past every disk\n")
    equal(refusal(log(flags=16)), "entry 0 has unknown flags 0x10\n")
    equal(refusal(log(flags=replay.MARK, length=481)), "entry 0: a mark of 481 bytes does not fit into its sector\n")
    equal(refusal(log(), "nothing"), "there is no mark 'nothing'\n")
    equal(refusal(log(), "#2"), "there are 1 entries, not 2\n")
    (folder / "log").unlink()
    equal(refused(REPLAY, folder / "log", folder / "image"), f"{folder}/log: No such file or directory\n")
    refused(REPLAY, folder / "log", status=2)


BLOCK, BLOCKS = 4 * KiB, 32


@test("whatever prefix of the log a crash leaves, what was flushed or written with FUA is there")
def _(folder):
    print(f"# to repeat: GANTRY_SEED={SEED}")
    chance = random.Random(SEED)
    version = [0] * BLOCKS  # of each block, as written last
    durable = [[0] * BLOCKS]  # what must be there once so many flushes are in the log
    with logged(folder, size=BLOCK * BLOCKS) as server:
        client = client_of(server)
        for step in range(1, 80):
            for block in chance.sample(range(BLOCKS), chance.randrange(1, 8)):  # beside each other
                version[block] = step
                client.aio_pwrite(struct.pack("<Q", step) * (BLOCK // 8), block * BLOCK, lambda error: 1)
            while client.aio_in_flight():
                client.poll(-1)
            if chance.randrange(3) == 0:
                client.flush()
                durable.append(list(version))
            elif chance.randrange(3) == 0:
                block = chance.randrange(BLOCKS)
                version[block] = step
                client.pwrite(struct.pack("<Q", step) * (BLOCK // 8), block * BLOCK, nbd.CMD_FLAG_FUA)
                durable.append(list(version))
        client.shutdown()

    image = [0] * BLOCKS
    flushes = 0
    with open(folder / "log", "rb") as log:
        entries = replay.read_log(log)
        for entry in entries:  # each is the last one that a crash left
            if entry.flags & replay.FLUSH:
                flushes += 1
            elif entry.length:
                log.seek(entry.data)
                image[entry.start // BLOCK] = struct.unpack("<Q", log.read(8))[0]
            promised = durable[min(flushes, len(durable) - 1)]
            assert all(there >= due for there, due in zip(image, promised)), (flushes, image, promised)
    equal(flushes, len(durable) - 1 + (image != durable[-1]))  # the stop flushes, if there is something
    equal(image, version)
    run(REPLAY, folder / "log", folder / "image")
    equal((folder / "image").read_bytes() == (folder / "disk").read_bytes().rstrip(b"\0").ljust(
        (folder / "image").stat().st_size, b"\0"), True)


@test("bad keys are one line with their place")
def _(folder):
    sparse_file(folder / "disk", MiB)
    (folder / "log").write_bytes(b"not a log" * 100)

    def complaint(keys):
        (folder / "a.toml").write_text('[nodes.logged]\ndriver = "blklogwrites"\nfile = { driver = "file", filename = '
                                       f'"disk" }}\nlog = {{ driver = "file", filename = "log" }}\n{keys}\n[exports.e]\nnode = "logged"\n')
        return refused(os.path.abspath(sys.argv[1]), "serve", folder / "a.toml", "--check").splitlines()[-1].removeprefix(
            f"{folder}/a.toml:")

    equal(complaint("log-sector-size = 1000"),
          "5:1: logged: 'log-sector-size': 1000 is no power of two from 512 to 8388608")
    equal(complaint("log-super-update-interval = 0"), "5:1: logged: 'log-super-update-interval': 0 is less than 1")
    equal(complaint("log-append = true\nlog-sector-size = 512"),
          "6:1: logged: 'log-append' takes the log's own sector size, leave this out")
    equal(complaint("log-append = true"), "4:1: #block001: is no log of writes")


main()
