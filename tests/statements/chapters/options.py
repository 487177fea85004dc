"""Option haggling in general: statements 19 to 38."""
import struct

from ..connection import Closed, describe
from ..negotiation import expect_error, expect_type, info_bytes, meta_bytes, option_bytes
from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement, unseen
from ..requests import request_bytes
from ..wire import OPTION_REPLY_MAGIC, STRING_MAX, Flag, Handshake, Option, Reply

ENDLESS = 5000  # options that no client needs
WITH_ZEROES = Handshake.FIXED_NEWSTYLE


@statement(19, MUST, "a wrong magic number instead of an option's ends the connection")
def _(target):
    haggle = target.haggle()
    haggle.connection.send(b"IHAVEOPS" + option_bytes(Option.LIST)[8:])
    haggle.connection.expect_close("a wrong option magic")


@statement(20, MUST, "an unknown option is unsupported, once, and its data is skipped")
def _(target):
    if target.forces_tls():
        raise Skip("the server wants TLS first")
    haggle = target.haggle()
    for option in 99, 4, 0, 0xFFFFFFFF:
        expect_type(f"option {option}", haggle.ask(option, b"abc"), Reply.ERR_UNSUP)
        haggle.in_step(f"option {option}")


@statement(21, MUST, "every reply names its option, and has the right magic number and length")
def _(target):
    haggle = target.haggle()
    for option, data in ((Option.LIST, b""), (99, b""), (Option.INFO, info_bytes(target.name)),
                         (Option.STRUCTURED_REPLY, b""), (Option.LIST_META_CONTEXT, meta_bytes(target.name)),
                         (Option.INFO, info_bytes(b"no export has this name"))):
        haggle.ask(option, data)


@statement(22, MUST, "an option has exactly one final reply, behind all others")
def _(target):
    haggle = target.haggle()
    for option, data in ((Option.LIST, b""), (Option.INFO, info_bytes(target.name)), (Option.STRUCTURED_REPLY, b""),
                         (Option.SET_META_CONTEXT, meta_bytes(target.name, b"base:allocation"))):
        haggle.ask(option, data)
        expect_error(f"an unknown option after option {int(option)}", haggle.ask(99))
    haggle.connection.expect_silence(0.1, "the last reply")


@statement(23, MUST, "an error does not end the haggling")
def _(target):
    unknown = target.unknown_name()
    haggle = target.haggle_info()
    haggle.ask(Option.LIST, b"data")
    for outcome in haggle.info(unknown), haggle.go(unknown):
        expect_error("an unknown export", outcome)
    haggle.ask(Option.SET_META_CONTEXT, meta_bytes(unknown, b"base:allocation"))
    target.enter(haggle)


@statement(24, DECISION, "an option that says it is 2 GiB long ends the connection at once")
def _(target):
    haggle = target.haggle()
    haggle.connection.send(option_bytes(99)[:12] + struct.pack(">I", 0x7FFFFFFF))
    haggle.connection.expect_close("an option of 2 GiB")


@statement(25, DECISION, "options without end are stopped")
def _(target):
    haggle = target.haggle()
    try:
        for _ in range(ENDLESS):
            haggle.ask(99)
    except Closed:
        return
    raise Violation(f"got answers to {ENDLESS} options, expected the connection to be closed")


@statement(26, MUST, "EXPORT_NAME of a missing export closes without a byte")
def _(target):
    name = target.unknown_name()
    haggle = target.haggle()
    haggle.say(Option.EXPORT_NAME, name)
    haggle.connection.expect_close("EXPORT_NAME of a missing export")


@statement(27, MUST, "EXPORT_NAME is answered by size, flags, and 124 zeroes unless both sides leave them out")
def _(target):
    if target.forces_tls():
        raise Skip("the server wants TLS first")
    for haggle in target.haggle(), target.haggle(WITH_ZEROES):
        haggle.say(Option.EXPORT_NAME, target.name)
        length = 134 if haggle.zeroes else 10
        head = haggle.connection.receive(length, "the answer to EXPORT_NAME")
        if any(head[10:]):
            raise Violation(f"got {describe(head[10:])} behind size and flags, expected 124 zeroes")
        if not struct.unpack(">H", head[8:10])[0] & Flag.HAS_FLAGS:
            raise Violation(f"got {describe(head[:10])}, expected size and flags, HAS_FLAGS among them")
        haggle.connection.send(request_bytes(99, cookie=7))
        magic = haggle.connection.receive(4, "a reply to the first request")
        if magic != struct.pack(">I", 0x67446698):
            raise Violation(f"got {describe(magic)} after {length} bytes, expected a simple reply to the first request")


@statement(28, MUST, "EXPORT_NAME is not answered by a reply packet")
def _(target):
    if target.forces_tls():
        raise Skip("the server wants TLS first")
    haggle = target.haggle()
    haggle.say(Option.EXPORT_NAME, target.name)
    head = haggle.connection.receive(8, "the size of the export")
    if head == struct.pack(">Q", OPTION_REPLY_MAGIC):
        raise Violation("got an option reply, expected the size of the export")


@statement(29, MAY, "EXPORT_NAME with more than 4096 bytes ends the connection")
def _(target):
    haggle = target.haggle()
    haggle.say(Option.EXPORT_NAME, b"n" * (STRING_MAX + 1))
    haggle.connection.expect_close("EXPORT_NAME with 4097 bytes")


@statement(30, MUST, "ABORT is acknowledged")
def _(target):
    expect_type("ABORT", target.haggle().ask(Option.ABORT), Reply.ACK)


@statement(31, SHOULD, "data of ABORT is ignored")
def _(target):
    expect_type("ABORT with data", target.haggle().ask(Option.ABORT, b"a last word"), Reply.ACK)


@statement(32, SHOULD, "ABORT from a client that is gone before the answer hurts nobody")
def _(target):
    for _ in range(20):
        haggle = target.haggle()
        haggle.say(Option.ABORT)
        haggle.connection.close()
    target.haggle().in_step("clients that aborted")


@statement(33, MUST, "ABORT needs no TLS, even where everything else does")
def _(target):
    if not target.forces_tls():
        raise Skip("the server does not want TLS first")
    expect_type("ABORT", target.haggle().ask(Option.ABORT), Reply.ACK)


@statement(34, MAY, "asking for structured replies again is acknowledged, or invalid")
def _(target):
    haggle = target.haggle_structured()
    expect_type("the second STRUCTURED_REPLY", haggle.ask(Option.STRUCTURED_REPLY), Reply.ACK, Reply.ERR_INVALID)
    haggle.in_step("a second STRUCTURED_REPLY")


unseen(35, SHOULD, "a server that stops answers ERR_SHUTDOWN, but for ABORT", "it needs a server that is stopping")


@statement(36, MAY, "options sent ahead are answered in order, or end the connection")
def _(target):
    haggle = target.haggle()
    haggle.connection.send(option_bytes(Option.LIST) + option_bytes(99) + option_bytes(Option.ABORT))
    try:
        for option in Option.LIST, 99, Option.ABORT:
            haggle.hear(option)
    except Closed:
        pass


@statement(37, MUST, "after GO nothing is an option any more")
def _(target):
    session = target.attach_simple()
    session.connection.send(option_bytes(Option.LIST, bytes(12)))
    session.connection.end_of_sending()
    said = session.connection.receive_all()
    if said[:8] == struct.pack(">Q", OPTION_REPLY_MAGIC):
        raise Violation("got an option reply, expected a request error or a closed connection")


@statement(38, SHOULD, "errors carry a text for people")
def _(target):
    for what, option, data in (("an unknown option", 99, b""), ("LIST with data", Option.LIST, b"data"),
                               ("a name with NUL", Option.INFO, info_bytes(b"a\0b"))):
        outcome = target.haggle().ask(option, data)
        if not outcome.acknowledged and not outcome.data:
            raise Violation(f"{what}: got {outcome} without a text, expected one")


