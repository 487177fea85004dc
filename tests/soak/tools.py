"""tools.py - clients of a soak that are programs: nbdcopy, qemu-io with qemu-img, fio, nbdinfo."""
import os
import pathlib
import subprocess

from client import Client, Gone
from disks import SIZE, SLOTS, KiB, MiB

PATIENCE = 120  # seconds for one command


class Tool(Client):
    """Owns the export of its name. `_there` is what the export holds, or None when that is not known."""

    def __init__(self, name, seed, folder):
        super().__init__(name, seed)
        self._folder = pathlib.Path(folder) / f"{name}.files"
        self._folder.mkdir()
        self._there = bytes(SIZE)

    def live(self, reborn):
        self._compare()
        while not self.is_over():
            self.work()
            self.counts[self.name] += 1

    def work(self):
        raise NotImplementedError

    def uri(self):
        return self.uris[self.name, self.chance.choice(["unix", "tcp"])]

    def _compare(self):
        """The export, as another program sees it, after the last server has died."""
        if self._there is not None:
            self._write("expected", self._there)
            self._run("qemu-img", "compare", "-f", "raw", "-F", "raw", self._folder / "expected", self.uri())
            self.counts["verified"] += 1

    def _write(self, name, content):
        (self._folder / name).write_bytes(content)
        return self._folder / name

    def _run(self, *command):
        done = subprocess.run([str(word) for word in command], cwd=self._folder, env=os.environ | {"LC_ALL": "C"},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=PATIENCE, text=True, errors="replace", check=False)
        if done.returncode != 0:
            what = f"{' '.join(done.args)} ended with {done.returncode}\n{done.stdout}"
            if self.is_ending():
                raise Gone(what)
            raise AssertionError(what)
        return done.stdout


class Nbdcopy(Tool):
    """Copies a disk in, and out again."""

    def work(self):
        chance = self.chance
        data = bytearray(chance.randbytes(SIZE))
        for _ in range(chance.randrange(8)):
            start, length = chance.randrange(SIZE), chance.randrange(MiB)
            data[start:start + length] = bytes(len(data[start:start + length]))
        options = [f"--connections={chance.choice([1, 4])}", f"--requests={chance.choice([1, 16, 64])}",
                   f"--request-size={chance.choice([4 * KiB, 256 * KiB, 1 * MiB])}"]
        options += chance.choice([[], ["--flush"], ["--no-extents"], ["--allocated"], ["--synchronous"]])
        expected, out = self._write("expected", data), self._folder / "out"
        self._there = None
        self._run("nbdcopy", *options, expected, self.uri())
        self._there = data
        out.unlink(missing_ok=True)
        self._run("nbdcopy", *options, self.uri(), out)
        if out.read_bytes() != data:
            raise AssertionError(f"nbdcopy {' '.join(options)}: {out} should be {expected}")


class Qemu(Tool):
    """qemu-io writes patterns and checks some of them, qemu-img compares it all."""

    def __init__(self, name, seed, folder):
        super().__init__(name, seed, folder)
        self._there = bytearray(self._there)

    def work(self):
        chance = self.chance
        if self._there is None:
            self._run("qemu-io", "-f", "raw", "-c", f"write -z 0 {SIZE}", self.uri())
            self._there = bytearray(SIZE)
        there, words = bytearray(self._there), []
        for _ in range(chance.randrange(1, 20)):
            length = chance.randrange(1, 300) * chance.choice([1, 512, 1024])
            start, pattern = chance.randrange(SIZE - length), chance.randrange(1, 256)
            if chance.random() < 0.2:
                pattern = 0
                words += ["-c", f"write -z {chance.choice(['', '-u', '-f'])} {start} {length}"]
            else:
                words += ["-c", f"write {chance.choice(['', '-f'])} -P {pattern} {start} {length}"]
            there[start:start + length] = bytes([pattern]) * length
            words += ["-c", f"read -P {pattern} {start} {length}"] + chance.choice([[], [], ["-c", "flush"]])
        self._there = None
        said = self._run("qemu-io", "-f", "raw", *words, self.uri())
        if "failed" in said:
            raise AssertionError(f"qemu-io {words}: {said}")
        self._there = there
        self._compare()


class Fio(Tool):
    """fio writes blocks with checksums and reads them back."""

    def work(self):
        chance = self.chance
        self._there = None
        self._run("fio", "--name=job", "--ioengine=nbd", f"--uri={self.uri()}", "--verify=crc32c", "--verify_fatal=1",
                  "--verify_state_save=0", f"--rw={chance.choice(['write', 'randwrite'])}", f"--size={SIZE}",
                  f"--iodepth={chance.choice([1, 8, 32])}", f"--randseed={chance.randrange(1 << 32)}",
                  *chance.choice([["--bs=4k"], ["--bs=64k"], ["--bsrange=512-256k", "--bs_unaligned=1"]]))


class Onlookers(Tool):
    """nbdinfo and qemu-img look at the disks on which others work."""

    def work(self):
        export = self.chance.choice(SLOTS).export
        uri = self.uris[export, self.chance.choice(["unix", "tcp"])]
        self._run(*self.chance.choice([["nbdinfo", "--map", uri], ["nbdinfo", "--json", "--list", uri],
                                       ["nbdinfo", "--size", uri], ["qemu-img", "info", "-f", "raw", uri],
                                       ["qemu-img", "map", "-f", "raw", "--output=json", uri]]))

    def _compare(self):
        pass
