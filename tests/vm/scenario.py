"""scenario.py - runs a test's story of the guest to its end, within a limit of time, and tells how many facts failed."""
import signal
import tempfile
from pathlib import Path

from tap import EndsAll, Tap


def play(scenario, gantry, cache, limit_s):
    """Calls scenario(tap, gantry, cache, folder); gives the exit status."""
    def end(number, _):
        raise EndsAll(f"ended by {signal.Signals(number).name}; the limit is {limit_s} s")

    signal.signal(signal.SIGALRM, end)
    signal.signal(signal.SIGTERM, end)
    signal.alarm(limit_s)
    tap = Tap()
    with tempfile.TemporaryDirectory(prefix="gantry-vm-") as folder:
        try:
            with tap.fact("the scenario reaches its end"):
                scenario(tap, gantry, Path(cache), Path(folder))
        except EndsAll:
            pass  # the fact has told
    tap.plan()
    return 1 if tap.failures else 0
