# SPDX-License-Identifier: GPL-2.0
"""How much more two CPUs receive than one, each packets of its own flows.

The CPUs are emulated side by side, so the clock is that of the host, and the figure a ratio of times
that were measured in turns.
"""

import statistics

import network
import rows
from network import VIP, server

CPUS = 2
BATCH, BATCHES = 64, 64
# Flows of a CPU.
FLOWS = BATCH * BATCHES
ROUNDS = 7


def figure(name, injector, packet, first=0, again=True):
    """With `again`, the same flows each time; else new ones."""
    ratios, flow = [], first
    for _ in range(ROUNDS):
        times = {}
        for cpus in (1, CPUS):
            counts = injector.receive(packet, BATCHES, flow, FLOWS, BATCH, cpus)
            # A CPU of the host that does something else for a while is seen in few batches.
            times[cpus] = statistics.median(counts)
            if not again:
                flow += cpus * FLOWS
        ratios.append(CPUS * times[1] / times[CPUS])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"cpus": {"name": name, "cpus": CPUS, "ratio": round(middle, 2),
                     "low": round(low, 2), "high": round(high, 2), "rounds": ROUNDS}}


def figures(injector, frames, _options):
    syn, ack = frames.syn(VIP), frames.ack(VIP)
    # One service stays, so that no code is patched while packets flow.
    network.load_ipvs(conn_tab_bits=20)
    network.run("modprobe", "ip_vs_mhs", "table_size=4093")
    rows.service(rows.TCP, "mhs", 8)
    rows.service(f"-t {VIP}:81", "mh", 8)
    rows.settle()
    yield figure("forward", injector, frames.ack(server(0)))
    yield figure("mh_new", injector, frames.syn(VIP, 81), again=False)
    yield figure("mh_existing", injector, frames.ack(VIP, 81))
    for name, packet in ("mhs_stable_syn", syn), ("mhs_stable_ack", ack):
        injector.pass_over(packet, CPUS * FLOWS)
        yield figure(name, injector, packet)
