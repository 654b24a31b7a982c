# SPDX-License-Identifier: GPL-2.0
"""What a packet costs on each way it can take: the rows of the main table.

A scene makes a state of the balancer, and yields a row for each kind of packet that it measures
there. To have another row, yield it; to have another state, write a scene and add it to SCENES.
"""

import time

import network
from injector import summary
from network import VIP, VIP6, ipvsadm, server

BATCH, BATCHES = 64, 48
# Packets of a row.
COUNT = BATCH * BATCHES
# Flows whose packets are received before something is measured, so that all that grows has grown.
WARM = 4 * BATCH
# Flows of a row that measures what happens to them again and again.
LIVE = 1024

TCP, TCP6 = f"-t {VIP}:80", f"-t [{VIP6}]:80"
UDP = f"-u {VIP}:80"


class Bench:
    """What scenes measure with."""

    def __init__(self, injector, frames, trace=()):
        self.injector = injector
        self.frames = frames
        # The names of the rows that a tracer is to see.
        self.trace = trace

    def again(self, name, packet, first=0, **notes):
        """What packets of LIVE flows cost that came before."""
        self.injector.pass_over(packet, LIVE, first)
        self.injector.pass_over(packet, LIVE, first)
        return self._row(name, packet, BATCHES, first, LIVE, notes)

    def once(self, name, packet, first=0, **notes):
        """What the first packets of flows cost: of WARM + COUNT flows, from `first` on."""
        self.injector.pass_over(packet, WARM, first)
        return self._row(name, packet, BATCHES, first + WARM, COUNT, notes)

    def _row(self, name, packet, batches, first, flows, notes):
        before = network.entries() if "conn_tab_bits" in notes else None
        with self.injector.traced(name in self.trace):
            counts = self.injector.receive(packet, batches, first, flows, BATCH)
        row = {"name": name, **summary(counts), "batch": BATCH, **notes}
        if before is not None:
            row["entries"] = [before, network.entries()]
        return row


def service(line, scheduler, servers, method="-g", v6=False, options="", first=0, weight=1):
    """Makes a service and its servers, or adds servers if there is no scheduler."""
    lines = [f"-A {line} -s {scheduler} {options}"] if scheduler else []
    for number in range(first, first + servers):
        address = f"[{server(number, v6)}]" if v6 else server(number)
        lines.append(f"-a {line} -r {address}:80 {method} -w {weight}")
    ipvsadm(*lines)


def settle():
    """Lets grace periods and the work that waits for them pass."""
    time.sleep(1)


def forwarding(bench):
    """Without IPVS: what any packet costs."""
    network.unload_ipvs()
    packet = bench.frames.ack(VIP)
    bench.injector.drop(True)
    yield bench.again("localin_drop", packet)
    bench.injector.drop(False)
    yield bench.again("forward", bench.frames.ack(server(0)))
    yield bench.again("forward_v6", bench.frames.ack(server(0, v6=True)))


def forwarding_with_ipvs(bench):
    """The same packets, when there is a service that is not theirs."""
    network.load_ipvs(conn_tab_bits=20)
    service(TCP, "mh", 8)
    yield bench.again("forward_ipvs", bench.frames.ack(server(0)))


def stateful(scheduler, bits):
    def scene(bench):
        network.load_ipvs(conn_tab_bits=bits)
        service(TCP, scheduler, 8)
        name = scheduler if bits == 20 else f"{scheduler}_bits{bits}"
        syn, ack = bench.frames.syn(VIP), bench.frames.ack(VIP)
        yield bench.once(f"{name}_new", syn, conn_tab_bits=bits)
        bench.injector.pass_over(ack, LIVE)
        yield bench.again(f"{name}_existing", ack, conn_tab_bits=bits)

    scene.__doc__ = f"In-tree {scheduler}, with a table of entries of 2^{bits} buckets at most."
    return scene


def load_mhs(**options):
    network.load_ipvs(conn_tab_bits=20)
    options.setdefault("table_size", 4093)
    network.run("modprobe", "ip_vs_mhs", *(f"{key}={value}" for key, value in options.items()))


def stable(bench):
    """Both tables of mhs agree."""
    load_mhs()
    service(TCP, "mhs", 8)
    service(UDP, "mhs", 8)
    service(TCP6, "mhs", 8, v6=True)
    settle()
    frames = bench.frames
    yield bench.again("mhs_stable_syn", frames.syn(VIP))
    yield bench.again("mhs_stable_ack", frames.ack(VIP))
    yield bench.again("mhs_stable_udp", frames.udp(VIP))
    yield bench.again("mhs_stable_syn_v6", frames.syn(VIP6))
    yield bench.again("mhs_stable_ack_v6", frames.ack(VIP6))
    yield bench.again("mhs_stable_icmp", frames.too_big(VIP))
    expect_entries(0)


def tunnels(bench):
    """Both tables of mhs agree, and the servers are behind tunnels."""
    for kind in ("ipip", "gre", "gue"):
        load_mhs()
        tunnel = f"-i --tun-type {kind}" + (" --tun-port 6080" if kind == "gue" else "")
        service(TCP, "mhs", 8, tunnel)
        settle()
        yield bench.again(f"mhs_stable_ack_{kind}", bench.frames.ack(VIP))
        expect_entries(0)


def unstable(bench):
    """Every slot of mhs is moving from one of eight servers to one of eight others."""
    load_mhs()
    service(TCP, "mhs", 8)
    settle()
    syn, ack = bench.frames.syn(VIP), bench.frames.ack(VIP)
    flows = WARM + COUNT
    # All the slots that are to be unstable have something to protect.
    bench.injector.pass_over(syn, 2 * flows)
    service(TCP, None, 8, first=8)
    for number in range(8):
        network.run("ipvsadm", "-e", *TCP.split(), "-r", server(number) + ":80", "-g", "-w", "0")
    settle()
    expect_entries(0)
    yield bench.once("mhs_unstable_syn", syn, conn_tab_bits=20)
    expect_entries(flows)
    yield bench.once("mhs_unstable_ack", ack, flows, conn_tab_bits=20)
    expect_entries(2 * flows)
    # The flows of the SYNs.
    yield bench.again("mhs_pinned_ack", ack, conn_tab_bits=20)
    # Those of the ACKs.
    yield bench.again("mhs_pinned_old_ack", ack, flows, conn_tab_bits=20)
    # What never makes an entry, of flows that have none.
    yield bench.again("mhs_unstable_rst", bench.frames.rst(VIP), 2 * flows, conn_tab_bits=20)
    expect_entries(2 * flows)


def expect_entries(number):
    """A figure of another path than the one that it is named after is worth nothing."""
    found = network.entries()
    if found != number:
        raise SystemExit(f"error: {found} entries where {number} should be")


SCENES = [
    forwarding,
    forwarding_with_ipvs,
    stateful("mh", 20),
    stateful("mh", 12),
    stateful("sh", 20),
    stable,
    tunnels,
    unstable,
]
QUICK = [forwarding, stateful("mh", 20), stable, unstable]
