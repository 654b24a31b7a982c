# SPDX-License-Identifier: GPL-2.0
"""The guest's side of mhs_bench.c: packets in, instructions out."""

import contextlib
import statistics
from pathlib import Path

DIR = Path("/sys/kernel/debug/mhs_bench")


def _put(name, value):
    data = value if isinstance(value, bytes) else str(value).encode()
    with open(DIR / name, "wb", buffering=0) as file:
        file.write(data)


class Injector:
    """Receives packets as if they came from `device`."""

    def __init__(self, device):
        _put("device", device)

    def drop(self, on):
        """Whether all packets are dropped in LOCAL_IN."""
        _put("drop", int(on))

    def after_tick(self, on):
        """Whether no tick of the clock comes while packets are received: what it touches is not theirs."""
        _put("after_tick", int(on))

    def receive(self, packet, batches, first=0, flows=1, batch=64, cpus=1):
        """Receives `batches` times `batch` packets, of one flow after the other; `flows` of
        them, from the number `first` on, then from there again. So does each of several CPUs,
        with the flows after those of the one before. Returns the instructions of a packet, for
        each batch."""
        _put("packet", packet.frame)
        _put("vary", packet.vary)
        _put("checksum", packet.checksum)
        _put("first", first)
        _put("flows", flows)
        _put("batch", batch)
        _put("cpus", cpus)
        _put("run", batches)
        return [int(line) / batch for line in (DIR / "run").read_text().split()]

    @contextlib.contextmanager
    def traced(self, on):
        """Whether a tracer is to see what is received meanwhile."""
        _put("trace", int(on))
        yield
        _put("trace", 0)

    def pass_over(self, packet, flows, first=0):
        """Receives one packet of each flow, and counts nothing."""
        batch = min(flows, 256)
        self.receive(packet, -(-flows // batch), first, flows, batch)


def summary(counts):
    """The median batch, and how far the others are from it: the quartiles, since a timer interrupt
    hits a batch now and then."""
    low, middle, high = statistics.quantiles(counts, n=4)
    return {
        "insns": round(middle, 1),
        "low": round(low, 1),
        "high": round(high, 1),
        "batches": len(counts),
    }
