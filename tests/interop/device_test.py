#!/usr/bin/python3
"""Block devices of this machine as exports: loop devices, where it has them."""
import contextlib
import subprocess

import nbd

from gantry import Skip, allocated, command_line, equal, export, main, noise, refused, sparse_file, test

MiB = 1 << 20
SIZE = 8 * MiB


@contextlib.contextmanager
def loop_device(file):
    made = subprocess.run(["losetup", "--find", "--show", str(file)], capture_output=True, text=True)
    if made.returncode != 0:
        raise Skip(f"no loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextlib.contextmanager
def client_of(device, folder, *options):
    with export(device, *options, listen=[f"unix:{folder}/sock"]) as server:
        client = nbd.NBD()
        client.set_strict_mode(0)
        client.connect_uri(server.uri())
        yield client
        client.shutdown()


@test("what is written to a device, zeroed and trimmed through {} arrives in what is below it", "io_uring", "threads")
def _(folder, engine):
    file = sparse_file(folder / "disk", SIZE, [(0, noise(SIZE))])

    with loop_device(file) as device, client_of(device, folder, "--io-engine", engine, "--writable") as client:
        equal(client.get_size(), SIZE)
        client.pwrite(noise(12345, seed=2), 6789)
        client.zero(MiB, MiB, nbd.CMD_FLAG_NO_HOLE)
        client.zero(MiB, 2 * MiB, nbd.CMD_FLAG_FAST_ZERO)
        client.trim(2 * MiB, 4 * MiB)
        client.flush()
        space = allocated(file)
        client.pwrite(noise(4096, seed=3), SIZE - 4096, nbd.CMD_FLAG_FUA)
        try:
            client.pwrite(bytes(4096), SIZE - 512)
            raise AssertionError("it could be written past its end")
        except nbd.Error as error:
            equal(error.errno, "ENOSPC")

    expected = bytearray(noise(SIZE))
    expected[6789:6789 + 12345] = noise(12345, seed=2)
    expected[MiB:3 * MiB] = bytes(2 * MiB)
    expected[4 * MiB:6 * MiB] = bytes(2 * MiB)
    expected[SIZE - 4096:] = noise(4096, seed=3)
    equal(file.read_bytes() == expected, True)
    assert space <= SIZE - 2 * MiB, f"{space} bytes are allocated"


@test("a device that holds another format is refused as a file is")
def _(folder):
    file = sparse_file(folder / "disk", SIZE, [(0, b"QFI\xfb\0\0\0\3")])

    with loop_device(file) as device:
        said = refused(*command_line("export", device))

        equal(said, f"{device} looks like qcow2: add --format qcow2, or --format raw to export its bytes as they are\n")


@test("a device is no file, and a file no device: one line says what to use")
def _(folder):
    file = sparse_file(folder / "disk", SIZE)

    def config(driver, name):
        path = folder / f"{driver}.toml"
        path.write_text(f'[nodes.disk]\ndriver = "{driver}"\nfilename = "{name}"\n[exports.disk]\nnode = "disk"\n')
        return path

    with loop_device(file) as device:
        said = refused(*command_line("serve", config("file", device), "--check"))
        equal(said, f"{folder}/file.toml:3:1: disk: file: '{device}' is a block device: use the driver 'host_device'\n")
    said = refused(*command_line("serve", config("host_device", file), "--check"))
    equal(said, f"{folder}/host_device.toml:3:1: disk: host_device: '{file}' is not a block device: "
                "use the driver 'file'\n")


main()
