# SPDX-License-Identifier: GPL-2.0
"""How much memory services, servers, slots and entries take."""

import time
from pathlib import Path

import network
import rows
from network import VIP, ipvsadm, server

# Servers of a service, and how many services a figure is the mean of; of IPVS's own with one server more,
# since memory that is had by pages is known to a page.
SERVICES = {1: 256, 100: 64}
OWN = {1: 4096, 100: 64}
FLOWS = 100_000


def meminfo():
    """What the kernel says of its memory, in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}


def slabs():
    """Bytes of objects, and of the slabs that they are in. Of caches that shrink when memory is short
    only the others count: theirs is what was read of disks."""
    objects = pages = 0
    for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
        name, active, _, size, _, per_slab, *rest = line.split()
        if Path("/sys/kernel/slab", name, "reclaim_account").read_text().strip() == "0":
            objects += int(active) * int(size)
            pages += int(rest[rest.index("slabdata") + 2]) * int(per_slab) * 4096
    return objects, pages


def used():
    """Bytes that the kernel has allocated: objects, large pieces, vmalloc, per CPU. Not what is free in
    the pages that objects are in: it depends on what was allocated and freed before."""
    settle()
    objects, pages = slabs()
    info = meminfo()
    large = info["SUnreclaim"] - pages
    return objects + large + info["VmallocUsed"] + info["Percpu"]


def settle():
    """Waits until what was freed is free."""
    time.sleep(5)
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    time.sleep(5)
    for file in Path("/sys/kernel/slab").glob("*/shrink"):
        file.write_text("1\n")
    time.sleep(1)


def restore(scheduler, servers, services, first):
    """Makes services with so many servers each, from the port `first` on."""
    lines = []
    for port in range(first, first + services):
        lines.append(f"-A -t {VIP}:{port} -s {scheduler}")
        lines += (f"-a -t {VIP}:{port} -r {server(number)}:{port} -g" for number in range(servers))
    ipvsadm(*lines)


def per_service(scheduler, servers, services):
    """Bytes of a service with so many servers, all that IPVS keeps of them with it."""
    # The first ones take what was allocated before and is not in use.
    restore(scheduler, servers, services, 10000)
    before = used()
    restore(scheduler, servers, services, 20000)
    return (used() - before) / services


def load(scheduler, size):
    network.load_ipvs(conn_tab_bits=12)
    if scheduler == "mhs":
        rows.load_mhs(table_size=size)
    else:
        network.run("modprobe", f"ip_vs_{scheduler}")


def services():
    # A scheduler that keeps nothing: what is IPVS's own.
    own = {}
    for servers in OWN:
        load("rr", None)
        own[servers] = per_service("rr", servers, OWN[servers])
        yield {"memory": {"what": "service", "scheduler": "rr", "servers": servers,
                          "bytes": round(own[servers])}}
    for scheduler, size in [("mh", 4093)] + [("mhs", size) for size in (4093, 16381, 131071)]:
        for servers in own:
            load(scheduler, size)
            total = per_service(scheduler, servers, SERVICES[servers])
            yield {"memory": {"what": "service", "scheduler": scheduler, "table_size": size,
                              "servers": servers, "bytes": round(total),
                              "of_scheduler": round(total - own[servers])}}


def flows(injector, frames):
    """What flows leave behind: FLOWS of them to 100 servers, one of which is then deleted, or drained
    with weight 0."""
    for scheduler, size in ("mh", 4093), ("mhs", 4093), ("mhs", 16381), ("mhs", 65521):
        figure = {"what": "flows", "scheduler": scheduler, "table_size": size, "flows": FLOWS,
                  "servers": 100}
        for change in "deleted", "drained":
            load(scheduler, size)
            rows.service(rows.TCP, scheduler, 100)
            rows.settle()
            # The first flows take what was allocated before and is not in use.
            injector.pass_over(frames.syn(VIP), FLOWS, FLOWS)
            before = used()
            injector.pass_over(frames.syn(VIP), FLOWS)
            injector.pass_over(frames.ack(VIP), FLOWS)
            figure["bytes_per_flow"] = max(0, round((used() - before) / FLOWS, 1))
            # There are twice as many flows, of which only one half goes on.
            figure["entries"] = network.entries() // 2
            if change == "deleted":
                network.run("ipvsadm", "-d", *rows.TCP.split(), "-r", f"{server(50)}:80")
            else:
                rows.drain([50])
            rows.settle()
            injector.pass_over(frames.ack(VIP), FLOWS)
            figure[f"entries_one_{change}"] = min(FLOWS, network.entries())
        yield {"memory": figure}


def figures(injector, frames, _options):
    network.neighbours(0, 100)
    yield from flows(injector, frames)
    yield from services()
