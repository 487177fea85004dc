#!/usr/bin/python3
"""gantry check and qemu-img check find the same things wrong with the same images, and what one repairs is clean to the
other, with the same data for the guest."""
import json
import os
import random
import resource
import shutil
import subprocess

from gantry import command_line, equal, main, run, shared_folder, test
from qcow2_image import COMPRESSED, COPIED, OFFSET, ZERO, Image

MiB = 1 << 20
KEYS = ("corruptions", "leaks", "check-errors", "image-end-offset", "total-clusters", "allocated-clusters",
        "fragmented-clusters", "compressed-clusters")
images = shared_folder()


def make(name, options, size="16M", snapshots=True, bitmaps=True):
    """An image with everything that an image can have."""
    path = images / name
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, size, folder=images)
    run("qemu-io", "-c", "write -P 1 0 300k", "-c", "write -P 2 1M 128k", "-c", "write -c -P 3 2M 64k",
        "-c", "write -c -P 4 2112k 64k", "-c", "write -z 64k 64k", "-c", "write -P 5 9M 200k", path)
    if bitmaps:
        run("qemu-img", "bitmap", "--add", path, "first")
        run("qemu-img", "bitmap", "--add", "-g", "32k", path, "second")
        run("qemu-io", "-c", "write -P 6 3M 64k", path)
    if snapshots:
        run("qemu-img", "snapshot", "-c", "one", path)
        run("qemu-io", "-c", "write -P 7 1M 64k", path)
        run("qemu-img", "snapshot", "-c", "two", path)
        run("qemu-io", "-c", "write -P 8 4M 64k", path)
    run("qemu-img", "check", "-q", path)
    return path


# Not snapshots and bitmaps in one image: when qemu-img 7.2 opens one of those to repair it, it writes the header anew for
# the bitmaps, and has not read the snapshots yet. They are lost, and their clusters are leaks.
plain = make("plain.qcow2", "cluster_size=64k", bitmaps=False)
marked = make("marked.qcow2", "cluster_size=64k", snapshots=False)
small = make("small.qcow2", "cluster_size=4k", bitmaps=False)
both = make("both.qcow2", "cluster_size=64k")
tiny = make("tiny.qcow2", "cluster_size=512", snapshots=False, bitmaps=False, size="12M")
extended = make("extended.qcow2", "extended_l2=on,cluster_size=64k", bitmaps=False)
old = make("old.qcow2", "compat=0.10", bitmaps=False)


def qemu(image, *options):
    """Exit status, and the counts of qemu-img check where it could count."""
    done = subprocess.run(["qemu-img", "check", "--output=json", *options, image], capture_output=True, text=True,
                          timeout=60)
    counts = json.loads(done.stdout) if done.stdout.startswith("{") else None
    return done.returncode, counts and {key: counts.get(key, 0) for key in KEYS}, done.stderr


def gantry(image, *options):
    done = subprocess.run([*command_line("check")[:2], "--format", "qcow2", "--json", *options, str(image)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode >= 0, f"killed by signal {-done.returncode}"
    assert done.returncode == 1 or done.stdout, done.stderr
    counts = json.loads(done.stdout) if done.stdout else None
    return done.returncode, counts and {key: counts.get(key, 0) for key in KEYS}, done.stderr


def first(places):
    assert places, "the image has no such entry"
    return places[0]


def swap(places):
    """Two entries for the same thing."""
    def damage(image):
        one, other = places(image)[:2]
        image.put(one, image.u64(other))
    return damage


def field(at, value, size=8):
    return lambda image: image.put(at(image) if callable(at) else at, value, size)


def entry(places, change):
    return lambda image: image.change(first(places(image)), change)


def data(image):
    return image.entries("data")


def zeroes(image):
    return image.entries("allocated zero")


def compressed(image):
    return image.entries("compressed")


def count(places, change):
    """Spoils the refcount of what an entry leads to."""
    def damage(image):
        at = image.refcount_at(image.u64(first(places(image))) & OFFSET)
        image.put(at, change(image.u16(at)), 2)
    return damage


def cut(size):
    def damage(image):
        del image.bytes[size(image):]
    return damage


def l1(image):
    return image.tables


def table(image):
    return image.refcount_table


DAMAGES = {
    "nothing at all": lambda image: None,
    "a data cluster counted once too often": count(data, lambda n: n + 1),
    "a data cluster counted as free": count(data, lambda n: 0),
    "a data cluster counted 65535 times": count(data, lambda n: 65535),
    "a data cluster of two users counted once": count(lambda i: [at for at in data(i) if not i.u64(at) & COPIED], lambda n: 1),
    "an L2 table counted twice": count(l1, lambda n: 2),
    "an L2 table counted as free": count(l1, lambda n: 0),
    "the header counted as free": lambda i: i.put(i.refcount_at(0), 0, 2),
    "the header counted twice": lambda i: i.put(i.refcount_at(0), 2, 2),
    "the L1 table counted as free": lambda i: i.put(i.refcount_at(i.u64(40)), 0, 2),
    "the refcount table counted as free": lambda i: i.put(i.refcount_at(i.u64(48)), 0, 2),
    "a refcount block counted as free": lambda i: i.put(i.refcount_at(i.refcount_blocks[0]), 0, 2),
    "a leak": lambda i: i.put(i.refcount_at(len(i.bytes) - 1) - 0, i.u16(i.refcount_at(len(i.bytes) - 1)) + 1, 2),
    "clusters counted that nobody uses": lambda i: (i.bytes.extend(bytes(4 * i.cluster)), [
        i.put(i.refcount_at(len(i.bytes) - n * i.cluster), 1, 2) for n in (1, 2)]),
    "no copied flag in an L2 entry": entry(data, lambda e: e & ~COPIED),
    "no copied flag in an L1 entry": entry(l1, lambda e: e ^ COPIED),
    "copied flags where two use a cluster": lambda i: [i.put(at, i.u64(at) | COPIED) for at in data(i)],
    "copied flag of a compressed cluster": entry(compressed, lambda e: e | COPIED),
    "reserved bit 1 of an L2 entry": entry(data, lambda e: e | 2),
    "reserved bit 60 of an L2 entry": entry(data, lambda e: e | 1 << 60),
    "reserved bits of an empty L2 entry": lambda i: i.put(first(i.entries("none")), 0x3f << 56),
    "reserved bits of an L1 entry": entry(l1, lambda e: e | 1 << 57 | 3),
    "reserved bits of an empty L1 entry": lambda i: i.put(i.l1[-1], 1 << 57),
    "an L1 entry of nothing but the copied flag": lambda i: i.put(i.l1[-1], COPIED),
    "two L2 entries for one cluster": swap(data),
    "two L2 entries for one compressed cluster": swap(compressed),
    "two L1 entries for one table": lambda i: i.put(i.l1[1], i.u64(i.l1[0])) if len(i.l1) > 1 else None,
    "a data cluster that is not aligned": entry(data, lambda e: e + 512),
    "an allocated zero cluster that is not aligned": entry(zeroes, lambda e: e + 512),
    "an L2 table that is not aligned": entry(l1, lambda e: e + 512),
    "a data cluster behind the end": entry(data, lambda e: e | 1 << 40),
    "a data cluster just behind the end": lambda i: i.put(first(data(i)), len(i.bytes) | COPIED),
    "an L2 table behind the end": entry(l1, lambda e: e | 1 << 40),
    "a compressed cluster behind the end": entry(compressed, lambda e: e | 1 << 40),
    "a compressed cluster longer than it is": entry(compressed, lambda e: e | 7 << 54),
    "a data cluster in the header": entry(data, lambda e: e & ~OFFSET | COPIED),
    "a data cluster in the L1 table": lambda i: i.put(first(data(i)), i.u64(40) | COPIED),
    "a data cluster in a refcount block": lambda i: i.put(first(data(i)), i.refcount_blocks[0] | COPIED),
    "an L2 table in the L1 table": lambda i: i.put(i.l1[0], i.u64(40) | COPIED),
    "an L2 table in the refcount table": lambda i: i.put(i.l1[0], i.u64(48) | COPIED),
    "a zero flag on data": entry(data, lambda e: e | ZERO),
    "a compressed flag on data": entry(data, lambda e: e | COMPRESSED),
    "an L2 table of noise": lambda i: i.bytes.__setitem__(
        slice(i.l2(i.tables[0])[0], i.l2(i.tables[0])[0] + 512), random.Random(1).randbytes(512)),
    "no refcount blocks": lambda i: [i.put(at, 0) for at in table(i) if i.u64(at)],
    "a refcount block that is not aligned": entry(table, lambda e: e + 512),
    "a refcount block behind the end": entry(table, lambda e: e + (1 << 30)),
    "reserved bits of a refcount table entry": entry(table, lambda e: e | 5),
    "one refcount block in two places": lambda i: i.put(table(i)[1], i.u64(table(i)[0])),
    "a refcount block in the header": lambda i: i.put(table(i)[1], i.cluster),
    "a refcount block of zeroes": lambda i: i.bytes.__setitem__(
        slice(i.refcount_blocks[0], i.refcount_blocks[0] + i.cluster), bytes(i.cluster)),
    "a refcount block of ones": lambda i: i.bytes.__setitem__(
        slice(i.refcount_blocks[0], i.refcount_blocks[0] + i.cluster), b"\xff" * i.cluster),
    "a refcount table of zeroes at another place": lambda i: (
        i.put(48, (len(i.bytes) + i.cluster - 1) // i.cluster * i.cluster), i.bytes.extend(bytes(2 * i.cluster))),
    "a file cut in the middle": cut(lambda i: len(i.bytes) // 2 // i.cluster * i.cluster),
    "a file cut within its last cluster": cut(lambda i: len(i.bytes) - 100),
    "a file that is longer": lambda i: i.bytes.extend(bytes(5 * i.cluster)),
    "the dirty bit": lambda i: i.u32(4) == 3 and i.put(72, i.u64(72) | 1),
    "the corrupt bit": lambda i: i.u32(4) == 3 and i.put(72, i.u64(72) | 2),
    "a snapshot table behind the end": lambda i: i.u32(60) and i.put(64, 1 << 40),
    "more snapshots than there are": lambda i: i.u32(60) and i.put(60, i.u32(60) + 3, 4),
    "no snapshots, but their clusters": lambda i: i.put(60, 0, 4),
    "a snapshot's L1 table that is not aligned": lambda i: i.snapshots and i.put(i.snapshots[0], i.u64(i.snapshots[0]) + 8),
    "a snapshot's L1 table that is too large": lambda i: i.snapshots and i.put(i.snapshots[0] + 8, 0xffffffff, 4),
    "a snapshot's L1 table behind the end": lambda i: i.snapshots and i.put(i.snapshots[0], 1 << 40),
    "a snapshot's L1 table in the active one": lambda i: i.snapshots and i.put(i.snapshots[0], i.u64(40)),
    "a snapshot without sizes": lambda i: i.snapshots and (
        i.put(i.snapshots[-1] + 36, i.u32(i.snapshots[-1] + 36) - 16, 4)),
    "a snapshot with too much extra data": lambda i: i.snapshots and i.put(i.snapshots[-1] + 36, 2000, 4),
    "a bitmap's table behind the end": lambda i: i.u64(88) & 1 and i.put(i.bitmaps[0], 1 << 40),
    "a bitmap's table that is not aligned": lambda i: i.u64(88) & 1 and i.put(i.bitmaps[0], i.u64(i.bitmaps[0]) + 8),
    "a bitmap's bits in the header": lambda i: i.u64(88) & 1 and i.put(i.u64(i.bitmaps[0]), i.cluster),
    "a bitmap's bits behind the end": lambda i: i.u64(88) & 1 and i.put(i.u64(i.bitmaps[0]), 1 << 40),
    "a bitmap of unknown flags": lambda i: i.u64(88) & 1 and i.put(i.bitmaps[0] + 12, 0x100, 4),
    "bitmaps without their bit": lambda i: i.u32(4) == 3 and i.put(88, i.u64(88) & ~1),
}
EXTENDED_DAMAGES = {
    "parts both allocated and zero": lambda i: i.put(first(data(i)) + 8, 0x00000003_00000003),
    "allocated parts of no cluster": lambda i: i.put(first(i.entries("none")) + 8, 5),
    "zero parts of no cluster": lambda i: i.put(first(i.entries("none")) + 8, 5 << 32),
    "parts of a compressed cluster": lambda i: i.put(first(compressed(i)) + 8, 1),
    "no parts of a cluster that is not aligned": lambda i: (
        i.change(first(data(i)), lambda e: e + 512), i.put(first(data(i)) + 8, 0)),
    "zero parts of a cluster that is not aligned": lambda i: (
        i.change(first(data(i)), lambda e: e + 512), i.put(first(data(i)) + 8, 0xff << 32)),
}

def spoiled(source, damage, place):
    image = Image(source)
    damage(image)
    image.save(place)
    return place


def expect_same_verdict(image):
    theirs, ours = qemu(image), gantry(image)
    said = f"\nqemu-img: {theirs}\ngantry: {ours}"
    assert theirs[0] == ours[0], "different exit status" + said
    assert theirs[1] == ours[1], "different counts" + said
    if theirs[0] == 1 and theirs[1] is None:
        assert ours[2].strip(), "refused without a word"
    return theirs


def reads(image):
    """All that a guest can read, or why not."""
    copy = image.parent / "content.raw"
    done = subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, copy], capture_output=True, text=True)
    return copy.read_bytes() if done.returncode == 0 else "unreadable"


def expect_same_repair(image, how):
    """What gantry repairs is what qemu-img repairs, or more."""
    folder = image.parent
    ours, theirs = folder / "ours.qcow2", folder / "theirs.qcow2"
    shutil.copyfile(image, ours)
    shutil.copyfile(image, theirs)
    their_first = qemu(theirs, "-r", how)
    our_first = gantry(ours, "--repair", how)
    said = f"\nqemu-img: {their_first}\ngantry: {our_first}"
    left = qemu(theirs)
    again = qemu(ours)
    # what it has given up it may have spoiled, by the bitmaps that it writes when it closes the image
    if their_first[0] in (0, 2, 3) or how == "all" and left[0] == 0:
        assert reads(ours) in (reads(theirs), reads(image)), "the guest reads something else" + said
    if their_first[0] not in (0, 2, 3):
        return
    if left[0] == 0:
        equal(our_first[0], 0)
    assert again[0] in (0, left[0]), f"different repairs: {again} instead of {left}" + said
    if again[1] and our_first[1]:
        for key in ("corruptions", "leaks", "check-errors"):
            assert again[1][key] <= left[1][key], f"{key}: {again} instead of {left}" + said


for base, damages in ((plain, DAMAGES), (marked, DAMAGES), (small, DAMAGES), (old, DAMAGES), (both, DAMAGES),
                      (extended, DAMAGES | EXTENDED_DAMAGES)):
    for name, damage in damages.items():
        if base in (extended, old) and "allocated zero" in name or base == marked and "two users" in name:
            continue  # it has none
        @test(f"{base.stem}: {name}: the same verdict as qemu-img's, and the same repair")
        def _(folder, base=base, name=name, damage=damage):
            image = spoiled(base, damage, folder / "spoiled.qcow2")
            expect_same_verdict(image)
            # what qemu-img does to bitmaps it does not by checking, but by storing them when it closes the image
            for how in () if base == both or base == marked and "bitmap" in name else ("leaks", "all"):
                expect_same_repair(image, how)


def entries(image):
    """Places of 8 bytes of metadata."""
    places = image.l1 + [at for at in image.refcount_table if image.u64(at)]
    for l1_entry in image.tables:
        places += [at for at in image.l2(l1_entry) if image.u64(at)]
    for block in image.refcount_blocks:
        places += list(range(block, block + min(image.cluster, len(image.bytes) // image.cluster * 2), 8))
    for snapshot in image.snapshots:
        places += [image.u64(snapshot) + 8 * i for i in range(image.u32(snapshot + 8))]
    return places


def spoil_by_lot(seed, place):
    """The name of the image that was spoiled; all that is chosen comes from the seed."""
    dice = random.Random(seed)
    image = Image(dice.choice([plain, marked, small, tiny, extended, old]))
    places = entries(image)
    for _ in range(dice.choice([1, 1, 2, 5])):
        at = dice.choice(places)
        image.put(at, dice.choice([
            lambda: image.u64(at) ^ 1 << dice.randrange(64), lambda: image.u64(dice.choice(places)), lambda: 0,
            lambda: dice.randrange(len(image.bytes)) // image.cluster * image.cluster | COPIED])())
    image.save(place)
    return image.path.name


# The same rounds each time; GANTRY_SEED=random GANTRY_ROUNDS=3000 are others, each repeated by its number.
FIRST = os.environ.get("GANTRY_SEED") or "1"
FIRST = random.randrange(1 << 32) if FIRST == "random" else int(FIRST, 0)
ROUNDS = int(os.environ.get("GANTRY_ROUNDS", 40))


@test("images spoiled by lot: the same verdicts and repairs")
def _(folder):
    spoiled_image = folder / "spoiled.qcow2"
    for seed in range(FIRST, FIRST + ROUNDS):
        name = spoil_by_lot(seed, spoiled_image)
        try:
            expect_same_verdict(spoiled_image)
            expect_same_repair(spoiled_image, "all")
        except AssertionError as problem:
            raise AssertionError(f"to repeat: GANTRY_SEED={seed} GANTRY_ROUNDS=1, {name}: {problem}") from None


@test("a repair keeps snapshots and bitmaps where one image has both")
def _(folder):
    for how in "leaks", "all":
        image = spoiled(both, DAMAGES["a data cluster counted 65535 times"], folder / "both.qcow2")
        equal(gantry(image, "--repair", how)[0], 0)
        run("qemu-img", "check", "-q", image)
        known = json.loads(run("qemu-img", "info", "--output=json", image))
        equal([each["name"] for each in known["snapshots"]], ["one", "two"])
        equal(len(known["format-specific"]["data"]["bitmaps"]), 2)


@test("an image of 1 TiB takes no more memory than its file deserves")
def _(folder):
    image = folder / "large.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, "1T")
    words = [*command_line("check")[:2], str(image)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run(["/usr/bin/python3", "-c", "import resource, subprocess, sys\n"
                    "subprocess.run(sys.argv[1:], check=True)\n"
                    "used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
                    "assert used < 64 * 1024, f'{used} KiB'", *words], check=True, timeout=120, capture_output=True)
    assert before >= 0


main()
