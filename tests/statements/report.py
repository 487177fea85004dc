"""Runs statements against servers, and says in TAP, or as a table, what held."""
import enum
import sys

from .connection import Unreachable
from .registry import Skip, Violation


class Verdict(enum.Enum):
    KEPT = enum.auto()
    BROKEN = enum.auto()
    SKIPPED = enum.auto()


class Finding:
    def __init__(self, statement, verdict, level, note=""):
        self.statement = statement
        self.verdict = verdict
        self.level = level  # of the part that is broken
        self.note = note


def judge(statement, targets):
    """Tries the targets, exports of one server, in turn: the first that can show the statement decides."""
    reasons = []
    for target in targets:
        try:
            statement.check(target)
            return Finding(statement, Verdict.KEPT, statement.level)
        except Violation as found:
            level = statement.level if found.level is None else found.level
            return Finding(statement, Verdict.BROKEN, level, str(found))
        except Skip as reason:
            reasons.append(str(reason))
        except Unreachable:
            raise
        except Exception as error:  # an answer that nobody thought of must not end the run
            return Finding(statement, Verdict.BROKEN, statement.level, f"the answer was not understood: {error!r}")
        finally:
            target.close_all()
    return Finding(statement, Verdict.SKIPPED, statement.level, "; ".join(dict.fromkeys(reasons)))


def run(chosen, targets, show):
    """Judges each statement and shows the finding; all findings. Ends with Unreachable when the server is gone."""
    findings = []
    for statement in chosen:
        findings.append(judge(statement, targets))
        show(len(findings), findings[-1])
    return findings


class Tap:
    """TAP version 13. When all statements are chosen the number of a line is that of the statement."""

    def begin(self, count):
        print("TAP version 13")
        print(f"1..{count}", flush=True)

    def show(self, number, finding):
        statement = finding.statement
        line = f"{'not ok' if finding.verdict is Verdict.BROKEN else 'ok'} {number} - S{statement.number} " \
               f"{finding.level}: {statement.sentence}"
        if finding.verdict is Verdict.SKIPPED:
            line += f" # SKIP {finding.note}"
        print(line)
        if finding.verdict is Verdict.BROKEN:
            for part in _printable(finding.note).splitlines():
                print(f"# {part}")
        sys.stdout.flush()

    def gone(self, why):
        print(f"Bail out! {_printable(why)}")


class Markdown:
    """A table for people, one row for each statement."""

    def begin(self, count):
        print("| statement | level | what | result |")
        print("|---|---|---|---|")

    def show(self, number, finding):
        result = {Verdict.KEPT: "kept", Verdict.BROKEN: "**broken**", Verdict.SKIPPED: "not seen"}[finding.verdict]
        if finding.note:
            result += f": {_printable(finding.note)}"
        statement = finding.statement
        print(f"| {statement.number} | {finding.level} | {statement.sentence} | {result.replace('|', chr(92) + '|')} |")

    def gone(self, why):
        print(f"\nThe server is gone: {_printable(why)}")


def _printable(text):
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
