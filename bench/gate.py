# SPDX-License-Identifier: GPL-2.0
"""Compares rows with those that were accepted, and with what they should be at most beside each other,
and prints a line of KTAP for each.

    gate.py quick FIGURES BASELINE
    gate.py accept FIGURES BASELINE

BASELINE has, for a series of kernels, the kernel that was measured and its instructions by row. On
that very kernel instructions are compared. On a newer one of the series, whose own path may differ,
what is compared is the part of it: the ratio to a packet that is forwarded.
"""

import json
import sys
from pathlib import Path

import figures
from goals import goals

# By how many percent a row may differ.
LIMIT = 3.0


def main():
    mode, measured, file = sys.argv[1:]
    pairs = figures.read(measured)
    kernel = dict(pairs)["kernel"]
    series = ".".join(kernel.split(".")[:2])
    rows = {row["name"]: row["insns"] for row in figures.rows(pairs)}
    file = Path(file)
    baselines = json.loads(file.read_text()) if file.exists() else {}
    if mode == "accept":
        baselines[series] = {"kernel": kernel, "insns": rows}
        file.write_text(json.dumps(baselines, indent=1, sort_keys=True) + "\n")
        print(f"accepted {len(rows)} rows for {kernel}")
        return 0
    if series not in baselines:
        print(f"not ok 1 {kernel}: no baseline; scripts/bench --accept makes it\n1..1")
        return 1
    before = baselines[series]
    expected = before["insns"]
    same = before["kernel"] == kernel
    if not same:
        print(f"# baseline of {before['kernel']}: ratios to forward are compared")
    failed, names = 0, sorted(expected.keys() | rows.keys())
    for number, name in enumerate(names, 1):
        if name not in rows or name not in expected:
            what = "was not measured" if name in expected else "is not in the baseline"
            print(f"not ok {number} {name} {what}")
            failed += 1
            continue
        now, then = rows[name], expected[name]
        if not same:
            then *= rows["forward"] / expected["forward"]
        percent = (now / then - 1) * 100
        good = abs(percent) <= LIMIT
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} {name} {now:.0f} instructions, "
              f"baseline {then:.0f}, {percent:+.1f} %")
    missed, beside = 0, goals({"rows": figures.rows(pairs)})
    for number, goal in enumerate(beside, len(names) + 1):
        missed += not goal["met"]
        print(f"{'ok' if goal['met'] else 'not ok'} {number} {goal['goal']}: {goal['measured']:.3f}, "
              f"at most {goal['limit']:.2f}")
    print(f"1..{len(names) + len(beside)}")
    if failed:
        print(f"# {failed} rows differ by more than {LIMIT} %: explain them "
              "(scripts/bench --profile ROW), then scripts/bench --accept")
    if missed:
        print(f"# {missed} goals are missed: scripts/bench --profile ROW says where instructions go")
    return failed + missed > 0


sys.exit(main())
