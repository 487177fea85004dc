"""A socket on which nothing lasts for ever: every send and every receive has a deadline."""
import socket
import time

from .registry import Violation

SLOWEST = 4 << 20  # bytes per second: long messages get as much more time


class Unreachable(Exception):
    """Nobody listens at the address."""


class Closed(Violation):
    """The server closed the connection where it should have said something."""


class Silent(Violation):
    """The server said nothing where it should have, or did not read."""


class Connection:
    """Bytes to and from the server. Raises Closed and Silent, both violations, and Unreachable."""

    def __init__(self, address, timeout):
        self.timeout = timeout
        self._socket = _connect(address, timeout)

    def close(self):
        self._socket.close()

    def send(self, data):
        """Sends all of it. That the server is gone shows at the next receive, after what it said before."""
        data, deadline = memoryview(data), self._deadline(len(data))
        while data:
            try:
                self._wait_at_most(deadline)
                data = data[self._socket.send(data[:MAX_PIECE]):]
            except TimeoutError:
                raise Silent(f"got {len(data)} bytes that the server did not take for {self.timeout:g} s") from None
            except OSError:
                return

    def send_bytewise(self, data):
        """Sends each byte as a message of its own."""
        for at in range(len(data)):
            self.send(data[at:at + 1])
            time.sleep(0.0002)

    def end_of_sending(self):
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def receive(self, length, what):
        """Exactly so many bytes; `what` names them in the report."""
        data, deadline = bytearray(), self._deadline(length)
        while len(data) < length:
            piece = self._receive_some(min(length - len(data), MAX_PIECE), deadline, what, len(data), length)
            if not piece:
                raise Closed(f"got a closed connection after {len(data)} bytes, expected {what} ({length} bytes)")
            data += piece
        return bytes(data)

    def receive_all(self):
        """Everything until the server closes."""
        data, deadline = bytearray(), self._deadline(0)
        while piece := self._receive_some(MAX_PIECE, deadline, "the connection to be closed", len(data), None):
            data += piece
        return bytes(data)

    def expect_close(self, after):
        """The server closes without another byte."""
        try:
            data = self._receive_some(64, self._deadline(0), "", 0, None)
        except Silent:
            raise Silent(f"{after}: got an open connection after {self.timeout:g} s, "
                         "expected it to be closed") from None
        if data:
            raise Violation(f"{after}: got {describe(data)}, expected the connection to be closed")

    def expect_silence(self, seconds, after):
        """The server neither sends nor closes for a while."""
        try:
            data = self._receive_some(64, time.monotonic() + seconds, "", 0, None)
        except Silent:
            return
        raise Violation(f"{after}: got {describe(data) if data else 'a closed connection'}, expected nothing yet")

    def wait_closed(self, seconds):
        """True when the server closes, whatever it says before, within so many seconds."""
        deadline = time.monotonic() + seconds
        try:
            while self._receive_some(MAX_PIECE, deadline, "", 0, None):
                pass
        except Silent:
            return False
        return True

    def _deadline(self, length):
        return time.monotonic() + self.timeout + length / SLOWEST

    def _wait_at_most(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _receive_some(self, most, deadline, what, have, length):
        """b"" when the server has closed, a reset included."""
        try:
            self._wait_at_most(deadline)
            return self._socket.recv(most)
        except TimeoutError:
            of = "" if length is None else f" of {length}"
            raise Silent(f"got {have}{of} bytes, then nothing for {self.timeout:g} s, expected {what}") from None
        except OSError:
            return b""


MAX_PIECE = 1 << 20


def describe(data):
    """The beginning of some bytes, for a report."""
    return f"{len(data)} bytes {data[:16].hex(' ')}{' ...' if len(data) > 16 else ''}"


def _connect(address, timeout):
    deadline = time.monotonic() + timeout
    while True:
        family = socket.AF_UNIX if isinstance(address, (str, bytes)) else socket.AF_UNSPEC
        try:
            if family == socket.AF_UNIX:
                connected = socket.socket(socket.AF_UNIX)
                connected.settimeout(timeout)
                connected.connect(address)
            else:
                connected = socket.create_connection(address, timeout)
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected
        except BlockingIOError:  # a Unix socket whose queue is full
            connected.close()
            if time.monotonic() > deadline:
                raise Silent(f"got a connection that was not accepted within {timeout:g} s") from None
            time.sleep(0.01)
        except TimeoutError:
            raise Silent(f"got a connection that was not accepted within {timeout:g} s") from None
        except OSError as error:
            raise Unreachable(str(error)) from None
