"""machine.py - a virtual machine that runs Debian's kernel and the shell commands it is sent.

Emulated (TCG) on purpose: the same everywhere, with or without /dev/kvm. Needs no root."""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from monitor import Monitor
from tap import EndsAll

HOST = "10.0.2.2"  # the host's loopback, as the guest's user-mode network shows it
GUEST = "10.0.2.15"  # the guest, seen from itself
MODULES = ("virtio_pci", "virtio_net")  # of every guest
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
GUEST_INIT = Path(__file__).with_name("init")


class CommandFailed(Exception):
    pass


def run(*command, accept=(0,), cwd=None, stdin=None):
    """What the command prints on stdout. Raises CommandFailed when its status is not accepted."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, input=stdin, text=True,
                          capture_output=True,
                          env={**os.environ, "PATH": SYSTEM_PATH, "LC_ALL": "C"})
    if done.returncode not in accept:
        raise CommandFailed(f"{' '.join(map(str, command))}: status {done.returncode}\n"
                            f"{done.stdout}{done.stderr}")
    return done.stdout


class Kernel:
    """Debian's cloud kernel, unpacked in a folder that outlives the test: downloaded once."""

    def __init__(self, cache):
        self._root = cache / "kernel"
        if not self._root.exists():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as scratch:
                self._download(Path(scratch)).rename(self._root)
        [self.image] = self._root.glob("boot/vmlinuz-*")
        [self._modules] = self._root.glob("lib/modules/*")

    @staticmethod
    def _download(scratch):
        # Own package lists: the machine's may be absent or too old, and only root can refresh them.
        lists, downloads = scratch / "lists", scratch / "cache"
        for folder in (lists / "partial", downloads / "archives/partial"):
            folder.mkdir(parents=True)
        options = [f"-oDir::State::lists={lists}", f"-oDir::Cache={downloads}"]
        run("apt-get", *options, "update", "-qq")
        depends = run("apt-cache", *options, "depends", "linux-image-cloud-amd64")
        package = re.search(r"Depends: (linux-image-\S+)", depends)[1]
        run("apt-get", *options, "download", "-qq", package, cwd=scratch)
        [archive] = scratch.glob("*.deb")
        unpacked = scratch / "unpacked"
        run("dpkg-deb", "-x", archive, unpacked)
        [modules] = unpacked.glob("lib/modules/*")
        run("depmod", "-b", unpacked, modules.name)
        return unpacked

    def install_modules(self, names, root):
        """Copies the named modules, what they depend on, and the index that modprobe reads."""
        target = root / "lib/modules" / self._modules.name
        target.mkdir(parents=True)
        shutil.copy(self._modules / "modules.dep", target)
        for path, dependencies in self._dependencies():
            if Path(path).stem.replace("-", "_") in names:
                for file in (path, *dependencies):
                    (target / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(self._modules / file, target / file)

    def _dependencies(self):
        for line in (self._modules / "modules.dep").read_text().splitlines():
            path, dependencies = line.split(":")
            yield path, dependencies.split()


def install_program(name, root):
    """Copies a program of this machine (its name, or a path), and the libraries it loads, into the
    guest's files."""
    program = shutil.which(name, path=SYSTEM_PATH)
    if not program:
        raise FileNotFoundError(f"{name}: not installed")
    shutil.copy(program, root / "sbin" / Path(name).name)
    for library in re.findall(r"(/\S+) \(0x", run("ldd", program)):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def pack_guest(kernel, programs, modules, files, scratch):
    """Builds the initramfs: busybox, the programs, the modules, our init, and `files` in /."""
    root = scratch / "guest"
    (root / "bin").mkdir(parents=True)
    (root / "sbin").mkdir()
    shutil.copy("/bin/busybox", root / "bin")
    for name in programs:
        install_program(name, root)
    kernel.install_modules(modules, root)
    for file in files:
        shutil.copy(file, root)
    init = root / "init"
    init.write_text(GUEST_INIT.read_text().replace("MODULES", " ".join(modules)))
    init.chmod(0o755)

    archive = scratch / "initramfs.cpio"
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    run("cpio", "-o", "-H", "newc", "-R", "0:0", "-O", archive, "--quiet", cwd=root, stdin=names)
    return archive


def plugged(disk, slot):
    """A disk in a slot from which it can be pulled. The guest finds it by its serial number."""
    name = disk.stem
    return ["-blockdev", f"driver=raw,node-name={name},discard=unmap,file.driver=file,"
                         f"file.filename={disk},file.discard=unmap",
            "-device", f"pcie-root-port,id=slot-{name},chassis={slot},slot={slot}",
            "-device", f"virtio-blk-pci,id={name},bus=slot-{name},drive={name},serial={name}"]


class Machine:
    """A running guest: busybox, more `programs` and `modules`, and `files` in its root folder.
    `disks` are images by the names of which they are plugged in and pulled; `ports` of the guest
    can be reached from this side."""

    def __init__(self, kernel, scratch, programs=(), modules=(), files=(), disks=(), ports=()):
        self._console = scratch / "console.log"
        self._transcript = []
        initramfs = pack_guest(kernel, programs, (*MODULES, *modules), files, scratch)
        network = ["user", "id=net", *(f"hostfwd=tcp:127.0.0.1:0-{GUEST}:{port}" for port in ports)]
        slots = [word for number, disk in enumerate(disks, 1) for word in plugged(disk, number)]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL",  # the guest never outlives the test, however it ends
             "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "512",
             "-nodefaults", "-display", "none", "-no-reboot",
             "-kernel", str(kernel.image), "-initrd", str(initramfs),
             "-append", "console=ttyS0 quiet panic=-1",
             "-netdev", ",".join(network), "-device", "virtio-net-pci,netdev=net,romfile=",
             *slots, "-qmp", f"unix:{scratch}/qmp,server=on,wait=off",
             "-serial", f"file:{self._console}", "-serial", "stdio"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace")
        self._monitor = scratch / "qmp"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def wait_until_ready(self):
        self._answer()
        self.monitor = Monitor(self._monitor)

    def port(self, number):
        """Of 127.0.0.1, where the guest's port of this number is."""
        listed = self.monitor.human("info usernet")
        return int(re.search(rf"HOST_FORWARD\]\s+\d+\s+127.0.0.1\s+(\d+)\s+{GUEST}\s+{number}\s",
                             listed)[1])

    def sh(self, command):
        """What a shell command prints in the guest. Raises CommandFailed unless its status is 0."""
        status, output = self._run(command)
        if status:
            raise CommandFailed(f"guest: {command}: status {status}\n{output}")
        return output

    def fails(self, command):
        return self._run(command)[0] != 0

    def kill(self):
        """Stops the guest as a power cut would."""
        self._process.kill()
        self._process.wait()

    def log(self):
        """Lines: the conversation so far, then the kernel's console."""
        console = self._console.read_text(errors="replace") if self._console.exists() else ""
        return ["guest:", *self._transcript, "guest's console:", *console.splitlines()]

    def _run(self, command):
        self._transcript.append(f"$ {command}")
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        lines = []
        for line in map(str.rstrip, self._process.stdout):
            if end := re.fullmatch(r"\[exit (\d+)\]", line):
                return int(end[1]), "\n".join(lines).strip()
            self._transcript.append(line)
            lines.append(line)
        raise EndsAll("the guest stopped before it answered")
