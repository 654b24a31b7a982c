# SPDX-License-Identifier: GPL-2.0
"""Says which figures are not those that were published.

    compare.py RESULT PUBLISHED

A figure is another if it differs by more than 1 %, and by more than one of what is counted or 0.01 of a
ratio or mean.
"""

import json
import sys
from pathlib import Path

LIMIT = 0.01
# The clock of the host, and what says how a figure came about rather than what it is.
LEFT_OUT = {"cpus", "goals", "low", "high", "packets", "by_function", "inlined", "seconds"}


def flat(value, path=()):
    """Pairs of where a figure stands and what it is."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in LEFT_OUT:
                yield from flat(part, (*path, key))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            name = part.get("name", place) if isinstance(part, dict) else place
            yield from flat(part, (*path, f"{place}:{name}" if name != place else str(place)))
    elif isinstance(value, (int, float)):
        yield "/".join(path), value


def main():
    result, published = (json.loads(Path(file).read_text()) for file in sys.argv[1:])
    if result["kernel"] != published["kernel"]:
        print(f"# published figures are of {published['kernel']}, these of {result['kernel']}")
    before, now = dict(flat(published)), dict(flat(result))
    same = other = 0
    for place, value in now.items():
        if place not in before:
            continue
        counted = isinstance(value, int) and isinstance(before[place], int)
        difference = abs(value - before[place])
        if difference > max(LIMIT * abs(before[place]), 1 if counted else 0.01):
            print(f"# {place}: {value}, published {before[place]}")
            other += 1
        else:
            same += 1
    print(f"# {same} figures as published, {other} others, {len(now.keys() - before.keys())} new")


main()
