# SPDX-License-Identifier: GPL-2.0
"""Which cache lines two CPUs share: for a tracer. Each CPU receives packets of its own flows, one
after the other; what one of them wrote and the other touched is shared."""

import os

import network
import rows
import symbols
from network import VIP, server

# Few packets in a batch: their memory does not go from one CPU to the other.
BATCH, BATCHES = 16, 16
CPUS = 2
# Flows of a CPU.
FLOWS = BATCH * BATCHES


def received_by(cpu, injector, packet, first, traced):
    """Has a process of its own receive packets of flows from `first` on, and leaves it alive, so
    that the next one has another stack."""
    ready, done = os.pipe()
    if not os.fork():
        os.sched_setaffinity(0, {cpu})
        if traced:
            injector.after_tick(True)
            with injector.traced(True):
                injector.receive(packet, BATCHES, first, FLOWS, BATCH)
            injector.after_tick(False)
        else:
            injector.receive(packet, BATCHES, first, FLOWS, BATCH)
        os.write(done, b"x")
        signal = os.pipe()[0]
        os.read(signal, 1)
    if os.read(ready, 1) != b"x":
        raise SystemExit(f"error: CPU {cpu} did not receive")
    os.close(ready)


def trace(name, injector, packet, first=0, again=True):
    """Two runs, one on each CPU. With `again`, packets of flows that had some before."""
    for cpu in range(CPUS) if again else ():
        for _ in range(2):
            received_by(cpu, injector, packet, first + cpu * FLOWS, False)
    for cpu in range(CPUS):
        received_by(cpu, injector, packet, first + cpu * FLOWS, True)
        yield {"row": {"name": f"{name}@{cpu}", "insns": 0, "batch": BATCH}}
        yield symbols.of_modules(f"{name}@{cpu}")


def figures(injector, frames, _options):
    syn, ack = frames.syn(VIP), frames.ack(VIP)
    network.unload_ipvs()
    yield from trace("forward", injector, frames.ack(server(0)))
    network.load_ipvs(conn_tab_bits=20)
    rows.service(rows.TCP, "mh", 8)
    injector.pass_over(syn, rows.FILL)
    rows.settle()
    yield from trace("mh_new", injector, syn, rows.FILL, again=False)
    injector.pass_over(ack, rows.FILL)
    yield from trace("mh_existing", injector, ack)
    rows.load_mhs(table_size=4093)
    rows.service(rows.TCP, "mhs", 8)
    rows.settle()
    yield from trace("mhs_stable_syn", injector, syn)
    yield from trace("mhs_stable_ack", injector, ack)
    rows.expect_entries(0)
    yield symbols.of_kernel()
