"""server.py - gantry serving one image, and the image looked at behind its back."""
import hashlib
import json
import re
import subprocess
import sys
import threading

from machine import run
from tap import EndsAll

DISK_SIZE = 256 << 20
CONFIG = """
[server]
listen = ["tcp:127.0.0.1:0"]
[nodes.disk-file]
driver = "file"
filename = "disk.img"
[nodes.disk]
driver = "raw"
file = "disk-file"
[exports.disk]
node = "disk"
writable = true
[exports.ro]
node = "disk"
"""


class Image:
    """The file behind the exports, seen from this side."""

    def __init__(self, path):
        self.path = path

    def create(self):
        with open(self.path, "xb") as file:
            file.truncate(DISK_SIZE)

    def allocated(self):
        return self.path.stat().st_blocks * 512

    def digest(self):
        return file_md5(self.path)

    def digest_of(self, name):
        """Of a file in the file system that the image holds."""
        dumped = self.path.with_suffix(".dumped")
        dumped.unlink(missing_ok=True)
        run("debugfs", "-R", f"dump {name} {dumped}", self.path)  # status 0 even without the file
        return file_md5(dumped)

    def copy(self):
        target = Image(self.path.with_suffix(".copy"))
        run("cp", "--sparse=always", self.path, target.path)
        return target

    def fsck(self):
        """Changes nothing. Raises CommandFailed when there is a fault."""
        run("e2fsck", "-fn", self.path)

    def replay_journal(self):
        """What a mount after a power cut does. Raises CommandFailed when that is not enough."""
        run("e2fsck", "-fp", self.path, accept=(0, 1))


class Server:
    """GANTRY serve, in a folder of its own. May be started again after a stop, on another port."""

    def __init__(self, gantry, folder):
        config = folder / "vm.toml"
        config.write_text(CONFIG)
        self.log = []
        self._command = ["setpriv", "--pdeathsig", "KILL", gantry, "serve", config]
        self.start()

    def start(self):
        self._listening = threading.Event()
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=sys.stderr,
                                         stderr=subprocess.PIPE, text=True, errors="replace")
        threading.Thread(target=self._follow_log, args=(self._process, self._listening),
                         daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def wait_until_listening(self):
        self._listening.wait()
        found = re.findall(r"listening on tcp:127\.0\.0\.1:(\d+)", "\n".join(self.log))
        if not found or self._process.poll() is not None:
            raise EndsAll("the server ended before it listened")
        self.port = int(found[-1])

    def info(self, export):
        report = run("nbdinfo", "--json", f"nbd://127.0.0.1:{self.port}/{export}")
        [info] = json.loads(report)["exports"]
        return info

    def stop(self):
        """The exit status that SIGTERM leads to."""
        self._process.terminate()
        return self._process.wait()

    def _follow_log(self, process, listening):
        for line in process.stderr:
            self.log.append(line.rstrip())
            if "listening on tcp:" in line:
                listening.set()
        listening.set()


def file_md5(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
