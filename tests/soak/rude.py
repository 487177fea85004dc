"""rude.py - clients without manners. Nothing is expected of what the server says to them."""
import contextlib
import socket
import struct
import time
from urllib.parse import parse_qs, urlsplit

from client import Client
from disks import KiB, MiB

READ, WRITE = 0, 1
GO, LIST = 7, 3


def option(kind, data=b""):
    return b"IHAVEOPT" + struct.pack(">LL", kind, len(data)) + data


def request(kind, offset, length, payload=b""):
    return struct.pack(">LHHQQL", 0x25609513, 0, kind, 1, offset, length) + payload


def go(export):
    return struct.pack(">L", 3) + option(GO, struct.pack(">L", len(export)) + export + bytes(2))


class Rude(Client):
    """Writes only to `null`, which keeps nothing; looks at `cached`, too."""

    def live(self, reborn):
        ways = [way for name, way in vars(Rude).items() if name.startswith("_be_")]
        while not self.is_over():
            place = self.uris["null", self.chance.choice(["unix", "tcp"])]
            with contextlib.suppress(OSError), self._connected(place) as peer:
                way = self.chance.choice(ways)
                way(self, peer)
                self.counts["rude"] += 1
            time.sleep(self.chance.random() / 20)

    @staticmethod
    def _connected(uri):
        parts = urlsplit(uri)
        if parts.scheme == "nbd":
            return socket.create_connection((parts.hostname, parts.port), timeout=5)
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(5)
        peer.connect(parse_qs(parts.query)["socket"][0])
        return peer

    def _be_a_port_probe(self, peer):
        pass

    def _be_a_browser(self, peer):
        peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        peer.recv(4 * KiB)

    def _be_noise(self, peer):
        peer.sendall(self.chance.randbytes(self.chance.randrange(1, 100 * KiB)))
        peer.recv(4 * KiB)

    def _be_cut_off_in_the_handshake(self, peer):
        whole = struct.pack(">L", 3) + option(LIST) + go(b"cached")[4:]
        peer.sendall(whole[:self.chance.randrange(len(whole))])

    def _be_greedy_with_an_option(self, peer):
        peer.sendall(struct.pack(">L", 3) + b"IHAVEOPT" + struct.pack(">LL", GO, 0xffffffff))
        peer.recv(4 * KiB)

    def _be_silent(self, peer):
        time.sleep(self.chance.random() * 3)

    def _be_noise_in_transmission(self, peer):
        peer.sendall(go(b"null") + self.chance.randbytes(self.chance.randrange(1, 10 * KiB)))
        peer.recv(4 * KiB)

    def _be_gone_in_a_payload(self, peer):
        peer.sendall(go(b"null") + request(WRITE, 0, 8 * MiB, bytes(self.chance.randrange(2 * MiB))))

    def _be_a_reader_who_reads_nothing(self, peer):
        export = self.chance.choice([b"null", b"cached"])
        peer.sendall(go(export) + b"".join(request(READ, 0, 4 * MiB) for _ in range(40)))
        time.sleep(self.chance.random())

    def _be_torn_off(self, peer):
        if peer.family == socket.AF_INET:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        peer.sendall(go(b"cached") + b"".join(request(READ, i * 4 * KiB, 64 * KiB) for i in range(50)))

    def _be_half_closed(self, peer):
        peer.sendall(go(b"null") + request(READ, 0, 512) + request(99, 0, 0))
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(64 * KiB):
            pass
