# SPDX-License-Identifier: GPL-2.0
"""The guest as a balancer: two dummy devices, IPVS on what lies between.

    in0: the packets of clients, 172.16.0.0/12 and fd01::/64, seem to come from here
    lo:  the virtual addresses 10.9.0.100 and fd09::100
    out0: the servers 10.0.0.2, .3 ... and fd00::2, ::3 ..., all of them known neighbours
"""

import contextlib
import os
import subprocess
from pathlib import Path

from packets import CLIENTS, CLIENTS6, ROUTER

VIP = "10.9.0.100"
VIP6 = "fd09::100"


def run(*words, stdin=None):
    """Runs a command; what it says is for whom it failed."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def sysctl(name, value):
    Path("/proc/sys", *name.split(".")).write_text(f"{value}\n")


def server(number, v6=False):
    """The address of a server, counted from 0."""
    high, low = divmod(number, 250)
    return f"fd00::{high:x}:{low + 2:x}" if v6 else f"10.0.{high}.{low + 2}"


# What is run while something is measured.
PROGRAMS = ["usr/sbin/ipvsadm", "usr/bin/ip", "usr/bin/kmod", "usr/lib/x86_64-linux-gnu/*.so*"]


def read_programs():
    """Has programs in memory. Waiting for the disk, the guest's clock runs ahead, and what waits for
    a timeout would see it too soon."""
    for pattern in PROGRAMS:
        for path in Path("/").glob(pattern):
            if path.is_file():
                path.read_bytes()


def setup(servers=16):
    """Makes the network; returns the hardware address of in0."""
    read_programs()
    for module in ("dummy", "mhs_bench"):
        run("modprobe", module)
    for path in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
        path.write_text("0\n")
    for name in ("default", "all"):
        sysctl(f"net.ipv6.conf.{name}.accept_dad", 0)
    sysctl("net.ipv4.ip_forward", 1)
    sysctl("net.ipv6.conf.all.forwarding", 1)
    run("ip", "-batch", "-", stdin=f"""
        link add in0 type dummy
        link add out0 type dummy
        link set in0 arp on up
        link set out0 arp on up
        addr add 10.0.0.1/16 dev out0
        addr add fd00::1/64 dev out0 nodad
        addr add {VIP}/32 dev lo
        addr add {VIP6}/128 dev lo nodad
        route add {CLIENTS} dev in0
        route add {ROUTER}/32 dev in0
        route add {CLIENTS6} dev in0
    """)
    # The kernel's table of neighbours grows and never shrinks. In a large one it does not depend on
    # chance how many stand in front of the one that a packet is for.
    neighbours(1000, 2000)
    neighbours(1000, 2000, "del")
    neighbours(0, servers)
    return bytes.fromhex(Path("/sys/class/net/in0/address").read_text().strip().replace(":", ""))


def neighbours(first, end, what="replace"):
    """Says where servers are."""
    lines = []
    for number in range(first, end):
        mac = f"lladdr 02:00:00:01:{number >> 8:02x}:{number & 255:02x} nud permanent"
        for v6 in (False, True):
            where = mac if what == "replace" else ""
            lines.append(f"neigh {what} {server(number, v6)} {where} dev out0")
    run("ip", "-batch", "-", stdin="\n".join(lines))


def load_ipvs(**options):
    """Loads IPVS anew, with no service and no entry."""
    unload_ipvs()
    run("modprobe", "ip_vs", *(f"{name}={value}" for name, value in options.items()))
    # A thread that adds up statistics now and then measures nothing here.
    sysctl("net.ipv4.vs.run_estimation", 0)
    run("ipvsadm", "--set", "900", "120", "300")


@contextlib.contextmanager
def urgent():
    """What is run meanwhile goes before all work that the kernel does later. How often such work is done
    while changes still come is a matter of chance: of where a tick of the clock falls."""
    # Else others get a share after all.
    sysctl("kernel.sched_rt_runtime_us", -1)
    for share in Path("/sys/kernel/debug/sched/fair_server").glob("cpu*/runtime"):
        share.write_text("0\n")
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def unload_ipvs():
    if Path("/sys/module/ip_vs").exists():
        run("ipvsadm", "-C")
        run("modprobe", "-r", "-a", *(
            name
            for name in ("ip_vs_mhs", "ip_vs_mh", "ip_vs_sh", "ip_vs_rr")
            if Path("/sys/module", name).exists()
        ), "ip_vs")


def ipvsadm(*lines):
    """Restores services and servers from lines such as ipvsadm -S prints."""
    run("ipvsadm", "-R", stdin="\n".join(lines) + "\n")


def entries():
    """How many connection entries IPVS has."""
    for line in Path("/proc/net/ip_vs_status").read_text().splitlines():
        if line.startswith("Conns:"):
            return int(line.split()[1])
    raise SystemExit("error: /proc/net/ip_vs_status does not say how many entries there are")


def entries_if_loaded():
    """The same, or 0 without IPVS."""
    return entries() if Path("/sys/module/ip_vs").exists() else 0


def sent():
    """How many packets have left for servers."""
    return int(Path("/sys/class/net/out0/statistics/tx_packets").read_text())
