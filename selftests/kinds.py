#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A packet of each kind from each of COUNT clients: kinds.py COUNT PORT KIND...

The clients are the first of load.py. The first kind comes from PORT and with DSCP 1, the next from
PORT + 1 and with DSCP 2, and so on, to be told from what else the clients send. Kinds named
follow_* belong to the flow of the first kind.
"""

import sys

import layers  # noqa: F401
from scapy.all import (
    ICMP,
    IP,
    SCTP,
    TCP,
    UDP,
    Ether,
    SCTPChunkAbort,
    SCTPChunkHeartbeatReq,
    SCTPChunkInit,
    conf,
    getmacbyip,
    sendp,
)

count, first, kinds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
conf.verb = 0
conf.iface = "eth0"
VIP = "10.0.0.100"
mac = getmacbyip(VIP)


def transport(kind, client, port):
    if kind.startswith("follow_"):
        kind, port = kind.removeprefix("follow_"), first
    if kind in ("syn", "ack", "rst"):
        flags = {"syn": "S", "ack": "A", "rst": "R"}[kind]
        return TCP(sport=port, dport=80, flags=flags, seq=1, ack=1 if kind == "ack" else 0)
    if kind in ("init", "heartbeat", "abort"):
        head = SCTP(sport=port, dport=99, tag=0 if kind == "init" else 1)
        if kind == "init":
            return head / SCTPChunkInit(init_tag=1, a_rwnd=65536, n_in_streams=1, n_out_streams=1)
        return head / (SCTPChunkHeartbeatReq() if kind == "heartbeat" else SCTPChunkAbort())
    if kind == "datagram":
        return UDP(sport=port, dport=53) / b"1"
    if kind == "error":
        # About a segment that the server sent.
        quoted = IP(src=VIP, dst=client) / TCP(sport=80, dport=port, flags="A")
        return ICMP(type=3, code=4, nexthopmtu=1400) / quoted
    sys.exit(f"unknown kind {kind}")


clients = [f"10.1.{(i + 1) // 256}.{(i + 1) % 256}" for i in range(count)]
sendp(
    [
        Ether(dst=mac) / IP(src=client, dst=VIP, tos=i + 1 << 2) / transport(kind, client, first + i)
        for i, kind in enumerate(kinds)
        for client in clients
    ]
)
