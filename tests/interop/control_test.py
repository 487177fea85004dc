#!/usr/bin/python3
"""The control socket: what it says, beside what QEMU's storage daemon says to the same bytes; who may reach it; rude
clients; and `gantry ctl`."""
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import time

from gantry import PATIENCE, Server, command_line, equal, main, refused, run, test
from qmp import Qmp

MiB = 1 << 20
SIZE = 10 * MiB

CONFIGURATION = """
[server]
listen = "unix:nbd"
control = "unix:control"
[nodes.f]
driver = "file"
filename = "a.raw"
[nodes.r]
driver = "raw"
file = "f"
[nodes.n]
driver = "null-co"
size = "1M"
[exports.disk]
node = "r"
writable = true
"""


def serve(folder):
    folder.mkdir(exist_ok=True)
    with open(folder / "a.raw", "ab") as image:
        image.truncate(SIZE)
    config = folder / "gantry.toml"
    config.write_text(CONFIGURATION)
    return Server(["serve", config], 2, folder)


@contextlib.contextmanager
def qemu(folder, *blockdevs):
    """QEMU's storage daemon with the same nodes and the same export, and some more nodes."""
    folder.mkdir(exist_ok=True)
    with open(folder / "a.raw", "ab") as image:
        image.truncate(SIZE)
    daemon = subprocess.Popen([
        "qemu-storage-daemon", *(word for blockdev in blockdevs for word in ("--blockdev", blockdev)),
        "--blockdev", f"driver=file,node-name=f,filename={folder}/a.raw,discard=unmap",
        "--blockdev", "driver=raw,node-name=r,file=f,discard=unmap",
        "--blockdev", f"driver=null-co,node-name=n,size={MiB}",
        "--nbd-server", f"addr.type=unix,addr.path={folder}/nbd",
        "--export", "type=nbd,id=disk,node-name=r,name=disk,writable=on",
        "--chardev", f"socket,id=c,path={folder}/control,server=on,wait=off",
        "--monitor", "chardev=c"], stdout=subprocess.DEVNULL)
    try:
        yield daemon
    finally:
        daemon.kill()
        daemon.wait()


@contextlib.contextmanager
def both(folder):
    with serve(folder / "gantry"), qemu(folder / "qemu"):
        with Qmp(folder / "gantry" / "control") as ours, Qmp(folder / "qemu" / "control") as theirs:
            yield ours, theirs


def ctl(folder, *words):
    return command_line("ctl", folder / "control", *words)


@test("the greeting has the members of QEMU's")
def _(folder):
    with both(folder) as (ours, theirs):
        equal(ours.greeting["QMP"]["capabilities"], theirs.greeting["QMP"]["capabilities"])
        for version in ours.greeting["QMP"]["version"], ours.agree().command("query-version"):
            equal(set(version), {"qemu", "package"})
            equal(set(version["qemu"]), {"major", "minor", "micro"})
            assert version["package"].startswith("gantry "), version


def call(name, /, **arguments):
    return json.dumps({"execute": name, "arguments": arguments}).encode()


def bitmap(command, /, **arguments):
    return call(f"block-dirty-bitmap-{command}", **arguments)


# Each is answered once by both, in the same words.
CONVERSATION = [
    call("query-version"),
    call("nonsense"),
    call("qmp_capabilities", x=1),
    call("qmp_capabilities", enable=3),
    b'{"execute":"qmp_capabilities","id":{"a":[1,null]}}',
    call("qmp_capabilities"),
    b'{"execute":"nonsense","id":[1.5,"\\u00e9"]}',
    b"{'execute':'nonsense','id':'it\\'s \"q\"'}",
    b'{"execute":3}',
    b'{"id":7}',
    b"{}",
    b"[1]",
    b'"text"',
    b"12 ",
    b'{"execute":"query-version","arguments":3}',
    b'{"execute":"query-version","arguments":null}',
    b'{"execute":"query-version","more":3}',
    b'{"exec-oob":"query-version"}',
    b'{"execute":"query-version","exec-oob":"query-version"}',
    b'{"a":1,"a":2}',
    b"}",
    b"]",
    b",",
    call("query-version", a=3),
    call("query-named-block-nodes", flat=1),
    call("query-named-block-nodes", flat="yes"),
    call("query-block-exports", a=1),
    bitmap("add"),
    bitmap("add", node=3, name="b"),
    bitmap("add", node="r", name=None),
    bitmap("add", foo=1, node="r"),
    bitmap("add", node="none", name="b"),
    bitmap("add", node="", name="b"),
    bitmap("add", node="r", name=""),
    bitmap("add", node="r", name="n" * 1024),
    bitmap("add", node="r", name="n" * 1023),
    bitmap("add", node="r", name="b", granularity=0),
    bitmap("add", node="r", name="b", granularity=3),
    bitmap("add", node="r", name="b", granularity=256),
    bitmap("add", node="r", name="b", granularity=-3),
    bitmap("add", node="r", name="b", granularity=1 << 32),
    bitmap("add", node="r", name="b", granularity="512"),
    bitmap("add", node="r", name="b", granularity=512.5),
    bitmap("add", node="r", name="b", granularity=True),
    bitmap("add", node="r", name="b", disabled="yes"),
    bitmap("add", node="r", name="b", persistent=True),
    bitmap("add", node="r", name="b", more=1),
    bitmap("add", node="r", name="b"),
    bitmap("add", node="r", name="b"),
    bitmap("add", node="r", name="fine", granularity=512, disabled=True),
    bitmap("add", node="r", name="coarse", granularity=1 << 31),
    bitmap("add", node="n", name="b", granularity=512),
    bitmap("clear", node="r", name="none"),
    bitmap("clear", node="none", name="b"),
    bitmap("clear", node="r", name="b"),
    bitmap("enable", node="r", name="fine"),
    bitmap("enable", node="r", name="none"),
    bitmap("disable", node="r", name="fine"),
    bitmap("disable", node="none", name="fine"),
    bitmap("merge", node="r", target="b", bitmaps=["fine"]),
    bitmap("merge", node="r", target="b", bitmaps=["b"]),
    bitmap("merge", node="r", target="b", bitmaps=["none"]),
    bitmap("merge", node="r", target="none", bitmaps=["b"]),
    bitmap("merge", node="none", target="b", bitmaps=["b"]),
    bitmap("merge", node="r", target="b", bitmaps=3),
    bitmap("merge", node="r", target="b", bitmaps=[{"node": "n", "name": "b"}]),
    bitmap("merge", node="r", target="b", bitmaps=[{"node": "r", "name": "fine"}, "coarse"]),
    bitmap("merge", node="r", target="b", bitmaps=[{"node": "none", "name": "b"}]),
    bitmap("merge", node="r", target="b", bitmaps=[{"node": "n"}]),
    bitmap("merge", node="r", target="b", bitmaps=[{"node": "n", "name": "b", "y": 1}]),
    bitmap("remove", node="r", name="coarse"),
    bitmap("remove", node="r", name="coarse"),
    bitmap("remove", node="none", name="coarse"),
    call("query-block-exports"),
]


@test("gantry and QEMU give the same answers to the same bytes")
def _(folder):
    with both(folder) as (ours, theirs):
        for request in CONVERSATION:
            replies = []
            for peer in ours, theirs:
                peer.say(request)
                replies.append(peer.hear())
            mine, other = replies
            if "query-version" in request.decode() and "return" in other:
                mine["return"] = other["return"]
            assert mine == other, f"{request!r}:\n{mine}\n{other}"


@test("with out-of-band commands agreed on, both say the same of them")
def _(folder):
    with both(folder) as (ours, theirs):
        for request in (call("qmp_capabilities", enable=["oob"]), b'{"exec-oob":"query-version","id":1}',
                        b'{"exec-oob":"query-version","execute":"query-version","id":1}', b'{"exec-oob":3}',
                        b'{"exec-oob":"nonsense"}', b'{"exec-oob":"qmp_capabilities","id":1}'):
            for peer in ours, theirs:
                peer.say(request)
            mine, other = ours.hear(), theirs.hear()
            assert mine == other, f"{request!r}:\n{mine}\n{other}"


@test("broken JSON is a GenericError for both, and the next line is understood")
def _(folder):
    with both(folder) as (ours, theirs):
        for peer in ours, theirs:
            peer.agree()
            for broken in b'{"a" 3}\n', b'{"a": tru}\n', b'{"execute":"quit",}\n', b'{"a": "\\ud800"}\n', b"nul\n":
                peer.say(broken)
                error = peer.hear()["error"]
                equal(error["class"], "GenericError")
                assert error["desc"].startswith("JSON parse error, "), error
            assert "qemu" in peer.command("query-version")


def described(peer, folder):
    """What is said of the nodes, by name, with the folder's name as FOLDER."""
    nodes = json.loads(json.dumps(peer.command("query-named-block-nodes", flat=True)).replace(str(folder), "FOLDER"))
    return {node["node-name"]: node for node in nodes}


@test("nodes and their bitmaps are described as by QEMU, and the same bytes are dirty after the same writes")
def _(folder):
    with both(folder) as (ours, theirs):
        for name, peer in ("gantry", ours), ("qemu", theirs):
            peer.agree()
            for bitmap_name, granularity in ("fine", 512), ("usual", 65536), ("coarse", 1 << 20):
                peer.command("block-dirty-bitmap-add", node="r", name=bitmap_name, granularity=granularity)
            peer.command("block-dirty-bitmap-add", node="f", name="below")
            run("qemu-io", "-f", "raw", "-c", "write 1M 100k", "-c", "write 5000 3", "-c", "write -z 3M 64k",
                "-c", "discard 4M 1M", "-c", "flush", f"nbd+unix:///disk?socket={folder / name / 'nbd'}")
        mine, other = described(ours, folder / "gantry"), described(theirs, folder / "qemu")
        equal(set(mine), set(other))
        for name, node in other.items():
            equal({key: mine[name].get(key) for key in node}, node)
            equal(set(mine[name]), set(node))
        assert other["r"]["dirty-bitmaps"][0]["count"] > 0


def contained(part, whole, path=""):
    """Every member of a description is in the other one, with the same value."""
    for key, value in part.items():
        assert key in whole, f"{path}{key}: {value!r} is more than QEMU says"
        if isinstance(value, dict):
            contained(value, whole[key], f"{path}{key}.")
        else:
            assert value == whole[key], f"{path}{key} is {value!r}, QEMU says {whole[key]!r}"


@test("a chain of images is described as by QEMU, {}", "layer within layer", "flat")
def _(folder, how):
    base, top = folder / "base.qcow2", folder / "top.qcow2"
    run("qemu-img", "create", "-f", "qcow2", base, SIZE)
    run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    descriptions = []
    config = folder / "gantry.toml"
    config.write_text('[server]\nlisten = "unix:nbd"\ncontrol = "unix:control"\n[nodes.f]\ndriver = "file"\n'
                      f'filename = "{top}"\n[nodes.q]\ndriver = "qcow2"\nfile = "f"\n[exports.q]\nnode = "q"\n')
    for daemon in (lambda: Server(["serve", config], 2, folder),
                   lambda: qemu(folder, f"driver=file,node-name=tf,filename={top}", "driver=qcow2,node-name=q,file=tf")):
        with daemon(), Qmp(folder / "control").agree() as peer:
            nodes = peer.command("query-named-block-nodes", flat=how == "flat")
            descriptions.append(next(node for node in nodes if node["node-name"] == "q"))
    mine, other = descriptions
    contained(mine, other)
    equal("backing-image" in mine["image"], how != "flat")


@test("a bitmap counts what clients write, from add and clear on")
def _(folder):
    with serve(folder), Qmp(folder / "control").agree() as peer:
        def write(offset):
            run("qemu-io", "-f", "raw", "-c", f"write {offset} 512", f"nbd+unix:///disk?socket={folder / 'nbd'}")

        def dirty():
            return described(peer, folder)["r"]["dirty-bitmaps"][0]["count"]

        write(0)
        peer.command("block-dirty-bitmap-add", node="r", name="b", granularity=512)
        equal(dirty(), 0)
        write(MiB)
        equal(dirty(), 512)
        peer.command("block-dirty-bitmap-disable", node="r", name="b")
        write(2 * MiB)
        equal(dirty(), 512)
        peer.command("block-dirty-bitmap-enable", node="r", name="b")
        write(3 * MiB)
        equal(dirty(), 1024)
        peer.command("block-dirty-bitmap-clear", node="r", name="b")
        equal(dirty(), 0)


@test("requests may be cut anywhere")
def _(folder):
    with serve(folder), Qmp(folder / "control") as peer:
        requests = call("qmp_capabilities") + b"\n".join([call("query-block-exports")] * 3)
        for number in range(len(requests)):
            peer.say(requests[number:number + 1])
        equal(peer.hear(), {"return": {}})
        for _ in range(3):
            equal(peer.hear()["return"][0]["id"], "disk")


@test("only the owner reaches the socket, whatever the umask, and a stop takes it away")
def _(folder):
    before = os.umask(0)
    try:
        with serve(folder):
            mode = os.stat(folder / "control").st_mode
            equal((stat.S_ISSOCK(mode), stat.S_IMODE(mode)), (True, 0o600))
    finally:
        os.umask(before)
    assert not (folder / "control").exists()


@test("a socket left by a server that was killed is replaced, one that somebody serves never is")
def _(folder):
    killed = serve(folder)
    killed.process.kill()
    killed.process.wait()
    assert (folder / "control").exists()
    (folder / "nbd").unlink()
    with serve(folder):
        other = folder / "other.toml"
        other.write_text('[server]\nlisten = "unix:nbd2"\ncontrol = "unix:control"\n'
                         '[nodes.m]\ndriver = "memory"\n[exports.m]\nnode = "m"\n')
        said = refused(*command_line("serve", other))
        assert f"{other}:3:1: cannot listen on unix:{folder}/control: Address already in use" in said, said
        assert not (folder / "nbd2").exists()
        with Qmp(folder / "control").agree() as peer:
            peer.command("query-version")


@test("quit is a clean stop, of which every client hears")
def _(folder):
    server = serve(folder)
    with Qmp(folder / "control").agree() as one, Qmp(folder / "control").agree() as other:
        run("qemu-io", "-f", "raw", "-c", "write -P 7 0 512", f"nbd+unix:///disk?socket={folder / 'nbd'}")
        equal(one.command("quit"), {})
        for peer in one, other:
            equal(peer.hear(), None)
            event, = peer.events
            equal((event["event"], event["data"]), ("BLOCK_EXPORT_DELETED", {"id": "disk"}))
            assert abs(event["timestamp"]["seconds"] - time.time()) < PATIENCE
            assert 0 <= event["timestamp"]["microseconds"] < 1_000_000
    equal(server.process.wait(PATIENCE), 0)
    equal((folder / "a.raw").read_bytes()[:512], b"\7" * 512)
    equal([(folder / name).exists() for name in ("control", "nbd")], [False, False])


@test("clients that never read, never end a value or never speak keep nobody waiting, and hold up no stop")
def _(folder):
    with serve(folder) as server, contextlib.ExitStack() as stack:
        rude = [stack.enter_context(Qmp(folder / "control")) for _ in range(3)]
        rude[1].say(b'{"execute": "' + b"x" * 100_000)
        rude[0].agree().socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                rude[0].socket.send(call("query-named-block-nodes") * 100)
        with Qmp(folder / "control").agree() as polite:
            for _ in range(20):
                polite.command("block-dirty-bitmap-add", node="r", name="b")
                polite.command("block-dirty-bitmap-remove", node="r", name="b")
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 5, "the stop was held up"


@test("a value without end is refused and ends its session alone")
def _(folder):
    with serve(folder), Qmp(folder / "control").agree() as other:
        for bomb, what in (b"[" * 100, "nested deeper than 64"), (b'"' + b"x" * (5 * MiB), "value longer than 4194304 bytes"):
            with Qmp(folder / "control").agree() as peer:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    peer.say(bomb)
                with contextlib.suppress(ConnectionResetError):
                    equal(peer.hear(), {"error": {"class": "GenericError", "desc": f"JSON parse error, {what}"}})
                    equal(peer.hear(), None)
            other.command("query-version")


@test("one client too many is turned away until another one leaves")
def _(folder):
    with serve(folder), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Qmp(folder / "control").agree()) for _ in range(16)]
        with socket.socket(socket.AF_UNIX) as late:
            late.settimeout(PATIENCE)
            late.connect(str(folder / "control"))
            with contextlib.suppress(ConnectionResetError):
                equal(late.recv(100), b"")
        clients[0].socket.close()
        end = time.monotonic() + PATIENCE
        while True:
            with Qmp(folder / "control") as again:
                if again.greeting is not None:
                    break
            assert time.monotonic() < end, "the place was not given back"


@test("SIGHUP says that another control socket takes effect at the next start")
def _(folder):
    with serve(folder) as server:
        (folder / "gantry.toml").write_text(CONFIGURATION.replace("unix:control", "unix:elsewhere"))
        server.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE
        while not any("control" in line and "next start" in line for line in server.log):
            assert time.monotonic() < end, server.log
            time.sleep(0.01)
        with Qmp(folder / "control").agree() as peer:
            peer.command("query-version")


@test("gantry ctl prints what is returned, or why not")
def _(folder):
    with serve(folder):
        equal(json.loads(run(*ctl(folder, "query-block-exports"))),
              [{"node-name": "r", "shutting-down": False, "type": "nbd", "id": "disk"}])
        equal(run(*ctl(folder, "block-dirty-bitmap-add", '{"node": "r", "name": "b"}')), "{}\n")
        equal(refused(*ctl(folder, "block-dirty-bitmap-add", '{"node": "r", "name": "b"}')),
              "Bitmap already exists: b\n")
        equal(refused(*ctl(folder, "nonsense")), "The command nonsense has not been found\n")
        refused(*ctl(folder, "query-version", "[1]"), status=2)
    equal(refused(*ctl(folder, "query-version")), f"{folder}/control: No such file or directory\n")


@test("gantry ctl speaks with QEMU's storage daemon, too")
def _(folder):
    with qemu(folder), Qmp(folder / "control"):
        pass  # it listens
    with qemu(folder) as daemon:
        Qmp(folder / "control").socket.close()
        assert "package" in json.loads(run(*ctl(folder, "query-version")))
        equal(run(*ctl(folder, "quit")), "{}\n")
        equal(daemon.wait(PATIENCE), 0)


main()
