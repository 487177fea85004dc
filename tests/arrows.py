#!/usr/bin/env python3
"""arrows.py [ROOT]: fails on an include that points back, docs/architecture.md, "Rooms".

src -> nbd -> graph, src -> formats -> graph; inside graph: job -> filter -> core -> base, protocol -> core. Third-party
headers stay in one file each, and what may not run under simulation (mutexes, timers, sockets, threads) stays out of
the rooms that do. Speaks TAP: one line per rule."""
import os
import re
import sys

# room -> the rooms that it may include. The first match from the top is the room of a file.
ROOMS = [
    ("graph/base/", ["graph/base/"]),
    ("graph/protocol/", ["graph/base/", "graph/", "graph/protocol/"]),
    ("graph/filter/", ["graph/base/", "graph/", "graph/filter/"]),
    ("graph/job/", ["graph/base/", "graph/", "graph/filter/", "graph/job/"]),
    ("graph/", ["graph/base/", "graph/"]),
    ("formats/", ["graph/base/", "graph/", "formats/"]),
    ("nbd/", ["graph/base/", "graph/", "nbd/"]),
    ("src/", ["graph/base/", "graph/", "graph/protocol/", "graph/filter/", "graph/job/", "formats/", "nbd/", "src/"]),
]
# library -> how its headers begin
LIBRARIES = {"spdlog": ("spdlog/",), "liburing": ("liburing",), "toml++": ("toml++/",), "CLI11": ("CLI/",),
             "nlohmann-json": ("nlohmann/",), "libsystemd": ("systemd/",)}
# not in graph/, nbd/, formats/, but for what graph/base/ implements with them
UNSIMULATED = re.compile(
    r"std::(?:recursive_|shared_|timed_)?mutex|std::(?:j?thread|condition_variable)|"
    r"asio::(?:\w*_timer|\w*::?basic_\w*_timer|steady_timer|system_timer|ip::|local::|generic::|posix::|thread_pool)")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.M)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)


def room_of(path):
    return next((room for room, _ in ROOMS if path.startswith(room)), None)


def sources(root):
    for room in ("graph", "formats", "nbd", "src"):
        for folder, _, names in os.walk(os.path.join(root, room)):
            for name in sorted(names):
                if name.endswith((".h", ".cpp")):
                    full = os.path.join(folder, name)
                    with open(full, encoding="utf-8") as file:
                        yield os.path.relpath(full, root), COMMENT.sub("", file.read())


def check(files):
    """files: (path, text) pairs -> {rule: [what breaks it]}"""
    broken = {"includes point down": [], "third-party headers stay in one file each": [],
              "what can't be simulated stays out": []}
    users = {library: [] for library in LIBRARIES}
    for path, text in files:
        may = dict(ROOMS)[room_of(path)]
        for kind, header in INCLUDE.findall(text):
            target = room_of(header)
            if target is not None and target not in may:
                broken["includes point down"].append(f"{path} includes {header}")
            if kind == '"' and target is None:
                broken["includes point down"].append(f"{path} includes {header}: not written from the root")
            for library, beginnings in LIBRARIES.items():
                if header.startswith(beginnings) and path not in users[library]:
                    users[library].append(path)
        if not path.startswith(("src/", "graph/base/")):
            for found in UNSIMULATED.findall(text):
                broken["what can't be simulated stays out"].append(f"{path} names {found}")
    for library, paths in users.items():
        if len(paths) > 1:
            broken["third-party headers stay in one file each"].append(f"{library}: {', '.join(paths)}")
    return broken


def finds_what_it_looks_for():
    """A check that never fails proves nothing."""
    bad = [("graph/base/a.h", '#include "graph/node.h"'), ("nbd/b.cpp", '#include "formats/formats.h"'),
           ("graph/protocol/c.cpp", '#include "graph/filter/x.h"'), ("graph/d.cpp", "std::mutex m;"),
           ("nbd/e.cpp", "asio::steady_timer t;"), ("src/f.cpp", "#include <toml++/toml.h>\nstd::mutex fine;"),
           ("src/g.cpp", "#include <toml++/toml.h>"), ("graph/h.cpp", '#include "node.h"')]
    return [len(found) for found in check(bad).values()] == [4, 1, 2]


def main(root):
    results = [("a broken rule is found", [] if finds_what_it_looks_for() else ["it was not"])]
    results += check(sources(root)).items()
    print(f"1..{len(results)}")
    for number, (rule, breaks) in enumerate(results, 1):
        for line in breaks:
            print(f"# {line}")
        print(f"{'not ok' if breaks else 'ok'} {number} - {rule}")
    return 1 if any(breaks for _, breaks in results) else 0


sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
