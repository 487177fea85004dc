"""Extended headers: statements 180 to 193. The handshake is checked; requests with long headers are not spoken yet."""
from ..negotiation import expect_type
from ..registry import DECISION, MAY, MUST, SHOULD, Skip, Violation, statement
from ..wire import Option, Reply


def _haggle_extended(target):
    """Extended headers are on."""
    haggle = target.haggle()
    if not haggle.ask(Option.EXTENDED_HEADERS).acknowledged:
        raise Skip("extended headers are not offered")
    return haggle


@statement(180, SHOULD, "EXTENDED_HEADERS with data is invalid, and the data is skipped")
def _(target):
    _haggle_extended(target)
    haggle = target.haggle()
    expect_type("EXTENDED_HEADERS with data", haggle.ask(Option.EXTENDED_HEADERS, b"abc"), Reply.ERR_INVALID)
    haggle.in_step("EXTENDED_HEADERS with data")


@statement(183, SHOULD, "extended headers need no structured replies, and are asked for once")
def _(target):
    haggle = _haggle_extended(target)
    expect_type("STRUCTURED_REPLY after EXTENDED_HEADERS", haggle.ask(Option.STRUCTURED_REPLY),
                Reply.ERR_EXT_HEADER_REQD)
    expect_type("the second EXTENDED_HEADERS", haggle.ask(Option.EXTENDED_HEADERS), Reply.ERR_INVALID)


@statement(184, MUST, "after EXTENDED_HEADERS there is GO, and EXPORT_NAME ends the connection")
def _(target):
    haggle = _haggle_extended(target)
    if haggle.go(target.name).type == Reply.ERR_UNSUP:
        raise Violation("GO after EXTENDED_HEADERS: got ERR_UNSUP, expected ACK")
    haggle = _haggle_extended(target)
    haggle.say(Option.EXPORT_NAME, target.name)
    haggle.connection.expect_close("EXPORT_NAME after EXTENDED_HEADERS")


def _unspoken(number, level, sentence):
    @statement(number, level, sentence)
    def _(target):
        _haggle_extended(target)
        raise Skip("requests with extended headers are not spoken here yet")


_unspoken(181, MUST, "all headers are extended ones, and all replies chunks")
_unspoken(182, MUST, "every chunk names the offset of the request")
_unspoken(185, MUST, "a write says that its length is that of a payload")
_unspoken(186, SHOULD, "a payload where none belongs is skipped, and EINVAL")
_unspoken(187, MUST, "block status has 64 bits")
_unspoken(188, MUST, "each kind of block status stays with its kind of header")
_unspoken(189, MUST, "the upper half of a base: state is 0")
_unspoken(190, MUST, "a block status with a payload answers for the contexts named in it")
_unspoken(191, MAY, "effects may be longer than 32 bits")
_unspoken(192, MUST, "STARTTLS forgets extended headers")
_unspoken(193, DECISION, "no read is longer than 32 bits")
