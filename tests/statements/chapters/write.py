"""WRITE: statements 136 to 143."""
from ..connection import Closed
from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement, unseen
from ..requests import expect, expect_failure
from ..wire import HOLE, KiB, MiB, Command, Errno, With


@statement(136, MUST, "the payload of a write is consumed, whatever becomes of it")
def _(target):
    session = _attach_refused(target)
    for what, offset, flags in (("beyond the end", session.size, 0), ("far beyond the end", 1 << 63, 0),
                                ("with an unknown flag", session.size, With.UNKNOWN)):
        for length in session.minimum, 64 * KiB:
            answer = session.call(Command.WRITE, offset, length, flags, _requests_of(length))
            expect_failure(f"WRITE of {length} bytes {what}", answer)
            session.in_step(f"a WRITE {what}")


@statement(137, SHOULD, "a payload of 32 MiB is no reason to close")
def _(target):
    session = _attach_refused(target)
    session.call(Command.WRITE, session.size, 32 * MiB, payload=bytes(32 * MiB))
    session.in_step("a WRITE of 32 MiB beyond the end")


@statement(138, MAY, "a payload of 65 MiB is consumed, or ends the connection")
def _(target):
    session = _attach_refused(target)
    try:
        answer = session.call(Command.WRITE, session.size, 65 * MiB, payload=bytes(65 * MiB))
        expect_failure("WRITE of 65 MiB beyond the end", answer)
        session.in_step("a WRITE of 65 MiB")
    except Closed:
        pass


unseen(139, MUST, "no memory is taken for a length before bytes come", "the server's memory is not on the wire")


@statement(140, SHOULD, "an empty write does not cost the connection; it succeeds, unless the export is read-only")
def _(target):
    session = _attach_refused(target)
    answer = session.call(Command.WRITE)
    session.in_step("an empty WRITE")
    expect("WRITE of nothing", answer, Errno.EPERM if session.read_only else Errno.OK, level=DECISION)


@statement(141, MUST, "what was written is read")
def _(target):
    session = target.attach_writer()
    with target.scratch() as offset:
        for length in session.minimum, 4 * KiB, 64 * KiB:
            content = _pattern(length)
            session.write(offset, content)
            if session.read(offset, length) != content:
                raise Violation(f"got other bytes than the {length} that were written at {offset}, expected the same")


@statement(142, DECISION, "of two overlapping writes at once each block holds one, and neighbours are untouched")
def _(target):
    session = target.attach_writer()
    block = max(512, session.minimum)
    with target.scratch() as offset:
        session.write(offset, b"." * 32 * block)
        for _ in range(8):
            left = session.send(Command.WRITE, offset + block, 20 * block, payload=b"L" * 20 * block)
            right = session.send(Command.WRITE, offset + 11 * block, 20 * block, payload=b"R" * 20 * block)
            for cookie in left, right:
                expect("WRITE", session.answer(cookie), Errno.OK)
            now = session.read(offset, 32 * block)
            blocks = [set(now[at:at + block]) for at in range(0, len(now), block)]
            for index, expected in enumerate(["."] + 10 * ["L"] + 10 * ["LR"] + 10 * ["R"] + ["."]):
                if len(blocks[index]) != 1 or not blocks[index] <= set(expected.encode()):
                    raise Violation(f"got {bytes(sorted(blocks[index]))} in block {index}, "
                                    f"expected one of '{expected}'")


@statement(143, MUST, "where there is no hole a write finds space")
def _(target):
    target.attach_writer()
    session = target.attach_status()
    with target.scratch() as offset:
        session.write(offset, _pattern(64 * KiB))
        extents = session.call(Command.BLOCK_STATUS, offset, 64 * KiB).extents()
        for context in session.contexts:
            for length, state in extents[context]:
                length = min(length, 64 * KiB)
                if not state & HOLE:
                    session.write(offset, _pattern(length))
                offset += length
                break


def _attach_refused(target):
    """A session whose writes beyond the end are asked for: they change nothing, but on a server that is broken."""
    session = target.attach()
    if not session.read_only and not target.may_write:
        raise Skip("it writes: give --writable")
    return session


def _pattern(length):
    return bytes(range(1, 252)) * (length // 251) + bytes(range(1, 1 + length % 251))


def _requests_of(length):
    """A payload that would be taken for requests if it were not consumed."""
    return (b"\x25\x60\x95\x13" + bytes(24)) * (length // 28) + bytes(length % 28)


