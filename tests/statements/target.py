"""The server under test: fresh connections in every state that a statement needs, and what is known of the export."""
import contextlib
import struct

from .connection import Connection
from .negotiation import ExportInfo, Haggle, contexts_in, expect_type, meta_bytes
from .registry import Skip, Violation
from .requests import Session, expect
from .wire import Command, Errno, Flag, Handshake, Info, KiB, MiB, Option, Reply

BASE_ALLOCATION = b"base:allocation"
SMALLEST = 1 * MiB  # of an export that requests are tried on
PAGE = 64 * KiB


class Target:
    def __init__(self, address, name, timeout=5.0, writable=False, patience=0):
        """name: the export, as bytes. writable: statements may write (and put back what was there). patience: seconds
        that a statement may wait for a limit of the server, 0: those are skipped."""
        self.address = address
        self.name = name
        self.timeout = timeout
        self.may_write = writable
        self.patience = patience
        self._open = []
        self._known = {}

    def connect(self):
        connection = Connection(self.address, self.timeout)
        self._open.append(connection)
        return connection

    def close_all(self):
        while self._open:
            self._open.pop().close()

    # --- the handshake

    def haggle(self, flags=Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES):
        return Haggle(self.connect(), flags)

    def haggle_structured(self):
        """Structured replies are on."""
        haggle = self.haggle()
        outcome = haggle.ask(Option.STRUCTURED_REPLY)
        if outcome.type == Reply.ERR_TLS_REQD:
            raise Skip("the server wants TLS first")
        if not outcome.acknowledged:
            raise Skip("structured replies are not offered")
        return haggle

    def haggle_contexts(self):
        """Structured replies are on, and the server knows base:allocation for this export."""
        self._once("base:allocation", self._find_base_allocation)
        return self.haggle_structured()

    def _find_base_allocation(self):
        outcome = self.haggle_structured().ask(Option.SET_META_CONTEXT, meta_bytes(self.name, BASE_ALLOCATION))
        if outcome.type == Reply.ERR_UNSUP:
            raise Skip("metadata contexts are not offered")
        expect_type("SET_META_CONTEXT base:allocation", outcome, Reply.ACK)
        if "base:allocation" not in [name for _, name in contexts_in(outcome)]:
            raise Skip("base:allocation is not offered")

    def unknown_name(self):
        """A name that no export has."""
        return self._once("unknown name", self._find_unknown_name)

    def _find_unknown_name(self):
        name = b"no export has this name"
        if self.haggle().info(name).acknowledged:
            raise Skip("the server takes every export name")
        return name

    def need_info(self):
        """Skips where INFO and GO can't be used."""
        outcome = self._once("info", lambda: self.haggle().info(self.name))
        if outcome.type == Reply.ERR_TLS_REQD:
            raise Skip("the server wants TLS first")
        if outcome.type == Reply.ERR_UNSUP:
            raise Skip("INFO and GO are not offered")
        expect_type(f"INFO '{self.name.decode('utf-8', 'replace')}'", outcome, Reply.ACK)

    def haggle_info(self, flags=Handshake.FIXED_NEWSTYLE | Handshake.NO_ZEROES):
        self.need_info()
        return self.haggle(flags)

    def forces_tls(self):
        return self._once("tls", lambda: self.haggle().ask(Option.LIST)).type == Reply.ERR_TLS_REQD

    # --- the transmission phase

    def attach(self):
        """In the way that offers most."""
        try:
            return self.attach_structured()
        except Skip:
            return self.attach_simple()

    def attach_simple(self):
        """Without structured replies."""
        return self.enter(self.haggle())

    def attach_structured(self):
        """With structured replies, and no context."""
        return self.enter(self._once_offered("structured", self.haggle_structured), structured=True)

    def attach_status(self):
        """With structured replies, and base:allocation."""
        haggle = self.haggle_contexts()
        outcome = haggle.ask(Option.SET_META_CONTEXT, meta_bytes(self.name, BASE_ALLOCATION))
        return self.enter(haggle, structured=True, contexts=contexts_in(expect_type("SET", outcome, Reply.ACK)))

    def enter(self, haggle, structured=False, contexts=(), wanted=(Info.BLOCK_SIZE,), name=None):
        """GO, or EXPORT_NAME where there is no GO."""
        name = self.name if name is None else name
        outcome = haggle.go(name, *wanted)
        if outcome.type == Reply.ERR_UNSUP:
            session = self.enter_old(haggle, structured, contexts)
        elif outcome.type == Reply.ERR_TLS_REQD:
            raise Skip("the server wants TLS first")
        else:
            expect_type(f"GO '{name.decode('utf-8', 'replace')}'", outcome, Reply.ACK)
            info = ExportInfo(outcome)
            if info.size is None:
                raise Violation("got no INFO_EXPORT in the answer to GO, expected size and flags")
            session = Session(haggle.connection, info.size, info.flags, structured, contexts, info.block_sizes)
        if session.size < SMALLEST:
            raise Skip("the export is smaller than 1 MiB")
        return session

    def enter_old(self, haggle, structured=False, contexts=()):
        """By EXPORT_NAME."""
        haggle.say(Option.EXPORT_NAME, self.name)
        size, flags = struct.unpack(">QH", haggle.connection.receive(10, "size and flags of the export"))
        if haggle.zeroes:
            haggle.connection.receive(124, "zeroes behind size and flags")
        return Session(haggle.connection, size, flags, structured, contexts)

    # --- writing

    def attach_writer(self, *flags):
        """May write; the export has these transmission flags."""
        if not self.may_write:
            raise Skip("it writes: give --writable")
        session = self.attach()
        if session.read_only:
            raise Skip("the export is read-only")
        need_flags(session, *flags)
        return session

    @contextlib.contextmanager
    def scratch(self, length=PAGE):
        """Some bytes in the middle of the export that may be overwritten: their offset. They are put back."""
        session = self.attach()
        offset = (session.size - length) // 2 // PAGE * PAGE
        if offset < 0:
            raise Skip(f"the export is smaller than {length // MiB} MiB")
        before = session.read(offset, length)
        try:
            yield offset
        finally:
            self._put_back(offset, before)

    def _put_back(self, offset, content):
        try:
            session = self.attach()
            now = session.read(offset, len(content))
            for at in range(0, len(content), PAGE):
                old = content[at:at + PAGE]
                if old == now[at:at + PAGE]:
                    continue
                if not any(old) and session.flags & Flag.SEND_WRITE_ZEROES:
                    answer = session.call(Command.WRITE_ZEROES, offset + at, len(old))
                    expect("writing zeroes", answer, Errno.OK)
                else:
                    session.write(offset + at, old)
        except Violation as found:
            raise Violation(f"could not put back {len(content)} bytes at {offset}: {found}") from None

    # --- what is asked once

    def _once_offered(self, what, get):
        """A fresh one each time; but where it is not offered, that is asked once."""
        if isinstance(known := self._known.get(what), Skip):
            raise known
        try:
            return get()
        except Skip as reason:
            self._known[what] = reason
            raise

    def _once(self, what, get):
        """The result, or the exception, of the first time."""
        if what not in self._known:
            try:
                self._known[what] = get()
            except (Violation, Skip) as found:
                self._known[what] = found
        if isinstance(self._known[what], Exception):
            raise self._known[what]
        return self._known[what]


def need_flags(session, *flags):
    """Skips where the export does not advertise these."""
    for flag in flags:
        if not session.flags & flag:
            raise Skip(f"{flag.name} is not advertised")


