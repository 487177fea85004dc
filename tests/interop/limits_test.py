#!/usr/bin/python3
"""What a client may cost: an idle one next to nothing, one that has vanished its place for a while only, one host no
more places than it may have. The clients of another host live in a network namespace of their own."""
import contextlib
import itertools
import os
import pathlib
import resource
import select
import shutil
import socket
import struct
import subprocess
import sys
import time

from gantry import PATIENCE, Server, Skip, equal, main, run, test

MiB = 1 << 20
hosts = itertools.count()
HERE, THERE = "10.213.7.1", "10.213.7.2"  # the two ends of the line into the namespace


def hear(client, length):
    """So many bytes, or fewer when the server leaves."""
    heard = bytearray()
    while len(heard) < length and (piece := client.recv(length - len(heard))):
        heard += piece
    return heard


def attach(address, name=b"disk"):
    """A client that has chosen an export and asks for nothing; None when it is turned away."""
    client = socket.create_connection(address) if isinstance(address, tuple) else socket.socket(socket.AF_UNIX)
    if not isinstance(address, tuple):
        client.connect(address)
    client.settimeout(PATIENCE)
    if len(hear(client, 18)) < 18:
        return None
    client.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
    assert len(hear(client, 10)) == 10, "the export was not had"
    return client


def ask_for(client, length):
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 7, 0, length))


def read(client, length):
    ask_for(client, length)
    assert len(hear(client, 16 + length)) == 16 + length


def serve(folder, server_keys):
    config = folder / "gantry.toml"
    config.write_text(f"[server]\n{server_keys}\n[nodes.memory]\ndriver = \"memory\"\nsize = \"64M\"\n"
                      "[exports.disk]\nnode = \"memory\"\nwritable = true\n")
    return Server(["serve", config], 1, folder)


def private_memory(server):
    """Bytes that the daemon has of its own."""
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


@test("an idle connection costs at most 16 KiB, {}", "though it asked for nothing", "though it has read a MiB")
def _(folder, history):
    if "ASAN_OPTIONS" in os.environ:
        raise Skip("a sanitizer takes memory of its own")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with serve(folder, 'listen = "unix:sock"\nmax-connections = 2000\nmax-handshakes = 2000') as server:
        def more(count):
            for _ in range(count):
                clients.append(attach(server.socket()))
                if "read" in history:
                    read(clients[-1], MiB)
        clients = []
        more(200)  # what is allocated once is there now
        before = private_memory(server)
        more(1000)
        cost = (private_memory(server) - before) / 1000
        assert cost <= 16 * 1024, f"{cost:.0f} bytes for each"


@contextlib.contextmanager
def other_host():
    """A network namespace with one line to this one: gives its name."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        raise Skip("a network namespace takes root and iproute2")
    number = next(hosts)  # a namespace takes a moment to go
    name, line = f"gantry-{os.getpid()}-{number}", f"gy{os.getpid() % 1000000}-{number}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise Skip(f"no network namespace: {made.stderr.strip()}")
    try:
        run("ip", "link", "add", line, "type", "veth", "peer", "name", "line", "netns", name)
        run("ip", "addr", "add", f"{HERE}/30", "dev", line)
        run("ip", "link", "set", line, "up")
        run("ip", "-n", name, "addr", "add", f"{THERE}/30", "dev", "line")
        run("ip", "-n", name, "link", "set", "line", "up")
        yield name
    finally:
        subprocess.run(["ip", "link", "del", line], check=False)
        subprocess.run(["ip", "netns", "del", name], check=False)


class Remote:
    """A client on the other host: attached, and after that it does what `then` says and waits."""

    def __init__(self, host, port, count, then="rest"):
        self.process = subprocess.Popen(["ip", "netns", "exec", host, sys.executable, __file__, "--client", str(port),
                                         str(count), then], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        assert ready, "the client on the other host says nothing"
        self.attached = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def be_client(port, count, then):
    clients = [attach((HERE, port)) for _ in range(count)]
    attached = [client for client in clients if client is not None]
    if then == "ask":
        ask_for(attached[0], 32 * MiB)  # and never reads
    print(len(attached), flush=True)
    sys.stdin.read()


def port_of(server):
    return int(server._places["tcp"].rsplit(":", 1)[1])


@test("a host has at most 16 connections, this machine as many as there are")
def _(folder):
    with other_host() as host, serve(folder, f'listen = "tcp:0.0.0.0:0"') as server:
        with Remote(host, port_of(server), 20) as remote:
            equal(remote.attached, 16)
            local = [attach(("127.0.0.1", port_of(server))) for _ in range(40)]
            equal(None in local, False)


@test("a client that has vanished frees its place, {}", "idle", "with answers on their way")
def _(folder, doing):
    with other_host() as host, serve(folder, f'listen = "tcp:{HERE}:0"\npeer-timeout = "2s"\n'
                                     'max-connections = 1') as server:
        with Remote(host, port_of(server), 1, "rest" if doing == "idle" else "ask") as remote:
            equal(remote.attached, 1)
            equal(attach((HERE, port_of(server))), None)
            run("ip", "-n", host, "link", "set", "line", "down")  # nothing comes through, and nobody says so
            for _ in range(PATIENCE):
                if attach((HERE, port_of(server))) is not None:
                    return
                time.sleep(1)
            raise AssertionError("its place is taken for ever")


if sys.argv[1:2] == ["--client"]:
    be_client(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
else:
    main()
