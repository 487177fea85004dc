"""The command line of tests/conformance."""
import argparse
import sys
import urllib.parse

from . import chapters  # noqa: F401 - registers the statements
from .connection import Unreachable
from .registry import Level, statements
from .report import Markdown, Tap, Verdict, run
from .target import Target

DESCRIPTION = """\
Checks what an NBD server does on the wire, statement by statement, and prints TAP version 13: one line for each
statement with its number, its level and what it says; why it is broken, in lines behind it; '# SKIP' and the reason
where this server or this export can't show it."""

EPILOG = """\
levels:
  MUST, SHOULD  the specification says so
  MAY           the specification allows it: one of the allowed things happens
  gantry        the specification is silent: what gantry does; other servers may well differ

URIs:
  nbd://HOST[:PORT]/EXPORT              nbd+unix:///EXPORT?socket=PATH
  The export should have at least 1 MiB; some statements need 80 MiB, or more than 4 GiB. With several --uri, each
  statement that the first one can't show is tried on the next: a read-only export beside a writable one, say.

writing:
  Without --writable nothing is written to a writable export. With it, statements write into the middle of the export
  and put back what was there; what was a hole may be allocated then, and when the run is killed, or the server dies,
  up to 40 MiB there are lost. Use an export whose content you can spare. On a read-only export writes are
  tried in any case: beyond its end, or with bytes that are there already.

exit status:
  0  no statement of level MUST is broken
  1  one is, or the server can't be reached
  2  wrong use
"""


class WrongUse(Exception):
    pass


def main(arguments=None):
    options = _parser().parse_args(arguments)
    try:
        chosen = _choose(options.statements, options.level)
        if options.list:
            for statement in chosen:
                print(f"{statement.number:3} {str(statement.level):6} {statement.sentence}")
            return 0
        targets = [_target(uri, options) for uri in options.uri]
        if not targets:
            raise WrongUse("which server? give --uri")
    except WrongUse as mistake:
        print(f"conformance: {mistake}", file=sys.stderr)
        return 2
    return _report(chosen, targets, Markdown() if options.markdown else Tap())


def _report(chosen, targets, output):
    output.begin(len(chosen))
    try:
        findings = run(chosen, targets, output.show)
    except Unreachable as why:
        output.gone(f"cannot connect: {why}")
        return 1
    broken = [finding for finding in findings if finding.verdict is Verdict.BROKEN]
    return 1 if any(finding.level is Level.MUST for finding in broken) else 0


def _parser():
    parser = argparse.ArgumentParser(prog="conformance", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", action="append", default=[], help="the export to try; may be repeated")
    parser.add_argument("--statements", metavar="N[-M],...", help="only these numbers, as 39-46,112")
    parser.add_argument("--level", choices=["must", "should", "may", "gantry"], default="gantry",
                        help="only statements that bind at least as much (default: gantry, which is all)")
    parser.add_argument("--writable", action="store_true", help="statements may write to the export: see below")
    parser.add_argument("--slow", nargs="?", type=_seconds, const=60.0, default=0.0, metavar="SECONDS",
                        help="also what waits for the server's own limits, at most so long (default: 60)")
    parser.add_argument("--timeout", type=_seconds, default=5.0, metavar="SECONDS",
                        help="how long the server may take for any answer (default: 5)")
    parser.add_argument("--list", action="store_true", help="list the statements instead of checking them")
    parser.add_argument("--markdown", action="store_true", help="print a table instead of TAP")
    return parser


def _seconds(text):
    seconds = float(text)
    if not 0 < seconds < 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600 seconds")
    return seconds


def _choose(numbers, level):
    wanted = set(statements)
    if numbers is not None:
        wanted = set()
        for part in numbers.split(","):
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise WrongUse(f"--statements: '{part}' is neither N nor N-M")
            span = range(int(first), int(last if dash else first) + 1)
            if not span or not {span[0], span[-1]} <= set(statements):
                raise WrongUse(f"--statements: '{part}' is not within 1-{max(statements)}")
            wanted |= set(span)
    most = {"must": Level.MUST, "should": Level.SHOULD, "may": Level.MAY, "gantry": Level.DECISION}[level]
    return [statements[number] for number in sorted(wanted) if statements[number].level <= most]


def _target(uri, options):
    address, name = parse_uri(uri)
    return Target(address, name, options.timeout, options.writable, options.slow)


def parse_uri(uri):
    """(address, export name): a socket's path, or (host, port)."""
    parts = urllib.parse.urlsplit(uri)
    name = urllib.parse.unquote_to_bytes(parts.path.removeprefix("/"))
    if parts.scheme in ("nbds", "nbds+unix"):
        raise WrongUse(f"{uri}: TLS is not spoken here")
    if parts.scheme == "nbd":
        try:
            port = parts.port or 10809
        except ValueError:
            raise WrongUse(f"{uri}: the port is no number up to 65535") from None
        if not parts.hostname:
            raise WrongUse(f"{uri}: the host is missing, as in nbd://HOST:PORT/EXPORT")
        return (parts.hostname, port), name
    if parts.scheme == "nbd+unix":
        sockets = [word.removeprefix("socket=") for word in parts.query.split("&") if word.startswith("socket=")]
        if len(sockets) != 1 or not sockets[0]:
            raise WrongUse(f"{uri}: the socket is missing, as in nbd+unix:///EXPORT?socket=PATH")
        return urllib.parse.unquote(sockets[0]), name
    raise WrongUse(f"{uri}: expected nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH")
