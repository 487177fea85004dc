"""program.py - the built program as tests run it: its command line, a server until a block ends, a small client.
The program is the first argument of whichever test imports this."""
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "vm"))
from tap import Tap, expect  # noqa: E402, F401

GANTRY = os.path.abspath(sys.argv[1])
CONFIGS = pathlib.Path(__file__).resolve().parent.parent.parent / "configs"
SIZE = 1 << 20
LIMIT = 30  # seconds until a program that hangs counts as failed


def gantry(*words, cwd=None):
    return subprocess.run([GANTRY, *map(str, words)], cwd=cwd, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=LIMIT)


def expect_failure(result, line):
    expect("exit status", result.returncode, 1)
    expect("stderr", result.stderr, line + "\n")
    expect("stdout", result.stdout, "")


class Folder:
    """A folder of its own with a small image and a configuration that serves it."""

    def __enter__(self):
        self._temporary = tempfile.TemporaryDirectory(prefix="gantry-")
        self.path = pathlib.Path(self._temporary.name)
        self.image = self.path / "disk.img"
        self.image.write_bytes(bytes(SIZE))
        return self

    def __exit__(self, *_):
        self._temporary.cleanup()

    def config(self, text, name="a.toml"):
        (self.path / name).write_text(text)
        return name

    def run(self, *words):
        return gantry(*words, cwd=self.path)


def disk(listen, writable="true"):
    return f"""[server]
listen = {listen}
[nodes.file]
driver = "file"
filename = "disk.img"
[nodes.disk]
driver = "raw"
file = "file"
[exports.disk]
node = "disk"
writable = {writable}
"""


class Running:
    """The program, until the block ends. `under`: the words of a program that starts it."""

    def __init__(self, folder, *words, listeners=1, under=(), environment=None):
        self._process = subprocess.Popen([*under, GANTRY, *words], cwd=folder.path, text=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, env=os.environ | (environment or {}))
        self.log = ""
        self.wait_for("listening on ", listeners)
        self.port = next(iter(map(int, re.findall(r"listening on tcp:\S*:(\d+)", self.log))), None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def wait_for(self, text, times=1):
        while self.log.count(text) < times:
            line = self._process.stderr.readline()
            assert line, f"ended before it said '{text}': {self.log}"
            self.log += line

    def send(self, number=signal.SIGTERM):
        self._process.send_signal(number)

    def end(self):
        """Exit status and what was printed."""
        out, err = self._process.communicate(timeout=LIMIT)
        self.log += err
        return self._process.returncode, out


class Client:
    """As much of NBD as it takes to write a block: NBD_OPT_GO, simple replies."""

    def __init__(self, address, export):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.settimeout(LIMIT)
        self._socket.connect(address)
        expect("greeting", self._read(16), b"NBDMAGICIHAVEOPT")
        self._read(2)
        name = export.encode()
        body = struct.pack(">L", len(name)) + name + struct.pack(">H", 0)
        self._socket.sendall(struct.pack(">L", 3) + b"IHAVEOPT" + struct.pack(">LL", 7, len(body)) + body)
        kind = None
        while kind != 1:  # NBD_REP_ACK
            _, _, kind, length = struct.unpack(">QLLL", self._read(20))
            data = self._read(length)
            assert kind < 1 << 31, data

    def write(self, offset, data):
        self._socket.sendall(struct.pack(">LHHQQL", 0x25609513, 0, 1, 7, offset, len(data)) + data)
        expect("reply", struct.unpack(">LLQ", self._read(16)), (0x67446698, 0, 7))

    def close(self):
        self._socket.close()

    def at_end(self):
        return self._socket.recv(1) == b""

    def _read(self, length):
        data = b""
        while len(data) < length:
            piece = self._socket.recv(length - len(data))
            assert piece, "the server has left"
            data += piece
        return data
