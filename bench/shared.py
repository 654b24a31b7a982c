# SPDX-License-Identifier: GPL-2.0
"""Says which functions wrote to cache lines that two CPUs share, from what bench/lines.py had traced.

    shared.py TRACE FIGURES

A line is shared if one CPU wrote it and the other read or wrote it. Prints a line of JSON for each
kind of packet, with the writes of a packet to such lines, and by which function.
"""

import collections
import json
import sys

import figures as printed
import profile

CPUS = 2


def touched(run):
    """The lines that a run read or wrote."""
    return {line for _, line, _ in run.reads} | {line for _, line, _ in run.writes}


def main():
    trace, figures = sys.argv[1:]
    print(json.dumps({"kernel": dict(printed.read(figures))["kernel"]}))
    pairs = list(zip(profile.read_figures(figures), profile.read_trace(trace)))
    for place in range(0, len(pairs), CPUS):
        both = pairs[place : place + CPUS]
        name = both[0][0][0]["name"].partition("@")[0]
        packets, writes, lines = 0, 0, set()
        by_function = collections.Counter()
        for ((row, symbols, _), run), (_, other) in zip(both, both[::-1]):
            packets += run.windows * row["batch"]
            shared = touched(other)
            for insn, line, count in run.writes:
                if line in shared:
                    function, module = symbols.of(insn)
                    by_function[f"{function} [{module}]"] += count
                    writes += count
                    lines.add(line)
        functions = profile.demangled(list(by_function))
        print(json.dumps({"shared": {
            "name": name,
            "packets": packets,
            "writes_per_packet": round(writes / packets, 3),
            "lines": len(lines),
            "by_function": {
                profile.short(functions[key]): round(count / packets, 3)
                for key, count in by_function.most_common()
                if count / packets >= 0.001
            },
        }}))


main()
