"""WRITE_ZEROES, TRIM, CACHE, FLUSH: statements 144 to 157."""
from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement, unseen
from ..requests import expect, expect_failure
from ..target import need_flags
from ..wire import HOLE, ZERO, KiB, MiB, Command, Errno, Flag, With

BEFORE = b"\xa5"  # what is there before the zeroes


@statement(144, MUST, "zeroed bytes read as zeroes, and their neighbours are untouched")
def _(target):
    session = target.attach_writer(Flag.SEND_WRITE_ZEROES)
    unit = session.minimum
    with target.scratch() as offset:
        for start, length in (0, 64 * KiB), (unit, 3 * unit), (4 * KiB, 8 * KiB), (4 * KiB - unit, 8 * KiB + 2 * unit):
            _fill(session, offset, 64 * KiB)
            answer = session.call(Command.WRITE_ZEROES, offset + start, length)
            expect(f"WRITE_ZEROES of {length} bytes", answer, Errno.OK)
            _expect_zeroes(session, offset, start, length)


@statement(145, MUST, "with NO_HOLE zeroes take space, and read as zeroes")
def _(target):
    session = target.attach_writer(Flag.SEND_WRITE_ZEROES)
    with target.scratch() as offset:
        _fill(session, offset, 64 * KiB)
        answer = session.call(Command.WRITE_ZEROES, offset, 32 * KiB, With.NO_HOLE)
        expect("WRITE_ZEROES with NO_HOLE", answer, Errno.OK)
        _expect_zeroes(session, offset, 0, 32 * KiB)
        for length, state in _status(target, offset, 32 * KiB):
            if state & HOLE:
                raise Violation(f"got a hole of {length} bytes after WRITE_ZEROES with NO_HOLE, expected none")


@statement(146, MAY, "zeroes may be longer than the maximum payload, and need not take space")
def _(target):
    session = target.attach_writer(Flag.SEND_WRITE_ZEROES)
    length = session.maximum + 1 * MiB
    if length > 40 * MiB or session.size < length:
        raise Skip("it needs an export longer than the maximum payload, and that below 40 MiB")
    with target.scratch(length) as offset:
        answer = session.call(Command.WRITE_ZEROES, offset, length)
        expect(f"WRITE_ZEROES of {length} bytes", answer, Errno.OK, Errno.EOVERFLOW, Errno.EINVAL)
        session.in_step("a long WRITE_ZEROES")


@statement(147, MUST, "a fast zero is done, or ENOTSUP and nothing has changed")
def _(target):
    session = target.attach_writer(Flag.SEND_WRITE_ZEROES, Flag.SEND_FAST_ZERO)
    with target.scratch() as offset:
        _fill(session, offset, 64 * KiB)
        answer = session.call(Command.WRITE_ZEROES, offset, 32 * KiB, With.FAST_ZERO)
        expect("WRITE_ZEROES with FAST_ZERO", answer, Errno.OK, Errno.ENOTSUP)
        if not answer.error:
            _expect_zeroes(session, offset, 0, 32 * KiB)
        elif session.read(offset, 64 * KiB) != BEFORE * 64 * KiB:
            raise Violation("got other bytes after a fast zero that was ENOTSUP, expected the old ones", SHOULD)


@statement(148, MUST, "without FAST_ZERO there is no ENOTSUP, and FAST_ZERO not advertised is EINVAL")
def _(target):
    session = target.attach_writer(Flag.SEND_WRITE_ZEROES)
    with target.scratch() as offset:
        for flags in With(0), With.NO_HOLE:
            answer = session.call(Command.WRITE_ZEROES, offset, 64 * KiB, flags)
            if answer.error == Errno.ENOTSUP:
                raise Violation("WRITE_ZEROES without FAST_ZERO: got ENOTSUP, expected success")
        if not session.flags & Flag.SEND_FAST_ZERO:
            answer = session.call(Command.WRITE_ZEROES, offset, 64 * KiB, With.FAST_ZERO)
            expect("WRITE_ZEROES with FAST_ZERO, not advertised,", answer, Errno.EINVAL)


unseen(149, DECISION, "4 GiB of zeroes delay nobody, and end with the client", "what it delays depends on the medium")


@statement(150, MAY, "a trim may do anything to its bytes, and nothing to others")
def _(target):
    session = target.attach_writer(Flag.SEND_TRIM)
    unit = session.minimum
    fua = With.FUA if session.flags & Flag.SEND_FUA else With(0)
    with target.scratch() as offset:
        for start, length in (4 * KiB, 8 * KiB), (4 * KiB - unit, 8 * KiB + 2 * unit):
            _fill(session, offset, 64 * KiB)
            expect(f"TRIM of {length} bytes", session.call(Command.TRIM, offset + start, length, fua), Errno.OK)
            now = session.read(offset, 64 * KiB)
            if now[:start].strip(BEFORE) or now[start + length:].strip(BEFORE):
                raise Violation(f"got other bytes beside a TRIM of {length} bytes at {offset + start}, "
                                "expected the old ones", MUST)


@statement(151, MAY, "what is called zero after a trim reads as zeroes")
def _(target):
    session = target.attach_writer(Flag.SEND_TRIM)
    with target.scratch() as offset:
        _fill(session, offset, 64 * KiB)
        expect("TRIM", session.call(Command.TRIM, offset, 32 * KiB), Errno.OK)
        at = offset
        for length, state in _status(target, offset, 64 * KiB, needed=True):
            length = min(length, offset + 64 * KiB - at)
            if state & ZERO and any(session.read(at, length)):
                raise Violation(f"got data in {length} bytes at {at}, where BLOCK_STATUS says zeroes", MUST)
            at += length


@statement(152, SHOULD, "an empty trim, zeroing or cache does not cost the connection; it succeeds")
def _(target):
    session = target.attach_writer()
    commands = [command for command, flag in ((Command.TRIM, Flag.SEND_TRIM), (Command.CACHE, Flag.SEND_CACHE),
                                              (Command.WRITE_ZEROES, Flag.SEND_WRITE_ZEROES)) if session.flags & flag]
    if not commands:
        raise Skip("TRIM, WRITE_ZEROES and CACHE are not advertised")
    answers = [session.call(command) for command in commands]
    session.in_step("empty requests")
    for command, answer in zip(commands, answers):
        expect(f"{command.name} of nothing", answer, Errno.OK, level=DECISION)


@statement(153, MUST, "a cache takes any length and no flag but FUA, and does not hurt later reads")
def _(target):
    session = target.attach()
    need_flags(session, Flag.SEND_CACHE)
    before = session.read(0, 64 * KiB)
    for flag in With.UNKNOWN, With.NO_HOLE, With.DF:
        expect_failure(f"CACHE with {flag.name}", session.call(Command.CACHE, 0, 64 * KiB, flag))
    length = min(session.size // session.minimum * session.minimum, session.maximum + 1 * MiB)
    expect(f"CACHE of {length} bytes", session.call(Command.CACHE, 0, length), Errno.OK)
    if session.read(0, 64 * KiB) != before:
        raise Violation("got other bytes after CACHE, expected the same")


unseen(154, MUST, "a flush makes durable what was answered before", "what survives a power cut is not on the wire")


@statement(155, DECISION, "the range of a flush means nothing")
def _(target):
    session = target.attach()
    need_flags(session, Flag.SEND_FLUSH)
    for offset, length in (4 * KiB, 0), (0, 4 * KiB), (1 << 63, 1):
        expect(f"FLUSH of {length} bytes at {offset}", session.call(Command.FLUSH, offset, length), Errno.OK)
    session.in_step("FLUSH with a range")


unseen(156, DECISION, "a failed flush is reported by every later one", "it needs a medium that fails")
unseen(157, DECISION, "zeroes and trim with FUA are durable when answered",
       "what survives a power cut is not on the wire")


def _fill(session, offset, length):
    session.write(offset, BEFORE * length)


def _expect_zeroes(session, offset, start, length):
    """Of 64 KiB at offset, the part is zeroes, and the rest as it was."""
    now = session.read(offset, 64 * KiB)
    if any(now[start:start + length]):
        raise Violation(f"got data within {length} zeroed bytes at {offset + start}, expected zeroes")
    if now[:start].strip(BEFORE) or now[start + length:].strip(BEFORE):
        raise Violation(f"got other bytes beside {length} zeroed bytes at {offset + start}, expected the old ones")


def _status(target, offset, length, needed=False):
    """The extents of base:allocation; none where the server does not tell, unless they are needed."""
    try:
        session = target.attach_status()
    except Skip:
        if needed:
            raise
        return []
    extents = session.call(Command.BLOCK_STATUS, offset, length).extents()
    return extents[next(number for number, name in session.contexts.items() if name == "base:allocation")]
