"""What qcow2 costs: gantry beside qemu-nbd, beside its own raw, and a chain beside one layer.

Turns side by side as in compare.py; the measure is the server's CPU time per request."""
import pathlib
import re
import statistics
import subprocess
import tempfile

import compare

CHAIN = 8  # layers
READS = {
    "4 KiB random read, depth 32": {"rw": "randread", "bs": "4k", "iodepth": 32},
    "256 KiB sequential read, depth 8": {"rw": "read", "bs": "256k", "iodepth": 8},
}
ALLOCATING = "64 KiB allocating random write, depth 8"
# each cluster once, in an order by lot: a turn is as long as the image is large
ALLOCATING_JOB = {"rw": "randwrite", "bs": "64k", "iodepth": 8, "time_based": 0, "norandommap": 0, "runtime": "60s"}
# gantry on qcow2 by the other, at most; nothing is said of the pairs that are not here
LIMITS = {
    ("4 KiB random read, depth 32", "qemu-nbd"): 0.25,
    ("4 KiB random read, depth 32", "gantry's raw"): 1.15,
    ("256 KiB sequential read, depth 8", "qemu-nbd"): 0.25,
    (ALLOCATING, "qemu-nbd"): 0.5,
    (f"4 KiB random read through {CHAIN} layers", "one layer"): 2.0,
    (f"256 KiB sequential read through {CHAIN} layers", "one layer"): 2.0,
}


def qemu_img(*words):
    subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def gantry(options, image, place, form="qcow2"):
    return [options.gantry, "export", image, "--format", form, "--writable", "--listen", f"unix:{place}"]


def qemu_nbd(options, image, place):
    return ["qemu-nbd", "--socket", place, "--format", "qcow2", "--cache", "writeback", "--aio", options.qemu_aio,
            "--persistent", "--shared", "0", image]


def make_images(folder):
    """{name: path}: the same bytes as raw, as one layer, and as a chain whose layers hold every eighth cluster each."""
    images = {name: folder / name for name in ("raw", "one", "chain", "empty")}
    compare.make_cached_file(images["raw"])
    qemu_img("convert", "-f", "raw", "-O", "qcow2", images["raw"], images["one"])
    below = []
    for layer in range(CHAIN):
        path = folder / f"layer{layer}" if layer < CHAIN - 1 else images["chain"]
        qemu_img("create", "-f", "qcow2", *below, path, compare.FILE_SIZE)
        fill(path, layer)
        below = ["-b", path, "-F", "qcow2"]
    for path in folder.iterdir():
        compare.settle(path)
        path.read_bytes()
    return images


def fill(path, layer, unit=1 << 16):
    """Writes every eighth cluster from `layer` on."""
    commands = [f"write -q -P {layer + 1} {at} {unit}" for at in range(layer * unit, compare.FILE_SIZE, CHAIN * unit)]
    subprocess.run(["qemu-io", "-f", "qcow2", path], input="\n".join(commands), text=True, check=True,
                   stdout=subprocess.DEVNULL)


def one_turn(options, command, place, image, job):
    if job is ALLOCATING_JOB:
        image.unlink(missing_ok=True)
        qemu_img("create", "-f", "qcow2", image, compare.FILE_SIZE)
    compare.settle(image)
    return compare.measure(command, place, job, options.seconds)


def play(options, servers, job):
    """{name: [turn, ...]} of servers {name: (command, image)}, in turns."""
    turns = {name: [] for name in servers}
    for number in range(options.rounds):
        for name in compare.rotated(list(servers), number):
            command, place, image = servers[name]
            turns[name].append(one_turn(options, command, place, image, job))
    return turns


def ratios_of(turns, ours, other):
    """CPU per request, one ratio for each round, in ascending order."""
    key = "cpu_us_per_request"
    return sorted(mine[key] / theirs[key] for mine, theirs in zip(turns[ours], turns[other]))


THROUGH = {workload: f"{workload.partition(',')[0]} through {CHAIN} layers" for workload in READS}


def wanted(options, workloads=(*READS, ALLOCATING, *THROUGH.values())):
    return any(re.search(options.only, f"qcow2: {workload}") for workload in workloads)


def pairs(options, images, place):
    """Yields (workload, other, ratios) as they come."""
    one, raw, chain, empty = (images[name] for name in ("one", "raw", "chain", "empty"))
    ours = gantry(options, one, place), place, one
    for workload, job in READS.items():
        if wanted(options, [workload]):
            turns = play(options, {"ours": ours, "qemu-nbd": (qemu_nbd(options, one, place), place, one),
                                   "gantry's raw": (gantry(options, raw, place, "raw"), place, raw)}, job)
            yield workload, "qemu-nbd", ratios_of(turns, "ours", "qemu-nbd")
            yield workload, "gantry's raw", ratios_of(turns, "ours", "gantry's raw")
    if wanted(options, [ALLOCATING]):
        turns = play(options, {"ours": (gantry(options, empty, place), place, empty),
                               "qemu-nbd": (qemu_nbd(options, empty, place), place, empty)}, ALLOCATING_JOB)
        yield ALLOCATING, "qemu-nbd", ratios_of(turns, "ours", "qemu-nbd")
    for workload, job in READS.items():
        through = THROUGH[workload]
        if wanted(options, [through]):
            turns = play(options, {"ours": (gantry(options, chain, place), place, chain), "one layer": ours,
                                   "qemu-nbd": (qemu_nbd(options, chain, place), place, chain)}, job)
            yield through, "one layer", ratios_of(turns, "ours", "one layer")
            yield through, "qemu-nbd", ratios_of(turns, "ours", "qemu-nbd")


def measure(options):
    """The table. Returns the results and a list of the limits that are clearly broken; short turns judge nothing."""
    results, broken = {}, []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder, \
            tempfile.TemporaryDirectory(prefix="bench-") as socket_folder:
        images = make_images(pathlib.Path(folder))
        print("\nqcow2: CPU per request, median of the rounds (least to greatest)\n\n| workload | beside | ratio | limit |"
              "\n|---|---|---|---|")
        for workload, other, values in pairs(options, images, f"{socket_folder}/sock"):
            limit = LIMITS.get((workload, other))
            shown = "{:.2f} ({:.2f} to {:.2f})".format(statistics.median(values), values[0], values[-1])
            print(f"| {workload} | {other} | {shown} | {limit or ''} |", flush=True)
            results[f"{workload}: {other}"] = values
            if limit and values[len(values) // 4] > limit:
                broken.append(f"qcow2, {workload}: {statistics.median(values):.2f} of {other}, the limit is {limit}")
    return results, [] if options.quick else broken
