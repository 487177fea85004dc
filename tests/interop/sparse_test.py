#!/usr/bin/python3
"""A huge and nearly empty disk costs what its data costs: on the wire and on the destination's disk."""
import contextlib
import functools
import socket
import threading

from gantry import allocated, export, main, noise, run, same_bytes, shared_folder, sparse_file, test

SIZE = 100 << 30
PIECE = 256 << 10
DATA = SIZE // 100
PIECES = DATA // PIECE
WIRE_LIMIT = SIZE // 50
METADATA = 16 << 20  # what a file system may spend on the extent map of so many pieces


@functools.cache
def sparse_disk():
    content = noise(PIECE * 17)  # pieces differ from their neighbours
    data = ((number * (SIZE // PIECES), content[number % 17 * PIECE:][:PIECE]) for number in range(PIECES))
    return sparse_file(shared_folder() / "sparse", SIZE, data)


class Wire:
    """A Unix socket that forwards to another one and counts the bytes of both directions."""

    def __init__(self, path, target):
        self.path, self.target = path, target
        self.bytes = 0
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self.target)
                for ends in (client, server), (server, client):
                    threading.Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source, target):
        buffer = bytearray(1 << 20)
        with contextlib.suppress(OSError):  # the other end is gone
            while length := source.recv_into(buffer):
                with self._lock:
                    self.bytes += length
                target.sendall(memoryview(buffer)[:length])
            target.shutdown(socket.SHUT_WR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()


def copy_through(wire, source, destination):
    """nbdcopy, where None stands for the export behind the wire."""
    uri = f"nbd+unix:///?socket={wire.path}"
    run("nbdcopy", source or uri, destination or uri)


def is_as_sparse(copy):
    source, target = allocated(sparse_disk()), allocated(copy)
    assert target <= source + METADATA, f"{target} bytes are allocated, by the source {source}"
    same_bytes(copy, sparse_disk())


@test("a disk of 100 GiB with 1 % data goes in and is as sparse, with less than 2 % of it on the wire")
def _(folder):
    disk = sparse_file(folder / "disk", SIZE)

    with export(disk, "--writable") as server, Wire(folder / "wire", server.socket()) as wire:
        copy_through(wire, sparse_disk(), None)

    assert DATA < wire.bytes < WIRE_LIMIT, f"{wire.bytes} bytes on the wire"
    is_as_sparse(disk)


@test("a disk of 100 GiB with 1 % data comes out and is as sparse, with less than 2 % of it on the wire")
def _(folder):
    out, listen = folder / "out", [f"unix:{folder}/sock"]

    with export(sparse_disk(), listen=listen) as server, Wire(folder / "wire", server.socket()) as wire:
        copy_through(wire, None, out)

    assert DATA < wire.bytes < WIRE_LIMIT, f"{wire.bytes} bytes on the wire"
    is_as_sparse(out)


main()
