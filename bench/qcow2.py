"""What qcow2 costs: gantry beside qemu-nbd, beside its own raw, and a chain beside one layer.

Turns side by side as in compare.py; the measure is the server's CPU time per request."""
import pathlib
import re
import statistics
import subprocess
import tempfile
from functools import partial

import compare
from turns import clearly_above, play, ratios_of, text

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


def turn(options, place, job, command, image):
    if job is ALLOCATING_JOB:
        image.unlink(missing_ok=True)
        qemu_img("create", "-f", "qcow2", image, compare.FILE_SIZE)
    compare.settle(image)
    return compare.measure(command, place, job, options.seconds)


THROUGH = {workload: f"{workload.partition(',')[0]} through {CHAIN} layers" for workload in READS}


def wanted(options, workloads=(*READS, ALLOCATING, *THROUGH.values())):
    return any(re.search(options.only, f"qcow2: {workload}") for workload in workloads)


def workloads(options, images, place):
    """(name, job, {server: (command, image)}), ours first."""
    one, raw, chain, empty = (images[name] for name in ("one", "raw", "chain", "empty"))
    ours = gantry(options, one, place), one
    for name, job in READS.items():
        yield name, job, {"ours": ours, "qemu-nbd": (qemu_nbd(options, one, place), one),
                          "gantry's raw": (gantry(options, raw, place, "raw"), raw)}
    yield ALLOCATING, ALLOCATING_JOB, {"ours": (gantry(options, empty, place), empty),
                                       "qemu-nbd": (qemu_nbd(options, empty, place), empty)}
    for name, job in READS.items():
        yield THROUGH[name], job, {"ours": (gantry(options, chain, place), chain), "one layer": ours,
                                   "qemu-nbd": (qemu_nbd(options, chain, place), chain)}


def pairs(options, images, place):
    """Yields (workload, other, ratios) as they come."""
    for workload, job, servers in workloads(options, images, place):
        if wanted(options, [workload]):
            turns = play(options, {name: partial(turn, options, place, job, *server) for name, server in servers.items()})
            yield from ((workload, other, ratios_of(turns, "ours", other)) for other in servers if other != "ours")


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
            print(f"| {workload} | {other} | {text(values)} | {limit or ''} |", flush=True)
            results[f"{workload}: {other}"] = values
            if limit and clearly_above(values, limit):
                broken.append(f"qcow2, {workload}: {statistics.median(values):.2f} of {other}, the limit is {limit}")
    return results, [] if options.quick else broken
