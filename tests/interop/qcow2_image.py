"""The metadata of a qcow2 image, to be looked at and spoiled, entry by entry."""
import struct

COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1
OFFSET = 0x00fffffffffffe00


class Image:
    """A qcow2 file in memory; save() writes it."""

    def __init__(self, path):
        self.path = path
        self.bytes = bytearray(path.read_bytes())

    def save(self, path):
        path.write_bytes(self.bytes)

    def u16(self, at):
        return struct.unpack_from(">H", self.bytes, at)[0]

    def u32(self, at):
        return struct.unpack_from(">I", self.bytes, at)[0]

    def u64(self, at):
        return struct.unpack_from(">Q", self.bytes, at)[0]

    def put(self, at, value, size=8):
        if at + size > len(self.bytes):
            self.bytes.extend(bytes(at + size - len(self.bytes)))
        struct.pack_into({1: ">B", 2: ">H", 4: ">I", 8: ">Q"}[size], self.bytes, at, value)

    def change(self, at, change):
        self.put(at, change(self.u64(at)))

    @property
    def cluster(self):
        return 1 << self.u32(20)

    @property
    def l1(self):
        """Places of the entries of the active L1 table."""
        return [self.u64(40) + 8 * i for i in range(self.u32(36))]

    @property
    def extended(self):
        return self.u32(4) == 3 and self.u64(72) & 16

    def l2(self, l1_entry_at):
        """Places of the entries of the L2 table that the L1 entry there leads to."""
        step = 16 if self.extended else 8
        start = self.u64(l1_entry_at) & OFFSET
        return [start + at for at in range(0, self.cluster, step)]

    @property
    def tables(self):
        """Places of the L1 entries that lead somewhere."""
        return [at for at in self.l1 if self.u64(at) & OFFSET]

    def entries(self, kind):
        """Places of the active L2 entries of this kind."""
        found = []
        for l1_entry in self.tables:
            for at in self.l2(l1_entry):
                value = self.u64(at)
                is_kind = {"data": value & OFFSET and not value & (COMPRESSED | ZERO),
                           "compressed": value & COMPRESSED,
                           "allocated zero": value & OFFSET and value & ZERO and not value & COMPRESSED,
                           "plain zero": value == ZERO, "none": value == 0}[kind]
                if is_kind:
                    found.append(at)
        return found

    @property
    def refcount_table(self):
        """Places of its entries."""
        return [self.u64(48) + at for at in range(0, self.u32(56) * self.cluster, 8)]

    @property
    def refcount_blocks(self):
        """Offsets of the blocks that there are."""
        return [self.u64(at) for at in self.refcount_table if self.u64(at)]

    def refcount_at(self, offset):
        """The place of the 16-bit count of the cluster at `offset`."""
        cluster = offset // self.cluster
        per_block = self.cluster // 2
        block = self.u64(self.refcount_table[cluster // per_block])
        return block + 2 * (cluster % per_block)

    @property
    def snapshots(self):
        """Places of the entries of the snapshot table."""
        places, at = [], self.u64(64)
        for _ in range(self.u32(60)):
            at = (at + 7) // 8 * 8
            places.append(at)
            at += 40 + self.u32(at + 36) + self.u16(at + 12) + self.u16(at + 14)
        return places

    def extension(self, wanted):
        """The place of a header extension's data."""
        at = self.u32(100)
        while True:
            kind, length = self.u32(at), self.u32(at + 4)
            if kind == wanted:
                return at + 8
            assert kind, "no such extension"
            at += 8 + (length + 7) // 8 * 8

    @property
    def bitmaps(self):
        """Places of the entries of the bitmap directory."""
        extension = self.extension(0x23852875)
        places, at = [], self.u64(extension + 16)
        for _ in range(self.u32(extension)):
            places.append(at)
            at += (24 + self.u32(at + 20) + self.u16(at + 18) + 7) // 8 * 8
        return places
