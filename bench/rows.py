# SPDX-License-Identifier: GPL-2.0
"""What a packet costs on each way it can take: the rows of the main table.

A scene makes a state of the balancer, and yields a row for each kind of packet that it measures
there. To have another row, yield it; to have another state, write a scene and add it to SCENES.
"""

import os
import signal
import subprocess
import time

import network
import symbols
from injector import summary
from network import VIP, VIP6, ipvsadm, server

BATCH, BATCHES = 64, 48
# Where memory is allocated, larger ones, since the allocator has more to do every so many times.
ONCE_BATCH, ONCE_BATCHES = 256, 12
COUNT = ONCE_BATCH * ONCE_BATCHES
# Flows whose packets are received before something is measured.
WARM = 4 * BATCH
# Entries there are before any is measured: the table of entries grows beyond each power of two, and
# while it does all costs more. From here to twice as many it does not.
FILL = 8192 + BATCH
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
        return self._row(name, packet, (BATCHES, first, LIVE, BATCH), **notes)

    def once(self, name, packet, first=0, **notes):
        """What the first packets of flows cost: of WARM + COUNT flows, from `first` on."""
        self.injector.pass_over(packet, WARM, first)
        run = (ONCE_BATCHES, first + WARM, COUNT, ONCE_BATCH)
        return self._row(name, packet, run, **notes)

    def fill(self, packet):
        """Makes entries of the first FILL flows, and waits until their table has grown."""
        self.injector.pass_over(packet, FILL)
        settle()

    def dropped(self, name, packet):
        """What packets cost that are dropped in LOCAL_IN."""
        self.injector.drop(True)
        row = self._row(name, packet, (BATCHES, 0, LIVE, BATCH), leaves=False)
        self.injector.drop(False)
        return row

    def _row(self, name, packet, run, leaves=True, **notes):
        before, left = network.entries_if_loaded(), network.sent()
        with self.injector.traced(name in self.trace):
            counts = self.injector.receive(packet, *run)
        left = network.sent() - left
        packets = run[0] * run[-1]
        # The device may send a packet or two of its own: IPv6 looks around.
        if not 0 <= left - (packets if leaves else 0) < 8:
            raise SystemExit(f"error: {name}: of {packets} packets {left} left")
        row = {"name": name, **summary(counts), "batch": run[-1], **notes}
        if "conn_tab_bits" in notes:
            row["entries"] = [before, network.entries()]
        return row


def service(line, scheduler, servers, method="-g", v6=False, options="", first=0, weight=1):
    """Makes a service and its servers, or adds servers if there is no scheduler."""
    lines = [f"-A {line} -s {scheduler} {options}"] if scheduler else []
    for number in range(first, first + servers):
        address = f"[{server(number, v6)}]" if v6 else server(number)
        lines.append(f"-a {line} -r {address}:80 {method} -w {weight}")
    ipvsadm(*lines)


def drain(numbers):
    """Gives servers the weight 0: no new connections."""
    for number in numbers:
        words = ["-r", f"{server(number)}:80", "-g", "-w", "0"]
        network.run("ipvsadm", "-e", *TCP.split(), *words)


def settle():
    """Lets grace periods and the work that waits for them pass."""
    time.sleep(1)


def forwarding(bench):
    """Without IPVS: what any packet costs."""
    network.unload_ipvs()
    yield bench.dropped("localin_drop", bench.frames.ack(VIP))
    yield bench.again("forward", bench.frames.ack(server(0)))
    yield bench.again("forward_v6", bench.frames.ack(server(0, v6=True)))


def forwarding_with_ipvs(bench):
    """The same packets, when there is a service that is not theirs."""
    network.load_ipvs(conn_tab_bits=20)
    service(TCP, "mh", 8)
    yield bench.again("forward_ipvs", bench.frames.ack(server(0)))


def name_of(scheduler, bits):
    return scheduler if bits == 20 else f"{scheduler}_bits{bits}"


def stateful(scheduler, bits):
    def scene(bench):
        network.load_ipvs(conn_tab_bits=bits)
        service(TCP, scheduler, 8)
        name = name_of(scheduler, bits)
        syn, ack = bench.frames.syn(VIP), bench.frames.ack(VIP)
        bench.fill(syn)
        yield bench.once(f"{name}_new", syn, FILL, conn_tab_bits=bits)
        bench.injector.pass_over(ack, LIVE)
        yield bench.again(f"{name}_existing", ack, conn_tab_bits=bits)

    scene.__name__ = name_of(scheduler, bits)
    scene.__doc__ = f"In-tree {scheduler}, with a table of entries of 2^{bits} buckets at most."
    return scene


def load_mhs(**options):
    network.load_ipvs(conn_tab_bits=20)
    options.setdefault("table_size", 4093)
    network.run("modprobe", "ip_vs_mhs", *(f"{key}={value}" for key, value in options.items()))


def serve_all(**options):
    """Loads mhs with a service of each kind that packets are measured for."""
    load_mhs(**options)
    service(TCP, "mhs", 8)
    service(UDP, "mhs", 8)
    service(TCP6, "mhs", 8, v6=True)
    settle()


def stable(bench):
    """Both tables of mhs agree."""
    serve_all()
    frames = bench.frames
    yield bench.again("mhs_stable_syn", frames.syn(VIP))
    yield bench.again("mhs_stable_ack", frames.ack(VIP))
    yield bench.again("mhs_stable_udp", frames.udp(VIP))
    yield bench.again("mhs_stable_syn_v6", frames.syn(VIP6))
    yield bench.again("mhs_stable_ack_v6", frames.ack(VIP6))
    yield bench.again("mhs_stable_icmp", frames.too_big(VIP))
    expect_entries(0)


def express(bench):
    """Both tables of mhs agree, and packets are taken before they are routed."""
    serve_all(express=1)
    frames = bench.frames
    yield bench.again("mhs_express_syn", frames.syn(VIP))
    yield bench.again("mhs_express_ack", frames.ack(VIP))
    yield bench.again("mhs_express_udp", frames.udp(VIP))
    yield bench.again("mhs_express_ack_v6", frames.ack(VIP6))
    expect_entries(0)


def read(bench):
    """Both tables of mhs agree, and the tool reads everything ten times a second."""
    load_mhs()
    service(TCP, "mhs", 8)
    settle()
    ack = bench.frames.ack(VIP)
    unread = bench.again("mhs_unread_ack", ack)
    yield unread
    loop = f"while ipvsadm-mhs show {VIP}:80 && ipvsadm-mhs slots {VIP}:80; do sleep 0.1; done"
    with subprocess.Popen(["sh", "-c", loop], stdout=subprocess.DEVNULL, start_new_session=True) as tool:
        settle()
        read = bench.again("mhs_read_ack", ack)
        yield read
        if tool.poll() is not None:
            raise SystemExit("error: the tool could not read")
        os.killpg(tool.pid, signal.SIGKILL)
    expect_entries(0)
    if abs(read["insns"] - unread["insns"]) > 0.005 * unread["insns"]:
        raise SystemExit("error: a packet costs something else while somebody reads")


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
    bench.injector.pass_over(syn, FILL + 2 * flows + LIVE)
    service(TCP, None, 8, first=8)
    drain(range(8))
    settle()
    expect_entries(0)
    bench.fill(syn)
    by_syn, by_ack, none = FILL, FILL + flows, FILL + 2 * flows
    yield bench.once("mhs_unstable_syn", syn, by_syn, conn_tab_bits=20)
    expect_entries(by_ack)
    yield bench.once("mhs_unstable_ack", ack, by_ack, conn_tab_bits=20)
    expect_entries(none)
    yield bench.again("mhs_pinned_ack", ack, by_syn, conn_tab_bits=20)
    yield bench.again("mhs_pinned_old_ack", ack, by_ack, conn_tab_bits=20)
    # What never makes an entry.
    yield bench.again("mhs_unstable_rst", bench.frames.rst(VIP), none, conn_tab_bits=20)
    expect_entries(none)


def partly(bench):
    """One of a hundred servers is drained: every hundredth slot of mhs is unstable."""
    network.neighbours(0, 100)
    load_mhs()
    service(TCP, "mhs", 100)
    settle()
    ack = bench.frames.ack(VIP)
    bench.injector.pass_over(ack, FILL)
    drain([0])
    settle()
    bench.injector.pass_over(ack, FILL)
    yield bench.again("mhs_partly_unstable_ack", ack, conn_tab_bits=20)


def merged(bench):
    """Every slot of mhs was unstable and has been merged; half of the flows are pinned to the servers
    that they had before."""
    timeout = 60
    load_mhs()
    network.run("ipvsadm", "--set", *[str(timeout)] * 3)
    service(TCP, "mhs", 8)
    settle()
    ack = bench.frames.ack(VIP)
    bench.injector.pass_over(ack, 2 * FILL)
    service(TCP, None, 8, first=8)
    drain(range(8))
    settle()
    for _ in range(3):
        bench.injector.pass_over(ack, FILL)
        expect_entries(FILL)
        time.sleep(timeout / 2)
    bench.injector.pass_over(ack, FILL)
    yield bench.again("mhs_merged_pinned_ack", ack, conn_tab_bits=20)
    # In the same slots, flows that are not pinned.
    yield bench.again("mhs_merged_ack", ack, FILL, conn_tab_bits=20)
    expect_entries(FILL)


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
    express,
    tunnels,
    unstable,
    partly,
    merged,
    read,
]
QUICK = [forwarding, stateful("mh", 20), stable, express, tunnels, unstable]


def figures(injector, frames, options):
    """The rows of all scenes, or of those with the names in `options.scene`."""
    bench = Bench(injector, frames, options.trace)
    left = set(options.trace)
    for scene in QUICK if options.quick else SCENES:
        if options.scene and scene.__name__ not in options.scene:
            continue
        for row in scene(bench):
            yield {"row": row}
            if row["name"] in left:
                left.remove(row["name"])
                yield symbols.of_modules(row["name"])
                if not left:
                    yield symbols.of_kernel()
                    return
    if left:
        raise SystemExit(f"error: no row {', '.join(left)}")
