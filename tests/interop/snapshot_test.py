#!/usr/bin/python3
"""Internal snapshots of a qcow2 image: made, applied and deleted by gantry's command and by qemu-img in turns; taken
and deleted on a running daemon in the words of QEMU's; served beside the live disk."""
import contextlib
import json
import shutil
import struct
import subprocess
import threading
import time

import nbd

from gantry import PATIENCE, Server, command_line, equal, main, noise, refused, run, serve_toml, test
from qcow2_image import Image
from qmp import Qmp

MiB = 1 << 20
SIZE = 8 * MiB
SHAPES = ["cluster_size=512", "cluster_size=64k", "compat=0.10", "cluster_size=64k,extended_l2=on",
          "cluster_size=4k,refcount_bits=64"]


def snapshot(*words):
    return run(*command_line("snapshot", *words))


def listed(image):
    """What `snapshot list` and qemu-img say alike; by names."""
    ours = json.loads(snapshot("list", image, "--json"))
    theirs = json.loads(run("qemu-img", "info", "-U", "--output=json", image)).get("snapshots", [])
    equal(ours, theirs)
    return {each["name"]: each["id"] for each in ours}


def make(folder, options="cluster_size=64k"):
    image = folder / "disk.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, SIZE)
    return image


def write(where, *words):
    run("qemu-io", *(word for each in words for word in ("-c", f"write {each}")), *where)


def content(folder, image, *options):
    """The bytes of the disk, or of a snapshot, as QEMU reads them."""
    raw = folder / "content.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", *options, image, raw)
    return raw.read_bytes()


def clean(image):
    run("qemu-img", "check", "-q", image)
    run(*command_line("check", image))


@test("gantry and qemu-img make, apply and delete snapshots in turns, {}", *SHAPES)
def _(folder, options):
    image = make(folder, options)
    versions = {}
    makers = [lambda name: run("qemu-img", "snapshot", "-c", name, image), lambda name: snapshot("create", image, name)]
    for number in range(6):
        write(["-f", "qcow2", image], f"-P {number + 1} {number * 300000} 1M", f"-P {number + 65} {number * 4096 + 512} 3k")
        name = f"s{number}"
        makers[number % 2](name)
        clean(image)
        versions[name] = content(folder, image)
    equal(listed(image), {f"s{number}": str(number + 1) for number in range(6)})
    assert len(set(versions.values())) == 6

    for name, expected in versions.items():
        assert content(folder, image, "-l", f"snapshot.name={name}") == expected, name
    for name in "s1", "s4", "s0":  # ours and QEMU's
        snapshot("apply", image, name)
        clean(image)
        assert content(folder, image) == versions[name], name
    run("qemu-img", "snapshot", "-a", "s3", image)
    clean(image)
    assert content(folder, image) == versions["s3"]

    write(["-f", "qcow2", image], "-P 200 0 8M")
    gone = json.loads(snapshot("delete", image, "s0", "--json"))
    equal((gone["id"], gone["name"]), ("1", "s0"))
    run("qemu-img", "snapshot", "-d", "s1", image)
    snapshot("delete", image, "3")  # by id
    clean(image)
    equal(listed(image), {"s3": "4", "s4": "5", "s5": "6"})
    for name in "s3", "s4", "s5":
        assert content(folder, image, "-l", f"snapshot.name={name}") == versions[name], name
    assert content(folder, image) == b"\xc8" * SIZE


@test("a snapshot of another size brings that size back")
def _(folder):
    image = make(folder)
    write(["-f", "qcow2", image], "-P 1 0 64k")
    snapshot("create", image, "small")
    run("qemu-img", "resize", "-q", image, SIZE + MiB)
    snapshot("create", image, "large")
    snapshot("apply", image, "small")
    equal(json.loads(run("qemu-img", "info", "--output=json", image))["virtual-size"], SIZE)
    run("qemu-img", "snapshot", "-a", "large", image)
    snapshot("apply", image, "large")
    equal(json.loads(run("qemu-img", "info", "--output=json", image))["virtual-size"], SIZE + MiB)
    clean(image)


@test("the list is for people, too")
def _(folder):
    image = make(folder)
    equal(snapshot("list", image), "")
    equal(snapshot("list", image, "--json"), "[]\n")
    snapshot("create", image, "Montag \u00fc\x1b[2J")
    line, = snapshot("list", image).splitlines()
    assert line.startswith("1 ") and "Montag" in line and "\x1b" not in line, line


@test("what can't be done is one line, and the image stays as it is")
def _(folder):
    image = make(folder)
    snapshot("create", image, "a")

    def line(*words):
        before = image.read_bytes()
        said = refused(*command_line("snapshot", *words))
        equal(said.count("\n"), 1)
        assert image.read_bytes() == before
        return said

    assert "there is a snapshot 'a' already" in line("create", image, "a")
    assert "there is no snapshot 'b'" in line("delete", image, "b")
    assert "there is no snapshot 'b'" in line("apply", image, "b")
    assert "empty" in line("create", image, "")
    raw = folder / "raw"
    raw.write_bytes(bytes(MiB))
    assert "qcow2" in line("list", raw)
    assert "nothing" in line("list", folder / "nothing")
    data = folder / "data.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={folder}/data.raw", data, MiB)
    assert "external data file" in line("create", data, "x")
    for wrong in (), ("create", image), ("list", image, "a"), ("rename", image, "a"), ("apply", image, "a", "--json"):
        refused(*command_line("snapshot", *wrong), status=2)
    with served(folder):
        for action in ("list",), ("create", "x"), ("apply", "a"), ("delete", "a"):
            said = line(action[0], image, *action[1:])
            assert "lock" in said and "gantry ctl" in said, said
    equal(listed(image), {"a": "1"})


@test("a snapshot table that can't be is told in one line")
def _(folder):
    image = make(folder)
    snapshot("create", image, "a")
    damaged = Image(image)
    damaged.put(damaged.snapshots[0] + 36, 2000, 4)  # bytes of extra data
    damaged.save(image)
    said = refused(*command_line("snapshot", "list", image)).splitlines()[-1]
    assert "snapshot table entry 0 has 2000 bytes of extra data" in said, said
    equal(said.count("qcow2: "), 1)


def toml(more="snapshots = true", extra=""):
    return ('control = "unix:control"\n'
            '[nodes.node]\ndriver = "qcow2"\nfile = { driver = "file", filename = "disk.qcow2" }\n'
            f'[exports.disk]\nnode = "node"\nwritable = true\n{more}\n{extra}')


@contextlib.contextmanager
def served(folder, *words):
    """The image, with a control socket; it ends well with the block."""
    with serve_toml(folder, toml(*words)) as server, Qmp(folder / "control") as qmp:
        yield server, qmp.agree()


def call(name, /, **arguments):
    return {"execute": name, "arguments": arguments}


TAKE, DELETE = "blockdev-snapshot-internal-sync", "blockdev-snapshot-delete-internal-sync"
CONVERSATION = [
    call(TAKE, device="x", name="a"),
    call(TAKE, device="n", name="a"),
    call(TAKE, device="n", name=""),
    call(TAKE, device="node", name=""),
    call(TAKE, device="node", name="a"),
    call(TAKE, device="node", name="a"),
    call(TAKE, device="node"),
    call(TAKE, name="a"),
    call(TAKE, device=3, name="a"),
    call(TAKE, device="node", name="a", id="1"),
    call(DELETE, device="x", name="b"),
    call(DELETE, device="x"),
    call(DELETE, device="node"),
    call(DELETE, name="a"),
    call(DELETE, device="node", name="b"),
    call(DELETE, device="node", id="7"),
    call(DELETE, device="node", id="1", name="b"),
    call(DELETE, device="node", id="2", name="a"),
    call(DELETE, device="node", name=""),
    call(DELETE, device="node", id=""),
    call(DELETE, device="n", name="b"),
    call(TAKE, device="node", name="1"),
    call(TAKE, device="node", name="third"),
    call(DELETE, device="node", name="a"),
    call(DELETE, device="node", id="2", name="1"),
    call(DELETE, device="node", id="3"),
]


def without_time(reply):
    """Of a reply all but the moment at which it was."""
    if isinstance(reply, dict):
        return {key: without_time(value) for key, value in reply.items() if not key.startswith(("date-", "vm-clock-"))}
    return [without_time(each) for each in reply] if isinstance(reply, list) else reply


@test("gantry and QEMU's storage daemon say the same of snapshots")
def _(folder):
    for name in "gantry", "qemu":
        (folder / name).mkdir()
        make(folder / name)
    config = toml(extra='[nodes.n]\ndriver = "null-co"\n')
    daemon = subprocess.Popen([
        "qemu-storage-daemon",
        "--blockdev", f"driver=qcow2,node-name=node,file.driver=file,file.filename={folder}/qemu/disk.qcow2",
        "--blockdev", "driver=null-co,node-name=n",
        "--chardev", f"socket,id=c,path={folder}/qemu/control,server=on,wait=off",
        "--monitor", "chardev=c"])
    try:
        with serve_toml(folder / "gantry", config), Qmp(folder / "gantry" / "control") as ours, \
                Qmp(folder / "qemu" / "control") as theirs:
            for request in [call("qmp_capabilities"), *CONVERSATION]:
                replies, lists = [], []
                for peer in ours, theirs:
                    peer.say(request)
                    reply = peer.hear()
                    if "vm-state-size" in reply.get("return", {}):
                        assert abs(reply["return"]["date-sec"] - time.time()) < PATIENCE
                        equal({key for key in reply["return"] if key.startswith(("date-", "vm-clock-"))},
                              {"date-sec", "date-nsec", "vm-clock-sec", "vm-clock-nsec"})
                    replies.append(without_time(reply))
                    nodes = {node["node-name"]: node for node in peer.command("query-named-block-nodes", flat=True)}
                    lists.append(without_time(nodes["node"]["image"].get("snapshots")))
                assert replies[0] == replies[1], f"{request!r}:\n{replies[0]}\n{replies[1]}"
                equal(*lists)
    finally:
        daemon.kill()
        daemon.wait()
    clean(folder / "gantry" / "disk.qcow2")


def exports(server):
    """What `nbdinfo --list` says, by names."""
    return {each["export-name"]: each for each in json.loads(run("nbdinfo", "--list", "--json", server.uri()))["exports"]}


@test("snapshots = true serves all there are, later ones too, until they are gone")
def _(folder):
    image = make(folder)
    write(["-f", "qcow2", image], "-P 1 0 8M")
    run("qemu-img", "snapshot", "-c", "before", image)
    with served(folder, 'snapshots = true\ndescription = "the disk"') as (server, qmp):
        equal(set(exports(server)), {"disk", "disk@before"})
        write(["-f", "raw", server.uri("disk")], "-P 2 0 8M")
        qmp.command(TAKE, device="disk", name="monday")  # an export stands for its node
        write(["-f", "raw", server.uri("disk")], "-P 3 0 8M")
        found = exports(server)
        equal(set(found), {"disk", "disk@before", "disk@monday"})
        monday = found["disk@monday"]
        equal((monday["is_read_only"], monday["export-size"], found["disk"]["is_read_only"]), (True, SIZE, False))
        assert monday["description"].startswith("the disk: snapshot 'monday' of 20"), monday
        equal({each["id"]: each["node-name"] for each in qmp.command("query-block-exports")},
              {"disk": "node", "disk@before": "node", "disk@monday": "node"})
        for name, value in ("disk@before", 1), ("disk@monday", 2), ("disk", 3):
            run("nbdcopy", server.uri(name), folder / "copy")
            assert (folder / "copy").read_bytes() == bytes([value]) * SIZE, name
        client = nbd.NBD()
        client.connect_uri(server.uri("disk@monday"))
        said = qmp.refusal(DELETE, device="node", name="monday")
        equal(said, "node: qcow2: snapshot 'monday' is in use by export 'disk@monday'")
        qmp.command(DELETE, device="node", name="before")
        equal(set(exports(server)), {"disk", "disk@monday"})
        equal(client.pread(3, 5), b"\2\2\2")
        client.shutdown()
        while True:  # until the server has noticed
            try:
                qmp.command(DELETE, device="node", name="monday")
                break
            except Exception as error:
                assert "is in use" in str(error), error
        equal(set(exports(server)), {"disk"})
        refused("nbdinfo", server.uri("disk@monday"))
    equal(listed(image), {})
    clean(image)


@test("a snapshot that the configuration names can't be deleted, with it many at once can be looked at")
def _(folder):
    image = make(folder)
    snapshot("create", image, "a")
    more = '[exports.again]\nnode = "node"\nsnapshot = "a"\n[exports.too]\nnode = "node"\nsnapshots = true\n'
    with served(folder, "snapshots = true", more) as (server, qmp):
        equal(set(exports(server)), {"disk", "disk@a", "again", "too", "too@a"})
        said = qmp.refusal(DELETE, device="node", id="1")
        equal(said, "node: qcow2: snapshot 'a' is in use by export 'again'")
        equal(set(exports(server)), {"disk", "disk@a", "again", "too", "too@a"})


@test("names that clash are refused, at the start and later")
def _(folder):
    image = make(folder)
    clash = '[exports."disk@b"]\nnode = "n"\n[nodes.n]\ndriver = "null-co"\n'
    with served(folder, "snapshots = true", clash) as (server, qmp):
        said = qmp.refusal(TAKE, device="node", name="b")
        equal(said, "export 'disk' would serve a snapshot as 'disk@b', and there is an export of that name: rename one "
                    "of them")
        qmp.command(TAKE, device="node", name="c")
        equal(set(exports(server)), {"disk", "disk@b", "disk@c"})
    equal(listed(image), {"c": "1"})
    snapshot("create", image, "b")
    for where in ("n", "node"):  # another graph, the same one
        config = folder / "gantry.toml"
        config.write_text('[server]\nlisten = "unix:sock"\n' + toml("snapshots = true", clash.replace('"n"', f'"{where}"')))
        for check in ["--check"], []:
            said = refused(*command_line("serve", config, *check))
            assert f"{config}:7:1: export 'disk' would serve a snapshot as 'disk@b', and" in said, said


@test("--check shows what is served; what makes no sense is a mistake in the file")
def _(folder):
    image = make(folder)
    snapshot("create", image, "a")
    config = folder / "gantry.toml"

    def check(more):
        config.write_text(f'[nodes.node]\ndriver = "qcow2"\nfile = {{ driver = "file", filename = "disk.qcow2" }}\n'
                          f'[nodes.r]\ndriver = "null-co"\n[exports.disk]\n{more}\n')
        return [*command_line("serve", config, "--check")]

    said = run(*check('node = "node"\nsnapshots = true'))
    assert "'disk@a' -> " in said and "snapshot 'a'" in said, said
    for more in 'snapshot = "a"', 'offset = "1M"', 'size = "1M"':
        said = refused(*check(f'node = "node"\nsnapshots = true\n{more}'))
        assert f"{config}:8:1: export 'disk': 'snapshots' serves whole disks" in said, said
    said = refused(*check('node = "r"\nsnapshots = true'))
    assert f"{config}:6:1: export 'disk': node 'r' can't have snapshots: null-co keeps none" in said, said


@test("names that several snapshots have, and ids, find their way to the wire")
def _(folder):
    image = make(folder)
    for value, name in (1, "twice"), (2, "twice"), (3, "2"):
        write(["-f", "qcow2", image], f"-P {value} 0 8M")
        run("qemu-img", "snapshot", "-c", name, image)  # QEMU's tool does not mind
    with served(folder) as (server, _):
        equal(set(exports(server)), {"disk", "disk@twice", "disk@2", "disk@3"})
        for name, value in ("disk@twice", 1), ("disk@2", 2), ("disk@3", 3):
            run("nbdcopy", server.uri(name), folder / "copy")
            assert (folder / "copy").read_bytes() == bytes([value]) * SIZE, name


@test("one image without a file: export --snapshots")
def _(folder):
    image = make(folder)
    write(["-f", "qcow2", image], "-P 1 0 8M")
    snapshot("create", image, "a")
    write(["-f", "qcow2", image], "-P 2 0 8M")
    words = ["export", image, "--format", "qcow2", "--listen", f"unix:{folder}/sock"]
    for more, names in (["--name", "d", "--snapshots"], {"d", "d@a"}), (["--snapshots", "--writable"], {"", "@a"}):
        with Server([*words, *more], 1) as server:
            equal(set(exports(server)), names)
    with Server([*words, "--snapshot", "a"], 1) as server:
        run("nbdcopy", server.uri(), folder / "copy")
        assert (folder / "copy").read_bytes() == b"\1" * SIZE
    refused(*command_line("export", image, "--format", "qcow2", "--snapshots", "--snapshot", "a"), status=2)


class Writer(threading.Thread):
    """Writes numbered sectors, one after the other, over and over, each when the one before is answered: so any moment
    of the disk is that after some number of writes."""
    BLOCK = 4096

    def __init__(self, uri):
        super().__init__()
        self.client = nbd.NBD()
        self.client.connect_uri(uri)
        self.written, self.goes_on, self.error = 0, True, None

    def run(self):
        try:
            while self.goes_on:
                self.written += 1
                self.client.pwrite(self.block(self.written), self.place(self.written))
        except nbd.Error as error:
            self.error = error

    def stop(self):
        self.goes_on = False
        self.join(PATIENCE)
        self.client.shutdown()
        assert self.error is None, self.error

    @staticmethod
    def place(number):
        return number * 2654435761 % (SIZE // Writer.BLOCK) * Writer.BLOCK

    @staticmethod
    def block(number):
        return struct.pack("<Q", number) * (Writer.BLOCK // 8)

    @classmethod
    def check(cls, disk):
        """Is it what so many writes make, and no other? How many."""
        count = max(struct.unpack_from("<Q", disk, at)[0] for at in range(0, SIZE, cls.BLOCK))
        expected = bytearray(SIZE)
        for number in range(1, count + 1):
            expected[cls.place(number):cls.place(number) + cls.BLOCK] = cls.block(number)
        assert disk == expected, f"the disk is not what {count} writes make"
        return count


@test("snapshots taken, copied and deleted while the disk is written are each one moment of it, {}",
      "cluster_size=4k", "cluster_size=64k", "cluster_size=64k,extended_l2=on")
def _(folder, options):
    image = make(folder, options)
    copies = {}
    with served(folder) as (server, qmp):
        writer = Writer(server.uri("disk"))
        writer.start()
        try:
            for number in range(8):
                before, goal = writer.written, writer.written + 50
                while writer.written < goal and writer.is_alive():
                    time.sleep(0.001)
                qmp.command(TAKE, device="disk", name=f"s{number}")
                run("nbdcopy", server.uri(f"disk@s{number}"), folder / "copy")
                copies[f"s{number}"] = (folder / "copy").read_bytes()
                assert before <= Writer.check(copies[f"s{number}"]) <= writer.written
                if number % 3 == 2:
                    run(*command_line("ctl", folder / "control", DELETE,
                                      json.dumps({"device": "node", "name": f"s{number - 1}"})))
                    del copies[f"s{number - 1}"]
            for name, copied in copies.items():
                run("nbdcopy", server.uri(f"disk@{name}"), folder / "copy")
                assert (folder / "copy").read_bytes() == copied, f"{name} has changed"
        finally:
            writer.stop()
    clean(image)
    equal(set(listed(image)), set(copies))
    copy = folder / "copy.qcow2"
    shutil.copy(image, copy)
    for name, copied in copies.items():
        assert content(folder, copy, "-l", f"snapshot.name={name}") == copied, name
    equal(Writer.check(content(folder, copy)), writer.written)


@test("a disk that is only read by clients can be kept as a snapshot, a read-only node can't")
def _(folder):
    image = make(folder)
    config = ('control = "unix:control"\n[nodes.node]\ndriver = "qcow2"\n{}'
              'file = {{ driver = "file", filename = "disk.qcow2" }}\n[exports.disk]\nnode = "node"\nsnapshots = true\n')
    with serve_toml(folder, config.format("")) as server, Qmp(folder / "control").agree() as qmp:
        qmp.command(TAKE, device="disk", name="a")
        equal(set(exports(server)), {"disk", "disk@a"})
    clean(image)
    with serve_toml(folder, config.format("read-only = true\n")) as server, Qmp(folder / "control").agree() as qmp:
        equal(qmp.refusal(TAKE, device="disk", name="b"), "Device 'disk' is read only")
        assert "read-only" in qmp.refusal(DELETE, device="disk", name="a")
        equal(set(exports(server)), {"disk", "disk@a"})


main()
