"""What a disk has to hold: the model that clients compare with while servers die.

A change that was answered is there, each byte of it. One that got no answer may have happened, or not, or in part; but
within a sector of 512 bytes it was done or was not, and no byte may be anything else than the old or the new one."""

SECTOR = 512


class Mismatch(AssertionError):
    """The disk holds what nobody may find there."""


class Content:
    """The bytes of a range that one client owns; on the disk it begins at `origin`, which says where sectors begin.
    Offsets count within the range. Changes that are under way at once do not overlap."""

    def __init__(self, size, origin=0):
        self.size = size
        self._origin = origin
        self._bytes = bytearray(size)
        self._changes = {}  # under way or in doubt: key -> (offset, what it writes)
        self._last = 0

    def begin(self, offset, data):
        """A change is about to be asked for; its key."""
        assert self.is_free(offset, len(data)), "one change at a time for each byte"
        self._last += 1
        self._changes[self._last] = offset, data
        return self._last

    def done(self, key):
        """It was answered with success."""
        offset, data = self._changes.pop(key)
        self._bytes[offset:offset + len(data)] = data

    def refused(self, key):
        """It was answered with an error that says that nothing was changed."""
        del self._changes[key]

    def is_free(self, offset, length):
        """Is what a read of this range has to give certain, and nothing about to change it?"""
        return all(offset + length <= start or start + len(data) <= offset for start, data in self._changes.values())

    def in_doubt(self):
        """The (offset, length) of all changes that are not done."""
        return [(offset, len(data)) for offset, data in self._changes.values()]

    def zeroes(self, offset, length):
        return not any(self._bytes[offset:offset + length])

    def check(self, offset, found):
        """Raises Mismatch unless these bytes may be there. Changes in doubt count if they lie inside the range."""
        expected = self._bytes[offset:offset + len(found)]
        if found == expected:
            return
        for start, data in self._changes.values():
            _accept(expected, start - offset, data, found, self._origin + start)
        if found != expected:
            raise Mismatch(_difference(offset, found, expected))

    def settle(self, found):
        """The same for the whole range; what was in doubt is then as it was found."""
        self.check(0, found)
        self._bytes[:] = found
        self._changes.clear()

    def settle_one(self, key, found):
        """The same for what one change may have left, where it was."""
        offset, _ = self._changes[key]
        self.check(offset, found)
        self._bytes[offset:offset + len(found)] = found
        del self._changes[key]


def _accept(expected, at, data, found, place):
    """Puts those sectors of a change into `expected` that are found; `place` is where they lie on the disk."""
    first = 0
    while first < len(data):
        end = min(len(data), first + SECTOR - (place + first) % SECTOR)
        piece = slice(at + first, at + end)
        if found[piece] == data[first:end]:
            expected[piece] = data[first:end]
        first = end


def _difference(offset, found, expected):
    wrong = [at for at in range(0, len(found), SECTOR) if found[at:at + SECTOR] != expected[at:at + SECTOR]]
    first = next(i for i in range(wrong[0], len(found)) if found[i] != expected[i])
    return (f"{len(wrong)} of {-(-len(found) // SECTOR)} sectors from {offset} on are wrong, the first wrong byte is "
            f"at {offset + first}: found {bytes(found[first:first + 16]).hex()}, "
            f"expected {bytes(expected[first:first + 16]).hex()}")
