#!/usr/bin/env python3
"""program_test.py GANTRY: the built program from outside: what is typed, what it prints, how it ends."""
import os
import pathlib
import re
import signal
import socket
import struct
import sys
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from program import (CONFIGS, GANTRY, LIMIT, SIZE, Client, Folder, Running, Tap, disk, expect,  # noqa: E402
                     expect_failure, gantry)


def words_and_status(tap):
    with tap.fact("--version names the program and its version"):
        result = gantry("--version")
        expect("stdout", result.stdout, "gantry 0.1.0\n")
        expect("exit status", result.returncode, 0)
    with tap.fact("help lists the commands, and explains each"):
        text = gantry("help").stdout
        for command in ("serve", "export", "create", "check", "info", "graph", "ctl"):
            assert re.search(rf"^  {command}\b", text, re.M), text
            for words in (("help", command), (command, "--help")):
                result = gantry(*words)
                expect("exit status", result.returncode, 0)
                assert "Usage:" in result.stdout, result.stdout
    with tap.fact("commands that do not exist yet are not there"):
        for command in ("list", "map", "resize", "bench", "attach"):
            expect(command, gantry(command).returncode, 2)
    for words in ([], ["nonsense"], ["serve"], ["graph"], ["export"], ["serve", "a", "b"],
                  ["serve", "--nonsense", "a"], ["export", "x", "--size", "1X"],
                  ["export", "x", "--offset", "-1"], ["export", "x", "--listen", "10809"],
                  ["export", "x", "--max-connections", "0"], ["export", "x", "--format", "nonsense"],
                  ["export", "x", "--description", "d" * 4097], ["help", "nonsense"], ["ctl"],
                  ["ctl", "s"], ["ctl", "s", "quit", "[1]"], ["ctl", "s", "quit", "{"], ["ctl", "s" * 200, "quit"],
                  ["ctl", "s", "quit", "{}", "more"]):
        with tap.fact(f"wrong use ends with status 2: {' '.join(words)[:40] or '(nothing)'}"):
            result = gantry(*words)
            expect("exit status", result.returncode, 2)
            expect("stdout", result.stdout, "")
            assert result.stderr
    with tap.fact("--format names the formats there are"):
        assert "known are: qcow2, raw" in gantry("export", "x", "--format", "nonsense").stderr


BAD = {
    "a syntax error": ("[server\n", r"a\.toml:1:\d+: .+"),
    "an unknown key": ("[server]\nlog-lvel = 'info'\n",
                       r"a\.toml:2:1: unknown key 'log-lvel', did you mean 'log-level'\?"),
    "an unknown key of a driver": (disk("'unix:s'").replace("filename", "filenam"),
                                   r"a\.toml:5:1: unknown key 'filenam', did you mean 'filename'\?"),
    "a wrong type": (disk("7"), r"a\.toml:2:1: 'listen': expected a string, a table or a list of them, not an integer"),
    "a missing node": (disk("'unix:s'").replace('file = "file"', 'file = "fil"'),
                       r"a\.toml:8:1: disk: there is no node 'fil', did you mean 'file'\?"),
    "a cycle": (disk("'unix:s'").replace('file = "file"', 'file = "disk"'),
                r"a\.toml:8:1: the nodes form a cycle: 'disk' -> 'disk'"),
    "a name used twice": (disk("'unix:s'") + "[nodes.disk]\ndriver = 'memory'\n", r"a\.toml:12:\d+: .+"),
    "a permission conflict": (disk("'unix:s'").replace('driver = "raw"', 'driver = "raw"\nread-only = true'),
                              r"a\.toml:10:1: .+read-only.*"),
    "a missing image": (disk("'unix:s'").replace("disk.img", "gone.img"),
                        r"a\.toml:5:1: .*gone\.img.*No such file or directory"),
    "an export of an unknown node": (disk("'unix:s'").replace('node = "disk"', 'node = "disc"'),
                                     r"a\.toml:10:1: export 'disk': there is no node 'disc', did you mean 'disk'\?"),
    "a name of more than 31 characters": (f"[nodes.{'n' * 32}]\ndriver = 'memory'\n",
                                          r"a\.toml:1:1: 'n+' is no node name: .+"),
    "a window that leaves its node": (disk("'unix:s'") + "offset = '1M'\nsize = 1\n", r"a\.toml:13:1: export 'disk': .+"),
    "no exports": ("[server]\nlisten = 'unix:s'\n", r"a\.toml: there is no export: .+"),
}


def bad_configurations(tap):
    for what, (text, wanted) in BAD.items():
        with tap.fact(f"{what} is one line with its place, and nothing listens"), Folder() as folder:
            name = folder.config(text)
            for words in (("serve", name), ("serve", name, "--check")):
                result = folder.run(*words)
                expect("exit status", result.returncode, 1)
                assert re.fullmatch(wanted + "\n", result.stderr), result.stderr
                expect("stdout", result.stdout, "")
                assert not (folder.path / "s").exists()
    with tap.fact("a mistake anywhere is found before an image is created"), Folder() as folder:
        name = folder.config("[nodes.a]\ndriver = 'file'\nfilename = 'new.img'\ncreate.size = '1M'\n"
                             "[nodes.b]\ndriver = 'memory'\nsiez = 1\n")
        expect("exit status", folder.run("serve", name).returncode, 1)
        assert not (folder.path / "new.img").exists()
    with tap.fact("a file that is not there is a failure"):
        expect_failure(gantry("serve", "/nowhere/a.toml"), "/nowhere/a.toml: No such file or directory")
    with tap.fact("a port in use is named with its place"), Folder() as folder, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        name = folder.config(disk(f"['unix:s',\n  'tcp:127.0.0.1:{port}']"))
        expect_failure(folder.run("serve", name),
                       f"a.toml:3:3: cannot listen on tcp:127.0.0.1:{port}: Address already in use")
        assert not (folder.path / "s").exists()


def checking_and_drawing(tap):
    with tap.fact("--check prints the graph and the exports, and nothing listens"), Folder() as folder:
        result = folder.run("serve", folder.config(disk("'unix:s'")), "--check")
        expect("exit status", result.returncode, 0)
        expect("stderr", result.stderr, "")
        assert "\n    file -> file (window): takes consistent read, write;" in result.stdout, result.stdout
        assert "\n  'disk' -> disk: 1M, writable\n" in result.stdout, result.stdout
        assert not (folder.path / "s").exists()
    with tap.fact("graph prints valid dot, whatever the names"), Folder() as folder:
        text = disk("'unix:s'") + "[exports.'a\"b\\c']\nnode = 'disk'\n"
        result = folder.run("graph", folder.config(text))
        expect("exit status", result.returncode, 0)
        expect("nodes", check_dot(result.stdout),
               {"node disk", "node file", "export disk", 'export a"b\\\\c'})


def check_dot(text):
    """The nodes of a digraph in the part of Graphviz's language that is used here."""
    string = r'"((?:[^"\\]|\\.)*)"'
    attributes = rf"\[\w+=(?:{string}|\w+)(?:, \w+=(?:{string}|\w+))*\]"
    lines = text.splitlines()
    expect("first line", lines[0], "digraph gantry {")
    expect("last line", lines[-1], "}")
    nodes, ends = set(), set()
    for line in lines[1:-1]:
        if re.fullmatch(rf"  (node|edge) {attributes};", line):
            continue
        node = re.fullmatch(rf"  {string} {attributes};", line)
        edge = re.fullmatch(rf"  {string} -> {string} {attributes};", line)
        assert node or edge, line
        if node:
            nodes.add(node[1])
        else:
            ends |= {edge[1], edge[2]}
    assert ends <= nodes, ends - nodes
    return {name.replace('\\"', '"') for name in nodes}


def serving(tap):
    with tap.fact("serve says where it listens and how to attach"), Folder() as folder:
        name = folder.config(disk("['unix:s', 'tcp:127.0.0.1:0', 'tcp:[::1]:0']"))
        with Running(folder, "serve", name, listeners=3) as server:
            server.send()
            status, out = server.end()
        expect("exit status", status, 0)
        path = f"{os.path.realpath(folder.path)}/s"
        for line in (f"nbdinfo 'nbd+unix:///disk?socket={path}'", f"nbd-client -unix {path} /dev/nbd0 -N disk",
                     f"nbdinfo nbd://127.0.0.1:{server.port}/disk",
                     f"nbd-client 127.0.0.1 {server.port} /dev/nbd0 -N disk",
                     f"qemu-img info nbd://127.0.0.1:{server.port}/disk"):
            assert f"  {line}\n" in out, out
        assert "listening on unix:s\n" in server.log, server.log
        assert re.search(r"listening on tcp:\[::1\]:[1-9]\d*\n", server.log), server.log
    for number in (signal.SIGTERM, signal.SIGINT):
        with tap.fact(f"{number.name} keeps what was written and ends with status 0"), Folder() as folder:
            with Running(folder, "serve", folder.config(disk("'unix:s'"))) as server:
                client = Client(str(folder.path / "s"), "disk")
                client.write(4096, b"x" * 4096)
                server.send(number)
                status, _ = server.end()
                assert client.at_end()
            expect("exit status", status, 0)
            expect("content", folder.image.read_bytes()[4096:8192], b"x" * 4096)
            assert not (folder.path / "s").exists()
    with tap.fact("a second signal ends a stop that takes long, at once"), Folder() as folder:
        text = ("[server]\nlisten = 'tcp:127.0.0.1:0'\ndrain-timeout = '1h'\n"
                "[nodes.slow]\ndriver = 'null-co'\nlatency = '1h'\n"
                "[exports.disk]\nnode = 'slow'\nwritable = true\n")
        with Running(folder, "serve", folder.config(text)) as server:
            client = Client(("127.0.0.1", server.port), "disk")
            client._socket.sendall(struct.pack(">LHHQQL", 0x25609513, 0, 0, 7, 0, 512))
            server.send()
            server.wait_for("SIGTERM: stopping")
            server.send()
            status, _ = server.end()
        expect("exit status", status, 1)
    with tap.fact("the socket file of a server that is gone is replaced"), Folder() as folder:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(folder.path / "s"))
        with Running(folder, "serve", folder.config(disk("'unix:s'"))) as server:
            Client(str(folder.path / "s"), "disk")
            server.send()
            expect("exit status", server.end()[0], 0)
    with tap.fact("a socket that somebody serves is refused and left alone"), Folder() as folder:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(folder.path / "s"))
            other.listen()
            expect_failure(folder.run("serve", folder.config(disk("'unix:s'"))),
                           "a.toml:2:1: cannot listen on unix:s: Address already in use")
            assert (folder.path / "s").exists()
    with tap.fact("a file that is no socket is left alone"), Folder() as folder:
        (folder.path / "s").write_text("precious")
        expect_failure(folder.run("serve", folder.config(disk("'unix:s'"))),
                       "a.toml:2:1: cannot listen on unix:s: Address already in use")
        expect("content", (folder.path / "s").read_text(), "precious")
    if not is_sanitized():
        with tap.fact("a server that is out of descriptors goes on when there are some again"), Folder() as folder:
            name = folder.config(disk("'tcp:127.0.0.1:0'"))
            with Running(folder, "serve", name) as server:
                limit_descriptors(server._process.pid, spare=0)
                waiting = socket.create_connection(("127.0.0.1", server.port), LIMIT)
                server.wait_for("no new connections for a while: Too many open files")
                limit_descriptors(server._process.pid, spare=8)
                expect("greeting", waiting.recv(8), b"NBDMAGIC")
                server.send()
                expect("exit status", server.end()[0], 0)
        with tap.fact("a worker's first client, and the stop, need no descriptors but its own"), Folder() as folder:
            name = folder.config(disk("'unix:s'\nio-engine = 'threads'"))
            with Running(folder, "serve", name) as server:
                limit_descriptors(server._process.pid, spare=1)
                Client(str(folder.path / "s"), "disk")
                server.send()
                expect("exit status", server.end()[0], 0)


def is_sanitized():
    """UBSan opens a pipe to look at an object's type, and takes it for corrupt without descriptors."""
    return b"__ubsan_handle" in pathlib.Path(GANTRY).read_bytes()


def limit_descriptors(pid, spare):
    import resource
    used = len(os.listdir(f"/proc/{pid}/fd"))
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + spare, hard))


def exporting(tap):
    with tap.fact("export serves a raw image read-only under the empty name"), Folder() as folder:
        with Running(folder, "export", "disk.img", "--listen", "tcp:127.0.0.1:0") as server:
            Client(("127.0.0.1", server.port), "")
            server.send()
            status, out = server.end()
        expect("exit status", status, 0)
        assert "export '', 1M, read-only\n" in out, out
    with tap.fact("export takes a name, a window, several addresses, and writes"), Folder() as folder:
        with Running(folder, "export", "disk.img", "--writable", "--name", "a b", "--description", "d",
                     "--offset", "4K", "--size", "8K", "--listen", "tcp:127.0.0.1:0",
                     "--listen", "unix:s", listeners=2) as server:
            Client(str(folder.path / "s"), "a b").write(0, b"y" * 512)
            server.send()
            status, out = server.end()
        expect("exit status", status, 0)
        assert "export 'a b', 8K, writable: d\n" in out, out
        expect("content", folder.image.read_bytes()[4096:4608], b"y" * 512)
    with tap.fact("export refuses what looks like another format, with the line to type"), Folder() as folder:
        folder.image.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(SIZE))
        expect_failure(folder.run("export", "disk.img"),
                       "disk.img looks like qcow2: add --format qcow2, or --format raw to export its "
                       "bytes as they are")
        with Running(folder, "export", "disk.img", "--format", "raw", "--listen", "unix:s") as server:
            server.send()
            expect("exit status", server.end()[0], 0)
    with tap.fact("export names an image that is not there"), Folder() as folder:
        expect_failure(folder.run("export", "gone.img"), "gone.img: No such file or directory")
    with tap.fact("export refuses a window that leaves the image"), Folder() as folder:
        expect_failure(folder.run("export", "disk.img", "--offset", "1M", "--size", "512"),
                       "export '': 512 bytes at 1048576 leave node 'image' of 1048576 bytes")


def tables_of_help():
    """What `serve --help` says: [(driver or table, [(key, default)])], and the keys of tables in lists,
    [(list, key, default)]."""
    tables, inner, keys, outer = [], [], None, None
    for line in gantry("serve", "--help").stdout.splitlines():
        title = re.match(r'\[(server|exports)|(listen) = |\[nodes\.NAME\], (whatever)|driver = "(.*?)":', line)
        if title:
            keys = []
            tables.append((title[1] or title[2] or title[4] or "common", keys))
        elif keys is not None and (key := re.match(r"  ([a-z][\w.-]*)(?: = (\S+))?  ", line)):
            keys.append((key[1], key[2] or ""))
            outer = key[1]
        elif keys is not None and (key := re.match(r"    ([a-z]\w*)(?: = (\S+))?  ", line)):
            inner.append((outer, key[1], key[2] or ""))  # of each table in a list
    return tables, inner


def shipped_configurations(tap):
    text = (CONFIGS / "everything.toml").read_text()
    sections = re.split(r"^(?=\[)", text, flags=re.M)[1:]

    def belongs(section, table):
        if table == "common":
            return 'driver = "file"' in section
        if table == "listen":
            return section.startswith("[server")
        if table in ("server", "exports"):
            return section.startswith(f"[{table}")
        return f'driver = "{table}"' in section

    with tap.fact("serve --help lists tables and drivers"):
        tables, inner = tables_of_help()
        expect("tables", {name for name, _ in tables} >= {"server", "listen", "exports", "common", "file", "raw", "memory",
                                                          "null-co"}, True)
    for table, keys in tables:
        with tap.fact(f"everything.toml shows every key of '{table}' with its default"):
            assert keys
            there = "".join(section for section in sections if belongs(section, table))
            for key, default in keys:
                lines = re.findall(rf"^(?:# )?{re.escape(key)} = .*$", there, re.M)
                assert lines, f"{key} is not there"
                assert default in ("", "-") or any(default in line for line in lines), f"{key}: {default}"
    with tap.fact("everything.toml shows every key of tables in lists with its default"):
        expect("lists", {outer for outer, _, _ in inner} >= {"inject-error", "set-state"}, True)
        for outer, key, default in inner:
            lines = re.findall(rf"^# {re.escape(outer)} = \[.*\b{re.escape(key)} = ([^,}}]*?)[ ,].*$", text, re.M)
            assert any(default in ("", value) for value in lines), f"{outer}.{key}: {default}, {lines}"
    with tap.fact("everything.toml sets no key to anything but its default, names and sizes of files apart"):
        config = tomllib.loads(text)
        defaults = {table: dict(keys) for table, keys in tables}
        for node in config["nodes"].values():
            known = defaults["common"] | defaults[node["driver"]]
            for key, value in flat(node):
                shown = str(value).lower() if isinstance(value, bool) else str(value)
                assert known[key] in ("", shown), f"{key} = {shown}, not {known[key]}"
    for name in ("quickstart", "everything"):
        with tap.fact(f"{name}.toml is valid as it is"), Folder() as folder:
            config = folder.config((CONFIGS / f"{name}.toml").read_text())
            result = folder.run("serve", config, "--check")
            expect("stderr", result.stderr, "")
            expect("exit status", result.returncode, 0)


def flat(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, prefix + key + ".")
        else:
            yield prefix + key, value


def main():
    tap = Tap()
    for part in (words_and_status, bad_configurations, checking_and_drawing, serving, exporting,
                 shipped_configurations):
        part(tap)
    tap.plan()
    return 1 if tap.failures else 0


sys.exit(main())
