"""READ: statements 121 to 135."""
from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement, unseen
from ..requests import expect
from ..target import need_flags
from ..wire import DONE, KiB, MiB, ZERO, Chunk, Command, Errno, Flag, With

NEEDS_FAULTS = "it needs a medium that fails"
LONG_HOLE = 64 * KiB


@statement(121, MUST, "a simple reply has all the data, or an error and nothing")
def _(target):
    session = target.attach_simple()
    session.read(0, 64 * KiB)
    expect("READ past the end", session.call(Command.READ, session.size, session.minimum), Errno.EINVAL, Errno.EIO,
           Errno.ENOSPC)
    session.in_step("a READ that failed")


unseen(122, MUST, "an error behind the head of a simple reply ends the connection", NEEDS_FAULTS)


@statement(123, MUST, "chunks cover the whole read, once, and the last one is marked as such")
def _(target):
    session = target.attach_structured()
    for offset, length in (0, 1 * MiB), (session.minimum, 64 * KiB), (0, max(session.minimum, 512)):
        session.call(Command.READ, offset, length).content()
        session.in_step(f"a READ of {length} bytes at {offset}")


@statement(124, MUST, "chunks have the lengths of their types")
def _(target):
    session = target.attach_structured()
    answers = [session.call(Command.READ, 0, 1 * MiB), session.call(Command.READ, session.size, session.minimum),
               session.call(Command.READ, 0, 0)]
    for piece in (piece for answer in answers for piece in answer.pieces):
        length = len(piece.payload)
        if piece.type == Chunk.OFFSET_DATA:
            good = length >= 9
        elif piece.type == Chunk.OFFSET_HOLE:
            good = length == 12 and piece.range()[1] > 0
        elif piece.type == Chunk.NONE:
            good = length == 0 and piece.flags & DONE
        else:
            good = piece.is_error and length >= 6
        if not good:
            raise Violation(f"got {piece}{' with DONE' if piece.flags & DONE else ''}, expected the length, and for "
                            "NONE the flag, of its type")


unseen(125, MUST, "no content chunk is marked as the last while an error can follow", NEEDS_FAULTS)
unseen(126, MUST, "an error in the middle does not cost the connection", NEEDS_FAULTS)
unseen(127, SHOULD, "one error says where, within the request", NEEDS_FAULTS)
unseen(128, DECISION, "what could be read before the error is sent", NEEDS_FAULTS)


@statement(129, SHOULD, "chunks are few, and meet between sectors")
def _(target):
    session = target.attach_structured()
    answer = session.call(Command.READ, 0, 1 * MiB)
    answer.content()
    ranges = [piece.range() for piece in answer.pieces if piece.range()]
    for offset, length in ranges:
        if offset % 512 or (offset + length) % 512:
            raise Violation(f"got a chunk of {length} bytes at {offset}, expected multiples of 512")
    if len(ranges) > 1 * MiB // 512:
        raise Violation(f"got {len(ranges)} chunks for 1 MiB, expected no more than there are sectors")


@statement(130, MUST, "with DF there is at most one chunk of content, and 64 KiB work")
def _(target):
    session = target.attach_structured()
    need_flags(session, Flag.SEND_DF)
    for length in 64 * KiB, 1 * MiB:
        answer = session.call(Command.READ, 0, length, With.DF)
        if length > 64 * KiB and answer.error == Errno.EOVERFLOW:
            continue
        answer.content()
        count = sum(piece.range() is not None for piece in answer.pieces)
        if count != 1:
            raise Violation(f"READ of {length} bytes with DF: got {count} content chunks, expected 1")


@statement(131, MUST, "DF that was not negotiated is EINVAL")
def _(target):
    session = target.attach_simple()
    if session.flags & Flag.SEND_DF:
        raise Skip("SEND_DF is advertised without structured replies")
    expect("READ with DF", session.call(Command.READ, 0, 4 * KiB, With.DF), Errno.EINVAL)
    session.in_step("a READ with DF")


@statement(132, MUST, "no chunk has more data than the maximum payload")
def _(target):
    session = target.attach_structured()
    if session.block_sizes is None:
        raise Skip("no block sizes are told")
    answer = session.call(Command.READ, 0, min(session.size, session.maximum + 1 * MiB, 65 * MiB))
    for covered in (piece.range() for piece in answer.pieces if piece.type == Chunk.OFFSET_DATA):
        if covered[1] > session.maximum:
            raise Violation(f"got a chunk with {covered[1]} bytes, expected at most {session.maximum}")


@statement(133, MAY, "a read longer than the maximum payload is answered in pieces, or refused")
def _(target):
    session = target.attach_structured()
    length = session.maximum + 1 * MiB
    if length > 64 * MiB or session.size < length:
        raise Skip("it needs an export longer than the maximum payload, and that below 64 MiB")
    answer = session.call(Command.READ, 0, length)
    expect(f"READ of {length} bytes", answer, Errno.OK, Errno.EOVERFLOW, Errno.EINVAL)
    if not answer.error:
        answer.content()
    session.in_step("a long READ")
    session = target.attach_simple()
    answer = session.call(Command.READ, 0, length)
    expect(f"READ of {length} bytes without structured replies", answer, Errno.OK, Errno.EINVAL, Errno.EOVERFLOW)
    session.in_step("a long READ without structured replies")


@statement(134, SHOULD, "an empty read does not cost the connection; it succeeds")
def _(target):
    for session in target.attach(), target.attach_simple():
        answer = session.call(Command.READ)
        session.in_step("an empty READ")
        expect("READ of nothing", answer, Errno.OK, level=DECISION)
        if any(piece.range() for piece in answer.pieces):
            raise Violation("READ of nothing: got a content chunk, expected none", MUST)


@statement(135, DECISION, "holes are sent as holes, unless they are too short to be worth it")
def _(target):
    session = target.attach_status()
    extents = session.call(Command.BLOCK_STATUS, 0, min(session.size, 1 << 30)).extents()
    offset = 0
    for length, state in extents[next(iter(session.contexts))]:
        if state & ZERO and length >= LONG_HOLE:
            break
        offset += length
    else:
        raise Skip("the export shows no hole of 64 KiB")
    answer = session.call(Command.READ, offset, LONG_HOLE)
    if any(answer.content()):
        raise Violation(f"got data at {offset}, where BLOCK_STATUS says zeroes", MUST)
    data = sum(len(piece.payload) for piece in answer.pieces)
    if data >= LONG_HOLE:
        raise Violation(f"got {data} bytes for a hole of {LONG_HOLE}, expected OFFSET_HOLE")
    if len(answer.pieces) > LONG_HOLE // (4 * KiB):
        raise Violation(f"got {len(answer.pieces)} chunks for a hole of {LONG_HOLE} bytes, expected fewer")
