"""Does it cost anything to have many workers, and which engine does the work: gantry beside itself.

Each table compares ways of configuring one daemon, with turns side by side as in compare.py: every way takes its turn in
every round. On a small machine the load generators compete with the server for the processors, so the measure is the
server's CPU time per request, never the throughput."""
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
from functools import partial

import compare
from turns import clearly_above, play, ratios_of, text

WORKERS = os.cpu_count() or 1
LIMIT_COST = 1.1  # CPU per request of two exports on two workers, by that of one on one
LIMIT_SKEW = 0.2  # of the workers' CPU times
JOB = {"rw": "randread", "bs": "4k", "iodepth": 32}


def config(place, images, workers, engine="auto"):
    """A daemon with one export, e0, e1, ..., for each image; an image "" is null-co."""
    lines = [f'[server]\nlisten = "unix:{place}"\nworkers = {workers}\nio-engine = "{engine}"\n']
    for number, image in enumerate(images):
        driver = f'driver = "file"\nfilename = "{image}"' if image else 'driver = "null-co"\nsize = "512M"'
        lines.append(f"[nodes.n{number}]\n{driver}\n[exports.e{number}]\nnode = \"n{number}\"\nwritable = true\n")
    return "\n".join(lines)


def worker_seconds(process):
    """CPU time of each worker of a daemon, in seconds: {"worker 0": 1.5, ...}. Threads that a worker has started for
    calls that may block bear its name, and count as its own."""
    spent = {}
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("worker "):
            nanoseconds = int((task / "schedstat").read_text().split()[0])  # "stat" counts ticks of 10 ms
            spent[name] = spent.get(name, 0) + nanoseconds / 1e9
    return spent


def start_load(place, export, seconds, clients, job):
    words = {"name": "job", "ioengine": "nbd", "uri": f"nbd+unix:///{export}?socket={place}", "time_based": 1,
             "size": compare.FILE_SIZE, "runtime": f"{int(seconds * 1000)}ms", "norandommap": 1, "numjobs": clients,
             "group_reporting": 1} | job
    return subprocess.Popen(["fio", "--output-format=json", *(f"--{key}={value}" for key, value in words.items())],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def requests_of(load):
    out, _ = load.communicate()
    if load.returncode:
        raise RuntimeError(f"fio failed\n{out}")
    return sum(side["total_ios"] for job in json.loads(out[out.index("{"):])["jobs"]
               for side in (job["read"], job["write"]))


def turn(options, images, workers, clients=1, engine="auto", job=None):
    """Each export is loaded by a process of its own: {cpu_us_per_request, skew}."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place, path = f"{folder}/sock", pathlib.Path(folder) / "gantry.toml"
        path.write_text(config(place, images, workers, engine))
        with compare.running([options.gantry, "serve", path], place) as server:
            cpu, threads = compare.cpu_ns(server), worker_seconds(server)
            loads = [start_load(place, f"e{number}", options.seconds, clients, job or JOB)
                     for number in range(len(images))]
            requests = sum([requests_of(load) for load in loads])
            cpu = compare.cpu_ns(server) - cpu
            spent = [seconds - threads.get(name, 0) for name, seconds in worker_seconds(server).items()]
    busiest = max(spent, default=0)
    return {"cpu_us_per_request": cpu / 1e3 / requests, "requests_per_s": requests / options.seconds,
            "skew": (busiest - min(spent)) / busiest if busiest else 0}


def show_pairs(title, rows):
    print(f"\n{title}: CPU per request, median of the rounds (least to greatest)\n\n| workload | ratio |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {text(value)} |")


def many_workers(options, image):
    """What as many workers as processors cost, where there is work for one, and for several connections."""
    rows = {}
    for kind, disk in (("null-co", ""), ("cached file", image)):
        for clients in (1, 4):
            turns = play(options, {"one": partial(turn, options, [disk], 1, clients),
                                   "many": partial(turn, options, [disk], max(WORKERS, 2), clients)})
            rows[f"{kind}, {clients} connection{'s' * (clients > 1)}"] = ratios_of(turns, "many", "one")
    show_pairs(f"{max(WORKERS, 2)} workers by 1 worker, one export", rows)
    return {"many workers": rows}


def two_exports(options, images):
    """Two saturated exports on two workers by one on one: the share of each worker, and the cost of a request.
    Returns what is broken, too."""
    rows, broken = {}, []
    print("\nTwo saturated exports on two workers\n\n| exports | CPU per request, by one export on one worker "
          "| difference of the workers' CPU times |\n|---|---|---|")
    for kind, disks in (("null-co", ["", ""]), ("cached files", images)):
        turns = play(options, {"one": partial(turn, options, disks[:1], 1), "two": partial(turn, options, disks, 2)})
        cost = ratios_of(turns, "two", "one")
        skew = sorted(result["skew"] for result in turns["two"])
        rows[kind] = {"cost": cost, "skew": skew}
        print(f"| {kind} | {text(cost)} | {text(skew)} |", flush=True)
        if clearly_above(cost, LIMIT_COST):
            broken.append(f"two exports, {kind}: {statistics.median(cost):.2f} times the CPU per request, "
                          f"the limit is {LIMIT_COST}")
        if clearly_above(skew, LIMIT_SKEW):
            broken.append(f"two exports, {kind}: the workers' CPU times differ by {statistics.median(skew):.0%}, "
                          f"the limit is {LIMIT_SKEW:.0%}")
    return {"two exports": rows}, broken


def forget(image):
    """Drops the file from the page cache."""
    descriptor = os.open(image, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def engines(options, image):
    """For information: threads by whatever "auto" takes, for what the page cache has and for what it has not."""
    rows = {}
    for kind, prepare in (("cached", None), ("cold", forget)):
        for depth in (1, 32):
            turns = {"auto": [], "threads": []}
            for number in range(options.rounds):
                for engine in compare.rotated(list(turns), number):
                    if prepare:
                        prepare(image)
                    turns[engine].append(turn(options, [image], 1, engine=engine, job=JOB | {"iodepth": depth}))
            rows[f"4 KiB random read, {kind}, depth {depth}"] = ratios_of(turns, "threads", "auto")
    show_pairs('io-engine "threads" by "auto"', rows)
    return {"engines": rows}


def measure(options):
    """All tables. Returns the results and a list of the limits that are clearly broken; short turns judge nothing."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
        images = [pathlib.Path(folder) / f"disk{number}" for number in range(2)]
        for image in images:
            compare.make_cached_file(image)
        results = many_workers(options, images[0])
        exports, broken = two_exports(options, images)
        return results | exports | engines(options, images[0]), [] if options.quick else broken
