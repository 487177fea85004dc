#!/usr/bin/env python3
"""The conformance runner: finds what is wrong with a server, that and nothing else, and says it in TAP."""
import concurrent.futures
import pathlib
import re
import socket
import struct
import subprocess
import sys
import threading
import time

import honest_server as honest
from gantry import equal, main, shared_folder, test
from honest_server import Conversation, Goodbye, serving

RUNNER = pathlib.Path(__file__).resolve().parent.parent / "conformance"
LINE = re.compile(r"(ok|not ok) (\d+) - S(\d+) (MUST|SHOULD|MAY|gantry): [^#]+?(?: # SKIP (.+))?")


def judged(*arguments, status=None):
    """Runs the runner: its TAP as {statement: 'ok', 'not ok' or 'skip'}. What is broken has a reason."""
    done = subprocess.run([sys.executable, RUNNER, *arguments], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr + done.stdout
    equal(done.stderr, "")
    version, plan, *lines = done.stdout.splitlines()
    equal(version, "TAP version 13")
    verdicts, explained = {}, set()
    for line in lines:
        if line.startswith("#"):
            explained.add(last)
            continue
        found = LINE.fullmatch(line)
        assert found, f"not a line of TAP: {line}"
        last = int(found[3])
        equal(int(found[2]), len(verdicts) + 1)
        verdicts[last] = "skip" if found[5] else found[1]
    equal(plan, f"1..{len(verdicts)}")
    equal(explained, {number for number, verdict in verdicts.items() if verdict == "not ok"})
    if status is not None:
        equal(done.returncode, status)
    return verdicts


def broken(verdicts):
    return {number for number, verdict in verdicts.items() if verdict == "not ok"}


def uris(path):
    """A writable export and a read-only one."""
    return [word for name in ("disk", "frozen") for word in ("--uri", f"nbd+unix:///{name}?socket={path}")]


@test("an honest server breaks nothing, and most is judged")
def _(folder):
    with serving(folder / "sock"):
        verdicts = judged(*uris(folder / "sock"), "--writable", status=0)
    equal(broken(verdicts), set())
    equal(sorted(verdicts), list(range(1, 197)))
    skipped = {number for number, verdict in verdicts.items() if verdict == "skip"}
    assert len(skipped) < 70, sorted(skipped)


@test("without --writable nothing is written, and with it everything is put back")
def _(folder):
    written = []

    class Watched(Conversation):
        def change(self, command, *arguments):
            if command in (honest.WRITE, honest.TRIM, honest.ZEROES):
                written.append(command)
            super().change(command, *arguments)

    with serving(folder / "sock", Watched) as exports:
        before = bytes(exports[b"disk"].content)
        judged(*uris(folder / "sock"), status=0)
        equal(written, [])
        judged(*uris(folder / "sock"), "--writable", status=0)
        assert set(written) == {honest.WRITE, honest.TRIM, honest.ZEROES}, set(written)
        equal(exports[b"disk"].content == before, True)


FAULTS = {}  # class -> the statements that it breaks


def breaks(*numbers):
    def register(kind):
        FAULTS[kind] = set(numbers)
        return kind
    return register


@breaks(12)
class TakesUnknownClientFlags(Conversation):
    def client_flags(self, flags):
        pass


@breaks(11)
class OffersAnUnknownHandshakeFlag(Conversation):
    def handshake_flags(self):
        return 5


@breaks(19)
class IgnoresAWrongOptionMagic(Conversation):
    def wrong_option_magic(self):
        pass


@breaks(30, 31)
class DoesNotAcknowledgeAbort(Conversation):
    def abort(self, _):
        raise Goodbye


@breaks(39)
class ListsAlthoughThereIsData(Conversation):
    def list(self, data):
        super().list(b"")


@breaks(46)
class ListsTwice(Conversation):
    def list(self, data):
        self.exports = {**self.exports}
        if not data:
            self.reply(honest.LIST, honest.SERVER, struct.pack(">I", 4) + b"disk")
        super().list(data)


@breaks(41, 46, 80)
class ListsANameThatIsLongerThanItsReply(Conversation):
    def list(self, data):
        if not data:
            self.reply(honest.LIST, honest.SERVER, struct.pack(">I", 5) + b"disk")
        super().list(data)


@breaks(14, 27)
class SendsTooFewZeroes(Conversation):
    def padding(self):
        return super().padding()[:-1]


@breaks(48)
class TakesBytesBehindInfo(Conversation):
    def fits(self, rest):
        return len(rest) >= 2 + 2 * struct.unpack(">H", rest[:2])[0]


@breaks(52, 53)
class HasNoSizeInInfo(Conversation):
    def information(self, option, export, name, wanted):
        for kind, payload in super().information(option, export, name, wanted):
            yield kind, bytes(8) + payload[8:] if option == honest.INFO and kind == 0 else payload


@breaks(8, 54)
class SendsZeroesAfterGo(Conversation):
    def after_go(self):
        self.send(self.padding())


@breaks(63)
class HasAPreferredBlockThatIsNoPowerOfTwo(Conversation):
    def information(self, *arguments):
        for kind, payload in super().information(*arguments):
            yield kind, struct.pack(">III", 1, 5000, honest.PAYLOAD_MAX) if kind == 3 else payload


@breaks(66)
class OffersDfToEverybody(Conversation):
    def flags_of(self, export):
        return super().flags_of(export) | 0x80


@breaks(71)
class TakesBytesBehindQueries(Conversation):
    def parse_queries(self, data):
        for end in range(len(data), len(data) - 4, -1):
            try:
                return super().parse_queries(data[:end])
            except (struct.error, ValueError):
                pass
        raise ValueError


@breaks(77)
class SelectsAContextTwice(Conversation):
    def contexts(self, option, queries):
        for query in queries or [b""]:
            yield from super().contexts(option, [query] if query else [])


@breaks(79)
class RemembersContexts(Conversation):
    def forget_contexts(self):
        pass


@breaks(78)
class ListsIds(Conversation):
    def contexts(self, option, queries):
        for _, name in super().contexts(option, queries):
            yield 1, name


@breaks(101)
class AnswersAWrongMagic(Conversation):
    def wrong_request_magic(self, cookie):
        self.refuse_request(honest.READ, cookie, honest.EINVAL)


@breaks(102)
class CutsCookies(Conversation):
    def read_reply(self, cookie, *arguments):
        super().read_reply(cookie & 0x7FFFFFFFFFFFFFFF, *arguments)


@breaks(104)
class RefusesReadsSimply(Conversation):
    def refuse_request(self, command, cookie, error):
        if command == honest.READ:
            self.simple(cookie, error)
        else:
            super().refuse_request(command, cookie, error)


@breaks(112)
class HasOneErrorForAllThatIsBeyondTheEnd(Conversation):
    def beyond_the_end(self, command):
        return honest.EINVAL


@breaks(114)
class HasItsOwnErrorForReadOnly(Conversation):
    def check(self, *arguments):
        error = super().check(*arguments)
        return honest.EINVAL if error == honest.EPERM else error


@breaks(112, 116)
class HasErrorsOfItsOwn(Conversation):
    def check(self, flags, command, *arguments):
        return 9 if command == honest.CACHE and super().check(flags, command, *arguments) else \
            super().check(flags, command, *arguments)


@breaks(106, 111, 114, 123, 129, 169)
class LosesTheMiddle(Conversation):
    def pieces(self, *arguments):
        pieces = super().pieces(*arguments)
        return pieces[:1] if len(pieces) > 1 else pieces


@breaks(130)
class SplitsWithDf(Conversation):
    def pieces(self, offset, content, flags):
        return super().pieces(offset, content, flags & ~honest.DF)


@breaks(112, 136)
class LeavesThePayloadOfAWriteThatIsFarOut(Conversation):
    def payload(self, command, offset, length):
        return b"" if offset >= 1 << 63 else super().payload(command, offset, length)


@breaks(144)
class ZeroesTooMuch(Conversation):
    def change(self, command, offset, length, payload):
        super().change(command, offset, length + (command == honest.ZEROES and length % 4096 != 0), payload)


@breaks(150)
class TrimsTooMuch(Conversation):
    def change(self, command, offset, length, payload):
        super().change(command, offset, length + (command == honest.TRIM and length > 0), payload)


@breaks(162)
class HasTwoExtentsWithReqOne(Conversation):
    def status_reply(self, cookie, flags, offset, length):
        super().status_reply(cookie, flags & ~honest.REQ_ONE, offset, length)


@breaks(161, 162)
class ReachesBeyondTheExport(Conversation):
    def extents(self, offset, length):
        found = super().extents(offset, length)
        beyond = 512 if offset + length == len(self.export.content) else 0
        return found[:-1] + [(found[-1][0] + beyond, found[-1][1])]


@breaks(164)
class DoesNotMergeExtents(Conversation):
    def extents(self, offset, length):
        (first, state), *rest = super().extents(offset, length)
        return [(first - 512, state), (512, state), *rest] if first > 512 else [(first, state), *rest]


@breaks(135, 151, 169)
class CallsDataZero(Conversation):
    def extents(self, offset, length):
        return [(length, 2)]


@breaks(194)
class KnowsResizeInSecret(Conversation):
    def check(self, flags, command, *arguments):
        return 0 if command == 8 else super().check(flags, command, *arguments)


def judge(fault):
    path = FOLDER / fault.__name__
    with serving(path, fault):
        return broken(judged(*uris(path), "--writable"))


FOLDER = shared_folder()
pool = concurrent.futures.ThreadPoolExecutor(4)  # they mostly wait
judgements = {fault: pool.submit(judge, fault) for fault in FAULTS}
for fault in FAULTS:
    name = re.sub("([A-Z])", lambda letter: " " + letter[1].lower(), fault.__name__)[1:]
    test(f"finds what is wrong with a server that {name}")(
        lambda folder, fault=fault: equal(judgements[fault].result(), FAULTS[fault]))


@test("finds what is wrong with a server that hurries its clients")
def _(folder):
    class Hurries(Conversation):
        def greet(self):
            self.connection.settimeout(0.01)
            super().greet()

    with serving(folder / "sock", Hurries):
        equal(judged(*uris(folder / "sock"), "--statements", "10", status=1), {10: "not ok"})


@test("a server that only listens, says garbage, or leaves at once breaks everything, without a traceback")
def _(folder):
    garbage = b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100, b"NBDMAGICIHAVEOPT\0\3" + b"\xff" * 4000
    for number, say in enumerate((None, b"", *garbage)):
        with fake(folder / f"sock{number}", say):
            uri = f"nbd+unix:///disk?socket={folder}/sock{number}"
            verdicts = judged("--uri", uri, "--timeout", "0.05", "--writable", "--statements", "1-70,101-178", status=1)
        assert "ok" not in verdicts.values() or say, verdicts
        assert len(broken(verdicts)) > 60, sorted(broken(verdicts))


class fake:
    """Listens, says one thing to everybody, and closes; or, with None, says nothing."""

    def __init__(self, path, say):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(200)
        self.say = say
        self.kept = []

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            if self.say is None:
                self.kept.append(connection)
                continue
            with connection:
                try:
                    connection.sendall(self.say)
                except OSError:
                    pass

    def __enter__(self):
        threading.Thread(target=self.run, daemon=True).start()

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@test("a server that goes away in the middle is a bail-out")
def _(folder):
    with serving(folder / "sock"):
        pass
    done = subprocess.run([sys.executable, RUNNER, *uris(folder / "sock")], capture_output=True, text=True, timeout=60)
    equal(done.returncode, 1)
    assert "Bail out! cannot connect: " in done.stdout, done.stdout
    equal(done.stderr, "")


@test("a selection of statements, of a level, is all that is shown")
def _(folder):
    with serving(folder / "sock"):
        verdicts = judged(*uris(folder / "sock"), "--statements", "39-42,112", status=0)
        equal(sorted(verdicts), [39, 40, 41, 42, 112])
        verdicts = judged(*uris(folder / "sock"), "--statements", "39-42,112", "--level", "must", status=0)
        equal(sorted(verdicts), [40, 41])


@test("a socket may have any name")
def _(folder):
    with serving(folder / "a+b c&d"):
        judged("--uri", f"nbd+unix:///disk?tls-type=x&socket={folder}/a+b%20c%26d", "--statements", "10", status=0)


@test("the status tells a broken MUST from anything less, and both from wrong use")
def _(folder):
    with serving(folder / "must", DoesNotAcknowledgeAbort), serving(folder / "should", ListsAlthoughThereIsData):
        judged(*uris(folder / "must"), "--statements", "30", status=1)
        judged(*uris(folder / "should"), "--statements", "39", status=0)
    for arguments, why in (([], "give --uri"), (["--uri", "http://x/"], "expected nbd://"),
                           (["--uri", "nbds://x/"], "TLS is not spoken"), (["--uri", "nbd+unix:///x"], "socket"),
                           (["--uri", "nbd://:1/"], "host is missing"), (["--uri", "nbd://x:99999/"], "port"),
                           (["--statements", "0-3"], "not within 1-196"), (["--statements", "x"], "neither N nor N-M"),
                           (["--timeout", "0"], "between 0 and 3600"), (["--level", "perhaps"], "invalid choice")):
        done = subprocess.run([sys.executable, RUNNER, *arguments], capture_output=True, text=True, timeout=60)
        equal((done.returncode, done.stdout), (2, ""))
        assert why in done.stderr and "Traceback" not in done.stderr, done.stderr


@test("--slow waits for the server's limit of the handshake")
def _(folder):
    class Impatient(Conversation):
        def greet(self):
            self.connection.settimeout(0.2)
            threading.Thread(target=self.cut, daemon=True).start()
            super().greet()

        def cut(self):
            time.sleep(0.2)
            if not self.export:
                try:
                    self.connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    for kind, verdict in (Impatient, "ok"), (Conversation, "not ok"):
        with serving(folder / kind.__name__, kind):
            verdicts = judged(*uris(folder / kind.__name__), "--statements", "17", "--slow", "1")
            equal(verdicts, {17: verdict})


main()
