"""monitor.py - what QEMU is told while the guest runs, by its monitor protocol (QMP)."""
import json
import socket

from tap import EndsAll

PATIENCE_S = 60


class Monitor:
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")
        self._events = []
        self._next()  # the greeting
        self.tell("qmp_capabilities")

    def tell(self, command, **arguments):
        """What the command returns."""
        message = json.dumps({"execute": command, "arguments": arguments})
        self._socket.sendall(message.encode() + b"\n")
        while "event" in (answer := self._next()):
            self._events.append(answer)
        assert "return" in answer, f"{message}: {answer}"
        return answer["return"]

    def human(self, line):
        return self.tell("human-monitor-command", **{"command-line": line})

    def wait_for(self, event, **data):
        """Until QEMU has reported the event with this data."""
        def is_wanted(seen):
            return seen["event"] == event and data.items() <= seen["data"].items()

        while not any(map(is_wanted, self._events)):
            self._events.append(self._next())

    def _next(self):
        line = self._lines.readline()
        if not line:
            raise EndsAll("QEMU has closed its monitor")
        return json.loads(line)
