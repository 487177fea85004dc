"""tap.py - facts about the program under test, one line of TAP each."""
import traceback
from contextlib import contextmanager


class EndsAll(Exception):
    """Nothing can be told after this one."""


class Tap:
    """Prints one line per fact, and why a fact does not hold. A fact that fails ends nothing: the
    next ones may still tell something."""

    def __init__(self):
        self._count = 0
        self.failures = 0

    @contextmanager
    def fact(self, name):
        try:
            yield
        except Exception as problem:
            self.failures += 1
            self._report("not ok", name)
            self.explain("".join(traceback.format_exception_only(problem)))
            if isinstance(problem, EndsAll):
                raise
        else:
            self._report("ok", name)

    def skip(self, name, reason):
        self._report("ok", f"{name} # SKIP {reason}")

    def explain(self, text):
        for line in text.splitlines():
            print(f"# {line}", flush=True)

    def plan(self):
        print(f"1..{self._count}", flush=True)

    def _report(self, verdict, name):
        self._count += 1
        print(f"{verdict} {self._count} - {name}", flush=True)


def expect(what, actual, wanted):
    assert actual == wanted, f"{what}: {actual!r}, not {wanted!r}"
