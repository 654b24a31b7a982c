# SPDX-License-Identifier: GPL-2.0
"""Puts the figures of all parts together.

    report.py FIGURES OUT

FIGURES is a directory with what run.py printed for each part, OUT the file to write.
"""

import collections
import json
import sys
from pathlib import Path

import figures
import goals


def main():
    directory, out = map(Path, sys.argv[1:])
    result = {"kernel": None, "clock": "instructions (QEMU -icount shift=0, one CPU)"}
    series = collections.defaultdict(list)
    for file in sorted(directory.glob("*.jsonl")):
        if file.stem == "quick":
            continue
        pairs = figures.read(file)
        kernel = dict(pairs)["kernel"]
        if result["kernel"] not in (None, kernel):
            sys.exit(f"error: {file} is of {kernel}, others are of {result['kernel']}")
        result["kernel"] = kernel
        if file.stem == "rows":
            result["rows"] = figures.rows(pairs)
        for kind, figure in pairs:
            if kind not in ("kernel", "row"):
                series[kind].append(figure)
    result.update(series)
    result["goals"] = goals.goals(result)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(out)


main()
