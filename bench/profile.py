# SPDX-License-Identifier: GPL-2.0
"""Says which functions the instructions of a row were in, from what bench/trace.c saw.

    profile.py [--json] TRACE FIGURES MODULE

FIGURES is the output of run.py --trace, MODULE an ip_vs_mhs.ko with debug information. Functions
come in the order in which a packet meets them first. What the compiler inlined into a function of
the module is listed below it, by the innermost function of the module's own. With --json, a line
for each row.
"""

import base64
import bisect
import collections
import gzip
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import figures as printed


class Symbols:
    """The functions of a kernel by address."""

    def __init__(self, text):
        found = {}
        for line in text.splitlines():
            at, _, name, *module = line.split()
            if name.startswith(".L"):
                continue
            found.setdefault(int(at, 16), (name, module[0].strip("[]") if module else "kernel"))
        self._at = sorted(found)
        self._found = found

    def of(self, address):
        """The function and the module that have an address."""
        place = bisect.bisect_right(self._at, address)
        return self._found[self._at[place - 1]] if place else ("?", "?")


def demangled(names):
    """Rust's names as one writes them."""
    done = subprocess.run(
        ["c++filt", "-s", "rust"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return dict(zip(names, done.stdout.splitlines()))


def short(name):
    """Without hashes, crates and arguments: enough to find a function by."""
    name = re.sub(r"\[[0-9a-f]+\]", "", name)
    name = re.sub(r"::h[0-9a-f]{16}$", "", name)
    return name.replace("ip_vs_mhs::", "")


def frames(module, sections, addresses):
    """For addresses in a module: the functions that the code is from, innermost first."""
    by_section = collections.defaultdict(list)
    bases = sorted((int(base, 16), name) for name, base in sections.items() if "text" in name)
    for address in addresses:
        place = bisect.bisect_right([base for base, _ in bases], address)
        if place:
            base, name = bases[place - 1]
            by_section[name].append((address, address - base))
    result = {}
    for section, pairs in by_section.items():
        done = subprocess.run(
            ["addr2line", "-a", "-f", "-i", "-j", section, "-e", module],
            input="\n".join(f"{offset:#x}" for _, offset in pairs),
            capture_output=True, text=True, check=True,
        )
        stacks, lines = [], done.stdout.splitlines()
        for line in lines:
            if line.startswith("0x"):
                stacks.append([])
            elif len(stacks[-1]) % 2 == 0:
                stacks[-1].append(line)
            else:
                stacks[-1].append(line.split(" ")[0].rsplit("/", 1)[-1])
        for (address, _), stack in zip(pairs, stacks):
            result[address] = list(zip(stack[::2], stack[1::2]))
    return result


@dataclass
class Function:
    """What was executed of one."""

    name: str
    module: str
    order: int
    count: int = 0
    insns: collections.Counter = field(default_factory=collections.Counter)


@dataclass
class Run:
    """What was traced of a row: executions and order by instruction; and what was read and written,
    as (instruction, line of 64 bytes, count)."""

    windows: int
    counts: collections.Counter = field(default_factory=collections.Counter)
    order: dict = field(default_factory=dict)
    reads: list = field(default_factory=list)
    writes: list = field(default_factory=list)


def read_trace(path):
    """The runs in a trace."""
    runs = []
    for line in Path(path).read_text().splitlines():
        kind, *words = line.split()
        if kind == "run":
            run = Run(int(words[0]))
            runs.append(run)
        elif kind == "block":
            count, place = int(words[0]), int(words[1])
            for position, word in enumerate(words[2:]):
                at = int(word, 16)
                run.counts[at] += count
                run.order[at] = min(run.order.get(at, (place, position)), (place, position))
        else:
            access = (int(words[0], 16), int(words[1], 16), int(words[2]))
            (run.reads if kind == "read" else run.writes).append(access)
    return runs


def read_figures(path):
    """For each row that was traced: itself, the symbols of its time, the sections of the module."""
    rows, traced, kernel = {}, [], ""
    for line in Path(path).read_text().splitlines():
        figure = json.loads(line) if line.startswith("{") else {}
        if "row" in figure:
            rows[figure["row"]["name"]] = figure["row"]
        if "symbols" in figure:
            text = gzip.decompress(base64.b64decode(figure["symbols"])).decode()
            if "traced" in figure:
                traced.append((rows[figure["traced"]], text, figure["sections"]))
            else:
                kernel = text
    return [(row, Symbols(f"{kernel}\n{text}"), sections) for row, text, sections in traced]


# What inlined code may be from that is not ours.
FOREIGN = re.compile(r"^<?(core|alloc|kernel|u8|u16|u32|u64|usize|bool|\[|\*|&)\b|^<\[|^<\*")


def own(stack):
    """The innermost function of a stack that is the module's own."""
    return next((short(name) for name in stack if not FOREIGN.match(short(name))), short(stack[-1]))


def by_function(run, symbols):
    """What was executed of each function, in the order in which a packet meets them."""
    functions = {}
    for at in sorted(run.counts, key=run.order.get):
        name, owner = symbols.of(at)
        function = functions.setdefault((name, owner), Function(name, owner, run.order[at]))
        function.count += run.counts[at]
        function.insns[at] = run.counts[at]
    return list(functions.values())


def by_module(functions, packets):
    """Instructions of a packet by module, most first."""
    counts = collections.Counter()
    for function in functions:
        counts[function.module] += function.count / packets
    return {name: round(count, 1) for name, count in counts.most_common() if count >= 0.5}


def inlined(functions, symbols, sections, module):
    """For functions of the module: instructions by the innermost function of its own."""
    stacks = frames(module, sections, [at for function in functions for at in function.insns])
    names = demangled(
        sorted({name for stack in stacks.values() for name, _ in stack}
               | {function.name for function in functions})
    )
    result = {}
    for function in functions:
        parts = collections.Counter()
        for at, count in function.insns.items():
            stack = [names[name] for name, _ in stacks.get(at, [])] or [names[function.name]]
            parts[own(stack)] += count
        result[function.name] = parts
    return result


def show(row, run, symbols, sections, module):
    packets = run.windows * row["batch"]
    functions = by_function(run, symbols)
    total = sum(function.count for function in functions) / packets
    print(f"\n{row['name']}: {row['insns']:.0f} instructions a packet; {total:.0f} traced")
    print("  ".join(f"{name} {n:.0f}" for name, n in by_module(functions, packets).items()))
    # What came with interrupts is no part of a packet's way.
    shown = [function for function in functions if function.count / packets >= 0.5]
    names = demangled([function.name for function in shown])
    ours = [function for function in shown if function.module == "ip_vs_mhs"]
    parts = inlined(ours, symbols, sections, module)
    for function in shown:
        where = "" if function.module == "kernel" else f" [{function.module}]"
        print(f"{function.count / packets:8.1f}  {short(names[function.name])}{where}")
        if function.module != "ip_vs_mhs" or len(parts[function.name]) == 1:
            continue
        for name, count in parts[function.name].most_common():
            if count / packets >= 0.5:
                print(f"            {count / packets:7.1f}  {name}")


def summary(row, run, symbols, sections, module):
    packets = run.windows * row["batch"]
    functions = by_function(run, symbols)
    ours = [function for function in functions if function.module == "ip_vs_mhs"]
    parts = collections.Counter()
    for counts in inlined(ours, symbols, sections, module).values():
        parts.update(counts)
    most = sorted(functions, key=lambda function: -function.count)
    names = demangled([function.name for function in most])
    print(json.dumps({"functions": {
        "name": row["name"],
        "insns": row["insns"],
        "by_module": by_module(functions, packets),
        "by_function": {
            f"{short(names[function.name])} [{function.module}]": round(function.count / packets, 1)
            for function in most if function.count / packets >= 1
        },
        "inlined": {
            name: round(count / packets, 1)
            for name, count in parts.most_common() if count / packets >= 1
        },
    }}))


def main():
    words = sys.argv[1:]
    say = summary if words[0] == "--json" else show
    trace, figures, module = words[-3:]
    if say is summary:
        print(json.dumps({"kernel": dict(printed.read(figures))["kernel"]}))
    for (row, symbols, sections), run in zip(read_figures(figures), read_trace(trace)):
        say(row, run, symbols, sections, module)


if __name__ == "__main__":
    main()
