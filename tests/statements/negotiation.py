"""The client's side of the handshake: says whatever a check wants, and takes the answers apart."""
import struct

from .registry import Violation
from .wire import (GREETING_MAGIC, MiB, OPTION_MAGIC, OPTION_REPLY_MAGIC, Handshake, Info, Option, Reply, name_of)

LONGEST_REPLY = 1 * MiB  # what is said to be longer is not believed
MOST_REPLIES = 100_000
NO_OPTION = 0x6E6264  # one that nobody knows, and no statement asks for


class Outcome:
    """The answer to an option: the replies before the last one as (type, data), then that one."""

    def __init__(self, before, kind, data):
        self.before = before
        self.type = kind
        self.data = data

    @property
    def acknowledged(self):
        return self.type == Reply.ACK

    @property
    def text(self):
        return self.data.decode("utf-8", "replace")

    def __str__(self):
        said = f" '{self.text[:80]}'" if self.data and not self.acknowledged else ""
        return name_of(Reply, self.type) + said


class Haggle:
    """One handshake, up to the client's flags."""

    def __init__(self, connection, flags=Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES):
        """flags: what to send; NO_ZEROES is left out where it is not offered."""
        self.connection = connection
        magic, style, self.flags = struct.unpack(">8s8sH", connection.receive(18, "the greeting"))
        if (magic, style) != (GREETING_MAGIC, OPTION_MAGIC):
            raise Violation(f"got a greeting of {(magic + style).hex(' ')}, expected NBDMAGIC and IHAVEOPT")
        sent = int(flags)
        if not self.flags & Handshake.NO_ZEROES:
            sent &= ~int(Handshake.NO_ZEROES)
        self.zeroes = not sent & Handshake.NO_ZEROES
        connection.send(struct.pack(">I", sent))

    def say(self, option, data=b""):
        self.connection.send(option_bytes(option, data))

    def hear(self, option):
        """Reads the answer to an option up to its final reply."""
        before = []
        while len(before) < MOST_REPLIES:
            magic, echoed, kind, length = struct.unpack(
                ">QIII", self.connection.receive(20, f"a reply to {name_of(Option, option)}"))
            if magic != OPTION_REPLY_MAGIC:
                raise Violation(f"got an option reply with the magic number {magic:#x}, "
                                f"expected {OPTION_REPLY_MAGIC:#x}")
            if echoed != option:
                raise Violation(f"got a reply to {name_of(Option, echoed)}, expected one to {name_of(Option, option)}")
            if length > LONGEST_REPLY:
                raise Violation(f"got an option reply of {length} bytes, expected at most {LONGEST_REPLY}")
            data = self.connection.receive(length, f"the data of a reply to {name_of(Option, option)}")
            if kind == Reply.ACK or kind & 0x80000000:
                return Outcome(before, kind, data)
            before.append((kind, data))
        raise Violation(f"got {MOST_REPLIES} replies to one {name_of(Option, option)}, expected an end")

    def ask(self, option, data=b""):
        self.say(option, data)
        return self.hear(option)

    def info(self, name, *wanted):
        return self.ask(Option.INFO, info_bytes(name, wanted))

    def go(self, name, *wanted):
        return self.ask(Option.GO, info_bytes(name, wanted))

    def in_step(self, after):
        """The server understands the next option, and has not said more than it should."""
        try:
            self.ask(NO_OPTION)
        except Violation as found:
            raise type(found)(f"after {after}, another option: {found}", found.level) from None


def option_bytes(option, data=b""):
    return OPTION_MAGIC + struct.pack(">II", option, len(data)) + data


def info_bytes(name, wanted=()):
    """The data of INFO and GO."""
    return struct.pack(f">I{len(name)}sH{len(wanted)}H", len(name), name, len(wanted), *wanted)


def meta_bytes(name, *queries):
    """The data of LIST_META_CONTEXT and SET_META_CONTEXT."""
    packed = b"".join(struct.pack(">I", len(query)) + query for query in queries)
    return struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries)) + packed


class ExportInfo:
    """What the replies to INFO or GO say about an export."""

    def __init__(self, outcome):
        self.items = []  # (information type, payload), in the order of arrival
        self.size = self.flags = self.name = self.description = self.block_sizes = None
        for kind, data in outcome.before:
            if kind != Reply.INFO or len(data) < 2:
                raise Violation(f"got {name_of(Reply, kind)} of {len(data)} bytes, expected INFO replies")
            number, payload = struct.unpack(">H", data[:2])[0], data[2:]
            self.items.append((number, payload))
            self._take(number, payload)

    def _take(self, number, payload):
        if number == Info.EXPORT:
            if len(payload) != 10:
                raise Violation(f"got INFO_EXPORT of {len(payload) + 2} bytes, expected 12")
            self.size, self.flags = struct.unpack(">QH", payload)
        elif number == Info.NAME:
            self.name = payload
        elif number == Info.DESCRIPTION:
            self.description = payload
        elif number == Info.BLOCK_SIZE:
            if len(payload) != 12:
                raise Violation(f"got INFO_BLOCK_SIZE of {len(payload) + 2} bytes, expected 14")
            self.block_sizes = struct.unpack(">III", payload)


def contexts_in(outcome):
    """The contexts that a meta context option was answered with: [(id, name)]."""
    found = []
    for kind, data in outcome.before:
        if kind != Reply.META_CONTEXT or len(data) < 4:
            raise Violation(f"got {name_of(Reply, kind)} of {len(data)} bytes, expected META_CONTEXT replies")
        found.append((struct.unpack(">I", data[:4])[0], data[4:].decode("utf-8", "replace")))
    return found


def expect_type(what, outcome, *expected):
    """The final reply is one of these."""
    if outcome.type not in expected:
        raise Violation(f"{what}: got {outcome}, expected {' or '.join(kind.name for kind in expected)}")
    return outcome


def expect_error(what, outcome):
    if not outcome.type & 0x80000000:
        raise Violation(f"{what}: got {outcome}, expected an error")
    return outcome
