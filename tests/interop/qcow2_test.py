#!/usr/bin/python3
"""One image, QEMU and gantry by turns: what one wrote the other reads, byte for byte; QEMU's check finds nothing, and
both say the same of where the holes are."""
import itertools
import json
import random

import nbd

from gantry import ENGINE, Server, command_line, equal, main, refused, run, serve_toml, test

KiB = 1 << 10
MiB = 1 << 20
SIZE = 5 * MiB + 3 * 512

FACTORS = {
    "compat": ["0.10", "1.1"],
    "cluster_size": [512, 4 * KiB, 64 * KiB, 2 * MiB],
    "refcount_bits": [1, 16, 64],
    "extended_l2": ["off", "on"],
    "compression_type": ["zlib", "zstd"],
    "data_file": [None, "data.raw"],
    "lazy_refcounts": ["off", "on"],
    "preallocation": ["off", "metadata"],
}


def possible(row):
    if row["compat"] == "0.10" and (row["refcount_bits"] != 16 or row["extended_l2"] == "on" or row["data_file"]
                                    or row["compression_type"] != "zlib" or row["lazy_refcounts"] == "on"):
        return False
    return row["extended_l2"] == "off" or row["cluster_size"] >= 16 * KiB


def pairs(row):
    return set(itertools.combinations(row.items(), 2))


def pairwise():
    """Rows in which any two values meet that can."""
    rows = [dict(zip(FACTORS, values)) for values in itertools.product(*FACTORS.values())]
    rows = [row for row in rows if possible(row)]
    missing = set().union(*map(pairs, rows))
    while missing:
        best = max(rows, key=lambda row: len(pairs(row) & missing))
        missing -= pairs(best)
        yield best


def words(row):
    return ",".join(f"{key}={value}" for key, value in row.items() if value is not None)


class Disk:
    """An image, and the bytes that it has to hold."""

    def __init__(self, folder, row, seed):
        self.image, self.reference = folder / "disk.qcow2", folder / "reference.raw"
        self.folder, self.row, self.dice = folder, row, random.Random(seed)
        self.content = bytearray(SIZE)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", words(row), self.image.name, SIZE, folder=folder)

    def any_range(self, unit=512):
        offset = self.dice.randrange(SIZE) // unit * unit
        length = min(self.dice.choice([unit, 3 * unit, 40 * KiB // unit * unit or unit]), SIZE - offset)
        return offset, length

    def qemu_writes(self):
        commands, cluster = [], self.row["cluster_size"]
        for _ in range(12):
            kind = self.dice.choice(["plain", "plain", "zero", "unmap", "discard", "compressed"])
            byte = self.dice.randrange(1, 256)
            if kind in ("compressed", "discard"):
                offset, length = self.any_range(cluster)
                length -= length % cluster
                if length == 0 or (kind == "compressed" and self.row["data_file"]):
                    continue
                if kind == "compressed":
                    length = cluster
            else:
                offset, length = self.any_range()
            command = {"plain": f"write -P {byte}", "compressed": f"write -c -P {byte}", "zero": "write -z",
                       "unmap": "write -z -u", "discard": "discard"}[kind]
            if kind == "compressed":  # QEMU writes none over what is its own already
                commands += ["-c", f"discard {offset} {length}"]
            commands += ["-c", f"{command} {offset} {length}"]
            fill = byte if kind in ("plain", "compressed") else 0
            self.content[offset:offset + length] = bytes([fill]) * length
        said = run("qemu-io", "-f", "qcow2", "-d", "unmap", *commands, self.image.name, folder=self.folder)
        assert "failed" not in said, said

    def gantry_writes(self, client):
        cluster = self.row["cluster_size"]
        for _ in range(25):
            kind = self.dice.choice(["write", "write", "write", "zero", "hole", "trim", "flush"])
            offset, length = self.any_range(self.dice.choice([1, 512, cluster]))
            if kind == "write":
                data = self.dice.randbytes(length)
                client.pwrite(data, offset, self.dice.choice([0, 0, nbd.CMD_FLAG_FUA]))
                self.content[offset:offset + length] = data
            elif kind in ("zero", "hole"):
                client.zero(length, offset, nbd.CMD_FLAG_NO_HOLE if kind == "zero" else 0)
                self.content[offset:offset + length] = bytes(length)
            elif kind == "trim":
                client.trim(length, offset)
                found = client.pread(length, offset)
                old = self.content[offset:offset + length]
                assert all(a in (b, 0) for a, b in zip(found, old)), f"trim of {length} at {offset}"
                self.content[offset:offset + length] = found
            else:
                client.flush()

    def gantry_reads(self, client):
        found = client.pread(SIZE, 0)
        if found != self.content:
            at = next(i for i, (a, b) in enumerate(zip(found, self.content)) if a != b)
            raise AssertionError(f"byte {at} is {found[at]}, not {self.content[at]}")

    def qemu_agrees(self):
        run("qemu-img", "check", "-q", "-f", "qcow2", self.image.name, folder=self.folder)
        self.reference.write_bytes(self.content)
        run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", self.image.name, self.reference.name,
            folder=self.folder)

    def qemu_map(self):
        said = json.loads(run("qemu-img", "map", "--output=json", self.image.name, folder=self.folder))
        return by_sector((extent["length"], extent["data"], extent["zero"]) for extent in said)


def by_sector(extents):
    """(length, data, zero) each: (data, zero) for each sector."""
    result = []
    for length, *status in extents:
        assert length % 512 == 0 or length < 512, length
        result += [tuple(status)] * -(-length // 512)
    return result


def serve(image, *options):
    return Server(["export", image, "--format", "qcow2", *options, "--listen", f"unix:{image}.sock"], 1)


def connect(server, name=""):
    client = nbd.NBD()
    client.add_meta_context("base:allocation")
    client.connect_uri(server.uri(name))
    return client


def gantry_map(client):
    size, extents = client.get_size(), []

    def take(context, offset, entries, error):
        for length, flags in zip(entries[0::2], entries[1::2]):
            length = min(length, size - sum(extent[0] for extent in extents))
            extents.append((length, not flags & nbd.STATE_HOLE, bool(flags & nbd.STATE_ZERO)))

    while (done := sum(extent[0] for extent in extents)) < size:
        client.block_status(size - done, done, take)
    return by_sector(extents)


def compare_maps(ours, theirs, content):
    """Space that is reserved for zeroes is no hole to us, and is one to QEMU."""
    equal(len(ours), len(theirs))
    for i, ((data, zero), (qemu_data, qemu_zero)) in enumerate(zip(ours, theirs)):
        at = i * 512
        assert not zero or not any(content[at:at + 512]), f"{at} does not read as zeroes"
        assert zero or not qemu_zero, f"QEMU knows that {at} reads as zeroes"
        assert data or not qemu_data, f"{at} is said to be a hole"
        assert data or zero, f"{at} is a hole with data"


for number, row in enumerate(pairwise()):
    @test(f"QEMU and gantry take turns at an image with {words(row)}")
    def _(folder, row=row, seed=number):
        disk = Disk(folder, row, seed)
        for _ in range(3):
            disk.qemu_writes()
            status = disk.qemu_map()
            with serve(disk.image, "--writable") as server:
                client = connect(server)
                compare_maps(gantry_map(client), status, disk.content)
                disk.gantry_reads(client)
                disk.gantry_writes(client)
                disk.gantry_reads(client)
                client.shutdown()
            disk.qemu_agrees()


def chain(folder):
    """A chain whose names are relative, each to its own folder; what its top shows."""
    (folder / "below").mkdir()
    base = bytearray(b"b" * (300 * KiB + 512))
    (folder / "below" / "base.raw").write_bytes(base)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "below/middle.qcow2", "400K",
        folder=folder)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "below/middle.qcow2", "-F", "qcow2", "top.qcow2", "500K",
        folder=folder)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 109 290k 30k", "-c", "write -z 64k 10k", "below/middle.qcow2",
        folder=folder)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 116 0 4k", "-c", "write -z 318k 4k", "top.qcow2", folder=folder)
    content = base + bytes(500 * KiB - len(base))
    for offset, length, byte in ((290, 30, b"m"), (64, 10, b"\0"), (0, 4, b"t"), (318, 4, b"\0")):
        content[offset * KiB:(offset + length) * KiB] = byte * (length * KiB)
    return content


@test("a chain is found by its names, and only its top is written")
def _(folder):
    content = chain(folder)
    below = {name: (folder / "below" / name).read_bytes() for name in ("base.raw", "middle.qcow2")}
    status = by_sector((extent["length"], extent["data"], extent["zero"]) for extent in json.loads(
        run("qemu-img", "map", "--output=json", "top.qcow2", folder=folder)))
    with serve(folder / "top.qcow2", "--writable") as server:
        client = connect(server)
        equal(client.pread(len(content), 0) == content, True)
        compare_maps(gantry_map(client), status, content)
        client.pwrite(b"new" * 1000, 299 * KiB)
        content[299 * KiB:299 * KiB + 3000] = b"new" * 1000
        client.shutdown()
    for name, bytes_before in below.items():
        equal((folder / "below" / name).read_bytes() == bytes_before, True)
    (folder / "reference.raw").write_bytes(content)
    run("qemu-img", "check", "-q", "top.qcow2", folder=folder)
    run("qemu-img", "compare", "-q", "-F", "raw", "top.qcow2", "reference.raw", folder=folder)


@test("an image may be shown without what is below it, or over something else")
def _(folder):
    content = chain(folder)
    (folder / "other.raw").write_bytes(b"o" * (100 * KiB))
    toml = ""
    for name, backing in (("alone", '""'), ("other", '{ driver = "raw", file = { driver = "file", filename = "other.raw" } }')):
        toml += (f'[nodes.{name}]\ndriver = "qcow2"\nread-only = true\nbacking = {backing}\n'
                 f'file = {{ driver = "file", filename = "top.qcow2" }}\n[exports.{name}]\nnode = "{name}"\n')
    with serve_toml(folder, toml) as server:
        alone, other = connect(server, "alone"), connect(server, "other")
        equal(alone.pread(4 * KiB, 0), content[:4 * KiB])
        equal(alone.pread(100 * KiB, 100 * KiB), bytes(100 * KiB))
        equal(other.pread(100 * KiB, 64 * KiB), b"o" * (36 * KiB) + bytes(64 * KiB))
        alone.shutdown()
        other.shutdown()


@test("a backing file that is not there is named")
def _(folder):
    chain(folder)
    (folder / "below" / "base.raw").unlink()
    said = refused(*command_line("export"), folder / "top.qcow2", "--format", "qcow2", "--listen",
                   f"unix:{folder}/sock")
    assert "base.raw" in said, said


main()
