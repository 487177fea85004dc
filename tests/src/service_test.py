#!/usr/bin/env python3
"""service_test.py GANTRY: the built program as a part of a system: systemd's sockets and messages, signals, who may
connect, its log."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from program import (CONFIGS, GANTRY, LIMIT, Client, Folder, Running, Tap, disk, expect,  # noqa: E402
                     expect_failure)

NULL = "[nodes.n]\ndriver = 'null-co'\nsize = '1M'\n[exports.disk]\nnode = 'n'\nwritable = true\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def enters(port, source):
    """What a client with this address sees: True for the greeting, False when it is left without a word."""
    with socket.socket() as client:
        client.settimeout(LIMIT)
        client.bind((source, 0))
        client.connect(("127.0.0.1", port))
        try:
            data = client.recv(16)
        except ConnectionResetError:
            data = b""
        assert data in (b"", b"NBDMAGICIHAVEOPT"), data
        return bool(data)


class Manager:
    """The end of a service manager that NOTIFY_SOCKET names."""

    def __init__(self, folder, abstract=False):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(LIMIT)
        name = f"{folder.path}/notify"
        self._socket.bind("\0" + name if abstract else name)
        self.environment = {"NOTIFY_SOCKET": "@" + name if abstract else name}
        self.heard = []

    def hear(self, wanted):
        """The next message with this line in it; those before it are kept in `heard`."""
        while True:
            message = self._socket.recv(4096).decode()
            self.heard.append(message)
            if wanted in message.splitlines():
                return message


def allow_lists(tap):
    with tap.fact("a listener lets in who is on its list, and leaves others without a word"), Folder() as folder:
        listen = "[{ tcp = '127.0.0.1:0', allow = ['127.0.0.2', '127.0.1.0/24'] }]"
        with Running(folder, "serve", folder.config(disk(listen))) as server:
            got = {address: enters(server.port, address)
                   for address in ("127.0.0.2", "127.0.1.77", "127.0.0.1", "127.0.0.20", "127.0.2.1")}
            expect("who enters", [address for address, entered in got.items() if entered],
                   ["127.0.0.2", "127.0.1.77"])
            server.send()
            server.end()
        assert re.search(r"info: client 127\.0\.0\.20:\d+: refused, tcp:127\.0\.0\.1:\d+ does not allow it\n",
                         server.log), server.log
    with tap.fact("a flood of refused clients does not flood the log, and is counted"), Folder() as folder:
        with Running(folder, "serve", folder.config(disk("{ tcp = '127.0.0.1:0', allow = ['10.0.0.0/8'] }"))) as server:
            for _ in range(50):
                assert not enters(server.port, "127.0.0.1")
            server.send()
            server.end()
        lines = server.log.count(": refused, ")
        more = sum(map(int, re.findall(r"(\d+) more clients were refused", server.log)))
        assert lines <= 10, server.log
        expect("refused in all", lines + more, 50)


def unix_sockets(tap):
    with tap.fact("a Unix socket has its mode and group from its first moment on"), Folder() as folder:
        group = os.getgroups()[-1] if os.getgroups() else os.getgid()
        listen = f"{{ unix = 's', mode = '0620', group = '{group}' }}"
        with Running(folder, "serve", folder.config(disk(listen))) as server:
            status = (folder.path / "s").stat()
            expect("mode", stat.S_IMODE(status.st_mode), 0o620)
            expect("group", status.st_gid, group)
            server.send()
            expect("exit status", server.end()[0], 0)
    with tap.fact("the log says which process, user and group a client of a Unix socket is"), Folder() as folder:
        with Running(folder, "serve", folder.config(disk("'unix:s'"))) as server:
            Client(str(folder.path / "s"), "disk")
            server.wait_for(f"client unix pid {os.getpid()} uid {os.getuid()} gid {os.getgid()}: attached")
    with tap.fact("a missing folder is named"), Folder() as folder:
        expect_failure(folder.run("serve", folder.config(disk("'unix:/nowhere/x.sock'"))),
                       "a.toml:2:1: cannot listen on unix:/nowhere/x.sock: No such file or directory: the folder "
                       "'/nowhere' does not exist")
    if os.getuid() == 0:
        with tap.fact("a lacking privilege is named"), Folder() as folder:
            folder.path.chmod(0o777)
            folder.image.chmod(0o666)
            result = subprocess.run([GANTRY, "serve", folder.config(disk("{ unix = 's', owner = 'root' }"))],
                                    cwd=folder.path, capture_output=True, text=True, timeout=LIMIT, user=65534,
                                    group=65534, extra_groups=[])
            expect("stderr", result.stderr,
                   "a.toml:2:12: cannot listen on unix:s: Operation not permitted: giving the socket to user 'root' "
                   "needs root or the capability CAP_CHOWN\n")
            assert not (folder.path / "s").exists()
    else:
        tap.skip("a lacking privilege is named", "needs root, to do without it")
    with tap.fact("of several servers that find one stale socket, one gets it"), Folder() as folder:
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as gone:
                gone.bind(str(folder.path / "s"))
            name = folder.config("[server]\nlisten = 'unix:s'\n" + NULL)
            servers = [subprocess.Popen([GANTRY, "serve", name], cwd=folder.path, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True) for _ in range(4)]
            try:
                end = time.monotonic() + LIMIT
                while sum(server.poll() is None for server in servers) > 1:
                    assert time.monotonic() < end, "more than one goes on"
                    time.sleep(0.01)
                losers = [server for server in servers if server.poll() is not None]
                expect("losers", len(losers), 3)
                for loser in losers:
                    assert loser.communicate()[1].endswith("unix:s: Address already in use\n")
                Client(str(folder.path / "s"), "disk")
            finally:
                for server in servers:
                    if server.poll() is None:
                        server.send_signal(signal.SIGTERM)
                        expect("exit status", server.wait(LIMIT), 0)
                    server.communicate()


def vsock(tap):
    name = "a client of vsock is served"
    try:
        with socket.socket(socket.AF_VSOCK) as listener, socket.socket(socket.AF_VSOCK) as caller:
            listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
            listener.listen()
            caller.settimeout(2)
            caller.connect((1, listener.getsockname()[1]))
    except OSError as problem:
        tap.skip(name, f"this kernel has no vsock_loopback: {problem}")
        return
    with tap.fact(name), Folder() as folder:
        with Running(folder, "serve", folder.config(disk("{ vsock = 'any:0', allow = [1] }"))) as server:
            port = int(re.search(r"listening on vsock:any:(\d+)", server.log)[1])
            with socket.socket(socket.AF_VSOCK) as client:
                client.settimeout(LIMIT)
                client.connect((1, port))
                expect("greeting", client.recv(8), b"NBDMAGIC")


def includes(tap):
    with tap.fact("exports of included files are served"), Folder() as folder:
        (folder.path / "exports.d").mkdir()
        folder.config("[exports.more]\nnode = 'disk'\n", "exports.d/more.toml")
        name = folder.config("include = ['exports.d/*.toml']\n" + disk("'unix:s'"))
        with Running(folder, "serve", name):
            Client(str(folder.path / "s"), "more")
    with tap.fact("a name defined twice names both places, and nothing listens"), Folder() as folder:
        folder.config("\n[exports.disk]\nnode = 'disk'\n", "b.toml")
        name = folder.config("include = ['b.toml']\n" + disk("'unix:s'"))
        expect_failure(folder.run("serve", name),
                       "b.toml:2:10: 'exports.disk' is defined twice, first at a.toml:10:10")
        assert not (folder.path / "s").exists()


def json_log(tap):
    with tap.fact("with log-format = \"json\" each line of the log is an object, errors included"), Folder() as folder:
        text = disk("'unix:s'").replace("[server]", "[server]\nlog-format = 'json'\nlog-level = 'debug'")
        with Running(folder, "serve", folder.config(text)) as server:
            Client(str(folder.path / "s"), "disk").write(0, b"x")
            server.send()
            server.end()
        entries = [json.loads(line) for line in server.log.splitlines()]
        attached, = (entry for entry in entries if ": attached to " in entry["message"])
        expect("export", attached["export"], "disk")
        assert attached["connection"].startswith(f"unix pid {os.getpid()} "), attached
        for line, entry in zip(server.log.splitlines(), entries):
            assert {"time", "level", "message"} <= entry.keys(), line
            assert entry.keys() <= {"time", "level", "message", "connection", "export", "request"}, line
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]), line
        folder.image.unlink()
        line, = folder.run("serve", folder.config(text)).stderr.splitlines()
        expect("level", json.loads(line)["level"], "error")


def handed_over(tap):
    if not shutil.which("systemd-socket-activate"):
        tap.skip("sockets of systemd", "systemd-socket-activate is not installed")
        return
    with tap.fact("a listening socket of systemd is served when nothing else is wanted"), Folder() as folder:
        port = free_port()
        under = ("systemd-socket-activate", "-l", f"127.0.0.1:{port}")
        name = folder.config("[server]\n" + NULL)
        with Running(folder, "serve", name, listeners=0, under=under) as server:
            server.wait_for("Listening on ")
            Client(("127.0.0.1", port), "disk").write(0, b"x")
            server.wait_for(f"listening on tcp:127.0.0.1:{port}")
            Client(("127.0.0.1", port), "disk").write(0, b"x")
            server.send()
            expect("exit status", server.end()[0], 0)
    with tap.fact("sockets of systemd are found by their name, and keep out whom the list does not allow"), \
            Folder() as folder:
        port = free_port()
        under = ("systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-l", str(folder.path / "s"),
                 "--fdname=nbd:admin")
        name = folder.config("[server]\nlisten = [{ systemd = 'nbd', allow = ['127.0.0.2'] }, 'systemd:admin']\n"
                             + NULL)
        with Running(folder, "serve", name, listeners=0, under=under) as server:
            server.wait_for("Listening on ", 2)
            assert not enters(port, "127.0.0.1")
            assert enters(port, "127.0.0.2")
            Client(str(folder.path / "s"), "disk")
            server.send()
            expect("exit status", server.end()[0], 0)
        assert (folder.path / "s").exists(), "the file of a socket that is not ours is not ours to remove"
    with tap.fact("--accept: each process serves one connection and ends with it"), Folder() as folder:
        port = free_port()
        under = ("systemd-socket-activate", "--accept", "-l", f"127.0.0.1:{port}")
        name = folder.config("[server]\n" + NULL)
        with Running(folder, "serve", name, listeners=0, under=under) as server:
            server.wait_for("Listening on ")
            for _ in range(2):
                client = Client(("127.0.0.1", port), "disk")
                client.write(0, b"x")
                client.close()
            server.wait_for("info: stopped", 2)
    for listen, why in (("'systemd'", "systemd has handed over no socket (LISTEN_FDS); is there a socket unit?"),
                        ("'systemd:nbd'", "systemd has handed over no socket with FileDescriptorName=nbd")):
        with tap.fact(f"listen = {listen} without such a socket is a mistake"), Folder() as folder:
            expect_failure(folder.run("serve", folder.config(disk(listen))),
                           f"a.toml:2:1: cannot listen on {listen[1:-1]}: {why}")
    with tap.fact("a datagram socket is refused"), Folder() as folder:
        port = free_port()
        # it is started by the first datagram
        under = ("systemd-socket-activate", "--datagram", "-l", f"127.0.0.1:{port}")
        with Running(folder, "serve", folder.config("[server]\n" + NULL), listeners=0, under=under) as server:
            server.wait_for("Listening on ")
            with socket.socket(type=socket.SOCK_DGRAM) as client:
                client.sendto(b"x", ("127.0.0.1", port))
            expect("exit status", server.end()[0], 1)
        assert "from the service manager is no stream socket: NBD needs ListenStream=\n" in server.log, server.log


def messages(tap):
    for abstract in (False, True):
        kind = "an abstract name" if abstract else "a file"
        with tap.fact(f"systemd hears when the daemon is ready and when it stops, through {kind}"), Folder() as folder:
            manager = Manager(folder, abstract)
            with Running(folder, "serve", folder.config(disk("'unix:s'")), environment=manager.environment) as server:
                expect("ready", manager.hear("READY=1"), "STATUS=1 export on unix:s\nREADY=1\n")
                expect("nothing before", len(manager.heard), 1)
                Client(str(folder.path / "s"), "disk")
                server.send()
                manager.hear("STOPPING=1")
                expect("exit status", server.end()[0], 0)
    with tap.fact("a daemon that could not start is never ready"), Folder() as folder:
        manager = Manager(folder)
        manager._socket.setblocking(False)
        result = subprocess.run([GANTRY, "serve", folder.config(disk("'unix:/nowhere/s'"))], cwd=folder.path,
                                capture_output=True, timeout=LIMIT, env=os.environ | manager.environment)
        expect("exit status", result.returncode, 1)
        try:
            assert "READY=1" not in manager._socket.recv(4096).decode()
        except BlockingIOError:
            pass
    with tap.fact("the watchdog hears of the daemon as long as it lives"), Folder() as folder:
        manager = Manager(folder)
        environment = manager.environment | {"WATCHDOG_USEC": "200000"}
        with Running(folder, "serve", folder.config(disk("'unix:s'")), environment=environment) as server:
            for _ in range(5):
                manager.hear("WATCHDOG=1")
            server.send()
            manager.hear("STOPPING=1")
            expect("exit status", server.end()[0], 0)


def reloading(tap):
    with tap.fact("SIGHUP reads log-level and allow again, between RELOADING and READY"), Folder() as folder:
        manager = Manager(folder)
        text = disk("[{ tcp = '127.0.0.1:0', allow = ['127.0.0.2'] }, 'unix:s']")
        name = folder.config(text)
        with Running(folder, "serve", name, listeners=2, environment=manager.environment) as server:
            manager.hear("READY=1")
            assert not enters(server.port, "127.0.0.1")
            folder.config(text.replace("127.0.0.2", "127.0.0.1").replace("[server]", "[server]\nlog-level = 'debug'"))
            server.send(signal.SIGHUP)
            reloading_message = manager.hear("RELOADING=1")
            assert re.search(r"^MONOTONIC_USEC=[1-9]\d*$", reloading_message, re.M), reloading_message
            manager.hear("READY=1")
            assert enters(server.port, "127.0.0.1")
            assert not enters(server.port, "127.0.0.2")
            server.wait_for("debug: ")
            server.send()
            expect("exit status", server.end()[0], 0)
        assert "takes effect at the next start" not in server.log, server.log
    with tap.fact("SIGHUP names what it can't change"), Folder() as folder:
        name = folder.config(disk("'unix:s'"))
        with Running(folder, "serve", name) as server:
            folder.config(disk("'unix:t'", "false"))
            server.send(signal.SIGHUP)
            server.wait_for("SIGHUP: listen, exports.disk: changed, takes effect at the next start\n")
            Client(str(folder.path / "s"), "disk").write(0, b"x")
    with tap.fact("SIGHUP with a broken file is one line, and nothing changes"), Folder() as folder:
        name = folder.config(disk("'unix:s'"))
        with Running(folder, "serve", name) as server:
            folder.config(disk("'unix:s'").replace("writable", "writeable"))
            before = server.log
            server.send(signal.SIGHUP)
            server.wait_for("error: SIGHUP: ")
            (folder.path / "a.toml").unlink()
            server.send(signal.SIGHUP)
            server.wait_for("error: SIGHUP: ", 2)
            Client(str(folder.path / "s"), "disk").write(0, b"x")
            server.wait_for(": attached")
        lines = server.log[len(before):].splitlines()
        assert lines[0].endswith("error: SIGHUP: nothing is changed: a.toml:11:1: unknown key 'writeable', did you "
                                 "mean 'writable'?"), lines
        assert lines[1].endswith("error: SIGHUP: nothing is changed: a.toml: No such file or directory"), lines
        expect("lines", len(lines), 3)
    with tap.fact("SIGHUP at any moment never ends the daemon"), Folder() as folder:
        name = folder.config("[server]\nlisten = 'unix:s'\n" + NULL)
        for delay in range(20):
            process = subprocess.Popen([GANTRY, "serve", name], cwd=folder.path, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)
            blocked = wait_until_blocked(process.pid)
            assert blocked, "SIGHUP is not blocked"
            time.sleep(delay / 1000)
            for _ in range(5):
                process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            for _ in range(50):
                process.send_signal(signal.SIGHUP)
            _, log = process.communicate(timeout=LIMIT)
            expect("exit status", process.returncode, 0)
    with tap.fact("SIGHUP without a configuration file does nothing"), Folder() as folder:
        with Running(folder, "export", "disk.img", "--listen", "unix:s") as server:
            server.send(signal.SIGHUP)
            server.wait_for("SIGHUP: there is no configuration file to read again")
            Client(str(folder.path / "s"), "")


def wait_until_blocked(pid):
    """A daemon that has begun has SIGHUP blocked: until then it is the program loader that a signal meets."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        blocked = int(re.search(r"^SigBlk:\s*(\w+)", status, re.M)[1], 16)
        if blocked >> (signal.SIGHUP - 1) & 1:
            return True
    return False


def stopping(tap):
    slow = ("[server]\nlisten = 'unix:s'\ndrain-timeout = '100ms'\n[nodes.slow]\ndriver = 'null-co'\nlatency = '1h'\n"
            "[exports.disk]\nnode = 'slow'\nwritable = true\n")
    with tap.fact("a stop is bounded, and says which clients and exports it cut off"), Folder() as folder:
        with Running(folder, "serve", folder.config(slow)) as server:
            client = Client(str(folder.path / "s"), "disk")
            request = struct.Struct(">LHHQQL")
            client._socket.sendall(request.pack(0x25609513, 0, 0, 7, 0, 512))
            client._socket.sendall(request.pack(0x25609513, 0, 0, 8, 0, 0))  # takes no time: the first is under way
            expect("reply", struct.unpack(">LLQ", client._read(16)), (0x67446698, 0, 8))
            server.send()
            expect("exit status", server.end()[0], 1)
        assert re.search(r"warning: client unix pid \d+ .*: cut off, its requests took too long\n", server.log), server.log
        assert "error: export 'disk': cut off, its medium does not answer;" in server.log, server.log


def unit_file(tap):
    if not shutil.which("systemd-analyze"):
        tap.skip("the unit files are valid", "systemd-analyze is not installed")
        return
    with Folder() as folder:
        unit = (CONFIGS / "gantry.service").read_text()
        (folder.path / "gantry.service").write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={GANTRY}", unit, flags=re.M))
        (folder.path / "gantry.socket").write_text((CONFIGS / "gantry.socket").read_text())
        with tap.fact("systemd-analyze verify finds nothing in the unit files"):
            result = subprocess.run(["systemd-analyze", "verify", "./gantry.service", "./gantry.socket"],
                                    cwd=folder.path, capture_output=True, text=True, timeout=LIMIT)
            expect("what it says", result.stderr + result.stdout, "")
            expect("exit status", result.returncode, 0)
        with tap.fact("systemd-analyze security rates the exposure of the service at most 2.0"):
            result = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=20",
                                     "./gantry.service"], cwd=folder.path, capture_output=True, text=True,
                                    timeout=LIMIT)
            assert result.returncode == 0, result.stdout


def main():
    tap = Tap()
    for part in (allow_lists, unix_sockets, vsock, includes, json_log, handed_over, messages, reloading, stopping,
                 unit_file):
        part(tap)
    tap.plan()
    return 1 if tap.failures else 0


sys.exit(main())
