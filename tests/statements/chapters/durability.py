"""Durability, and several connections: statements 172 to 175."""
from ..registry import DECISION, MUST, Violation, statement, unseen
from ..requests import expect
from ..wire import Command, Errno, Flag, With

NOT_ON_THE_WIRE = "what survives a power cut is not on the wire"


@statement(172, MUST, "with CAN_MULTI_CONN what was written with FUA is seen by all connections when it is answered")
def _(target):
    writer = target.attach_writer(Flag.CAN_MULTI_CONN, Flag.SEND_FUA)
    _expect_seen(target, writer, With.FUA)


unseen(173, MUST, "with CAN_MULTI_CONN a flush makes durable what was written on other connections", NOT_ON_THE_WIRE)


@statement(174, DECISION, "an answered write is read by every connection")
def _(target):
    _expect_seen(target, target.attach_writer(), With(0))


unseen(175, DECISION, "a volatile cache is called one", "how an export is kept is not on the wire")


def _expect_seen(target, writer, flags):
    reader = target.attach()
    with target.scratch() as offset:
        for number in range(1, 9):
            content = bytes([number]) * 4096
            answer = writer.call(Command.WRITE, offset, len(content), flags, content)
            expect(f"WRITE{' with FUA' if flags else ''}", answer, Errno.OK)
            if reader.read(offset, len(content)) != content:
                raise Violation(f"got old bytes on a second connection after write {number} was answered on the first, "
                                "expected the new ones")
