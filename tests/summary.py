#!/usr/bin/env python3
"""summary.py JUNIT STATUS: lists what failed or was skipped, ends with 'N passed, N failed[, N skipped]'.

JUNIT is what `meson test` wrote: each case of a gtest binary and each line of a TAP script is one case there.
STATUS is meson's exit status: a run that failed without a failed case (a crash, a time-out) is one failure."""
import sys
import xml.etree.ElementTree as xml


def main(path, status):
    passed, failed, skipped = 0, [], []
    for suite in xml.parse(path).getroot().iter("testsuite"):
        for case in suite.findall("testcase"):
            name = f"{suite.get('name')}: {case.get('classname')}.{case.get('name')}"
            skip = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                failed.append(name)
            elif skip is not None or case.get("result") == "skipped":
                reason = "" if skip is None else (skip.get("message") or skip.text or "")
                skipped.append(f"{name}: {reason.strip()}")
            else:
                passed += 1
    if status and not failed:
        failed.append(f"meson test ended with status {status}, see its output above")
    if not status and not passed:
        failed.append("no test ran")
    for name in failed:
        print(f"failed: {name}")
    for name in skipped:
        print(f"skipped: {name}")
    print(f"{passed} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failed else 0


sys.exit(main(sys.argv[1], int(sys.argv[2])))
