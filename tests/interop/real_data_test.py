#!/usr/bin/python3
"""A file system full of files goes through gantry and is neither damaged nor changed."""
import functools
import os

from gantry import equal, export, main, noise, run, same_bytes, shared_folder, sparse_file, test

SIZE = 96 << 20


@functools.cache
def file_system():
    """An ext4 image of 400 small files and a large one, most of it full, the rest holes."""
    folder = shared_folder()
    for number in range(400):
        path = folder / "tree" / f"part{number % 20}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(number * 97, seed=number))
    (folder / "tree" / "large").write_bytes(noise(48 << 20))
    os.symlink("../large", folder / "tree" / "part0" / "link")
    image = sparse_file(folder / "ext4", SIZE)
    run("mke2fs", "-q", "-t", "ext4", "-d", folder / "tree", image)
    return image


def is_intact(image):
    run("e2fsck", "-fn", image)
    same_bytes(image, file_system())


@test("a file system goes in and out through nbdcopy over {}", "unix", "tcp")
def _(folder, over):
    disk, out = sparse_file(folder / "disk", SIZE), folder / "out"

    with export(disk, "--writable") as server:
        run("nbdcopy", "--flush", file_system(), server.uri(over=over))
        run("nbdcopy", server.uri(over=over), out)

    is_intact(disk)
    is_intact(out)


@test("a file system goes in and out through qemu-img convert over {}", "unix", "tcp")
def _(folder, over):
    disk, out = sparse_file(folder / "disk", SIZE), folder / "out"

    with export(disk, "--writable") as server:
        raw = ("-f", "raw", "-O", "raw")
        run("qemu-img", "convert", "-n", *raw, file_system(), server.uri(over=over))
        run("qemu-img", "convert", *raw, server.uri(over=over), out)

    is_intact(disk)
    is_intact(out)


@test("qemu-img compare finds an export identical to the file it serves over {}", "unix", "tcp")
def _(folder, over):
    with export(file_system(), listen=[f"unix:{folder}/sock", "tcp:127.0.0.1:0"]) as server:
        said = run("qemu-img", "compare", "-f", "raw", "-F", "raw", file_system(), server.uri(over=over))

    equal(said, "Images are identical.\n")


@test("nbdcopy overwrites every byte of a disk that held something else")
def _(folder):
    disk = folder / "disk"
    disk.write_bytes(noise(SIZE, seed=2))

    with export(disk, "--writable") as server:
        run("nbdcopy", "--flush", file_system(), server.uri())

    is_intact(disk)


@test("a file system goes from one server to another")
def _(folder):
    disk = sparse_file(folder / "disk", SIZE)

    with export(file_system(), listen=[f"unix:{folder}/from"]) as source, export(disk, "--writable") as target:
        run("nbdcopy", source.uri(), target.uri(over="tcp"))

    is_intact(disk)


main()
