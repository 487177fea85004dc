"""A client of QMP, written from its specification (docs/interop/qmp-spec of QEMU): JSON values one after another,
whatever stands between them; a greeting, then qmp_capabilities, then commands; events at any time."""
import json
import socket
import time

PATIENCE = 60  # seconds until a server that says nothing counts as failed


class Refused(Exception):
    """An error reply: .kind and .text."""

    def __init__(self, error):
        super().__init__(f"{error['class']}: {error['desc']}")
        self.kind, self.text = error["class"], error["desc"]


class Qmp:
    def __init__(self, path):
        self.socket = connect(path)
        self.text = ""
        self.events = []
        self.greeting = self.hear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def say(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else json.dumps(data).encode())

    def hear(self):
        """The next value that is no event; None when the server has left."""
        while True:
            value = self._next()
            if value is None or "event" not in value:
                return value
            self.events.append(value)

    def _next(self):
        while True:
            self.text = self.text.lstrip()
            try:
                value, end = json.JSONDecoder().raw_decode(self.text)
                self.text = self.text[end:]
                return value
            except json.JSONDecodeError:
                piece = self.socket.recv(1 << 16)
                if not piece:
                    assert not self.text, f"the server left in the midst of {self.text!r}"
                    return None
                self.text += piece.decode("ascii" if piece.isascii() else "utf-8")

    def agree(self):
        self.command("qmp_capabilities")
        return self

    def command(self, name, /, **arguments):
        self.say({"execute": name, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}})
        reply = self.hear()
        if "error" in reply:
            raise Refused(reply["error"])
        return reply["return"]

    def refusal(self, name, /, **arguments):
        try:
            self.command(name, **arguments)
        except Refused as refused:
            return refused.text
        raise AssertionError(f"{name} was not refused")


def connect(path):
    """A server may not listen yet."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    for _ in range(PATIENCE * 100):
        try:
            client.connect(str(path))
            return client
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.01)
    raise AssertionError(f"nobody listens on {path}")
