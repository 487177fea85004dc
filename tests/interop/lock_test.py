#!/usr/bin/python3
"""gantry and QEMU keep each other out of an image that one of them writes: they lock the same bytes of the file."""
from gantry import command_line, equal, export, main, qemu_holds, refused, run, sparse_file, test

MiB = 1 << 20
LOCKED = 'Failed to get shared "write" lock'


def qcow2_file(path):
    """Makes an empty qcow2 file: its readers, unlike those of a raw one, want no writer beside them."""
    run("qemu-img", "create", "-q", "-f", "qcow2", path, MiB)
    return path


def gantry_on(image, *options):
    """The command line of a gantry that serves the image if nothing keeps it from it."""
    return command_line("export", image, "--format", "raw", "--listen", f"unix:{image}.sock", *options)


def is_refused(image, *options):
    """gantry must not start, say why in one line that names the image, and leave nothing behind."""
    said = refused(*gantry_on(image, *options))

    lines = said.splitlines()
    assert len(lines) == 1 and str(image) in lines[0] and "lock" in lines[0], said
    equal([path.name for path in image.parent.iterdir()], [image.name])


@test("QEMU writes no image that gantry serves writable, until gantry has stopped")
def _(folder):
    image = sparse_file(folder / "disk", MiB)
    write = "qemu-io", "-f", "raw", "-c", "write 0 512", image

    with export(image, "--writable"):
        assert 'Failed to get "write" lock' in refused(*write)
        assert LOCKED in refused("qemu-img", "convert", "-f", "raw", "-O", "raw", image, folder / "copy")

    run(*write)


@test("qemu-img info needs -U on a qcow2 file while gantry serves its bytes writable")
def _(folder):
    image = qcow2_file(folder / "disk")

    with export(image, "--writable"):
        assert LOCKED in refused("qemu-img", "info", image)
        run("qemu-img", "info", "-U", image)

    run("qemu-img", "info", image)


@test("the lock is kept when clients of gantry come and go")
def _(folder):
    image = qcow2_file(folder / "disk")

    with export(image, "--writable") as server:
        for _ in range(3):
            run("nbdinfo", server.uri())
            assert LOCKED in refused("qemu-img", "info", image)


@test("gantry does not serve writable what qemu-io has open for writing, and does once qemu-io is gone")
def _(folder):
    image = sparse_file(folder / "disk", MiB)

    with qemu_holds(image, "-f", "raw"):
        is_refused(image, "--writable")

    with export(image, "--writable"):
        pass


@test("gantry does not serve writable what QEMU reads as qcow2")
def _(folder):
    image = qcow2_file(folder / "disk")

    with qemu_holds(image, "-r", "-f", "qcow2"):
        is_refused(image, "--writable")


@test("a second gantry does not serve writable what a first one serves writable")
def _(folder):
    image = sparse_file(folder / "disk", MiB)

    with export(image, "--writable", listen=["tcp:127.0.0.1:0"]):
        is_refused(image, "--writable")


@test("readers share an image: two gantries and QEMU")
def _(folder):
    image = sparse_file(folder / "disk", MiB)

    with export(image), export(image, listen=["tcp:127.0.0.1:0"]) as other, qemu_holds(image, "-r", "-f", "raw"):
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", image, folder / "copy")
        run("nbdinfo", other.uri(over="tcp"))


main()
