"""RESIZE: statements 194 to 196."""
from ..registry import MUST, Skip, statement
from ..requests import expect
from ..target import need_flags
from ..wire import Command, Errno, Flag


@statement(194, MUST, "RESIZE that is not advertised is EINVAL")
def _(target):
    session = target.attach()
    if session.flags & Flag.SEND_RESIZE:
        raise Skip("SEND_RESIZE is advertised")
    expect("RESIZE", session.call(Command.RESIZE, session.size), Errno.EINVAL)
    session.in_step("RESIZE")


def _not_tried(number, sentence):
    @statement(number, MUST, sentence)
    def _(target):
        need_flags(target.attach(), Flag.SEND_RESIZE)
        raise Skip("it would change the size of the export")


_not_tried(195, "RESIZE sets the size, or says why not")
_not_tried(196, "beyond a size that shrank it is ENOSPC")
