"""The start of the handshake: statements 10 to 18."""
import struct
import time

from ..connection import Closed
from ..negotiation import option_bytes
from ..registry import DECISION, MAY, MUST, Skip, Violation, statement, unseen
from ..wire import OLDSTYLE_MAGIC, Handshake, Option

BOTH = Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES
CROWD = 40  # clients that say nothing


@statement(10, MUST, "the server speaks first, 18 bytes, and then waits for the client's flags")
def _(target):
    connection = target.connect()
    connection.receive(18, "the greeting")
    connection.expect_silence(0.2, "the greeting")


@statement(11, MUST, "fixed newstyle is offered, and no flag that nobody knows")
def _(target):
    flags = target.haggle().flags
    if not flags & Handshake.FIXED_NEWSTYLE or flags & ~int(BOTH):
        raise Violation(f"got the handshake flags {flags:#06x}, expected 0x0001 or 0x0003")


@statement(12, MUST, "an unknown client flag ends the connection")
def _(target):
    for unknown in 1 << 2, 1 << 31:
        haggle = target.haggle(BOTH | unknown)
        haggle.say(Option.LIST)
        haggle.connection.expect_close(f"the client flags {int(BOTH) | unknown:#x}")


@statement(13, MUST, "a client can't leave out zeroes that the server did not offer to leave out")
def _(target):
    connection = target.connect()
    flags = struct.unpack(">H", connection.receive(18, "the greeting")[16:])[0]
    if flags & Handshake.NO_ZEROES:
        raise Skip("the server offers it")
    connection.send(struct.pack(">I", flags | Handshake.NO_ZEROES) + option_bytes(Option.LIST))
    connection.expect_close("NO_ZEROES, not offered,")


@statement(14, MAY, "a client without fixed newstyle gets EXPORT_NAME; other options are answered, or end it")
def _(target):
    if target.forces_tls():
        raise Skip("the server wants TLS first")
    target.enter_old(target.haggle(Handshake(0)))
    haggle = target.haggle(Handshake(0))
    haggle.say(Option.LIST)
    try:
        haggle.hear(Option.LIST)
    except Closed:
        pass


@statement(15, MUST, "the greeting is not the old style's")
def _(target):
    magic = struct.unpack(">8xQ", target.connect().receive(16, "the greeting"))[0]
    if magic == OLDSTYLE_MAGIC:
        raise Violation(f"got {magic:#018x}, expected IHAVEOPT")


unseen(16, DECISION, "a port probe is no error in the log", "the log is not on the wire")


@statement(17, DECISION, "who does not finish the handshake in time is dropped, with or without progress")
def _(target):
    if not target.patience:
        raise Skip("it waits for the server's limit: give --slow")
    silent = target.haggle()
    start = time.monotonic()
    if not silent.connection.wait_closed(target.patience):
        raise Violation(f"got a silent client that is served for {target.patience:g} s, expected it to be dropped")
    limit = time.monotonic() - start
    busy = target.haggle()
    start = time.monotonic()
    slowly = option_bytes(99, bytes(1000))
    for at in range(len(slowly)):
        busy.connection.send(slowly[at:at + 1])
        if busy.connection.wait_closed(limit / 10):
            return
        if time.monotonic() - start > 2 * limit + 1:
            raise Violation(f"got a slow client that is served for more than twice the {limit:.1f} s of a silent one, "
                            "expected it to be dropped")


@statement(18, DECISION, "clients that never negotiate keep nobody out")
def _(target):
    idle = [target.connect() for _ in range(CROWD)]
    target.attach().in_step(f"{len(idle)} idle clients")
