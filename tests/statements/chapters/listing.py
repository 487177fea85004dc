"""LIST: statements 39 to 46."""
import struct

from ..negotiation import expect_type
from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement, unseen
from ..wire import Option, Reply, name_of


@statement(39, SHOULD, "LIST with data is invalid, and the data is skipped")
def _(target):
    _listed(target)
    haggle = target.haggle()
    expect_type("LIST with data", haggle.ask(Option.LIST, b"abc"), Reply.ERR_INVALID)
    haggle.in_step("LIST with data")


@statement(40, MUST, "LIST is answered by a reply for each export, and an ACK")
def _(target):
    for kind, _ in _listed(target).before:
        if kind != Reply.SERVER:
            raise Violation(f"got {name_of(Reply, kind)} in the answer to LIST, expected SERVER")


@statement(41, MUST, "a listed export is the length of its name, the name, and perhaps a description")
def _(target):
    names_in(_listed(target))


@statement(42, MAY, "where listing is forbidden LIST is answered by ERR_POLICY")
def _(target):
    if target.forces_tls():
        raise Skip("the server wants TLS first")
    outcome = target.haggle().ask(Option.LIST)
    if outcome.acknowledged:
        raise Skip("the server lists its exports")
    expect_type("LIST", outcome, Reply.ERR_POLICY)


unseen(43, MAY, "exports that want TLS are not listed without", "it needs TLS, which is not spoken here")
unseen(44, DECISION, "exports that a client may not use are not listed, and not told from unknown ones",
       "it needs exports that this client may not use")
unseen(45, DECISION, "a list of 10,000 long names delays nobody", "it needs a server with so many exports")


@statement(46, DECISION, "no export is listed twice")
def _(target):
    names = names_in(_listed(target))
    for name in names:
        if names.count(name) > 1:
            raise Violation(f"got {name!r} {names.count(name)} times, expected it once")


def names_in(outcome):
    """The names in the answer to LIST, as bytes."""
    names = []
    for _, data in outcome.before:
        if len(data) < 4 or (length := struct.unpack(">I", data[:4])[0]) > len(data) - 4:
            raise Violation(f"got a SERVER reply of {len(data)} bytes that starts with {data[:4].hex(' ')}, "
                            "expected a name that lies within it")
        names.append(data[4:4 + length])
    return names


def _listed(target):
    outcome = target.haggle().ask(Option.LIST)
    if outcome.type in (Reply.ERR_POLICY, Reply.ERR_TLS_REQD):
        raise Skip("the server does not list its exports")
    return expect_type("LIST", outcome, Reply.ACK)
