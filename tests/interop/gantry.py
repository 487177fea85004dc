"""The small language of the interop tests: start gantry, run a tool against it, say in TAP what held.

A script is sentences, each with the code that proves it, and ends with main():

    @test("a disk comes back over {} as it went in", "unix", "tcp")
    def _(folder, over):
        with export(sparse_file(folder / "disk", 1 << 20), "--writable") as server:
            run("nbdcopy", original, server.uri(over=over))

The script's first argument is the program. Every test has a folder of its own, and fails when a server of its does not
end with status 0 on SIGTERM. $GANTRY_IO_ENGINE is the io-engine of all servers."""
import atexit
import contextlib
import os
import pathlib
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.parse

ENGINE = os.environ.get("GANTRY_IO_ENGINE", "auto")
PATIENCE = 120  # seconds that a start, a stop or a tool may take, sanitizers included

_tests = []
_servers = []  # of the running test: their logs are shown when it fails
_environment = os.environ | {"LC_ALL": "C", "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}


class Skip(Exception):
    """Raised by a test that this machine cannot run; its text says why."""


def test(sentence, *values):
    """Registers a test; with values, one test for each: the sentence's {} and the function's last argument."""
    def register(function):
        for value in values:
            _tests.append((sentence.format(value), lambda folder, value=value: function(folder, value)))
        if not values:
            _tests.append((sentence, function))
        return function
    return register


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # meson's time-out: end servers, remove folders
    print(f"1..{len(_tests)}", flush=True)
    results = [_run_test(number, *case) for number, case in enumerate(_tests, 1)]
    sys.exit(0 if all(results) else 1)


def _run_test(number, sentence, function):
    _servers.clear()
    verdict, directive, notes = "ok", "", ""
    with tempfile.TemporaryDirectory(prefix="gantry-") as folder:
        try:
            function(pathlib.Path(folder))
        except Skip as reason:
            directive = f" # SKIP {reason}"
        except Exception:
            verdict, notes = "not ok", traceback.format_exc() + "".join(server.story() for server in _servers)
    print(f"{verdict} {number} - {sentence}{directive}")
    for line in notes.splitlines():
        print("#", line)
    sys.stdout.flush()
    return verdict == "ok"


class Server:
    """A gantry that accepts connections. As a context manager it ends with the block, and must end well."""

    def __init__(self, arguments, listeners, folder=pathlib.Path("/"), launcher=()):
        self.command = [*map(str, launcher), *command_line(*arguments)]
        self.log = []
        self._places = {}  # "unix" or "tcp" -> where the last listener of this kind listens
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL,  # ours is for TAP
                                        stderr=subprocess.PIPE, text=True, errors="replace")
        _servers.append(self)
        lines = queue.Queue()
        self.reader = threading.Thread(target=self._read_log, args=[lines], daemon=True)  # until the log is whole
        self.reader.start()
        try:
            while listeners:
                line = lines.get(timeout=PATIENCE)
                assert line is not None, f"gantry ended with status {self.process.wait()} before it listened"
                if heard := re.search(r"listening on (unix|tcp):(\S+)", line):
                    self._places[heard[1]] = str(folder / heard[2]) if heard[1] == "unix" else heard[2]
                    listeners -= 1
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _read_log(self, lines):
        for line in self.process.stderr:
            self.log.append(line)
            lines.put(line)
        lines.put(None)

    def story(self):
        return f"{' '.join(self.command)}\n" + "".join(f"  {line}" for line in self.log)

    def socket(self):
        return self._places["unix"]

    def uri(self, name="", over="unix"):
        name = urllib.parse.quote(name, safe="")
        if over == "tcp":
            return f"nbd://{self._places['tcp']}/{name}"
        return f"nbd+unix:///{name}?socket={urllib.parse.quote(self.socket())}"

    def stop(self):
        self.process.terminate()
        status = self.process.wait(PATIENCE)
        assert status == 0, f"gantry ended with status {status}"

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.stop()
        finally:
            self.process.kill()
            self.process.wait()


def command_line(command, *arguments):
    if command == "export" and "--io-engine" not in arguments:  # a configuration says it itself
        arguments = "--io-engine", ENGINE, *arguments
    return [os.path.abspath(sys.argv[1]), command, *map(str, arguments)]


def export(image, *options, listen=(), launcher=()):
    """Serves one raw image; by default on a Unix socket beside it and on TCP, both at once. A launcher is a command
    that runs the program."""
    listen = listen or [f"unix:{image}.sock", "tcp:127.0.0.1:0"]
    words = [word for place in listen for word in ("--listen", place)]
    return Server(["export", image, "--format", "raw", *options, *words], len(listen), launcher=launcher)


def serve(folder, exports, listen=("unix:sock", "tcp:127.0.0.1:0")):
    """Serves several raw images of the folder: {export name: (file name, further lines of TOML)}."""
    toml = ""
    for number, (name, (filename, lines)) in enumerate(exports.items()):
        toml += (f'[nodes.file{number}]\ndriver = "file"\nfilename = "{filename}"\n'
                 f'[nodes.disk{number}]\ndriver = "raw"\nfile = "file{number}"\n'
                 f'[exports."{name}"]\nnode = "disk{number}"\n{lines}\n')
    return serve_toml(folder, toml, listen)


def serve_toml(folder, toml, listen=("unix:sock",), engine=ENGINE):
    """Serves what a configuration without [server] says."""
    config = folder / "gantry.toml"
    config.write_text(f'[server]\nlisten = {list(listen)}\nio-engine = "{engine}"\n{toml}')
    return Server(["serve", config], len(listen), folder)


def run(*command, folder=None):
    """Runs a tool that must succeed; its standard output."""
    done = _run(command, folder)
    assert done.returncode == 0, f"{done.args} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def refused(*command, status=1):
    """Runs a tool that must end with this status; all that it said."""
    done = _run(command, timeout=30)
    said = done.stdout + done.stderr
    assert done.returncode == status, f"{done.args} ended with {done.returncode}, not {status}\n{said}"
    return said


def _run(command, folder=None, timeout=PATIENCE):
    return subprocess.run([str(word) for word in command], cwd=folder, env=_environment, timeout=timeout,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")


@contextlib.contextmanager
def qemu_holds(image, *options):
    """qemu-io has an image of 1 MiB open while the block runs."""
    holder = subprocess.Popen(["qemu-io", *options, str(image)],
                              env=_environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with holder:  # leaves with end of file on stdin
        holder.stdin.write("length\n")
        holder.stdin.flush()
        said = holder.stdout.readline()
        assert "1 MiB" in said, said
        yield


def equal(actual, expected):
    assert actual == expected, f"is {actual!r}, should be {expected!r}"


def shared_folder():
    """A folder for what several tests of a script read, removed when the script ends."""
    folder = tempfile.mkdtemp(prefix="gantry-")
    atexit.register(shutil.rmtree, folder)
    return pathlib.Path(folder)


def sparse_file(path, size, data=()):
    """Makes a file of holes, with data = [(offset, bytes)]; its path."""
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, content in data:
            file.seek(offset)
            file.write(content)
    return path


def noise(length, seed=1):
    return random.Random(seed).randbytes(length)


def extents(file):
    """The (start, end) of everything in an open file that is not a hole."""
    end = 0
    while True:
        try:
            start = os.lseek(file.fileno(), end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        yield start, end


def same_bytes(left, right):
    """Compares two files without reading what is a hole in both."""
    equal(left.stat().st_size, right.stat().st_size)
    with open(left, "rb") as one, open(right, "rb") as other:
        for file in one, other:
            for start, end in extents(file):
                for offset in range(start, end, 1 << 20):
                    length = min(1 << 20, end - offset)
                    pieces = [os.pread(f.fileno(), length, offset) for f in (one, other)]
                    assert pieces[0] == pieces[1], f"{left} and {right} differ within {length} bytes at {offset}"


def allocated(path):
    return path.stat().st_blocks * 512
