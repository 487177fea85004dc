"""Structured replies and metadata contexts, negotiated: statements 69 to 85."""
import struct

from ..negotiation import contexts_in, expect_type, meta_bytes
from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement, unseen
from ..requests import expect
from ..target import BASE_ALLOCATION
from ..wire import KiB, Command, Errno, Option, Reply
from .listing import names_in

LIST, SET = Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT


@statement(69, SHOULD, "STRUCTURED_REPLY with data is invalid, and the data is skipped")
def _(target):
    target.haggle_structured()
    haggle = target.haggle()
    expect_type("STRUCTURED_REPLY with data", haggle.ask(Option.STRUCTURED_REPLY, b"abc"), Reply.ERR_INVALID)
    haggle.in_step("STRUCTURED_REPLY with data")


@statement(70, SHOULD, "SET_META_CONTEXT without structured replies is invalid")
def _(target):
    target.haggle_contexts()
    haggle = target.haggle()
    outcome = haggle.ask(SET, meta_bytes(target.name, BASE_ALLOCATION))
    expect_type("SET_META_CONTEXT without structured replies", outcome, Reply.ERR_INVALID)
    haggle.in_step("SET_META_CONTEXT")
    haggle.ask(LIST, meta_bytes(target.name))
    haggle.in_step("LIST_META_CONTEXT")


@statement(71, MUST, "queries that are not what the option holds are invalid, and the next option works")
def _(target):
    target.haggle_contexts()
    whole = meta_bytes(target.name, BASE_ALLOCATION)
    for what, data in (("a query that is longer than the option", whole[:-3]),
                       ("the number of queries missing", meta_bytes(target.name)[:-4]),
                       ("bytes behind the queries", whole + b"abc"),
                       ("fewer queries than announced", _announcing(2, target.name, BASE_ALLOCATION))):
        for option in LIST, SET:
            haggle = target.haggle_structured()
            expect_type(f"{option.name} with {what}", haggle.ask(option, data), Reply.ERR_INVALID)
            haggle.in_step(f"{option.name} with {what}")


@statement(72, MUST, "an unknown namespace, and an unknown name in base:, are ignored")
def _(target):
    haggle = target.haggle_contexts()
    for option in LIST, SET:
        for query in b"x-nobody:knows", b"base:nobody-knows", b"no namespace":
            _expect_contexts(f"{option.name} {query.decode()}", haggle, option, target.name, [query], [])


@statement(73, MUST, "base: alone lists all of its contexts, and selects none")
def _(target):
    haggle = target.haggle_contexts()
    _expect_contexts("LIST_META_CONTEXT base:", haggle, LIST, target.name, [b"base:"], ["base:allocation"])
    _expect_contexts("SET_META_CONTEXT base:", haggle, SET, target.name, [b"base:"], [])


unseen(74, MUST, "STARTTLS forgets structured replies and contexts", "it needs TLS, which is not spoken here")


@statement(75, MUST, "LIST_META_CONTEXT without queries lists everything")
def _(target):
    outcome = target.haggle_contexts().ask(LIST, meta_bytes(target.name))
    expect_type("LIST_META_CONTEXT", outcome, Reply.ACK)
    names = [name for _, name in contexts_in(outcome)]
    if "base:allocation" not in names:
        raise Violation(f"got {names}, expected base:allocation among them")


@statement(76, MUST, "SET_META_CONTEXT without queries selects nothing")
def _(target):
    _expect_contexts("SET_META_CONTEXT", target.haggle_contexts(), SET, target.name, [], [])


@statement(77, MUST, "a context that two queries match is selected once, and ids are unique")
def _(target):
    outcome = target.haggle_contexts().ask(SET, meta_bytes(target.name, BASE_ALLOCATION, BASE_ALLOCATION))
    contexts = contexts_in(expect_type("SET_META_CONTEXT with one query twice", outcome, Reply.ACK))
    for what, values in (("id", [number for number, _ in contexts]), ("context", [name for _, name in contexts])):
        if len(set(values)) != len(values):
            raise Violation(f"got {contexts}, expected no {what} twice")
    if not contexts:
        raise Violation("got no context, expected base:allocation")


@statement(78, SHOULD, "ids in the answer to LIST_META_CONTEXT are 0")
def _(target):
    outcome = target.haggle_contexts().ask(LIST, meta_bytes(target.name))
    for number, name in contexts_in(expect_type("LIST_META_CONTEXT", outcome, Reply.ACK)):
        if number != 0:
            raise Violation(f"got the id {number} for {name}, expected 0")


@statement(79, MUST, "a new selection replaces the old one, even when it fails")
def _(target):
    haggle = target.haggle_contexts()
    _expect_contexts("SET_META_CONTEXT", haggle, SET, target.name, [BASE_ALLOCATION], ["base:allocation"])
    if contexts_in(haggle.ask(SET, meta_bytes(target.unknown_name(), BASE_ALLOCATION))):
        raise Skip("the server knows contexts of every name")
    _expect_no_context(target.enter(haggle, structured=True), "a failed SET_META_CONTEXT")

    haggle = target.haggle_contexts()
    _expect_contexts("SET_META_CONTEXT", haggle, SET, target.name, [BASE_ALLOCATION], ["base:allocation"])
    _expect_contexts("SET_META_CONTEXT", haggle, SET, target.name, [], [])
    _expect_no_context(target.enter(haggle, structured=True), "an empty SET_META_CONTEXT")


@statement(80, MUST, "contexts that were selected for one export are not active on another")
def _(target):
    haggle = target.haggle_contexts()
    others = [name for name in names_in(target.haggle().ask(Option.LIST)) if name != target.name]
    if not others or not target.name:
        raise Skip("it needs an export with a name, and another one that is listed")
    _expect_contexts("SET_META_CONTEXT", haggle, SET, target.name, [BASE_ALLOCATION], ["base:allocation"])
    _expect_no_context(target.enter(haggle, structured=True, name=others[0]), "SET_META_CONTEXT for another export")


@statement(81, SHOULD, "contexts of an unknown export are ERR_UNKNOWN")
def _(target):
    name = target.unknown_name()
    for option in LIST, SET:
        outcome = target.haggle_contexts().ask(option, meta_bytes(name, BASE_ALLOCATION))
        expect_type(f"{option.name} of an unknown export", outcome, Reply.ERR_UNKNOWN)


@statement(82, MAY, "a thousand queries are answered, or too many")
def _(target):
    for option in LIST, SET:
        haggle = target.haggle_contexts()
        outcome = haggle.ask(option, meta_bytes(target.name, *1000 * [b"x:y"]))
        expect_type(f"{option.name} with 1000 queries", outcome, Reply.ACK, Reply.ERR_TOO_BIG)
        haggle.in_step(f"{option.name} with 1000 queries")


@statement(83, DECISION, "a query of more than 4096 bytes is skipped, or invalid")
def _(target):
    for option in LIST, SET:
        haggle = target.haggle_contexts()
        outcome = haggle.ask(option, meta_bytes(target.name, b"x:" + b"y" * 5000))
        expect_type(f"{option.name} with a query of 5002 bytes", outcome, Reply.ACK, Reply.ERR_INVALID,
                    Reply.ERR_TOO_BIG)
        haggle.in_step(f"{option.name} with a query of 5002 bytes")


@statement(84, SHOULD, "qemu: alone lists all of its contexts, and selects none")
def _(target):
    haggle = target.haggle_contexts()
    known = [name for _, name in contexts_in(haggle.ask(LIST, meta_bytes(target.name)))]
    known = [name for name in known if name.startswith("qemu:")]
    if not known:
        raise Skip("there are no qemu: contexts")
    _expect_contexts("LIST_META_CONTEXT qemu:", haggle, LIST, target.name, [b"qemu:"], known)
    _expect_contexts("SET_META_CONTEXT qemu:", haggle, SET, target.name, [b"qemu:"], [])


@statement(85, MUST, "contexts work after EXPORT_NAME as after GO")
def _(target):
    haggle = target.haggle_contexts()
    contexts = contexts_in(haggle.ask(SET, meta_bytes(target.name, BASE_ALLOCATION)))
    session = target.enter_old(haggle, structured=True, contexts=contexts)
    found = session.call(Command.BLOCK_STATUS, 0, 64 * KiB).extents()
    if set(found) != set(session.contexts):
        raise Violation(f"got contexts {sorted(found)}, expected {sorted(session.contexts)}")


def _announcing(count, name, *queries):
    data = meta_bytes(name, *queries)
    at = 4 + len(name)
    return data[:at] + struct.pack(">I", count) + data[at + 4:]


def _expect_contexts(what, haggle, option, name, queries, expected):
    outcome = expect_type(what, haggle.ask(option, meta_bytes(name, *queries)), Reply.ACK)
    names = sorted(found for _, found in contexts_in(outcome))
    if names != sorted(expected):
        raise Violation(f"{what}: got {names}, expected {sorted(expected)}")


def _expect_no_context(session, after):
    expect(f"BLOCK_STATUS after {after}", session.call(Command.BLOCK_STATUS, 0, 64 * KiB), Errno.EINVAL)
    session.in_step("BLOCK_STATUS without a context")
