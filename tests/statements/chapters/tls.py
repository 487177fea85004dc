"""TLS: statements 86 to 100. Only what shows in plain text is checked: this client does not speak TLS yet."""
from ..connection import Closed
from ..negotiation import expect_type, info_bytes
from ..registry import DECISION, MUST, SHOULD, Skip, Violation, statement, unseen
from ..wire import Handshake, Info, Option, Reply

NEEDS_TLS = "it needs TLS, which is not spoken here"

unseen(86, MUST, "a connection does not change how it treats TLS", "the server's mode is not on the wire")


@statement(87, MUST, "a server without TLS says so, and never asks for it")
def _(target):
    haggle = target.haggle()
    outcome = haggle.ask(Option.STARTTLS)
    if outcome.acknowledged:
        raise Skip("the server has TLS")
    expect_type("STARTTLS", outcome, Reply.ERR_POLICY, Reply.ERR_UNSUP, Reply.ERR_PLATFORM)
    for option, data in (Option.LIST, b""), (Option.INFO, info_bytes(target.name)), (99, b""):
        outcome = haggle.ask(option, data)
        if outcome.type == Reply.ERR_TLS_REQD:
            raise Violation(f"option {int(option)} of a server without TLS: got ERR_TLS_REQD, expected anything else")


unseen(88, MUST, "STARTTLS is taken once, and without data", NEEDS_TLS)


@statement(89, MUST, "where TLS is needed, whatever else is asked for before needs it, and tells nothing")
def _(target):
    if not target.forces_tls():
        raise Skip("the server does not want TLS first")
    haggle = target.haggle()
    for option, data in ((Option.LIST, b""), (Option.INFO, info_bytes(target.name, [Info.NAME])), (99, b"abc"),
                         (Option.GO, info_bytes(target.name)), (Option.STRUCTURED_REPLY, b"")):
        outcome = expect_type(f"option {int(option)}", haggle.ask(option, data), Reply.ERR_TLS_REQD)
        if outcome.before:
            raise Violation(f"option {int(option)}: got {len(outcome.before)} replies before ERR_TLS_REQD, "
                            "expected none")
    haggle.say(Option.EXPORT_NAME, target.name)
    haggle.connection.expect_close("EXPORT_NAME before TLS")


unseen(90, MUST, "nobody who has TLS is asked for it", NEEDS_TLS)
unseen(91, MUST, "where only some exports need TLS, only they ask for it", NEEDS_TLS)


@statement(92, MUST, "STARTTLS is not for a client without fixed newstyle")
def _(target):
    haggle = target.haggle(Handshake(0))
    haggle.say(Option.STARTTLS)
    try:
        outcome = haggle.hear(Option.STARTTLS)
    except Closed:
        return
    if outcome.acknowledged:
        raise Violation("STARTTLS without fixed newstyle: got ACK, expected an error or a closed connection")


unseen(93, MUST, "a failed TLS handshake ends the session, and nothing is said in plain text", NEEDS_TLS)
unseen(94, MUST, "TLS 1.2 or later", NEEDS_TLS)
unseen(95, DECISION, "plain bytes behind STARTTLS are never taken for TLS's", NEEDS_TLS)
unseen(96, SHOULD, "close_notify comes before every end of TLS", NEEDS_TLS)
unseen(97, MUST, "after DISC TLS is closed, then TCP", NEEDS_TLS)
unseen(98, DECISION, "the payload of a refused write is skipped inside TLS", NEEDS_TLS)
unseen(99, DECISION, "where clients need certificates, who has none is refused", NEEDS_TLS)
unseen(100, DECISION, "who a client is decides before anything is listed, and again at GO", NEEDS_TLS)
