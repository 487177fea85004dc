"""guest_disks.py - block devices of the guest, and what lies below each: a file on this side under
a virtio disk, a file of the guest's under a loop device. All of them can do the same."""
import hashlib
from pathlib import Path


class _Disk:
    def resize(self, size):
        """Until the guest's kernel knows the new size of the device."""
        self._resize(size)
        self._guest.sh(f"until [ $(blockdev --getsize64 {self.device}) = {size} ];"
                       " do sleep 0.05; done")


class VirtioDisk(_Disk):
    def __init__(self, guest, image):
        self._guest = guest
        self._image = image
        found = Path(guest.sh(f"grep -lx {image.stem} /sys/block/*/serial"))
        self.device = f"/dev/{found.parent.name}"

    def digest(self):
        with open(self._image, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()

    def allocated(self):
        return self._image.stat().st_blocks * 512

    def pull(self):
        """As if somebody took the disk out of the machine."""
        name = self._image.stem
        self._guest.monitor.tell("device_del", id=name)
        self._guest.monitor.wait_for("DEVICE_DELETED", device=name)

    def _resize(self, size):
        self._guest.monitor.tell("block_resize", **{"node-name": self._image.stem, "size": size})


class LoopDevice(_Disk):
    def __init__(self, guest, file, size):
        self._guest = guest
        self._file = file
        self.device = guest.sh("losetup -f")
        guest.sh(f"truncate -s {size} {file} && losetup {self.device} {file}")

    def digest(self):
        return self._guest.sh(f"md5sum < {self._file}").split()[0]

    def allocated(self):
        return int(self._guest.sh(f"stat -c %b {self._file}")) * 512

    def _resize(self, size):
        self._guest.sh(f"truncate -s {size} {self._file} && losetup -c {self.device}")
