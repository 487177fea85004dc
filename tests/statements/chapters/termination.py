"""The end of a connection: statements 176 to 179."""
from ..registry import DECISION, MUST, SHOULD, statement, unseen
from ..wire import KiB, Command, With

NEEDS_A_STOP = "it needs a server that is stopping"

unseen(176, SHOULD, "a server that stops ends what is in flight and answers the rest with ESHUTDOWN", NEEDS_A_STOP)
unseen(177, DECISION, "a stop takes bounded time", NEEDS_A_STOP)


@statement(178, MUST, "no request that is merely wrong costs the connection")
def _(target):
    session = target.attach()
    wrong = [(Command.READ, 0, 0, 0), (Command.READ, session.size, 4 * KiB, 0), (Command.READ, 1, 3, 0),
             (Command.READ, 0, 4 * KiB, With.UNKNOWN), (99, 0, 4 * KiB, 0), (Command.BLOCK_STATUS, 0, 0, 0),
             (Command.CACHE, 0, 0, 0), (Command.CACHE, session.size, 4 * KiB, 0)]
    if target.may_write or session.read_only:
        wrong += [(Command.WRITE, session.size, 0, 0), (Command.WRITE, session.size, 4 * KiB, 0)]
    for command, offset, length, flags in wrong:
        session.call(command, offset, length, flags, bytes(length) if command == Command.WRITE else b"")
        name = command.name if isinstance(command, Command) else f"command {command}"
        session.in_step(f"{name} of {length} bytes at {offset} with flags {int(flags):#x}")


unseen(179, DECISION, "an export that is removed hides, ends, or stays while it is used",
       "it needs an export to remove")


