"""The transmission phase in general: statements 101 to 120."""
import contextlib

from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement
from ..requests import expect, expect_failure, request_bytes
from ..target import need_flags
from ..wire import KiB, MiB, Command, Errno, Flag, With

END_OF_64_BITS = 1 << 64
NOT_A_REQUEST = 0x25609514


@statement(101, MUST, "a wrong magic number instead of a request's ends the connection without a reply")
def _(target):
    session = target.attach()
    session.send(Command.READ, 0, 4 * KiB, magic=NOT_A_REQUEST)
    session.connection.expect_close("a wrong request magic")


@statement(102, MUST, "the cookie comes back bit for bit, and need not be unique")
def _(target):
    session = target.attach()
    for cookie in 0, END_OF_64_BITS - 1, 0x0123456789ABCDEF, 0x8000000000000000:
        session.answer(session.send(Command.READ, 0, 4 * KiB, cookie=cookie)).content()
    for _ in range(2):
        session.send(Command.READ, 0, 4 * KiB, cookie=7)
    for _ in range(2):
        session.answer(7).content()


@statement(103, MUST, "without structured replies all replies are simple")
def _(target):
    session = target.attach_simple()
    _expect_simple(session, Command.READ, 0, 4 * KiB)
    if session.flags & Flag.SEND_FLUSH:
        _expect_simple(session, Command.FLUSH)


@statement(104, MUST, "with structured replies no read has a simple one, even if it fails")
def _(target):
    session = target.attach_structured()
    for what, offset, length, flags in (("a READ", 0, 4 * KiB, 0), ("a READ past the end", session.size, 4 * KiB, 0),
                                        ("a READ with an unknown flag", 0, 4 * KiB, With.UNKNOWN),
                                        ("a READ with REQ_ONE", 0, 4 * KiB, With.REQ_ONE)):
        if session.call(Command.READ, offset, length, flags).simple:
            raise Violation(f"{what}: got a simple reply, expected a structured one")


@statement(105, MUST, "without structured replies even errors have no chunks")
def _(target):
    session = target.attach_simple()
    _expect_simple(session, Command.READ, session.size, 4 * KiB)
    _expect_simple(session, Command.BLOCK_STATUS, 0, 4 * KiB)
    _expect_simple(session, 99)


@statement(106, MAY, "in whatever order answers come, each is right")
def _(target):
    session = target.attach()
    expected = session.read(0, 512 * KiB)
    ranges = [(at, 4 * KiB + 60 * KiB * (at % (64 * KiB) == 0)) for at in range(0, 448 * KiB, 32 * KiB)]
    cookies = session.send_reads(ranges)
    for (offset, length), cookie in reversed(list(zip(ranges, cookies))):
        if session.answer(cookie).content() != expected[offset:offset + length]:
            raise Violation(f"got other bytes for {length} bytes at {offset} among other reads, expected the same")


@statement(107, SHOULD, "an unknown command is EINVAL, and its length is no payload")
def _(target):
    session = target.attach()
    expect("command 99", session.call(99, 0, 4 * KiB), Errno.EINVAL)
    session.in_step("an unknown command")


@statement(108, SHOULD, "a flag that is unknown, or does not go with the command, is EINVAL")
def _(target):
    session = target.attach()
    for flag in With.UNKNOWN, With.NO_HOLE, With.REQ_ONE, With.FAST_ZERO:
        expect(f"READ with {flag.name}", session.call(Command.READ, 0, 4 * KiB, flag), Errno.EINVAL)
        session.in_step(f"a READ with {flag.name}")
    if target.may_write and not session.read_only:
        with target.scratch() as offset:
            for flag in With.UNKNOWN, With.DF, With.REQ_ONE:
                answer = session.call(Command.WRITE, offset, 4 * KiB, flag, bytes(4 * KiB))
                expect(f"WRITE with {flag.name}", answer, Errno.EINVAL)
                session.in_step(f"a WRITE with {flag.name}")


@statement(109, MUST, "where FUA is advertised it goes with every command")
def _(target):
    session = target.attach()
    need_flags(session, Flag.SEND_FUA)
    expect("READ with FUA", session.call(Command.READ, 0, 4 * KiB, With.FUA), Errno.OK)
    if session.flags & Flag.SEND_FLUSH:
        expect("FLUSH with FUA", session.call(Command.FLUSH, flags=With.FUA), Errno.OK)
    if session.flags & Flag.SEND_CACHE:
        expect("CACHE with FUA", session.call(Command.CACHE, 0, 4 * KiB, With.FUA), Errno.OK)
    if target.may_write and not session.read_only:
        with target.scratch() as offset:
            answer = session.call(Command.WRITE, offset, 4 * KiB, With.FUA, bytes(4 * KiB))
            expect("WRITE with FUA", answer, Errno.OK)
            for command, flag in (Command.TRIM, Flag.SEND_TRIM), (Command.WRITE_ZEROES, Flag.SEND_WRITE_ZEROES):
                if session.flags & flag:
                    answer = session.call(command, offset, 4 * KiB, With.FUA)
                    expect(f"{command.name} with FUA", answer, Errno.OK)
    try:
        session = target.attach_status()
    except Skip:
        return
    expect("BLOCK_STATUS with FUA", session.call(Command.BLOCK_STATUS, 0, 4 * KiB, With.FUA), Errno.OK)


@statement(110, SHOULD, "where FUA is not advertised it is EINVAL")
def _(target):
    session = target.attach()
    if session.flags & Flag.SEND_FUA:
        raise Skip("SEND_FUA is advertised")
    expect("READ with FUA", session.call(Command.READ, 0, 4 * KiB, With.FUA), Errno.EINVAL)


@statement(111, SHOULD, "a command that is not advertised is refused")
def _(target):
    session = target.attach()
    missing = [(command, flag) for command, flag in ((Command.FLUSH, Flag.SEND_FLUSH), (Command.TRIM, Flag.SEND_TRIM),
                                                     (Command.WRITE_ZEROES, Flag.SEND_WRITE_ZEROES))
               if not session.flags & flag]
    if not session.read_only and not target.may_write:
        missing = [(command, flag) for command, flag in missing if command == Command.FLUSH]
    if not missing:
        raise Skip("FLUSH, TRIM and WRITE_ZEROES are advertised")
    refusals = [Errno.EINVAL, Errno.EPERM] if session.read_only else [Errno.EINVAL]
    for command, _ in missing:
        if command == Command.FLUSH:
            expect("FLUSH", session.call(Command.FLUSH), Errno.EINVAL)
            continue
        with _harmless(target, session) as offset:
            expect(command.name, session.call(command, offset, 4 * KiB), *refusals)
    session.in_step("commands that are not advertised")


@statement(112, SHOULD, "beyond the end is EINVAL, for what writes data ENOSPC, and 64 bits do not wrap")
def _(target):
    session = target.attach()
    unit = session.minimum
    commands = [(Command.READ, Errno.EINVAL)]
    if session.flags & Flag.SEND_CACHE:
        commands.append((Command.CACHE, Errno.EINVAL))
    if target.may_write and not session.read_only:
        commands.append((Command.WRITE, Errno.ENOSPC))
        if session.flags & Flag.SEND_TRIM:
            commands.append((Command.TRIM, Errno.EINVAL))
        if session.flags & Flag.SEND_WRITE_ZEROES:
            commands.append((Command.WRITE_ZEROES, Errno.ENOSPC))
    _expect_out_of_bounds(session, unit, commands)
    try:
        session = target.attach_status()
    except Skip:
        return
    _expect_out_of_bounds(session, unit, [(Command.BLOCK_STATUS, Errno.EINVAL)])


def _expect_out_of_bounds(session, unit, commands):
    length = 2 * unit
    end = session.size // unit * unit
    for command, error in commands:
        for offset in end - unit, end, end + unit, 1 << 63, END_OF_64_BITS - unit:
            payload = bytes(length) if command == Command.WRITE else b""
            answer = session.call(command, offset, length, payload=payload)
            expect(f"{command.name} of {length} bytes at {offset} of {session.size}", answer, error)
    session.in_step("requests beyond the end")


@statement(113, SHOULD, "what is not aligned to the minimum block is EINVAL")
def _(target):
    session = target.attach()
    if session.minimum == 1:
        raise Skip("the minimum block is 1")
    for offset, length in (1, session.minimum), (0, session.minimum + 1), (session.minimum // 2, session.minimum // 2):
        answer = session.call(Command.READ, offset, length)
        expect(f"READ of {length} bytes at {offset} with a minimum block of {session.minimum}", answer, Errno.EINVAL)
    session.in_step("requests that are not aligned")


@statement(114, SHOULD, "what writes to a read-only export is EPERM")
def _(target):
    session = target.attach()
    if not session.read_only:
        raise Skip("the export is writable")
    refused = []
    block = session.read(0, 4 * KiB)
    refused.append(("WRITE", session.call(Command.WRITE, 0, len(block), payload=block)))
    with _harmless(target, session) as offset:
        for command in Command.TRIM, Command.WRITE_ZEROES:
            refused.append((command.name, session.call(command, offset, 4 * KiB)))
    session.in_step("writes to a read-only export")
    for what, answer in refused:
        expect_failure(f"{what} on a read-only export", answer, MUST)
    for what, answer in refused:
        expect(f"{what} on a read-only export", answer, Errno.EPERM)


@statement(115, DECISION, "of several errors the flags' comes first, then read-only, bounds, alignment, length")
def _(target):
    session = target.attach()
    length, beyond = 2 * session.minimum, session.size // session.minimum * session.minimum
    cases = [("command 99 with an unknown flag", Errno.EINVAL, 99, beyond, With.UNKNOWN)]
    if session.read_only:
        cases += [("WRITE with an unknown flag, read-only", Errno.EINVAL, Command.WRITE, beyond, With.UNKNOWN),
                  ("WRITE beyond the end, read-only", Errno.EPERM, Command.WRITE, beyond, 0)]
    elif target.may_write:
        cases += [("WRITE beyond the end with an unknown flag", Errno.EINVAL, Command.WRITE, beyond, With.UNKNOWN)]
        if session.minimum > 1:
            cases += [("WRITE beyond the end, not aligned", Errno.ENOSPC, Command.WRITE, beyond + 1, 0)]
    else:
        raise Skip("it writes: give --writable")
    for what, error, command, offset, flags in cases:
        payload = bytes(length) if command == Command.WRITE else b""
        expect(what, session.call(command, offset, length, flags, payload), error)
    session.in_step("requests that are wrong in several ways")


@statement(116, MUST, "errors are those of the protocol")
def _(target):
    for what, answer in _failures(target):
        if answer.error and answer.error not in list(Errno):
            raise Violation(f"{what}: got the error {answer.error}, expected one of "
                            f"{', '.join(str(int(error)) for error in list(Errno)[1:])}")


@statement(117, SHOULD, "EOVERFLOW, ENOTSUP and ENOMEM are kept for their cases")
def _(target):
    for what, answer in _failures(target):
        if answer.error in (Errno.EOVERFLOW, Errno.ENOTSUP, Errno.ENOMEM):
            raise Violation(f"{what}: got {answer.error_name}, expected another error")
    session = target.attach_simple()
    if session.size >= 65 * MiB:
        answer = session.call(Command.READ, 0, 65 * MiB)
        expect("READ of 65 MiB without structured replies", answer, Errno.OK, Errno.EINVAL)


def _failures(target):
    """Requests that fail in different ways and hurt nobody: (what, answer)."""
    session = target.attach()
    length = 2 * session.minimum
    for what, command, offset, flags in (("command 99", 99, 0, 0), ("READ past the end", Command.READ, session.size, 0),
                                         ("READ at 2^63", Command.READ, 1 << 63, 0),
                                         ("READ with an unknown flag", Command.READ, 0, With.UNKNOWN),
                                         ("BLOCK_STATUS without a context", Command.BLOCK_STATUS, 0, 0),
                                         ("CACHE past the end", Command.CACHE, session.size, 0)):
        yield what, session.call(command, offset, length, flags)
    if session.read_only or target.may_write:
        yield "WRITE past the end", session.call(Command.WRITE, session.size, length, payload=bytes(length))


@statement(118, MUST, "DISC closes the connection without a reply, after all that was asked before")
def _(target):
    for offset, length, flags, behind in (0, 0, 0, b""), (1 << 40, 77, 0, b""), (0, 0, 0, bytes(100)):
        session = target.attach()
        cookies = session.send_reads([(at, 64 * KiB) for at in range(0, 512 * KiB, 64 * KiB)])
        session.connection.send(request_bytes(Command.DISC, offset, length, flags) + behind)
        for cookie in cookies:
            expect("READ before DISC", session.answer(cookie), Errno.OK, Errno.ESHUTDOWN)
        session.connection.expect_close("DISC")


@statement(119, DECISION, "who only stops sending gets the answers, and then the end")
def _(target):
    session = target.attach()
    cookies = session.send_reads([(at, 64 * KiB) for at in range(0, 512 * KiB, 64 * KiB)])
    session.connection.end_of_sending()
    for cookie in cookies:
        session.answer(cookie).content()
    session.connection.expect_close("the end of the client's bytes")


@statement(120, SHOULD, "requests beyond what the server takes at once wait, and none is lost")
def _(target):
    session = target.attach()
    for cookie in session.send_reads(1024 * [(0, 32 * KiB)]):
        session.answer(cookie).content()


def _expect_simple(session, command, offset=0, length=0):
    if not session.call(command, offset, length).simple:
        name = command.name if isinstance(command, Command) else f"command {command}"
        raise Violation(f"{name}: got a structured reply, expected a simple one")


@contextlib.contextmanager
def _harmless(target, session):
    """4 KiB that zeroes do not hurt: their offset. Where the first MiB has none, --writable allows others."""
    content = session.read(0, 1 * MiB)
    for offset in range(0, len(content), 4 * KiB):
        if not any(content[offset:offset + 4 * KiB]):
            yield offset
            return
    if not target.may_write:
        raise Skip("there are no zeroes to write zeroes to: give --writable")
    yield 0
