"""Strings, sizes, transport: statements 1 to 9."""
import struct

from ..connection import describe
from ..negotiation import (ExportInfo, Haggle, expect_error, expect_type, info_bytes, option_bytes)
from ..registry import DECISION, MUST, SHOULD, Violation, statement, unseen
from ..requests import request_bytes
from ..wire import (GREETING_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, STRING_MAX, Command, Info, Option, Reply)


@statement(1, MUST, "numbers are big-endian")
def _(target):
    connection = target.connect()
    magic, style, flags = struct.unpack(">8s8sH", connection.receive(18, "the greeting"))
    if (magic, style) != (GREETING_MAGIC, OPTION_MAGIC):
        raise Violation(f"got a greeting of {(magic + style).hex(' ')}, expected NBDMAGIC and IHAVEOPT")
    if flags > 0xFF:
        raise Violation(f"got the handshake flags {flags:#06x}, expected them in the low byte")
    connection.send(struct.pack(">I", flags & 3) + option_bytes(Option.LIST))
    magic, option, _, length = struct.unpack(">QIII", connection.receive(20, "a reply to LIST"))
    if (magic, option) != (OPTION_REPLY_MAGIC, Option.LIST) or length > 2 * STRING_MAX + 4:
        raise Violation(f"got a reply to LIST with magic {magic:#x}, option {option:#x}, length {length:#x}, "
                        f"expected {OPTION_REPLY_MAGIC:#x}, 3, and a short one")


@statement(2, MUST, "a name of 4097 bytes is refused, and the next option works")
def _(target):
    haggle = target.haggle_info()
    expect_type("INFO of a name of 4097 bytes", haggle.info(b"n" * (STRING_MAX + 1)), Reply.ERR_INVALID,
                Reply.ERR_TOO_BIG)
    haggle.in_step("a name that is too long")


@statement(3, MUST, "a name of 4096 bytes is legal, and the text about it is no longer than that")
def _(target):
    haggle = target.haggle_info()
    outcome = haggle.info(b"n" * STRING_MAX)
    if outcome.type in (Reply.ERR_INVALID, Reply.ERR_TOO_BIG):
        raise Violation(f"INFO of a name of 4096 bytes: got {outcome}, expected ERR_UNKNOWN")
    if not outcome.acknowledged and len(outcome.data) > STRING_MAX:
        raise Violation(f"got an error text of {len(outcome.data)} bytes, expected at most {STRING_MAX}")
    haggle.in_step("a name of 4096 bytes")


@statement(4, MUST, "a name with NUL in it matches no export and is invalid")
def _(target):
    haggle = target.haggle_info()
    outcome = expect_error("INFO of a name with NUL", haggle.info(target.name + b"\0"))
    haggle.in_step("a name with NUL")
    if outcome.type != Reply.ERR_INVALID:
        raise Violation(f"INFO of a name with NUL: got {outcome}, expected ERR_INVALID", DECISION)


@statement(5, DECISION, "a name that is not UTF-8 is refused, and never sent back as it came")
def _(target):
    target.unknown_name()  # who takes every name takes this one
    haggle = target.haggle_info()
    outcome = expect_type("INFO of a name that is not UTF-8", haggle.info(b"\xff\xfe\xc0\x80"), Reply.ERR_UNKNOWN,
                          Reply.ERR_INVALID, Reply.ERR_POLICY)
    expect_text("the error about a name that is not UTF-8", outcome.data)
    haggle.in_step("a name that is not UTF-8")


@statement(6, MUST, "names, descriptions and error texts are UTF-8 of at most 4096 bytes")
def _(target):
    haggle = target.haggle()
    for kind, data in haggle.ask(Option.LIST).before:
        if kind == Reply.SERVER and len(data) >= 4:
            end = 4 + struct.unpack(">I", data[:4])[0]
            expect_text("a listed name", data[4:end])
            expect_text("a description in a list", data[end:])
    outcome = haggle.info(target.name, Info.NAME, Info.DESCRIPTION)
    if outcome.acknowledged:
        info = ExportInfo(outcome)
        expect_text("INFO_NAME", info.name or b"")
        expect_text("INFO_DESCRIPTION", info.description or b"")
    for what, option, data in (("an unknown option", 99, b""), ("LIST with data", Option.LIST, b"data"),
                               ("INFO of a long name", Option.INFO, info_bytes("\u00e9".encode() * 2000 + b"x"))):
        outcome = target.haggle().ask(option, data)
        if not outcome.acknowledged:
            expect_text(f"the error about {what}", outcome.data)


unseen(7, SHOULD, "TCP sockets have TCP_NODELAY", "an option of the server's own socket")


@statement(8, MUST, "it does not matter in which segments the bytes come")
def _(target):
    target.need_info()
    expected = target.attach_simple().read(0, 4096)
    connection = target.connect()
    connection.receive(18, "the greeting")
    connection.send_bytewise(struct.pack(">I", 1) + option_bytes(Option.LIST))
    haggle = _Resumed(connection)
    haggle.hear(Option.LIST)
    connection.send_bytewise(option_bytes(Option.GO, info_bytes(target.name, [Info.BLOCK_SIZE])))
    expect_type("GO, byte by byte", haggle.hear(Option.GO), Reply.ACK)
    connection.send_bytewise(request_bytes(Command.READ, 0, 4096, cookie=1))
    head = connection.receive(16, "a simple reply")
    if head != struct.pack(">IIQ", 0x67446698, 0, 1):
        raise Violation(f"READ, byte by byte: got {describe(head)}, expected a simple reply without an error")
    if connection.receive(4096, "the data of a read") != expected:
        raise Violation("READ, byte by byte: got other data than in one segment, expected the same")


class _Resumed(Haggle):
    """A handshake whose beginning was spoken by somebody else."""

    def __init__(self, connection):
        self.connection = connection


@statement(9, DECISION, "who leaves in the middle of a message, at whatever byte, hurts nobody")
def _(target):
    target.need_info()
    target.attach()
    hello = struct.pack(">I", 1)
    go = option_bytes(Option.GO, info_bytes(target.name))
    for start, message in ((b"", hello), (hello, go), (hello + go, request_bytes(Command.READ, 0, 4096, cookie=1))):
        for length in range(len(message)):
            connection = target.connect()
            connection.send(start + message[:length])
            connection.close()
    target.attach().in_step("clients that left in the middle")


def expect_text(what, data):
    if len(data) > STRING_MAX:
        raise Violation(f"{what}: got {len(data)} bytes, expected at most {STRING_MAX}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Violation(f"{what}: got {describe(data)}, expected UTF-8 ({error.reason} at {error.start})") from None
    if "\0" in text:
        raise Violation(f"{what}: got a NUL at {text.index(chr(0))}, expected none")
