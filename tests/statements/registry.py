"""What a statement is, and the list of all of them.

A chapter is a file of functions that take the server under test:

    @statement(30, MUST, "ABORT is acknowledged")
    def _(target):
        expect_type("ABORT", target.haggle().ask(Option.ABORT), Reply.ACK)

A function that returns has found the statement kept. It raises Violation when it is not, Skip when this server or this
export cannot show it."""
import enum


class Level(enum.IntEnum):
    """How binding a statement is; the specification's words, and what is left to the server."""
    MUST = 0
    SHOULD = 1
    MAY = 2  # the specification allows it: one of the allowed things happens
    DECISION = 3  # the specification is silent: what gantry decided, and other servers may differ

    def __str__(self):
        return "gantry" if self is Level.DECISION else self.name


MUST, SHOULD, MAY, DECISION = Level


class Violation(Exception):
    """The server broke the statement. With a level when this part of it binds more, or less, than the rest."""

    def __init__(self, text, level=None):
        super().__init__(text)
        self.level = level


class Skip(Exception):
    """The statement can't be judged here; the text says why."""


class Statement:
    def __init__(self, number, level, sentence, check):
        self.number = number
        self.level = level
        self.sentence = sentence
        self.check = check


statements = {}  # number -> Statement


def statement(number, level, sentence):
    """Registers a check."""
    def register(check):
        assert number not in statements, number
        statements[number] = Statement(number, level, sentence, check)
        return check
    return register


def unseen(number, level, sentence, reason):
    """Registers a statement that no client can see kept or broken."""
    @statement(number, level, sentence)
    def _(target):
        raise Skip(reason)
