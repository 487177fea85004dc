#!/usr/bin/python3
"""Rude clients, each beside a polite one whose every request succeeds. The daemon lives, and gets its memory and its
descriptors back."""
import contextlib
import itertools
import os
import pathlib
import random
import resource
import select
import struct
import subprocess
import sys
import threading
import time

import nbd

from gantry import PATIENCE, Server, equal, main, test

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from statements.command_line import parse_uri  # noqa: E402
from statements.connection import Closed, Connection, Silent  # noqa: E402
from statements.negotiation import Haggle, info_bytes, meta_bytes, option_bytes  # noqa: E402
from statements.requests import request_bytes  # noqa: E402
from statements.target import Target  # noqa: E402
from statements.wire import Command, KiB, MiB, Option  # noqa: E402

BUFFERS = 64 * MiB  # the daemon's budget for requests
SLACK = 64 * MiB  # of memory: what is no buffer, and what is kept for the next one
CLIENTS = 100  # that the daemon takes
OPTIONS = 256  # in one handshake, and two for each export
MODEST = 32 * KiB  # what a client may ask for at once and need not wait for memory that others have

CONFIGURATION = f"""
[server]
listen = ["unix:sock", "tcp:127.0.0.1:0"]
handshake-timeout = "1s"
max-connections = {CLIENTS}
max-options = {OPTIONS}
buffer-memory = "{BUFFERS // MiB}M"
max-bytes-in-flight = "16M"
[nodes.memory]
driver = "memory"
size = "64M"
[nodes.file]
driver = "file"
filename = "disk"
create = {{ size = "64M" }}
[exports.memory]
node = "memory"
writable = true
[exports.file]
node = "file"
writable = true
"""


class Polite:
    """A client with libnbd, in a process of its own: writes and reads all the time, and checks each byte."""

    def __init__(self, uri):
        self.process = subprocess.Popen([sys.executable, __file__, "--polite", uri], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.goes_on()

    def goes_on(self):
        """Returns when it has done two rounds that began after this call."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, f"the polite client was not served for {PATIENCE} s"
        line = self.process.stdout.readline()
        assert line == "verified\n", f"the polite client said {line!r} and ended with {self.process.wait(PATIENCE)}"

    def leave(self):
        self.process.stdin.close()
        equal(self.process.wait(PATIENCE), 0)

    def kill(self):
        self.process.kill()
        self.process.wait()


def be_polite(uri):
    """What a Polite runs: rounds on end; two of them between a line on standard input and the one it answers."""
    client = nbd.NBD()
    client.connect_uri(uri)
    asked, leaving = threading.Semaphore(0), threading.Event()

    def listen():
        for _ in sys.stdin:
            asked.release()
        leaving.set()

    threading.Thread(target=listen, daemon=True).start()
    number = 0
    while not leaving.is_set():
        answering = asked.acquire(blocking=False)
        for _ in range(2):
            number += 1
            offset, content = number % 61 * MiB, random.Random(number).randbytes(number * 37 % MODEST + 1)
            client.pwrite(content, offset)
            assert client.pread(len(content), offset) == content, f"round {number}: other bytes than written"
            client.flush()
        if answering:
            print("verified", flush=True)
    client.shutdown()


class Daemon:
    """A gantry with two polite clients: what rude ones do to it must not show in what is measured here."""

    def __init__(self, server, polite):
        self.server = server
        self.polite = polite
        self._addresses = [parse_uri(server.uri(over=kind))[0] for kind in ("unix", "tcp")]
        self._in_turn = itertools.cycle(self._addresses)

    def target(self, name=b"memory"):
        return Target(self._addresses[0], name, timeout=PATIENCE, writable=True)

    def connect(self):
        """By turns over the Unix socket and TCP."""
        return Connection(next(self._in_turn), PATIENCE)

    def polite_go_on(self):
        for client in self.polite:
            client.goes_on()

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.server.process.pid}/fd"))

    def memory(self, which):
        """VmRSS or VmHWM, in bytes."""
        status = pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(status.split(which + ":")[1].split()[0]) * KiB


@contextlib.contextmanager
def beside_polite_clients(folder):
    """A daemon that is as well after the block as before it."""
    config = folder / "gantry.toml"
    config.write_text(CONFIGURATION)
    with Server(["serve", config], 2, folder) as server:
        polite = []
        try:
            polite += [Polite(server.uri("file")), Polite(server.uri("memory", over="tcp"))]
            daemon = Daemon(server, polite)
            descriptors, memory = daemon.descriptors(), daemon.memory("VmRSS")
            yield daemon
            daemon.polite_go_on()
            late = daemon.target().attach()
            late.in_step("rude clients")
            late.connection.close()
            wait_until(lambda: daemon.descriptors() == descriptors,
                       lambda: f"{daemon.descriptors()} descriptors are open, expected {descriptors}")
            if not sanitized():
                peak, after = daemon.memory("VmHWM"), daemon.memory("VmRSS")
                assert peak < memory + BUFFERS + SLACK, f"the daemon took {peak // MiB} MiB"
                assert after < memory + SLACK, f"the daemon keeps {after // MiB} MiB"
            for client in polite:
                client.leave()
        finally:
            for client in polite:
                client.kill()


def sanitized():
    """Sanitizers keep what was freed."""
    return "ASAN_OPTIONS" in os.environ


def wait_until(condition, otherwise):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.01)


CONVERSATION = [  # of a client that uses everything, message by message
    struct.pack(">I", 3),
    option_bytes(Option.LIST),
    option_bytes(Option.STRUCTURED_REPLY),
    option_bytes(Option.SET_META_CONTEXT, meta_bytes(b"memory", b"base:allocation")),
    option_bytes(Option.INFO, info_bytes(b"memory", [1, 2, 3])),
    option_bytes(Option.GO, info_bytes(b"memory", [3])),
    request_bytes(Command.READ, 0, 4096, cookie=1),
    request_bytes(Command.WRITE, 63 * MiB, 32, cookie=2) + bytes(32),
    request_bytes(Command.BLOCK_STATUS, 0, MiB, cookie=3),
    request_bytes(Command.WRITE_ZEROES, 63 * MiB, 4096, cookie=4),
    request_bytes(Command.FLUSH, cookie=5),
    request_bytes(Command.DISC, cookie=6),
]


def ended(connection):
    """The server closes, whatever it says before."""
    assert connection.wait_closed(PATIENCE), "the connection is still open"
    connection.close()


@test("clients that say nothing are dropped, and delay nobody")
def _(folder):
    with beside_polite_clients(folder) as daemon:
        silent = [daemon.connect() for _ in range(20)]
        daemon.polite_go_on()
        for connection in silent:
            ended(connection)


@test("a client that sends one byte at a time is served")
def _(folder):
    with beside_polite_clients(folder) as daemon:
        connection = daemon.connect()
        connection.send_bytewise(b"".join(CONVERSATION))
        daemon.polite_go_on()
        said = connection.receive_all()
        equal(said.count(struct.pack(">Q", 0x0003E889045565A9)) >= 6, True)
        equal(struct.pack(">I", 0x67446698) + bytes(4) + struct.pack(">Q", 5) in said, True)
        connection.close()


@test("a client may leave at every byte of every message")
def _(folder):
    with beside_polite_clients(folder) as daemon:
        start = b""
        for message in CONVERSATION:
            for length in range(len(message)):
                connection = daemon.connect()
                connection.send(start + message[:length])
                connection.close()
            start += message
            daemon.polite_go_on()


@test("garbage ends a connection, wherever it comes")
def _(folder):
    lots = random.Random(1)
    with beside_polite_clients(folder) as daemon:
        for start in b"", CONVERSATION[0], b"".join(CONVERSATION[:6]), b"".join(CONVERSATION[:10]):
            for _ in range(50):
                connection = daemon.connect()
                connection.send(start + lots.randbytes(lots.randint(40, 5000)))
                ended(connection)
            daemon.polite_go_on()


@test("a client that only stops sending gets its answers, and the end")
def _(folder):
    with beside_polite_clients(folder) as daemon:
        for messages in range(len(CONVERSATION)):
            connection = daemon.connect()
            connection.send(b"".join(CONVERSATION[:messages]))
            connection.end_of_sending()
            ended(connection)
        session = daemon.target(b"file").attach()
        cookies = session.send_reads(200 * [(0, 64 * KiB)])
        session.connection.end_of_sending()
        for cookie in cookies:
            equal(len(session.answer(cookie).content()), 64 * KiB)
        session.connection.expect_close("the last answer")


@test("who never reads the answers is not read, either, and takes bounded memory")
def _(folder):
    with beside_polite_clients(folder) as daemon:
        sessions = [daemon.target(name).attach_simple() for name in 4 * (b"memory", b"file")]
        flood = request_bytes(Command.READ, 0, 1 * MiB, cookie=1) * 50_000
        for session in sessions:
            session.connection.timeout = 0.2
            try:
                session.connection.send(flood)
            except Silent:
                continue
            raise AssertionError("50,000 reads of 1 MiB were taken from a client that reads nothing")
        daemon.polite_go_on()
        for session in sessions:
            session.connection.close()


@test("a thousand clients at once are served or turned away, and those who are there stay")
def _(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with beside_polite_clients(folder) as daemon:
        crowd = [daemon.connect() for _ in range(1000)]
        daemon.polite_go_on()
        for connection in crowd:
            ended(connection)


@test("endless options have an end")
def _(folder):
    with beside_polite_clients(folder) as daemon:
        for option, data in (Option.LIST, b""), (99, bytes(1000)), (Option.INFO, info_bytes(b"nothing")):
            haggle, count = Haggle(daemon.connect()), 0
            with contextlib.suppress(Closed):
                while count <= 2 * OPTIONS:
                    haggle.ask(option, data)
                    count += 1
            equal(count, OPTIONS + 2 * 2)
            haggle.connection.close()


@test("who connects and leaves at once costs nothing")
def _(folder):
    with beside_polite_clients(folder) as daemon:
        for _ in range(5):
            for _ in range(400):
                daemon.connect().close()
            daemon.polite_go_on()


@test("a flood of writes larger than the memory for them is taken as it can be")
def _(folder):
    with beside_polite_clients(folder) as daemon:
        floods = [threading.Thread(target=flood, args=[daemon.target(name)]) for name in 4 * (b"memory", b"file")]
        for thread in floods:
            thread.start()
        while any(thread.is_alive() for thread in floods):
            daemon.polite_go_on()
        equal(failures, [])


failures = []


def flood(target):
    """64 MiB of writes, all sent before an answer is read; they must succeed."""
    try:
        session = target.attach()
        # the bytes that are there, so that the polite clients' stay; nobody else writes behind 62 MiB
        cookies = [session.send(Command.WRITE, 62 * MiB, 1 * MiB, payload=bytes(1 * MiB)) for _ in range(64)]
        equal({session.answer(cookie).error for cookie in cookies}, {0})
        session.connection.close()
    except Exception as error:  # the main thread tells
        failures.append(repr(error))


@test("writes whose bytes never come lose their memory to those who send theirs")
def _(folder):
    with beside_polite_clients(folder) as daemon:
        sessions = [daemon.target(name).attach() for name in 2 * (b"memory", b"file")]
        for session in sessions:  # together they have all the memory
            session.send(Command.WRITE, 0, 16 * MiB, payload=bytes(64 * KiB))
        daemon.polite_go_on()
        flood(daemon.target())
        equal(failures, [])
        for session in sessions:
            session.connection.close()


if sys.argv[1] == "--polite":
    be_polite(sys.argv[2])
else:
    main()
