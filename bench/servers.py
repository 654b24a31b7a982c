# SPDX-License-Identifier: GPL-2.0
"""What a packet costs with few and with many servers."""

import network
import rows
from network import VIP

SERVERS = [8, 32, 100, 320, 1000, 4000]


def figures(injector, frames, _options):
    bench = rows.Bench(injector, frames)
    network.neighbours(0, max(SERVERS))
    syn, ack = frames.syn(VIP), frames.ack(VIP)
    for servers in SERVERS:
        rows.load_mhs(table_size=16381)
        rows.service(rows.TCP, "mhs", servers)
        rows.settle()
        for row in (bench.again("mhs_stable_syn", syn), bench.again("mhs_stable_ack", ack)):
            yield {"servers": {"servers": servers, **row}}
        network.load_ipvs(conn_tab_bits=20)
        rows.service(rows.TCP, "mh", servers)
        bench.fill(syn)
        yield {"servers": {"servers": servers,
                           **bench.once("mh_new", syn, rows.FILL, conn_tab_bits=20)}}
        injector.pass_over(ack, rows.LIVE)
        yield {"servers": {"servers": servers,
                           **bench.again("mh_existing", ack, conn_tab_bits=20)}}
