# SPDX-License-Identifier: GPL-2.0
"""What a packet costs with few and with many services."""

import network
import rows
from network import VIP, server

SERVICES = [1, 10, 100, 1000, 10000]


def others(number, scheduler):
    """Makes services that no packet is for."""
    lines = []
    for port in range(10000, 10000 + number):
        lines.append(f"-A -t {VIP}:{port} -s {scheduler}")
        lines.append(f"-a -t {VIP}:{port} -r {server(0)}:{port} -g")
    if lines:
        network.ipvsadm(*lines)


def figures(injector, frames, _options):
    bench = rows.Bench(injector, frames)
    syn, ack = frames.syn(VIP), frames.ack(VIP)
    for services in SERVICES:
        # The least table, since there are so many.
        rows.load_mhs(table_size=251)
        rows.service(rows.TCP, "mhs", 8)
        others(services - 1, "mhs")
        rows.settle()
        for row in (bench.again("mhs_stable_syn", syn), bench.again("mhs_stable_ack", ack)):
            yield {"services": {"services": services, **row}}
        network.load_ipvs(conn_tab_bits=20)
        rows.service(rows.TCP, "mh", 8)
        others(services - 1, "rr")
        bench.fill(syn)
        yield {"services": {"services": services,
                            **bench.once("mh_new", syn, rows.FILL, conn_tab_bits=20)}}
        injector.pass_over(ack, rows.LIVE)
        yield {"services": {"services": services,
                            **bench.again("mh_existing", ack, conn_tab_bits=20)}}
