"""client.py - a client of a soak: a process of its own, which works while the daemon lives and waits while it does not.

The soak says `Go` and `Stop` through a pipe; the process answers each Go once, with a Report, when it was told to stop
or when its server has gone."""
import collections
import multiprocessing
import os
import random
import signal
import time
import traceback
from typing import NamedTuple


class Go(NamedTuple):
    uris: dict  # (export, "unix" or "tcp") -> URI
    reborn: bool  # the daemon is another one than before


class Stop(NamedTuple):
    pass


class Report(NamedTuple):
    counts: collections.Counter
    failure: str  # empty: none


class Gone(Exception):
    """The server has left, or does not serve any more."""


class Client:
    """What all clients are: a name, lots to draw, counts. A subclass has live(), which works until is_over()."""

    def __init__(self, name, seed):
        self.name = name
        self.chance = random.Random(f"{seed} {name}")
        self.counts = collections.Counter()
        self.uris = {}
        self._pipe, self._ending = None, None

    def live(self, reborn):
        """Raises Gone, or anything else: that is a failure."""
        raise NotImplementedError

    def is_over(self):
        return self._pipe.poll()

    def is_ending(self):
        """Was the daemon told to end? Then whatever a connection suffers is nobody's fault."""
        return bool(self._ending.value)

    def serve(self, pipe, ending):
        """The life of the process."""
        self._pipe, self._ending = pipe, ending
        parent = os.getppid()
        while os.getppid() == parent:
            if not pipe.poll(5):
                continue
            word = pipe.recv()
            if isinstance(word, Stop):  # it crossed our Report
                continue
            self.uris = word.uris
            failure = ""
            try:
                self.live(word.reborn)
            except Gone as gone:
                if not self.is_ending():
                    failure = f"the server is gone without a reason: {gone}"
            except Exception:
                failure = traceback.format_exc()
            pipe.send(Report(self.counts, failure))
            self.counts = collections.Counter()


class Process:
    """A client as the soak sees it."""

    def __init__(self, client, ending):
        self.name = client.name
        self._pipe, end = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_run, args=(client, end, ending), daemon=True)
        self._process.start()
        end.close()

    def go(self, uris, reborn):
        self._pipe.send(Go(uris, reborn))

    def stop(self):
        self._pipe.send(Stop())

    def is_done(self):
        return self._pipe.poll()

    def report(self, deadline):
        """Waits for it. A process that is silent or dead has failed."""
        if not self._pipe.poll(max(0.0, deadline - time.monotonic())):
            return Report(collections.Counter(), "hangs: it was told to stop, and does not")
        try:
            return self._pipe.recv()
        except EOFError:
            return Report(collections.Counter(), "its process has died")


def _run(client, pipe, ending):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        client.serve(pipe, ending)
    except (EOFError, OSError, KeyboardInterrupt):
        pass  # the soak has ended
