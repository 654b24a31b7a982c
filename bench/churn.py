# SPDX-License-Identifier: GPL-2.0
"""What requests cost and leave behind, by the fraction of slots that are unstable.

A request is a connection of four segments from the client: SYN, ACK, the request, FIN. A hundred
servers, of which some were just drained.
"""

import network
import rows
from network import VIP

SERVERS = 100
BATCH = 256
REQUESTS = 80 * BATCH
DRAINED = [0, 1, 10]


def requests(injector, frames):
    """Instructions and entries of a request."""
    segments = [frames.syn(VIP), frames.ack(VIP), frames.ack(VIP), frames.fin(VIP)]
    # The table of entries grows before, not meanwhile.
    for first in range(0, REQUESTS, BATCH):
        for packet in segments:
            injector.receive(packet, 1, first, BATCH, BATCH)
    rows.settle()
    before, insns = network.entries(), 0
    for first in range(REQUESTS, 2 * REQUESTS, BATCH):
        for packet in segments:
            insns += sum(injector.receive(packet, 1, first, BATCH, BATCH)) * BATCH
    return insns / REQUESTS, (network.entries() - before) / REQUESTS


def figures(injector, frames, _options):
    network.neighbours(0, SERVERS)
    for scheduler, drained in [("mh", 0)] + [("mhs", number) for number in DRAINED]:
        network.load_ipvs(conn_tab_bits=20)
        if scheduler == "mhs":
            rows.load_mhs(table_size=16381)
        rows.service(rows.TCP, scheduler, SERVERS)
        rows.settle()
        if drained:
            # Slots have something to protect.
            injector.pass_over(frames.syn(VIP), 200_000, 2 * REQUESTS)
            rows.drain(range(drained))
            rows.settle()
        insns, entries = requests(injector, frames)
        yield {"churn": {"scheduler": scheduler, "unstable_percent": drained, "servers": SERVERS,
                         "insns_per_request": round(insns), "entries_per_request": round(entries, 4),
                         "conn_tab_bits": 20}}
