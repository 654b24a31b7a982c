#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Errors about what servers sent to clients: icmp.py TYPE CODE COUNT.

Each quotes a segment from the virtual service to another client.
"""

import sys

import layers  # noqa: F401
from scapy.all import ICMP, IP, TCP, conf, send

kind, code, count = (int(arg) for arg in sys.argv[1:])
conf.verb = 0
VIP = "10.0.0.100"
send(
    [
        IP(src="10.0.0.2", dst=VIP)
        / ICMP(type=kind, code=code, nexthopmtu=1400 if (kind, code) == (3, 4) else None)
        / IP(src=VIP, dst=f"10.1.3.{i + 1}", flags="DF")
        / TCP(sport=80, dport=5000 + i, flags="A")
        for i in range(count)
    ]
)
