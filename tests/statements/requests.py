"""The client's side of the transmission phase: sends any request, and keeps what came back as it came."""
import struct

from .registry import Violation
from .wire import CHUNK_MAGIC, DONE, MiB, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, Chunk, Command, Errno, Flag, name_of

LONGEST_CHUNK = 128 * MiB  # what is said to be longer is not believed


class Piece:
    """One chunk of a structured reply."""

    def __init__(self, flags, kind, payload):
        self.flags = flags
        self.type = kind
        self.payload = payload

    @property
    def is_error(self):
        return bool(self.type & 0x8000)

    def range(self):
        """(offset, length) that a content chunk covers, or None for other chunks."""
        if self.type == Chunk.OFFSET_DATA and len(self.payload) >= 8:
            return struct.unpack(">Q", self.payload[:8])[0], len(self.payload) - 8
        if self.type == Chunk.OFFSET_HOLE and len(self.payload) == 12:
            return struct.unpack(">QI", self.payload)
        return None

    def __str__(self):
        return f"{name_of(Chunk, self.type)} of {len(self.payload)} bytes"


class Answer:
    """A request and what came back for it."""

    def __init__(self, command, offset, length):
        self.command = command
        self.offset = offset
        self.length = length
        self.simple = False
        self.error = Errno.OK
        self.data = b""  # of a simple reply
        self.pieces = []

    @property
    def error_name(self):
        return "success" if self.error == 0 else name_of(Errno, self.error)

    def add(self, piece):
        """True when that was the last one."""
        self.pieces.append(piece)
        if piece.is_error and self.error == 0:
            if len(piece.payload) < 6:
                raise Violation(f"got an error chunk of {len(piece.payload)} bytes, expected at least 6")
            self.error = struct.unpack(">I", piece.payload[:4])[0]
            if self.error == 0:
                raise Violation("got an error chunk with the error 0, expected an error number")
        return bool(piece.flags & DONE)

    def content(self):
        """The bytes of a read that succeeded. Every byte came exactly once."""
        if self.error:
            raise Violation(f"reading {self.length} bytes at {self.offset}: got {self.error_name}, expected success")
        if self.simple:
            return self.data
        content, ranges = bytearray(self.length), []
        for piece in self.pieces:
            if (covered := piece.range()) is None:
                if piece.type != Chunk.NONE:
                    raise Violation(f"got {piece} in the answer to a read, expected data, holes, or an error")
                continue
            start, length = covered[0] - self.offset, covered[1]
            if start < 0 or length == 0 or start + length > self.length:
                raise Violation(f"got a chunk of {length} bytes at {covered[0]}, expected it within "
                                f"{self.length} bytes at {self.offset}")
            ranges.append((start, start + length))
            if piece.type == Chunk.OFFSET_DATA:
                content[start:start + length] = piece.payload[8:]
        end = 0
        for start, stop in sorted(ranges):
            if start != end:
                raise Violation(f"got chunks that {'overlap' if start < end else 'leave a gap'} at "
                                f"{self.offset + min(start, end)}, expected every byte once")
            end = stop
        if end != self.length:
            raise Violation(f"got {end} bytes, expected {self.length}")
        return bytes(content)

    def extents(self):
        """The answer to BLOCK_STATUS as {context id: [(length, state)]}."""
        if self.error:
            raise Violation(f"BLOCK_STATUS of {self.length} bytes at {self.offset}: got {self.error_name}, "
                            "expected success")
        found = {}
        for piece in self.pieces:
            if piece.type == Chunk.NONE:
                continue
            if piece.type != Chunk.BLOCK_STATUS or len(piece.payload) < 12 or len(piece.payload) % 8 != 4:
                raise Violation(f"got {piece}, expected BLOCK_STATUS with 4 + 8 n bytes")
            identifier, *numbers = struct.unpack(f">{len(piece.payload) // 4}I", piece.payload)
            if identifier in found:
                raise Violation(f"got two chunks for the context {identifier}, expected one")
            found[identifier] = list(zip(numbers[::2], numbers[1::2]))
        return found


class Session:
    """A connection that has agreed on an export."""

    def __init__(self, connection, size, flags, structured=False, contexts=(), block_sizes=None):
        self.connection = connection
        self.size = size
        self.flags = Flag(flags)
        self.structured = structured
        self.contexts = dict(contexts)  # id -> name
        self.block_sizes = block_sizes  # (minimum, preferred, maximum payload), if they were told
        self.minimum, _, self.maximum = block_sizes or (1, 4096, 32 * MiB)
        self._cookie = 0x6E6264_0000
        self._waiting = {}  # cookie -> answers that are not complete, oldest first
        self._complete = []  # (cookie, answer)

    @property
    def read_only(self):
        return bool(self.flags & Flag.READ_ONLY)

    def send(self, command, offset=0, length=0, flags=0, payload=b"", cookie=None, magic=REQUEST_MAGIC):
        """Sends a request, and its payload; the cookie to ask for the answer with."""
        if cookie is None:
            self._cookie += 1
            cookie = self._cookie
        self._waiting.setdefault(cookie, []).append(Answer(command, offset, length))
        self.connection.send(request_bytes(command, offset, length, flags, cookie, magic) + payload)
        return cookie

    def send_reads(self, ranges):
        """Sends a read of each (offset, length) in one message; the cookies."""
        message = b""
        for offset, length in ranges:
            self._cookie += 1
            self._waiting[self._cookie] = [Answer(Command.READ, offset, length)]
            message += request_bytes(Command.READ, offset, length, cookie=self._cookie)
        self.connection.send(message)
        return range(self._cookie - len(ranges) + 1, self._cookie + 1)

    def answer(self, cookie):
        """Reads until the (next) request with this cookie is answered."""
        while True:
            for index, (known, answer) in enumerate(self._complete):
                if known == cookie:
                    del self._complete[index]
                    return answer
            self._hear()

    def call(self, command, offset=0, length=0, flags=0, payload=b""):
        return self.answer(self.send(command, offset, length, flags, payload))

    def read(self, offset, length):
        """The bytes of a range, in pieces that every server reads."""
        most = max(min(1 * MiB, self.maximum), self.minimum)
        return b"".join(self.call(Command.READ, at, min(most, offset + length - at)).content()
                        for at in range(offset, offset + length, most))

    def write(self, offset, data):
        most = max(min(1 * MiB, self.maximum), self.minimum)
        for at in range(0, len(data), most):
            piece = data[at:at + most]
            answer = self.call(Command.WRITE, offset + at, len(piece), payload=piece)
            expect(f"writing {len(piece)} bytes at {offset + at}", answer, Errno.OK)

    def in_step(self, after):
        """The server still answers, and has not said more than it should."""
        try:
            self.call(Command.READ, 0, max(self.minimum, 16)).content()
        except Violation as found:
            raise type(found)(f"after {after}, a READ: {found}", found.level) from None

    def _hear(self):
        magic = struct.unpack(">I", self.connection.receive(4, "a reply"))[0]
        if magic == SIMPLE_REPLY_MAGIC:
            self._hear_simple()
        elif magic == CHUNK_MAGIC:
            self._hear_chunk()
        else:
            raise Violation(f"got a reply with the magic number {magic:#x}, expected {SIMPLE_REPLY_MAGIC:#x}"
                            f"{f' or {CHUNK_MAGIC:#x}' if self.structured else ''}")

    def _hear_simple(self):
        error, cookie = struct.unpack(">IQ", self.connection.receive(12, "a simple reply"))
        answer = self._answer_for(cookie)
        answer.simple, answer.error = True, error
        if answer.command == Command.READ and error == 0:
            if self.structured:
                raise Violation("got a simple reply to a READ, expected a structured one")
            answer.data = self.connection.receive(answer.length, "the data of a read")
        self._finish(cookie)

    def _hear_chunk(self):
        flags, kind, cookie, length = struct.unpack(">HHQI", self.connection.receive(16, "a structured reply"))
        answer = self._answer_for(cookie)
        if length > LONGEST_CHUNK:
            raise Violation(f"got a chunk of {length} bytes, expected at most {LONGEST_CHUNK}")
        if answer.add(Piece(flags, kind, self.connection.receive(length, "the payload of a chunk"))):
            self._finish(cookie)

    def _answer_for(self, cookie):
        if cookie not in self._waiting:
            asked = ", ".join(f"{known:#x}" for known in list(self._waiting)[:4]) or "none, as all are answered"
            raise Violation(f"got a reply with the cookie {cookie:#x}, expected {asked}")
        return self._waiting[cookie][0]

    def _finish(self, cookie):
        self._complete.append((cookie, self._waiting[cookie].pop(0)))
        if not self._waiting[cookie]:
            del self._waiting[cookie]


def request_bytes(command, offset=0, length=0, flags=0, cookie=0, magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


def expect(what, answer, *errors, level=None):
    """The answer's error is one of these; Errno.OK is success."""
    if answer.error not in errors:
        names = ["success" if error == Errno.OK else error.name for error in errors]
        raise Violation(f"{what}: got {answer.error_name}, expected {' or '.join(names)}", level)
    return answer


def expect_failure(what, answer, level=None):
    if not answer.error:
        raise Violation(f"{what}: got success, expected an error", level)
    return answer
