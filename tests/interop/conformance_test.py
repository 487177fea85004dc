#!/usr/bin/env python3
"""The statements of tests/conformance: gantry breaks none, docs/conformance.md says so, others show theirs.

    tests/interop/conformance_test.py build/gantry            the test
    tests/interop/conformance_test.py build/gantry --write    writes docs/conformance.md anew

What the servers were found to do stands in build/conformance/, a TAP file for each."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from gantry import PATIENCE, Server, Skip, equal, main, sparse_file, test

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "conformance.md"
RESULTS = pathlib.Path(sys.argv[1]).resolve().parent / "conformance"
SIZE = 80 << 20  # long enough for every statement about long requests

CONFIGURATION = """
[server]
listen = ["unix:sock"]
handshake-timeout = "2s"
[nodes.disk]
driver = "memory"
size = "80M"
[nodes.endless]
driver = "null-co"
size = "8G"
[nodes.coarse]
driver = "blkdebug"
image = { driver = "memory", size = "80M" }
align = 4096
[exports.disk]
node = "disk"
writable = true
description = "a disk that can be written"
[exports.endless]
node = "endless"
[exports.coarse]
node = "coarse"
writable = true
"""

INTRODUCTION = """\
# Conformance

What gantry does on the wire, statement by statement. `tests/conformance --uri URI` checks any NBD server like this
(`--help` says how); this page is its result for gantry, with a writable export of 80 MiB, a read-only one of 8 GiB, and
one whose blocks have 4 KiB. `tests/interop/conformance_test.py build/gantry --write` makes it anew, and a test fails
when it is no longer true.

Levels: **MUST** and **SHOULD** as in the specification (`doc/proto.md` of the NetworkBlockDevice project); **MAY**: one
of the things that it allows happens; **gantry**: it is silent, and this is what gantry decided
([architecture.md](architecture.md)). A statement that is *not seen* can't be shown by a client on these exports;
*unit tests* means that `tests/nbd/` shows it on the simulated server, where media fail, servers stop and power is cut.

"""


@contextlib.contextmanager
def gantry(folder):
    """Serves the exports that the page is about; the words that tell the runner."""
    config = folder / "gantry.toml"
    config.write_text(CONFIGURATION)
    with Server(["serve", config], 1, folder) as server:
        yield ["--uri", server.uri("disk"), "--uri", server.uri("endless"), "--uri", server.uri("coarse"),
               "--writable", "--slow", "30"]


def judge(*words):
    return subprocess.run([sys.executable, ROOT / "tests" / "conformance", *words], capture_output=True, text=True,
                          timeout=PATIENCE)


def broken(name, *words):
    """What the runner finds broken: {statement: (level, why)}. Keeps its TAP."""
    done = judge(*words)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.tap").write_text(done.stdout)
    equal(done.stderr, "")
    assert "Bail out!" not in done.stdout, done.stdout[-1000:]
    found = re.findall(r"^not ok \d+ - S(\d+) (\w+): .*\n# (.*)", done.stdout, re.MULTILINE)
    equal(done.returncode, 1 if any(level == "MUST" for _, level, _ in found) else 0)
    return {int(number): (level, why) for number, level, why in found}


@test("gantry breaks no statement")
def _(folder):
    with gantry(folder) as words:
        equal(broken("gantry", *words), {})


@test("gantry breaks no statement on an export with blocks of 4 KiB")
def _(folder):
    with gantry(folder) as words:
        equal(broken("gantry-4k", "--uri", words[words.index("--writable") - 1], "--writable"), {})


def page(folder):
    """docs/conformance.md as it should be."""
    with gantry(folder) as words:
        table = judge(*words, "--markdown").stdout.splitlines()
    names = "".join(path.read_text() for path in sorted((ROOT / "tests" / "nbd").glob("*_test.cpp")))
    shown = {int(number) for number in re.findall(r"\bS(\d+)(?=_)", names)}
    rows, kept, elsewhere = [], 0, 0
    for row in table:
        number = re.match(r"\| (\d+) ", row)
        kept += row.endswith("| kept |")
        if number and int(number[1]) in shown and "| not seen: " in row:
            row = row.removesuffix(" |") + "; unit tests |"
            elsewhere += 1
        rows.append(row)
    count = len(rows) - 2
    summary = f"Of {count} statements {kept} are kept, {elsewhere} more are shown by unit tests, and " \
              f"{count - kept - elsewhere} wait for what they are about.\n\n"
    return INTRODUCTION + summary + "\n".join(rows) + "\n"


@test("docs/conformance.md says what the runner says")
def _(folder):
    expected = page(folder).splitlines()
    actual = PAGE.read_text().splitlines()
    for line, (is_, should) in enumerate(zip(actual, expected), 1):
        assert is_ == should, f"line {line} is\n{is_}\nand should be\n{should}\n(--write makes the page anew)"
    equal(len(actual), len(expected))


def need(program):
    """The program's path."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not path:
        raise Skip(f"{program} is not installed")
    return path


@contextlib.contextmanager
def running(place, *command):
    """A server that listens on the Unix socket while the block runs."""
    with open(f"{place}.log", "wb") as log, subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:
        try:
            wait_for(place.exists, f"{command[0]} did not make {place}")
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def daemon(pid_file, *command):
    """A server that goes into the background and leaves its process number in a file."""
    with open(f"{pid_file}.log", "wb") as log:  # not a pipe: it goes on writing there
        subprocess.run([str(word) for word in command], check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
                       stdout=log, stderr=log)
    wait_for(lambda: pid_file.exists() and pid_file.read_text().strip(), f"{command[0]} did not start")
    process = int(pid_file.read_text())
    try:
        yield
    finally:
        os.kill(process, signal.SIGTERM)


def wait_for(condition, otherwise):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.01)


def free_port():
    """One that nobody has now: nbd-server listens on TCP, too, and does not pick one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def shows(name, place, export, known):
    """The runner finds these statements broken, for the known reason, and does not find fault with everything."""
    found = broken(name, "--uri", f"nbd+unix:///{export}?socket={place}", "--writable", "--timeout", "2")
    for number, why in known.items():
        assert number in found and re.search(why, found[number][1]), f"S{number}: {found.get(number)}, expected '{why}'"
    assert len(found) < 40, found


@test("what is known about qemu-nbd shows")
def _(folder):
    with running(folder / "sock", need("qemu-nbd"), "--persistent", "--shared", "0", "--format", "raw", "--export-name",
                 "disk", "--socket", folder / "sock", sparse_file(folder / "disk", SIZE)):
        shows("qemu-nbd", folder / "sock", "disk",
              {71: "bytes behind the queries", 101: "expected the connection to be closed",
               112: "WRITE .* got EINVAL, expected ENOSPC"})


@test("what is known about nbdkit shows")
def _(folder):
    with running(folder / "sock", need("nbdkit"), "--foreground", "--unix", folder / "sock", "memory", SIZE):
        shows("nbdkit", folder / "sock", "",
              {77: "expected no id twice", 117: "got ENOMEM", 134: "got EINVAL, expected success",
               140: "got ENOSPC, expected success"})


@test("what is known about nbd-server shows")
def _(folder):
    config, pid = folder / "config", folder / "pid"
    config.write_text(f"[generic]\nunixsock = {folder}/sock\nlistenaddr = 127.0.0.1\nport = {free_port()}\n"
                      f"allowlist = true\n[disk]\nexportname = {sparse_file(folder / 'disk', SIZE)}\n")
    with daemon(pid, need("nbd-server"), "-C", config, "-p", pid):
        wait_for((folder / "sock").exists, "nbd-server made no socket")
        shows("nbd-server", folder / "sock", "disk",
              {2: "then nothing for 2 s", 12: "expected the connection to be closed", 30: "got a closed connection",
               47: "then nothing for 2 s", 52: "size 0"})


if "--write" in sys.argv:
    with tempfile.TemporaryDirectory(prefix="gantry-") as place:
        PAGE.write_text(page(pathlib.Path(place)))
else:
    main()
