# SPDX-License-Identifier: GPL-2.0
"""Which selftest runs in which kind of guest, and in how many of them.

A script says in its head what it needs beyond a network of its own, and this file says which kind of guest has
that. Nothing else decides:

    # Needs: two CPUs           CPUs that run at once, in real time
    # Needs: fault injection    allocations that can be made to fail
    # Needs: native speed       too much for an emulated machine
    # Needs: hours              make test never runs it: scripts/oracle and scripts/jet do
"""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "selftests/tests"

# What a kind of guest has. User-mode Linux in virtual time (um) has one CPU; an emulated machine (stock) does
# in turns what two would do at once, and takes many times as long for everything.
HAS = {
    "um": {"fault injection", "native speed"},
    "smp": {"two CPUs", "fault injection", "native speed"},
    "debug": {"two CPUs", "fault injection", "native speed"},
    "stock": {"two CPUs"},
}

# Again with express mode on: what may differ there.
EXPRESS = """
    any-port changes drained edges full handover hashing hostile icmp local marks options protocols rules save skew
    stateful stateless timeouts tunnels
""".split()

# Of the stock kernel make test shows that the module loads there, that all it hooks into and every field it
# reads are where it thinks they are, and that tools and real partners talk to it. make torture runs all there.
STOCK = """
    changes ftp icmp keepalived lifecycle marks options reload save stateful stateless switch sync
    tool-config tool-read tool-steer tunnels express:stateless
""".split()

NEEDS = re.compile(r"^# Needs: (.*)$", re.MULTILINE)


def needs(script):
    """What a script says that it needs."""
    said = NEEDS.findall((TESTS / f"{script.removeprefix('express:')}.sh").read_text())
    wanted = {word for line in said for word in line.split(", ")}
    known = {"hours"}.union(*HAS.values())
    if wanted - known:
        raise SystemExit(f"error: {script} needs {sorted(wanted - known)}; known: {', '.join(sorted(known))}")
    return wanted


def scripts():
    """All there are, those of express mode last."""
    return sorted(path.stem for path in TESTS.glob("*.sh")) + [f"express:{script}" for script in EXPRESS]


def can_run(kind):
    """All that this kind of guest can run."""
    return [script for script in scripts() if needs(script) <= HAS[kind]]


def of(kind):
    """Those that make test runs in this kind of guest: each in user-mode Linux, the stock kernel some again."""
    if kind == "stock":
        return [script for script in can_run(kind) if script in STOCK]
    if kind == "smp":
        return [script for script in can_run(kind) if "two CPUs" in needs(script)]
    return can_run(kind)


def deal(names, guests, seconds):
    """Deals scripts to so many guests, the longest first, each to the one that has least to do: what each guest
    gets, and how long that takes. `seconds` says how long a script takes."""
    hands = [([], 0.0) for _ in range(min(guests, len(names)))]
    for name in sorted(names, key=lambda name: (-seconds(name), name)):
        least = min(range(len(hands)), key=lambda i: hands[i][1])
        hand, load = hands[least]
        hands[least] = (hand + [name], load + seconds(name))
    return hands
