# SPDX-License-Identifier: GPL-2.0
"""What it costs to merge the new table into the old one, when every slot has moved."""

import time

import network
import rows
from config import Meter
from network import VIP

SIZES = [4093, 16381, 65521, 131071]
TIMEOUT = 60


def figures(injector, frames, _options):
    for size in SIZES:
        rows.load_mhs(table_size=size)
        network.run("ipvsadm", "--set", *[str(TIMEOUT)] * 3)
        rows.service(rows.TCP, "mhs", 8)
        rows.settle()
        # Enough flows for 98 of 100 slots to have one.
        injector.pass_over(frames.syn(VIP), 4 * size)
        with Meter("ip_vs_mhs") as change:
            rows.service(rows.TCP, None, 8, first=8)
            rows.drain(range(8))
            time.sleep(5)
        with Meter("ip_vs_mhs") as merge:
            time.sleep(TIMEOUT + 5)
        yield {"merge": {"table_size": size,
                         "change": change.calls["total"], "settle": change.works["total"],
                         "merge": merge.works["total"], "works": merge.works["number"]}}
