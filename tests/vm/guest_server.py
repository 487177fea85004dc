"""guest_server.py - gantry inside the guest, and clients of it on this side."""
import shlex
import threading

import nbd

from tap import EndsAll

TCP_PORT = 10809
VSOCK_PORT = 10809
FOREIGN_PORT = 10810  # of vsock, for others than CID 1
BRIDGES = {VSOCK_PORT: 10811, FOREIGN_PORT: 10812}  # of TCP, in front of vsock
PORTS = (TCP_PORT, *BRIDGES.values())  # of TCP
PATIENCE_S = 60


def build_bridges(guest):
    """From now on, who connects to one of the BRIDGES arrives on the guest's vsock, by the loopback
    of vsock: as a peer with the CID 1."""
    for vsock, tcp in BRIDGES.items():
        guest.sh(f"socat TCP-LISTEN:{tcp},fork,reuseaddr VSOCK-CONNECT:1:{vsock} > /socat 2>&1 &")


class GuestServer:
    """Runs until stop(). `program` is its name in the guest."""

    def __init__(self, guest, program, config):
        self._guest = guest
        self._program = program
        text = shlex.quote(config.replace("\n", "\\n"))  # a command is one line
        guest.sh(f"printf {text} > /gantry.toml; rm -f /status")
        guest.sh(f"({program} serve /gantry.toml > /log 2>&1; echo $? > /status.new;"
                 " mv /status.new /status) &")
        guest.sh("until [ -e /status ] || grep -q 'is listening on' /log; do sleep 0.05; done")
        if not guest.fails("test -e /status"):
            raise EndsAll("the server ended before it listened\n" + self.log())

    def log(self):
        return self._guest.sh("cat /log")

    def connect(self, export, port=TCP_PORT):
        client = nbd.NBD()
        client.set_strict_mode(0)  # the server shall refuse what is wrong
        client.connect_uri(f"nbd://127.0.0.1:{self._guest.port(port)}/{export}")
        return client

    def stop(self):
        """The exit status that SIGTERM leads to."""
        self._guest.sh(f"kill $(pidof {self._program}); until [ -e /status ]; do sleep 0.05; done")
        return int(self._guest.sh("cat /status"))


class Load(threading.Thread):
    """A client that writes, reads and flushes one region of an export all the time, until it is
    told to end or a request fails: then `error` says how."""
    SIZE = 1 << 20
    STEP = 64 << 10

    def __init__(self, client, number):
        super().__init__(daemon=True)
        self._client = client
        self._base = number * self.SIZE
        self._progress = threading.Condition()
        self._requests = 0
        self._is_ending = False
        self.error = None
        self.start()

    def run(self):
        data = bytes(range(256)) * (self.STEP // 256)
        try:
            while not self._is_ending:
                for offset in range(self._base, self._base + self.SIZE, self.STEP):
                    self._client.pwrite(data, offset)
                    assert self._client.pread(self.STEP, offset) == data, f"other bytes at {offset}"
                    self._count(2)
                self._client.flush()
        except Exception as problem:
            self.error = problem
        self._count(0)

    def go_on(self, requests):
        """Until so many more have succeeded. An error if they don't."""
        with self._progress:
            wanted = self._requests + requests
            self._progress.wait_for(lambda: self.error or self._requests >= wanted, PATIENCE_S)
            assert self.error is None and self._requests >= wanted, \
                f"{self._requests - wanted + requests} of {requests} requests: {self.error}"

    def end(self):
        self._is_ending = True
        self.join(PATIENCE_S)
        assert not self.is_alive(), "a request without an answer"

    def _count(self, requests):
        with self._progress:
            self._requests += requests
            self._progress.notify_all()
