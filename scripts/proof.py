# SPDX-License-Identifier: GPL-2.0
"""The results of scripts/torture: build/proof/NAME.json, and what Documentation/testing.rst says of them.

    proof.py suite FILE TIMES KTAP...                  a run of scripts/test becomes one such file
    proof.py note DIRECTORY BEGIN STATUS KERNEL TREE [PART]
                                                       what was written since BEGIN was measured by these; if
                                                       PART failed, it is not to look as it did before
    proof.py publish DIRECTORY PAGE                    the page gets all of them, and keeps of others what it has
    proof.py times FILE TREE KERNEL PAGE               the page gets what each part of scripts/test took

A file has the fields title, command, ok, figures (pairs of label and value) and, if it likes, table (head and
rows), text, and more: a list of tables that have a text each.
"""

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path

ORDER = ["debug", "busy", "stock", "torture", "oracle", "jet", "mutants", "model", "fuzz", "packets", "netlink", "skew", "faults"]
BEGIN, END = ".. results begin", ".. results end"
# Before the section of a result: its name.
NAME = ".. result: "
# What a result calls its guest.
GUESTS = {"um": "user-mode Linux in virtual time", "smp": "user-mode Linux", "debug": "user-mode Linux that checks itself", "stock": "Debian's kernel"}


SUITES = {
    "debug": "Every selftest on a kernel that checks itself",
    "busy": "The selftests in virtual time on a busy machine",
    "stock": "Every selftest on the unmodified kernel",
}


def suite(path, times, *files):
    lines = [line for file in files for line in Path(file).read_text().splitlines()]
    scripts = [line for line in lines if line.endswith(": ran to its end")]
    leaks = [line for line in lines if line.endswith(": no memory is lost")]
    run = json.loads(Path(times).read_text())
    part = Path(path).stem
    result = {
        "title": SUITES[part],
        "command": f"scripts/torture {part}",
        "ok": run["failed"] == 0,
        "figures": [
            ["selftest scripts", str(len(scripts))],
            ["results, those of KUnit and of kernel logs included", f"{run['passed'] + run['failed']:,}"],
            ["failed", str(run["failed"])],
            ["minutes", f"{run['seconds'] / 60:.0f}"],
        ],
    }
    if leaks:
        result["figures"] += [
            ["times that kmemleak looked twice", str(len(leaks))],
            ["of those, found something", str(sum(line.startswith("not") for line in leaks))],
        ]
    Path(path).write_text(json.dumps(result, indent=1) + "\n")


def note(directory, begin, status, kernel, tree, part=None):
    if part and status != "0":
        for path in Path(directory).glob(f"{part}.json"):
            if path.stat().st_mtime < float(begin):
                path.unlink()
    for path in Path(directory).glob("*.json"):
        if path.stat().st_mtime >= float(begin):
            result = json.loads(path.read_text())
            result["ok"] = bool(result["ok"]) and status == "0"
            result["run"] = {"kernel": kernel, "tree": tree, "day": str(datetime.date.today())}
            path.write_text(json.dumps(result, indent=1) + "\n")


def cell(value):
    """A cell of a list table: text as it is, not as markup."""
    return re.sub(r"([\\`*_|])", r"\\\1", str(value)) or "-"


def rows(table):
    for row in table:
        for i, value in enumerate(row):
            yield f"   {'* -' if i == 0 else '  -'} {cell(value)}"


def section(name, result):
    run = result.get("run", {})
    yield from [NAME + name, "", result["title"], "-" * len(result["title"]), ""]
    yield f"``{result['command']}``"
    if run:
        yield f"({run['day']}, Linux {run['kernel']}, tree {run['tree']})"
    if not result["ok"]:
        yield "**failed**"
    yield ""
    if result.get("text"):
        yield from [result["text"], ""]
    figures = [[label, GUESTS.get(value, value) if label == "guest" else value] for label, value in result["figures"]]
    yield from [".. list-table::", "   :widths: 70 30", "", *rows(figures), ""]
    tables = [result["table"]] if result.get("table") else []
    for table in tables + result.get("more", []):
        if table.get("text"):
            yield from [table["text"], ""]
        yield from listed(table["head"], table["rows"])


def since(name, tree):
    """A tree, and what has changed since of that whose result this is."""
    top = Path(__file__).resolve().parent.parent
    used = ["src/core"] if name in ("model", "fuzz") else ["src", "Kbuild"]
    git = ["git", "-C", top, "diff", "--name-only", tree.removesuffix("-dirty"), "--", *used]
    run = subprocess.run(git, capture_output=True, text=True)
    if run.returncode:
        return f"tree {tree}, which is not in this repository"
    # Of src/core tests and fuzzers are no part of the module.
    files = [f"``{name}``" for name in run.stdout.split() if not re.match(r"src/core/(tests|fuzz|Cargo)", name)]
    return f"tree {tree}" + (f"; changed since then: {', '.join(files)}" if files else "")


def publish(directory, page):
    found = {path.stem: json.loads(path.read_text()) for path in Path(directory).glob("*.json")}
    if not found:
        sys.exit(f"error: no results in {directory}: run scripts/torture first")
    text = Path(page).read_text()
    head, rest = text.split(BEGIN + "\n")
    before, tail = rest.split(END + "\n")
    sections = {}
    for part in before.split(NAME)[1:]:
        name = part.partition("\n")[0]
        sections[name] = (NAME + part).rstrip().split("\n") + [""]
    sections |= {name: list(section(name, result)) for name, result in found.items()}
    names = sorted(sections, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    ran = re.compile(r"(^\(\d{4}-\d\d-\d\d, Linux .*), tree ([\w-]+).*\)$")
    lines = [
        ran.sub(lambda found: f"{found[1]}, {since(name, found[2])})", line)
        for name in names
        for line in sections[name]
    ]
    Path(page).write_text(head + BEGIN + "\n\n" + "\n".join(lines) + "\n" + END + "\n" + tail)


TIMES = ".. times begin", ".. times end"


def times(file, tree, kernel, page):
    run = json.loads(Path(file).read_text())
    if run["failed"]:
        sys.exit(f"error: {file} is of a run in which {run['failed']} results failed")
    if not any(row["kind"] == "stock" for row in run["scripts"]):
        sys.exit(f"error: {file} is not of a whole run: GUESTS, ONLY or FILE was set")
    parts = [row for row in run["parts"] if row["seconds"] >= 1]
    scripts = run["scripts"][:10]
    lines = [
        f"``make test`` ({datetime.date.today()}, Linux {kernel}, tree {tree}, two CPUs, warm cache): "
        f"{run['passed']:,} results in {run['seconds'] / 60:.1f} minutes.",
        "",
        *listed(["Part", "begins at, s", "takes, s", "results"],
                [[row["part"], round(row["begin"]), round(row["seconds"]), row["passed"]] for row in parts]),
        "The slowest scripts:",
        "",
        *listed(["Guest", "Script", "takes, s", "by the guest's clock, s"],
                [[row["kind"], row["script"], round(row["seconds"]), row["guest"]] for row in scripts]),
    ]  # fmt: skip
    text = Path(page).read_text()
    begin, end = (f"{mark}\n" for mark in TIMES)
    head, rest = text.split(begin)
    Path(page).write_text(head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end)[1])


def listed(head, table):
    return [".. list-table::", "   :header-rows: 1", "", *rows([head, *table]), ""]


if __name__ == "__main__":
    {"suite": suite, "note": note, "publish": publish, "times": times}[sys.argv[1]](*sys.argv[2:])
