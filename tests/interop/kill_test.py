#!/usr/bin/python3
"""kill -9 in the middle of writes, FUA and flushes: what was answered is there afterwards, flushed or not, since the
system goes on; and what was not answered is old or new, sector by sector."""
import os
import random
import time

import nbd

from content import Content
from gantry import equal, main, serve_toml, sparse_file, test

KiB, MiB = 1 << 10, 1 << 20
SEED = int(os.environ.get("GANTRY_SEED") or str(random.randrange(1 << 32)), 0)
SIZE = 4 * MiB
KILLS = 7  # of each kind of server
DEPTH = 24  # requests under way


class Writer:
    """Changes of all kinds, DEPTH at a time, against a server that may die."""

    def __init__(self, server, content, chance):
        self.content, self.chance = content, chance
        self.answers = 0
        self.wrong = []  # errors of requests
        self.client = nbd.NBD()
        self.client.set_request_block_size(False)  # single bytes, too: we pad
        self.client.set_strict_mode(0)
        self.client.connect_uri(server.uri())

    def one_more(self):
        """Asks for a change somewhere where none is under way, or for a flush."""
        chance, flags = self.chance, self.chance.choice([0, 0, nbd.CMD_FLAG_FUA])
        if chance.random() < 0.1:
            self.client.aio_flush(self._answered(None))
            return
        length = chance.choice([512, 4 * KiB, 4 * KiB, 64 * KiB, chance.randrange(1, 20000)])
        offset = chance.randrange(SIZE - length)
        offset -= offset % chance.choice([1, 512, 4 * KiB])
        if not self.content.is_free(offset, length):
            return
        if chance.random() < 0.15:
            key = self.content.begin(offset, bytes(length))
            self.client.aio_zero(length, offset, self._answered(key), flags | chance.choice([0, nbd.CMD_FLAG_NO_HOLE]))
        else:
            data = chance.randbytes(length)
            key = self.content.begin(offset, data)
            self.client.aio_pwrite(nbd.Buffer.from_bytearray(data), offset, self._answered(key), flags)

    def _answered(self, key):
        def done(error):
            if error.value:
                self.wrong.append(error.value)
            elif key is not None:
                self.content.done(key)
            self.answers += not error.value
            return 1
        return done

    def work(self, answers):
        """Goes on until so many requests were answered; then as many as can be are under way."""
        while self.answers < answers:
            self._fill()
            self.client.poll(-1)
        self._fill()
        equal(self.wrong, [])

    def _fill(self):
        for _ in range(DEPTH):
            if self.client.aio_in_flight() < DEPTH:
                self.one_more()

    def hear_the_rest(self):
        """What the server had said before it died counts."""
        try:
            while self.client.poll(1000) > 0 and not self.client.aio_is_dead():
                pass
        except nbd.Error:
            pass

    def read_all(self):
        return b"".join(self.client.pread(MiB, offset) for offset in range(0, SIZE, MiB))


def toml(direct):
    """blkdebug asks for units of 4 KiB where O_DIRECT would do with less: writes are padded everywhere."""
    return f"""
[nodes.disk]
driver = "blkdebug"
image = {{ driver = "file", filename = "disk", cache.direct = {direct} }}
align = {4096 if direct == "true" else 0}
[exports.""]
node = "disk"
writable = true
"""


@test("after kill -9 every answered write is there, and no other is torn within a sector: {}",
      "io_uring", "threads", "io_uring, cache.direct", "threads, cache.direct")
def _(folder, kind):
    print(f"# to repeat: GANTRY_SEED={SEED}")
    engine, _, direct = kind.partition(", ")
    chance = random.Random(f"{SEED} {kind}")
    content, image = Content(SIZE), sparse_file(folder / "disk", SIZE)
    unanswered = 0
    for _ in range(KILLS):
        server = serve_toml(folder, toml("true" if direct else "false"), engine=engine)
        try:
            writer = Writer(server, content, chance)
            content.settle(writer.read_all())  # as the one before it left it
            writer.work(chance.randrange(1, 1500))
            time.sleep(chance.choice([0, chance.random() / 1000]))  # the server is anywhere in its requests
        finally:
            server.process.kill()
            server.process.wait()
        writer.hear_the_rest()
        unanswered += len(content.in_doubt())
        content.check(0, image.read_bytes())
    assert unanswered > 0, "the server was idle whenever it was killed"

    with serve_toml(folder, toml("true" if direct else "false"), engine=engine) as server:
        writer = Writer(server, content, chance)
        content.settle(writer.read_all())
        writer.work(100)
        while writer.client.aio_in_flight():
            writer.client.poll(-1)
        writer.client.shutdown()
    content.check(0, image.read_bytes())
    equal(content.in_doubt(), [])


main()
