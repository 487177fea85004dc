"""daemon.py - the daemon of a soak, from a start to a stop or a kill, and what is asked of it besides right answers."""
import filecmp
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from disks import SLOTS, TOOLS, WHOLE, MiB, configuration
from gantry import Server

PATIENCE = 60  # seconds for a stop: twice drain-timeout, and a slow disk
ON_PURPOSE = "SIGHUP: nothing is changed: "  # the one error that a soak provokes
# Honest growth ends: each worker keeps up to 16 MiB of buffers for the next request, glibc what lies between pieces
# that are in use, and `memory` fills up. With one worker that is less than what 500 bytes for each request would be at
# the end of a lasting life, some 75,000 requests after the warm-up.
MEMORY_MARGIN = 16 * MiB
MEMORY_OF_A_WORKER = 16 * MiB
SETTLED = 10  # seconds until connections that their clients left must be gone


class Fault(AssertionError):
    """The daemon does what it should not."""


class Daemon:
    def __init__(self, folder, engine, workers):
        self.folder, self.engine, self.workers = pathlib.Path(folder), engine, workers
        self._config = self.folder / "gantry.toml"
        self._base = None  # (memory, descriptors) after the warm-up
        self._keep_what_the_log_starts_from()
        self._config.write_text(configuration(engine, workers, "info"))
        self.server = Server(["serve", self._config], 2, self.folder)

    def describe(self):
        return f"{self.engine}, {self.workers} workers"

    def uris(self):
        exports = {*WHOLE, *TOOLS, *(slot.export for slot in SLOTS)}
        return {(name, over): self.server.uri(name, over) for name in exports for over in ("unix", "tcp")}

    def check_alive(self):
        if self.server.process.poll() is not None:
            raise Fault(f"the daemon has ended with {self.server.process.returncode}")

    # What changes while it runs.

    def hang_up(self, chance):
        """Most of the time there is something to read again."""
        text = configuration(self.engine, self.workers, chance.choice(["info", "debug", "warning"]))
        self._config.write_text(chance.choice([text, text, text + "[exports.broken\n"]))
        self.server.process.send_signal(signal.SIGHUP)

    # What has to stay as it is. Ask when no client works.

    def memory(self):
        status = self._proc("status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) << 10

    def descriptors(self):
        return len(os.listdir(self._proc("fd")))

    def check_that_it_is_flat(self):
        """The first call sets the measure."""
        if self._base is None:
            time.sleep(1)  # until it has seen that all have left
            self._base = self.memory(), self.descriptors()
            return
        memory, descriptors = self._base
        deadline = time.monotonic() + SETTLED
        while self.descriptors() > descriptors and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.descriptors() > descriptors:
            names = [os.readlink(link) for link in self._proc("fd").iterdir()]
            raise Fault(f"{self.descriptors()} descriptors without a client, {descriptors} after the warm-up: {names}")
        sanitized = "ASAN_OPTIONS" in os.environ  # sanitizers keep what was freed
        if not sanitized and self.memory() > memory + MEMORY_MARGIN + self.workers * MEMORY_OF_A_WORKER:
            raise Fault(f"{self.memory() / MiB:.1f} MiB without a client, {memory / MiB:.1f} MiB after the warm-up")

    def _proc(self, name):
        return pathlib.Path(f"/proc/{self.server.process.pid}/{name}")

    def threads(self):
        """Where each thread waits, and who is connected: for the story of a hang."""
        lines = []
        for task in sorted(self._proc("task").glob("*")):
            for name in "comm", "wchan", "stack":
                try:
                    lines.append((task / name).read_text().strip())
                except OSError as problem:
                    lines.append(f"{name}: {problem}")
        sockets = subprocess.run(["ss", "--all", "--numeric", "--processes", "--tcp", "--unix"], capture_output=True,
                                 text=True, errors="replace", check=False)
        ours = [line for line in sockets.stdout.splitlines() if self.server.process.args[0] in line or "sock" in line
                or self.server.uri("", "tcp").split("/")[2] in line]
        return "\n".join(lines + ours) + "\n"

    # Its end.

    def kill(self):
        self.server.process.kill()
        self.server.process.wait()
        self._check_log()

    def stop(self):
        self.server.process.terminate()
        try:
            status = self.server.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Fault(f"the daemon is told to stop, and has not for {PATIENCE} s") from None
        self._check_log()
        if status != 0:
            raise Fault(f"the daemon stopped with status {status}")
        self._check_replay()

    def _check_log(self):
        self.server.reader.join()
        errors = [line for line in self.server.log if " error: " in line and ON_PURPOSE not in line]
        if errors:
            raise Fault("the log has errors:\n" + "".join(errors))

    # The log of writes, from a start to a clean stop, makes the same disk.

    def _keep_what_the_log_starts_from(self):
        if (self.folder / "logged.img").exists():
            shutil.copyfile(self.folder / "logged.img", self.folder / "replayed.img")
        else:
            (self.folder / "replayed.img").touch()
        (self.folder / "log").write_bytes(b"")

    def _check_replay(self):
        replayed, logged = self.folder / "replayed.img", self.folder / "logged.img"
        if (self.folder / "log").stat().st_size == 0:
            return  # nothing was changed
        done = subprocess.run([sys.executable, pathlib.Path(__file__).resolve().parent.parent / "replay.py",
                               self.folder / "log", replayed], capture_output=True, text=True, check=False)
        os.truncate(replayed, logged.stat().st_size)
        if done.returncode != 0 or not filecmp.cmp(replayed, logged, shallow=False):
            raise Fault(f"{logged} is not what its log of writes makes of it: {done.stdout}{done.stderr}")
