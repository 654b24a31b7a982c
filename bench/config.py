# SPDX-License-Identifier: GPL-2.0
"""What a change of the servers costs: what ipvsadm has the kernel do, and the work that is done for
it later."""

import statistics
import time
from pathlib import Path

import network
import rows
import symbols
from network import server

METER = Path("/sys/kernel/debug/mhs_bench/meter")
# What handles the commands of ipvsadm.
COMMAND = "ip_vs_genl_set_cmd"

SIZES = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071]
SERVERS = [100, 1000, 4000]
# The size of in-tree mh's table in Debian's kernel.
MH_SIZE = 4093
# How many servers are deleted and added again.
TIMES = 5


class Meter:
    """Counts while it is entered: `calls` of COMMAND and `works` of a module, each with their
    number, total and maximum of instructions."""

    def __init__(self, module):
        self._module = module

    def __enter__(self):
        METER.write_text(f"{COMMAND} {self._module}\n")
        return self

    def __exit__(self, *_):
        for line in METER.read_text().splitlines():
            what, number, _, total, _, most = line.split()
            setattr(self, what, {"number": int(number), "total": int(total), "max": int(most)})
        METER.write_text("off\n")


def change(command, number):
    words = ["ipvsadm", command, "-t", f"{network.VIP}:80", "-r", f"{server(number)}:80"]
    network.run(*words, *(["-g"] if command == "-a" else []))


def one_by_one(module, command, numbers):
    """Instructions of a change: at once, and of the work that follows within two seconds."""
    at_once, later = [], []
    for number in numbers:
        with Meter(module) as meter:
            change(command, number)
            time.sleep(2)
        at_once.append(meter.calls["total"])
        later.append(meter.works["total"])
    return {"at_once": statistics.median_low(at_once), "later": statistics.median_low(later)}


def figure(scheduler, size, servers):
    """Restores a service, then deletes and adds some of its servers."""
    module = f"ip_vs_{scheduler}"
    began = time.monotonic()
    with Meter(module) as meter:
        with network.urgent():
            rows.service(rows.TCP, scheduler, servers)
        restored = time.monotonic() - began
        time.sleep(5)
    numbers = [servers * (2 * n + 1) // (2 * TIMES) for n in range(TIMES)]
    return {
        "scheduler": scheduler,
        "table_size": size,
        "servers": servers,
        "restore": {
            "at_once": meter.calls["total"],
            "later": meter.works["total"],
            "works": meter.works["number"],
            # Of the guest, where a nanosecond is an instruction.
            "seconds": round(restored, 2),
        },
        "delete": one_by_one(module, "-d", numbers),
        "add": one_by_one(module, "-a", numbers),
    }


def traced(injector, name):
    """A change of a service such as mhs_delete_4093_1000, for a tracer: by name of the scheduler,
    change, slots and servers."""
    scheduler, what, size, servers = name.split("_")
    size, servers = int(size), int(servers)
    network.load_ipvs(conn_tab_bits=20)
    if scheduler == "mhs":
        rows.load_mhs(table_size=size)
    rows.service(rows.TCP, scheduler, servers)
    time.sleep(5)
    if what == "add":
        change("-d", servers // 2)
        time.sleep(5)
    with Meter(f"ip_vs_{scheduler}") as meter, injector.traced(True):
        change("-a" if what == "add" else "-d", servers // 2)
        METER.write_text("off\n")
    yield {"row": {"name": name, "insns": meter.calls["total"], "batch": 1}}
    yield symbols.of_modules(name)
    yield symbols.of_kernel()


def figures(injector, _frames, options):
    network.neighbours(0, max(SERVERS))
    for name in options.trace:
        yield from traced(injector, name)
    if options.trace:
        return
    for servers in SERVERS:
        network.load_ipvs(conn_tab_bits=20)
        yield {"config": figure("mh", MH_SIZE, servers)}
        for size in SIZES:
            if servers < size:
                rows.load_mhs(table_size=size)
                yield {"config": figure("mhs", size, servers)}
