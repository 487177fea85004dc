"""BLOCK_STATUS: statements 158 to 171."""
from ..negotiation import contexts_in, expect_type, meta_bytes
from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement, unseen
from ..requests import expect
from ..wire import HOLE, ZERO, KiB, MiB, Command, Errno, Option, Reply, With

DESCRIPTORS_MAX = 1 << 20
END_OF_32_BITS = 1 << 32


@statement(158, SHOULD, "without a context it is EINVAL")
def _(target):
    session = target.attach()
    expect("BLOCK_STATUS without a context", session.call(Command.BLOCK_STATUS, 0, 64 * KiB), Errno.EINVAL)
    session.in_step("BLOCK_STATUS without a context")


@statement(159, MUST, "the answer has one chunk for each selected context, with its id")
def _(target):
    session = target.attach_status()
    for offset, length in _ranges(session):
        answer = session.call(Command.BLOCK_STATUS, offset, length)
        if answer.simple:
            raise Violation("BLOCK_STATUS: got a simple reply, expected a structured one")
        if set(found := answer.extents()) != set(session.contexts):
            raise Violation(f"got the contexts {sorted(found)}, expected {sorted(session.contexts)}")
    session.in_step("BLOCK_STATUS")


@statement(160, MUST, "there is an extent, and none is empty")
def _(target):
    for _, _, extents in _answers(target.attach_status()):
        if not extents or any(length == 0 for length, _ in extents):
            raise Violation(f"got the extents {extents[:8]}, expected at least one, and none of length 0")


@statement(161, MUST, "only the last extent reaches beyond the request, and none beyond the export")
def _(target):
    session = target.attach_status()
    for offset, asked, extents in _answers(session):
        lengths = [length for length, _ in extents]
        if sum(lengths[:-1]) >= asked:
            raise Violation(f"got {sum(lengths[:-1])} bytes before the last extent, expected less than {asked}")
        if offset + sum(lengths) > session.size:
            raise Violation(f"got extents up to {offset + sum(lengths)}, expected an end at {session.size}")


@statement(162, MUST, "with REQ_ONE there is one extent, within the request")
def _(target):
    session = target.attach_status()
    for offset, asked in _ranges(session):
        for extents in session.call(Command.BLOCK_STATUS, offset, asked, With.REQ_ONE).extents().values():
            if len(extents) != 1 or extents[0][0] > asked:
                raise Violation(f"got the extents {extents[:8]}, expected one of at most {asked} bytes")


@statement(163, SHOULD, "an answer has at most 2^20 extents")
def _(target):
    for _, _, extents in _answers(target.attach_status()):
        if len(extents) > DESCRIPTORS_MAX:
            raise Violation(f"got {len(extents)} extents, expected at most {DESCRIPTORS_MAX}")


@statement(164, SHOULD, "neighbouring extents differ")
def _(target):
    for offset, _, extents in _answers(target.attach_status()):
        for (length, state), (_, following) in zip(extents, extents[1:]):
            if state == following:
                raise Violation(f"got two extents of state {state} side by side at {offset + length}, expected one")
            offset += length


@statement(165, SHOULD, "extents are whole sectors and whole minimum blocks, but at the end of the export")
def _(target):
    session = target.attach_status()
    unit = max(512, session.minimum)
    for offset, asked, extents in _answers(session):
        if offset % unit:
            continue
        for length, _ in extents:
            offset += length
            if length % unit and offset != session.size:
                raise Violation(f"got an extent of {length} bytes that ends at {offset}, expected a multiple of {unit}")


@statement(166, MUST, "an extent that does not fit into 32 bits is cut, and never empty")
def _(target):
    session = target.attach_status()
    if session.size <= END_OF_32_BITS:
        raise Skip("it needs an export of more than 4 GiB")
    longest = END_OF_32_BITS - max(512, session.minimum)
    for offset in 0, session.minimum, session.size - END_OF_32_BITS:
        for extents in session.call(Command.BLOCK_STATUS, offset, longest).extents().values():
            if any(length == 0 or length % session.minimum for length, _ in extents):
                raise Violation(f"got the extents {extents[:8]}, expected multiples of {session.minimum}, none empty")


@statement(167, SHOULD, "beyond the end it is EINVAL, and an empty one does not cost the connection; it is EINVAL")
def _(target):
    session = target.attach_status()
    for offset in session.size, 1 << 63:
        answer = session.call(Command.BLOCK_STATUS, offset, 4 * KiB)
        expect(f"BLOCK_STATUS at {offset} of {session.size}", answer, Errno.EINVAL)
    answer = session.call(Command.BLOCK_STATUS)
    session.in_step("an empty BLOCK_STATUS")
    expect("BLOCK_STATUS of nothing", answer, Errno.EINVAL, level=DECISION)


unseen(168, MAY, "where the status can't be found it is data", "it needs a medium that fails")


@statement(169, MUST, "what is called zero reads as zeroes, and no other states are told")
def _(target):
    session = target.attach_status()
    allocation = next(number for number, name in session.contexts.items() if name == "base:allocation")
    end = min(session.size, 4 * MiB)
    offset = 0
    while offset < end:
        asked = (end - offset) // session.minimum * session.minimum
        if not asked:
            return
        for length, state in session.call(Command.BLOCK_STATUS, offset, asked).extents()[allocation]:
            if state & ~(HOLE | ZERO):
                raise Violation(f"got the state {state:#x}, expected bits 0 and 1 only")
            length = min(length, end - offset)
            if not length:
                raise Violation("got an empty extent, expected none")
            if state & ZERO and any(session.read(offset, length)):
                raise Violation(f"got data in {length} bytes at {offset}, where BLOCK_STATUS says zeroes")
            offset += length


@statement(170, MUST, "a dirty bitmap knows clean and dirty, and nothing else")
def _(target):
    haggle = target.haggle_contexts()
    outcome = haggle.ask(Option.LIST_META_CONTEXT, meta_bytes(target.name, b"qemu:dirty-bitmap:"))
    bitmaps = [name for _, name in contexts_in(expect_type("LIST_META_CONTEXT", outcome, Reply.ACK))]
    if not bitmaps:
        raise Skip("there are no dirty bitmaps")
    outcome = haggle.ask(Option.SET_META_CONTEXT, meta_bytes(target.name, bitmaps[0].encode()))
    session = target.enter(haggle, structured=True, contexts=contexts_in(outcome))
    for _, _, extents in _answers(session):
        if any(state > 1 for _, state in extents):
            raise Violation(f"got the extents {extents[:8]}, expected the states 0 and 1 only")


unseen(171, DECISION, "an answer is sent in one piece", "a stream shows no pieces")


def _ranges(session):
    """Ranges to ask about: (offset, length)."""
    whole = min(session.size, END_OF_32_BITS - 1)
    whole -= whole % max(512, session.minimum)
    last = (session.size - 1) // session.minimum * session.minimum
    return [(0, whole), (0, 64 * KiB), (64 * KiB, 512 * KiB), (0, max(512, session.minimum)),
            (last, session.size - last)] if session.size % session.minimum == 0 else [(0, whole), (0, 64 * KiB)]


def _answers(session):
    """The answers to _ranges: (offset, length asked for, extents), for each context."""
    for offset, length in _ranges(session):
        for extents in session.call(Command.BLOCK_STATUS, offset, length).extents().values():
            yield offset, length, extents
