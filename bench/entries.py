# SPDX-License-Identifier: GPL-2.0
"""What a packet costs with few and with many connection entries, all of them of another service."""

import network
import rows
from network import VIP

ENTRIES = [0, 1000, 10_000, 100_000, 1_000_000]
# With the smaller table of entries, every packet would look at hundreds.
ENTRIES_SMALL = [0, 1000, 10_000, 100_000]
OTHER = f"-t {VIP}:81"


def figures(injector, frames, _options):
    bench = rows.Bench(injector, frames)
    for bits, numbers in (20, ENTRIES), (12, ENTRIES_SMALL):
        for entries in numbers:
            network.load_ipvs(conn_tab_bits=bits)
            network.run("modprobe", "ip_vs_mhs", "table_size=4093")
            rows.service(rows.TCP, "mhs", 8)
            rows.service(OTHER, "mh", 8)
            if entries:
                injector.pass_over(frames.syn(VIP, 81), entries)
            rows.settle()
            rows.expect_entries(entries)

            def figure(row):
                return {"entries": {"others": entries, "conn_tab_bits": bits, **row}}

            yield figure(bench.again("mhs_stable_syn", frames.syn(VIP)))
            yield figure(bench.again("mhs_stable_ack", frames.ack(VIP)))
            rows.expect_entries(entries)
            if entries > 2 * rows.LIVE:
                yield figure(bench.again("mh_existing", frames.ack(VIP, 81)))
                yield figure(bench.once("mh_new", frames.syn(VIP, 81), entries))
