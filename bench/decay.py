# SPDX-License-Identifier: GPL-2.0
"""How entries fade after a change.

So many flows are alive at any time; each sends a packet every STEP seconds and lives for LIFE steps;
when one ends, another begins. A number of servers is drained. Entries are counted, beside those that
there would be if an entry lived as long as its flow and its timeout, which is the rule of the C
reference.
"""

import time
from pathlib import Path

import network
import rows
from network import VIP
from packets import CLIENT

TIMEOUT = 300
STEP = 50
FLOWS = 24_000
LIFE = 12
DRAINED = 10
BEFORE, AFTER = 2, 26
BORN = FLOWS // LIFE


def with_entries():
    """The numbers of the flows that have an entry."""
    base = int.from_bytes(map(int, CLIENT.split(".")), "big")
    lines = Path("/proc/net/ip_vs_conn").read_text().splitlines()[1:]
    return {int(line.split()[1], 16) - base for line in lines}


def last_packet(flow, step):
    """In which step a flow sent its last packet so far."""
    return min(step, flow // BORN)


def figures(injector, frames, _options):
    network.neighbours(0, 100)
    rows.load_mhs(table_size=16381)
    network.run("ipvsadm", "--set", str(TIMEOUT), str(TIMEOUT), str(TIMEOUT))
    rows.service(rows.TCP, "mhs", 100)
    rows.settle()
    syn, ack = frames.syn(VIP), frames.ack(VIP)
    began = time.monotonic()
    ever = set()
    # The flow number n ends after step n // BORN.
    for step in range(BEFORE + AFTER):
        first = step * BORN
        if step:
            injector.pass_over(syn, BORN, first + FLOWS - BORN)
        else:
            injector.pass_over(syn, FLOWS, first)
        injector.pass_over(ack, FLOWS, first)
        if step == BEFORE:
            drained = time.monotonic()
            rows.drain(range(DRAINED))
            rows.settle()
            injector.pass_over(ack, FLOWS, first)
        time.sleep(max(0, began + (step + 1) * STEP - 1 - time.monotonic()))
        entries = with_entries()
        ever |= entries
        alive = sum(
            (step - last_packet(flow, step)) * STEP < TIMEOUT for flow in ever
        )
        yield {"decay": {
            "seconds": round(time.monotonic() - drained) if step >= BEFORE else (step - BEFORE) * STEP,
            "flows": FLOWS, "servers": 100, "drained": DRAINED, "timeout": TIMEOUT,
            "entries": len(entries), "entries_while_flows_live": alive,
        }}
        time.sleep(max(0, began + (step + 1) * STEP - time.monotonic()))
