# SPDX-License-Identifier: GPL-2.0
"""Reads what run.py printed in a guest."""

import json
from pathlib import Path


def read(path):
    """The figures in a file, in their order: pairs of what they are about and what they say."""
    pairs = []
    for line in Path(path).read_text().splitlines():
        if line.startswith("{"):
            pairs += json.loads(line).items()
    return pairs


def rows(pairs):
    """The rows among figures, each with its ratio to plain forwarding in the same run."""
    found = [row for kind, row in pairs if kind == "row"]
    insns = {row["name"]: row["insns"] for row in found}
    for row in found:
        row["ratio_to_forward"] = round(row["insns"] / insns["forward"], 3)
        if row["name"].endswith("_v6") and "forward_v6" in insns:
            row["ratio_to_forward_v6"] = round(row["insns"] / insns["forward_v6"], 3)
    return found
