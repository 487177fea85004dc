"""INFO and GO: statements 47 to 68."""
import struct

from ..negotiation import ExportInfo, expect_error, expect_type, info_bytes
from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement
from ..requests import expect
from ..wire import Command, Errno, Flag, Handshake, Info, KiB, MiB, Option, Reply

NOBODY_KNOWS = 0x7777, 0xFFF0  # information types
EVERYTHING = Info.EXPORT, Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE


@statement(47, MUST, "a name that is longer than the option is invalid, and the next option works")
def _(target):
    for option in Option.INFO, Option.GO:
        haggle = target.haggle_info()
        data = struct.pack(">I", len(target.name) + 100) + target.name + struct.pack(">H", 0)
        expect_type(f"{option.name} with a name of {len(target.name) + 100} bytes in {len(data)}",
                    haggle.ask(option, data), Reply.ERR_INVALID)
        haggle.in_step("a name that is longer than the option")


@statement(48, DECISION, "INFO is exactly as long as its name and its list are")
def _(target):
    haggle = target.haggle_info()
    whole = info_bytes(target.name, [Info.BLOCK_SIZE])
    for what, data in (("with a byte too many", whole + b"\0"), ("with two bytes too many", whole + bytes(2)),
                       ("without the end of its list", whole[:-2])):
        expect_type(f"INFO {what}", haggle.ask(Option.INFO, data), Reply.ERR_INVALID)
        haggle.in_step(f"an INFO {what}")


@statement(49, MUST, "requests for information that nobody knows are ignored")
def _(target):
    info = _info(target, *NOBODY_KNOWS)
    for number, _ in info.items:
        if number in NOBODY_KNOWS:
            raise Violation(f"got information of type {number:#x}, expected none")
    _need_export(info)


@statement(50, MAY, "asking for the same information twice gets one answer, or an error")
def _(target):
    haggle = target.haggle_info()
    outcome = haggle.info(target.name, *2 * [Info.NAME, Info.BLOCK_SIZE])
    if not outcome.acknowledged:
        expect_error("INFO with everything twice", outcome)
        return
    numbers = [number for number, _ in ExportInfo(outcome).items]
    for number in set(numbers):
        if numbers.count(number) > 1:
            raise Violation(f"got information {number} {numbers.count(number)} times, expected it once", SHOULD)


@statement(51, MUST, "size and flags come before the ACK")
def _(target):
    for option in Option.INFO, Option.GO:
        outcome = target.haggle_info().ask(option, info_bytes(target.name))
        _need_export(ExportInfo(expect_type(option.name, outcome, Reply.ACK)))


@statement(52, MUST, "INFO tells the real size, and the flags that GO tells")
def _(target):
    _same("INFO", _info(target), "GO", _go(target.haggle_info(), target))


@statement(53, MUST, "GO after INFO says the same")
def _(target):
    haggle = target.haggle_info()
    before = ExportInfo(expect_type("INFO", haggle.info(target.name, *EVERYTHING), Reply.ACK))
    after = _go(haggle, target, *EVERYTHING)
    _same("INFO", before, "GO", after)
    if sorted(before.items) != sorted(after.items):
        raise Violation(f"got information {sorted(number for number, _ in after.items)} from GO, expected that of "
                        f"INFO, {sorted(number for number, _ in before.items)}, with the same content")


@statement(54, MUST, "nothing comes behind the ACK of GO")
def _(target):
    for flags in Handshake.FIXED_NEWSTYLE, Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES:
        session = target.enter(target.haggle_info(flags))
        session.connection.expect_silence(0.1, "the ACK of GO")
        session.in_step("GO")


@statement(55, MUST, "after a GO that failed another one works")
def _(target):
    haggle = target.haggle_info()
    expect_error("GO of an unknown export", haggle.go(target.unknown_name()))
    target.enter(haggle).in_step("a second GO")


@statement(56, MUST, "an unknown export is ERR_UNKNOWN, and nothing else is said about it")
def _(target):
    name = target.unknown_name()
    for option in Option.INFO, Option.GO:
        outcome = target.haggle_info().ask(option, info_bytes(name, EVERYTHING))
        expect_type(f"{option.name} of an unknown export", outcome, Reply.ERR_UNKNOWN)
        if outcome.before:
            raise Violation(f"got {len(outcome.before)} INFO replies before ERR_UNKNOWN, expected none", SHOULD)


@statement(57, MUST, "the empty name is the default export, or unknown")
def _(target):
    outcome = target.haggle_info().info(b"")
    expect_type("INFO of the empty name", outcome, Reply.ACK, Reply.ERR_UNKNOWN)
    if outcome.acknowledged:
        _need_export(ExportInfo(outcome))


@statement(58, MAY, "the name that is told is one that works")
def _(target):
    info = _info(target, Info.NAME)
    if info.name is None:
        raise Skip("the server does not tell the name")
    _same("INFO", info, "INFO of the name it told", _info(target, name=info.name))


@statement(59, MAY, "the description is told when asked for")
def _(target):
    info = _info(target, Info.DESCRIPTION)
    if info.description is None:
        raise Skip("the server tells no description of this export")
    if not info.description:
        raise Violation("got an empty description, expected one or none")


@statement(60, MUST, "block sizes are told when asked for")
def _(target):
    _block_sizes(target)  # of the right length, which ExportInfo has seen


@statement(61, MUST, "nobody who asks for the block sizes is told to ask for them")
def _(target):
    for option in Option.INFO, Option.GO:
        outcome = target.haggle_info().ask(option, info_bytes(target.name, [Info.BLOCK_SIZE]))
        if outcome.type == Reply.ERR_BLOCK_SIZE_REQD:
            raise Violation(f"{option.name} with BLOCK_SIZE: got ERR_BLOCK_SIZE_REQD, expected ACK")
    outcome = target.haggle_info().info(target.name)
    if outcome.type == Reply.ERR_BLOCK_SIZE_REQD and ExportInfo(outcome).block_sizes is None:
        raise Violation("got ERR_BLOCK_SIZE_REQD without the block sizes before it, expected them", SHOULD)


@statement(62, DECISION, "who asked for the block sizes keeps to them, who did not is served by the byte, or refused")
def _(target):
    target.need_info()
    session = target.attach()
    if session.minimum > 1:
        expect(f"READ of 3 bytes at 1 with a minimum block of {session.minimum}", session.call(Command.READ, 1, 3),
               Errno.EINVAL)
    block = session.read(0, 64 * KiB)
    session = target.enter(target.haggle(), wanted=())
    for offset, length in (1, 3), (511, 2), (4095, 4097):
        answer = session.call(Command.READ, offset, length)
        if not answer.error and answer.content() != block[offset:offset + length]:
            raise Violation(f"READ of {length} bytes at {offset}: got other bytes than as a part of a whole block, "
                            "expected the same, or an error")


@statement(63, MUST, "block sizes are powers of two in order, the longest payload is not below them")
def _(target):
    minimum, preferred, maximum = _block_sizes(target)
    told = f"got the block sizes {minimum}, {preferred}, {maximum}, expected "
    if not _is_power(minimum) or minimum > 64 * KiB:
        raise Violation(told + "the first to be a power of two of at most 65536")
    if not _is_power(preferred) or preferred < max(minimum, 512):
        raise Violation(told + "the second to be a power of two of at least 512 and the first")
    if maximum < preferred:
        raise Violation(told + "the third to be at least the second")
    if maximum < min(1 * MiB, _info(target).size):
        raise Violation(told + "the third to be at least 1 MiB", SHOULD)


@statement(64, SHOULD, "the size is a multiple of the minimum block")
def _(target):
    info = _info(target, Info.BLOCK_SIZE)
    if info.block_sizes is None:
        raise Skip("no block sizes are told")
    if info.size % info.block_sizes[0]:
        raise Violation(f"got a size of {info.size} with a minimum block of {info.block_sizes[0]}, expected a multiple")


@statement(65, MUST, "HAS_FLAGS is always set")
def _(target):
    target.need_info()
    old = target.enter_old(target.haggle())
    told = [("EXPORT_NAME", old.flags), ("INFO", _info(target).flags), ("GO", _go(target.haggle(), target).flags)]
    for what, flags in told:
        if not flags & Flag.HAS_FLAGS:
            raise Violation(f"got the flags {int(flags):#06x} from {what}, expected bit 0 to be set")


@statement(66, MUST, "no flag is set for what this connection can't use")
def _(target):
    flags = _go(target.haggle_info(), target).flags
    told = f"got the flags {flags:#06x} without structured replies, expected "
    if flags & Flag.SEND_DF:
        raise Violation(told + "no SEND_DF")
    if flags & Flag.SEND_FAST_ZERO and not flags & Flag.SEND_WRITE_ZEROES:
        raise Violation(told + "no SEND_FAST_ZERO without SEND_WRITE_ZEROES")
    if flags & Flag.BLOCK_STATUS_PAYLOAD:
        raise Violation(told + "no BLOCK_STATUS_PAYLOAD without extended headers")
    if flags >> 13:
        raise Violation(told + "bits 13 to 15 to be 0")


@statement(67, MUST, "the flags of GO follow what was negotiated since INFO")
def _(target):
    haggle = target.haggle_info()
    expect_type("INFO", haggle.info(target.name), Reply.ACK)
    if not haggle.ask(Option.STRUCTURED_REPLY).acknowledged:
        raise Skip("structured replies are not offered")
    after, fresh = _go(haggle, target), _go(target.haggle_structured(), target)
    if after.flags != fresh.flags:
        raise Violation(f"got the flags {after.flags:#06x} with an INFO before STRUCTURED_REPLY, expected those "
                        f"without it, {fresh.flags:#06x}")


@statement(68, MUST, "with CAN_MULTI_CONN a flush on one connection covers what was written on others")
def _(target):
    writer = target.attach_writer(Flag.CAN_MULTI_CONN, Flag.SEND_FLUSH)
    flusher, reader = target.attach(), target.attach()
    with target.scratch() as offset:
        content = b"multi" * 819 + b"!"
        reader.read(offset, len(content))  # what it may remember from now on is old
        writer.write(offset, content)
        expect("FLUSH", flusher.call(Command.FLUSH), Errno.OK)
        if reader.read(offset, len(content)) != content:
            raise Violation("got old bytes on a third connection after a write on one and a flush on another, "
                            "expected the new ones")


def _info(target, *wanted, name=None):
    name = target.name if name is None else name
    return ExportInfo(expect_type("INFO", target.haggle_info().info(name, *wanted), Reply.ACK))


def _go(haggle, target, *wanted):
    info = ExportInfo(expect_type("GO", haggle.go(target.name, *wanted), Reply.ACK))
    _need_export(info)
    return info


def _need_export(info):
    if info.size is None:
        raise Violation("got no INFO_EXPORT, expected size and flags")


def _same(one, left, other, right):
    for info in left, right:
        _need_export(info)
    if (left.size, left.flags) != (right.size, right.flags):
        raise Violation(f"got size {left.size} and flags {left.flags:#06x} from {one}, expected those of {other}: "
                        f"{right.size} and {right.flags:#06x}")


def _block_sizes(target):
    sizes = _info(target, Info.BLOCK_SIZE).block_sizes
    if sizes is None:
        raise Skip("no block sizes are told")
    return sizes


def _is_power(number):
    return number > 0 and number & (number - 1) == 0
