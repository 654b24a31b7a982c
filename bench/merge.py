# SPDX-License-Identifier: GPL-2.0
"""What it costs to merge the new table into the old one, when every slot has moved."""

import time

import network
import rows
from config import Meter
from network import VIP

SIZES = [4093, 16381, 65521, 131071]
# Long, so that all changes fall into the same 64th of it, and are merged together.
TIMEOUT = 300


def figures(injector, frames, _options):
    for size in SIZES:
        rows.load_mhs(table_size=size)
        network.run("ipvsadm", "--set", *[str(TIMEOUT)] * 3)
        rows.service(rows.TCP, "mhs", 8)
        rows.settle()
        # Enough flows for 98 of 100 slots to have one.
        injector.pass_over(frames.syn(VIP), 4 * size)
        with Meter("ip_vs_mhs") as change:
            with network.urgent():
                rows.service(rows.TCP, None, 8, first=8)
                rows.drain(range(8))
            time.sleep(5)
        with Meter("ip_vs_mhs") as merge:
            # Slots are merged at most a 64th later.
            time.sleep(TIMEOUT * 17 // 16 + 5)
        yield {"merge": {"table_size": size,
                         "change": change.calls["total"], "settle": change.works["total"],
                         "merge": merge.works["max"], "waiting": merge.works["total"] - merge.works["max"],
                         "works": merge.works["number"]}}
