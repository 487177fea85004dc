"""gantry beside nbdkit's file plugin and qemu-nbd: what the same work costs each server, as ratios.

All serve one file, held by the page cache, over a Unix socket; fio's nbd engine is the load. In every round each server
takes its turn at each workload, one directly after the other, so that what else the machine does meets them all. Ratios
are made within a round; shown is the median of the rounds. The block size of a workload is fixed, so CPU per request and
CPU per GiB have the same ratio. The times of one machine are no claim about another one, the ratios are."""
import contextlib
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE_SIZE = 512 << 20
GiB = 1 << 30

WORKLOADS = {
    "4 KiB random read, depth 1": {"rw": "randread", "bs": "4k", "iodepth": 1},
    "4 KiB random read, depth 32": {"rw": "randread", "bs": "4k", "iodepth": 32},
    "4 KiB random write, depth 32": {"rw": "randwrite", "bs": "4k", "iodepth": 32},
    "256 KiB random read, depth 8": {"rw": "randread", "bs": "256k", "iodepth": 8},
    "256 KiB random write, depth 8": {"rw": "randwrite", "bs": "256k", "iodepth": 8},
    "1 MiB sequential read, depth 4": {"rw": "read", "bs": "1m", "iodepth": 4},
    "1 MiB sequential write, depth 4": {"rw": "write", "bs": "1m", "iodepth": 4},
}


def server_commands(options, image, place):
    """The servers by name, gantry first; all write back through the page cache and take any number of clients."""
    return {
        "gantry": [options.gantry, "export", image, "--format", "raw", "--writable", "--listen", f"unix:{place}"],
        "nbdkit": ["nbdkit", "--foreground", "--unix", place, "file", image],
        "qemu-nbd": ["qemu-nbd", "--socket", place, "--format", "raw", "--cache", "writeback",
                     "--aio", options.qemu_aio, "--persistent", "--shared", "0", image],
    }


@contextlib.contextmanager
def running(command, place):
    """The process of a server that accepts connections."""
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until_it_accepts(server, place)
            yield server
        except Exception as error:
            log.seek(0)
            raise SystemExit(f"{command[0]}: {error}\n{log.read()}") from error
        finally:
            server.terminate()
            server.wait()
            pathlib.Path(place).unlink(missing_ok=True)


def wait_until_it_accepts(server, place):
    deadline = time.monotonic() + 30
    while True:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
            client.connect(place)
            return
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("does not accept connections")
        time.sleep(0.01)


def cpu_ns(process):
    """CPU time of a process, in nanoseconds, with all threads that it has and had: /proc counts ticks of 10 ms."""
    cpuclock_sched = 2
    return time.clock_gettime_ns(~process.pid << 3 | cpuclock_sched)  # what clock_getcpuclockid(3) makes of a pid


def measure(command, place, workload, seconds):
    """One turn: {cpu_us_per_request, cpu_ms_per_gib, requests_per_s}."""
    job = {"name": "job", "ioengine": "nbd", "uri": f"nbd+unix:///?socket={place}", "size": FILE_SIZE,
           "time_based": 1, "runtime": f"{int(seconds * 1000)}ms", "norandommap": 1} | workload
    with running(command, place) as server:
        before = cpu_ns(server)
        done = subprocess.run(["fio", "--output-format=json", *(f"--{key}={value}" for key, value in job.items())],
                              capture_output=True, text=True)
        spent = cpu_ns(server) - before
        if done.returncode:
            raise RuntimeError(f"fio failed\n{done.stdout}{done.stderr}")
    result = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = result["read" if "read" in workload["rw"] else "write"]
    return {"cpu_us_per_request": spent / 1e3 / side["total_ios"],
            "cpu_ms_per_gib": spent / 1e6 / (side["io_bytes"] / GiB),
            "requests_per_s": side["total_ios"] / (side["runtime"] / 1e3)}


def settle(image):
    """Writes back what a turn made dirty, so that the next one does not pay for it."""
    descriptor = os.open(image, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)


def make_cached_file(path):
    piece = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for _ in range(FILE_SIZE >> 20):
            file.write(piece)
    settle(path)
    path.read_bytes()


def is_on_disk(folder):
    kind = subprocess.run(["stat", "--file-system", "--format=%T", folder], capture_output=True, text=True, check=True)
    return kind.stdout.strip() not in ("tmpfs", "ramfs")


def play(options, workloads):
    """All rounds: {workload: {server: [turn, ...]}}."""
    if not is_on_disk(options.folder):
        raise SystemExit(f"{options.folder} is in memory: name another --folder, on a real file system")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder, \
            tempfile.TemporaryDirectory(prefix="bench-") as socket_folder:  # a socket's path must be short
        image, place = pathlib.Path(folder) / "disk", f"{socket_folder}/sock"
        make_cached_file(image)
        commands = server_commands(options, image, place)
        turns = {workload: {server: [] for server in commands} for workload in workloads}
        for number in range(options.rounds):
            for workload in workloads:
                for server in rotated(list(commands), number):
                    settle(image)
                    turn = measure(commands[server], place, WORKLOADS[workload], options.seconds)
                    turns[workload][server].append(turn)
            print(f"round {number + 1} of {options.rounds} done", flush=True)
        return turns


def rotated(items, by):
    """Nobody always goes first."""
    by %= len(items)
    return items[by:] + items[:by]


def median(turns, key):
    return statistics.median(turn[key] for turn in turns)


def ratios(turns, other, key):
    """gantry's value by the other's, one for each round."""
    return [ours[key] / theirs[key] for ours, theirs in zip(turns["gantry"], turns[other])]


def summary(turns):
    """What --json writes for one workload: medians of each server, and gantry's ratios as [median, least, greatest]."""
    keys = "cpu_us_per_request", "cpu_ms_per_gib", "requests_per_s"
    others = [server for server in turns if server != "gantry"]
    return {"medians": {server: {key: median(turns[server], key) for key in keys} for server in turns},
            "ratios": {other: {key: [f(ratios(turns, other, key)) for f in (statistics.median, min, max)]
                               for key in keys} for other in others},
            "rounds": turns}


def show_medians(results):
    print("\nMedians of this run, on this machine:\n")
    print(f"{'workload':34}{'server':10}{'CPU us/request':>15}{'CPU ms/GiB':>12}{'requests/s':>12}")
    for workload, result in results.items():
        for server, values in result["medians"].items():
            print(f"{workload:34}{server:10}{values['cpu_us_per_request']:15.2f}"
                  f"{values['cpu_ms_per_gib']:12.0f}{values['requests_per_s']:12.0f}")


def show_ratios(results, rounds):
    print(f"\ngantry divided by the other server: median of {rounds} rounds (least to greatest)\n")
    print("| workload | CPU: nbdkit | CPU: qemu-nbd | throughput: nbdkit | throughput: qemu-nbd |")
    print("|---|---|---|---|---|")
    for workload, result in results.items():
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*result["ratios"][other][key])
                 for key in ("cpu_us_per_request", "requests_per_s") for other in ("nbdkit", "qemu-nbd")]
        print(f"| {workload} | {' | '.join(cells)} |")
    print("\nCPU: the server's CPU time per request, and as well per GiB; below 1.00 gantry spends less. "
          "Throughput: above 1.00 gantry is faster.")


def add_options(parser):
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each server at each workload (default: 5)")
    parser.add_argument("--seconds", type=float, metavar="N", help="length of a turn (default: 2)")
    parser.add_argument("--quick", action="store_true", help="two rounds of short turns: does it run at all?")
    parser.add_argument("--only", default="", metavar="PATTERN", help="regular expression that a name must contain")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every turn, the medians and ratios")
    parser.add_argument("--gantry", type=pathlib.Path, default=ROOT / "build/gantry", metavar="PROGRAM")
    parser.add_argument("--qemu-aio", default="threads", choices=["threads", "io_uring"], help="for qemu-nbd (default: its own default, threads)")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build", help="where the file lies")


def compare(options):
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (0.3 if options.quick else 2)
    workloads = [name for name in WORKLOADS if re.search(options.only, name)]
    if not workloads:
        return {}
    turns = play(options, workloads)
    results = {workload: summary(turns[workload]) for workload in workloads}
    show_medians(results)
    show_ratios(results, options.rounds)
    return results
