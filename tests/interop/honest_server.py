"""A small NBD server in memory that does everything right, to try the conformance runner on.

Each step of a conversation is a method, so that a server with one fault is a subclass with one method."""
import contextlib
import socket
import struct
import threading

KiB, MiB = 1 << 10, 1 << 20
OPTION_MAGIC, OPTION_REPLY_MAGIC = 0x49484156454F5054, 0x0003E889045565A9
REQUEST_MAGIC, SIMPLE_MAGIC, CHUNK_MAGIC = 0x25609513, 0x67446698, 0x668E33EF
EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED, LIST_META, SET_META = 1, 2, 3, 6, 7, 8, 9, 10
ACK, SERVER, INFO_REPLY, META_CONTEXT = 1, 2, 3, 4
UNSUP, INVALID, UNKNOWN = 0x80000001, 0x80000003, 0x80000006
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
EPERM, EINVAL, ENOSPC, EOVERFLOW = 1, 22, 28, 75
PAYLOAD_MAX = 32 * MiB
OPTIONS_MAX = 300
WRITABLE_FLAGS = 0x0D6D  # all but DF
READ_ONLY_FLAGS = 0x050F
BASE_ALLOCATION = b"base:allocation"


class Goodbye(Exception):
    """The connection ends."""


class Export:
    def __init__(self, size, writable):
        self.content = bytearray(size)
        self.writable = writable


class Conversation:
    """One connection, from the greeting to its end."""

    def __init__(self, connection, exports):
        self.connection = connection
        self.exports = exports  # name -> Export
        self.structured = False
        self.context_of = None  # the export that base:allocation was selected for
        self.export = None

    def run(self):
        self.greet()
        for _ in range(OPTIONS_MAX):
            magic, option, length = struct.unpack(">QII", self.read(16))
            if magic != OPTION_MAGIC:
                self.wrong_option_magic()
            if length > 1 * MiB:
                raise Goodbye
            self.option(option, self.read(length))
            if self.export:
                while True:
                    self.one_request()

    # --- the handshake

    def greet(self):
        self.send(b"NBDMAGICIHAVEOPT" + struct.pack(">H", self.handshake_flags()))
        flags = struct.unpack(">I", self.read(4))[0]
        self.client_flags(flags)
        self.zeroes = not flags & 2
        self.fixed = flags & 1

    def handshake_flags(self):
        return 3

    def client_flags(self, flags):
        if flags & ~3:
            raise Goodbye

    def wrong_option_magic(self):
        raise Goodbye

    def option(self, option, data):
        if option != EXPORT_NAME and not self.fixed:
            raise Goodbye
        known = {EXPORT_NAME: self.export_name, ABORT: self.abort, LIST: self.list, STRUCTURED: self.structured_reply}
        if option in known:
            known[option](data)
        elif option in (INFO, GO):
            self.info(option, data)
        elif option in (LIST_META, SET_META):
            self.meta(option, data)
        else:
            self.refuse(option, UNSUP)

    def reply(self, option, kind, data=b""):
        self.send(struct.pack(">QIII", OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

    def refuse(self, option, kind):
        self.reply(option, kind, b"no")

    def export_name(self, name):
        export = self.exports.get(name)
        if not export:
            raise Goodbye
        self.send(struct.pack(">QH", len(export.content), self.flags_of(export)) + self.padding())
        self.export = export

    def padding(self):
        return bytes(124) if self.zeroes else b""

    def abort(self, _):
        self.reply(ABORT, ACK)
        raise Goodbye

    def list(self, data):
        if data:
            return self.refuse(LIST, INVALID)
        for name in self.exports:
            self.reply(LIST, SERVER, struct.pack(">I", len(name)) + name + b"a description")
        self.reply(LIST, ACK)

    def structured_reply(self, data):
        if data or self.structured:
            return self.refuse(STRUCTURED, INVALID)
        self.structured = True
        self.reply(STRUCTURED, ACK)

    def info(self, option, data):
        length = struct.unpack(">I", data[:4])[0] if len(data) >= 6 else PAYLOAD_MAX
        name, rest = data[4:4 + length], data[4 + length:]
        if length > 4096 or len(rest) < 2 or not self.fits(rest) or b"\0" in name:
            return self.refuse(option, INVALID)
        export = self.exports.get(name)
        if not export:
            return self.refuse(option, UNKNOWN)
        wanted = struct.unpack(f">{len(rest) // 2}H", rest[:len(rest) // 2 * 2])[1:]
        for kind, payload in self.information(option, export, name, wanted):
            self.reply(option, INFO_REPLY, struct.pack(">H", kind) + payload)
        self.reply(option, ACK)
        if option == GO:
            self.export = export
            self.after_go()

    def fits(self, rest):
        return len(rest) == 2 + 2 * struct.unpack(">H", rest[:2])[0]

    def information(self, option, export, name, wanted):
        yield 0, struct.pack(">QH", len(export.content), self.flags_of(export))
        yield 3, struct.pack(">III", 1, 4096, PAYLOAD_MAX)
        if 1 in wanted:
            yield 1, name
        if 2 in wanted:
            yield 2, b"a description"

    def flags_of(self, export):
        return (WRITABLE_FLAGS if export.writable else READ_ONLY_FLAGS) | (0x80 if self.structured else 0)

    def after_go(self):
        pass

    def meta(self, option, data):
        if option == SET_META:
            self.forget_contexts()
            if not self.structured:
                return self.refuse(option, INVALID)
        try:
            name, queries = self.parse_queries(data)
        except (struct.error, ValueError):
            return self.refuse(option, INVALID)
        if not self.exports.get(name):
            return self.refuse(option, UNKNOWN)
        for number, context in self.contexts(option, queries):
            if option == SET_META:
                self.context_of = self.exports[name]
            self.reply(option, META_CONTEXT, struct.pack(">I", number) + context)
        self.reply(option, ACK)

    def forget_contexts(self):
        self.context_of = None

    def parse_queries(self, data):
        fields = []

        def take(length):
            nonlocal data
            if length > len(data):
                raise ValueError
            taken, data = data[:length], data[length:]
            return taken

        fields.append(take(struct.unpack(">I", take(4))[0]))
        for _ in range(struct.unpack(">I", take(4))[0]):
            fields.append(take(struct.unpack(">I", take(4))[0]))
        if data:
            raise ValueError
        return fields[0], fields[1:]

    def contexts(self, option, queries):
        if BASE_ALLOCATION in queries or option == LIST_META and (not queries or b"base:" in queries):
            yield (1 if option == SET_META else 0), BASE_ALLOCATION

    # --- the transmission phase

    def one_request(self):
        magic, flags, command, cookie, offset, length = struct.unpack(">IHHQQI", self.read(28))
        if magic != REQUEST_MAGIC:
            return self.wrong_request_magic(cookie)
        if command == DISC:
            raise Goodbye
        payload = self.payload(command, offset, length)
        error = self.check(flags, command, offset, length)
        if error:
            self.refuse_request(command, cookie, error)
        elif command == READ:
            self.read_reply(cookie, flags, offset, length)
        elif command == STATUS:
            self.status_reply(cookie, flags, offset, length)
        else:
            self.change(command, offset, length, payload)
            self.simple(cookie)

    def wrong_request_magic(self, cookie):
        raise Goodbye

    def payload(self, command, offset, length):
        if command != WRITE:
            return b""
        if length > 64 * MiB:
            raise Goodbye
        return self.read(length)

    def check(self, flags, command, offset, length):
        allowed = {READ: FUA | (DF if self.structured else 0), ZEROES: FUA | NO_HOLE | FAST_ZERO, STATUS: FUA | REQ_ONE}
        if command > STATUS or flags & ~allowed.get(command, FUA):
            return EINVAL
        if command == STATUS and (self.context_of is not self.export or length == 0):
            return EINVAL
        if command in (WRITE, TRIM, ZEROES) and not self.export.writable:
            return EPERM
        if command == FLUSH:
            return 0
        if offset + length > len(self.export.content):
            return self.beyond_the_end(command)
        return 0

    def beyond_the_end(self, command):
        return ENOSPC if command in (WRITE, ZEROES) else EINVAL

    def refuse_request(self, command, cookie, error):
        if self.structured:
            self.chunk(cookie, 1, 0x8001, struct.pack(">IH", error, 0))
        else:
            self.simple(cookie, error)

    def simple(self, cookie, error=0, data=b""):
        self.send(struct.pack(">IIQ", SIMPLE_MAGIC, error, cookie) + data)

    def chunk(self, cookie, flags, kind, payload=b""):
        self.send(struct.pack(">IHHQI", CHUNK_MAGIC, flags, kind, cookie, len(payload)) + payload)

    def read_reply(self, cookie, flags, offset, length):
        content = bytes(self.export.content[offset:offset + length])
        if not self.structured:
            self.simple(cookie, 0, content)
            return
        pieces = self.pieces(offset, content, flags)
        if not pieces:
            self.chunk(cookie, 1, 0)
        for number, (kind, payload) in enumerate(pieces, 1):
            self.chunk(cookie, 1 if number == len(pieces) else 0, kind, payload)

    def pieces(self, offset, content, flags):
        """The content chunks of a read: [(type, payload)]. Long reads come in two."""
        middle = len(content) // 2 if len(content) >= 128 * KiB and not flags & DF else 0
        pieces = []
        for start, part in (0, content[:middle]), (middle, content[middle:]):
            if not part:
                continue
            if not any(part):
                pieces.append((2, struct.pack(">QI", offset + start, len(part))))
            else:
                pieces.append((1, struct.pack(">Q", offset + start) + part))
        return pieces

    def status_reply(self, cookie, flags, offset, length):
        extents = self.extents(offset, length)
        if flags & REQ_ONE:
            extents = extents[:1]
        self.chunk(cookie, 1, 5, struct.pack(">I", 1) + b"".join(struct.pack(">II", *extent) for extent in extents))

    def extents(self, offset, length):
        """base:allocation, in 64 KiB steps: what is all zero is called zero, and no hole."""
        found, end = [], offset + length
        while offset < end:
            step = min(64 * KiB - offset % (64 * KiB), end - offset)
            state = 0 if any(self.export.content[offset:offset + step]) else 2
            if found and found[-1][1] == state:
                found[-1] = (found[-1][0] + step, state)
            else:
                found.append((step, state))
            offset += step
        return found

    def change(self, command, offset, length, payload):
        if command == WRITE:
            self.export.content[offset:offset + length] = payload
        elif command in (ZEROES, TRIM):
            self.export.content[offset:offset + length] = bytes(length)

    # --- bytes

    def read(self, length):
        data = bytearray()
        while len(data) < length:
            piece = self.connection.recv(min(length - len(data), 1 * MiB))
            if not piece:
                raise Goodbye
            data += piece
        return bytes(data)

    def send(self, data):
        self.connection.sendall(data)


@contextlib.contextmanager
def serving(path, kind=Conversation):
    """A server whose connections are conversations of this kind: listens on the Unix socket while the block runs."""
    exports = {b"disk": Export(2 * MiB, True), b"frozen": Export(2 * MiB, False)}
    exports[b"disk"].content[0:256 * KiB] = bytes(range(1, 129)) * 2 * KiB
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(100)
        threading.Thread(target=_accept, args=[listener, kind, exports], daemon=True).start()
        try:
            yield exports
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener, kind, exports):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_converse, args=[kind(connection, exports)], daemon=True).start()


def _converse(conversation):
    with conversation.connection:
        try:
            conversation.run()
        except (Goodbye, OSError):
            pass
