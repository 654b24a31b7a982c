#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Sends packets out of the ordinary to the virtual service: craft.py WHAT COUNT."""

import random
import socket
import sys

import layers  # noqa: F401
from scapy.all import (
    ICMP,
    IP,
    TCP,
    UDP,
    Ether,
    ICMPv6PacketTooBig,
    IPOption_NOP,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
    Raw,
    conf,
    fragment,
    getmacbyip,
    getmacbyip6,
    sendp,
)

what, count = sys.argv[1], int(sys.argv[2])
conf.verb = 0
conf.iface = "eth0"
VIP, VIP6 = "10.0.0.100", "fd00::100"
rng = random.Random(1)
mac = getmacbyip(VIP)


def ip4(i, **more):
    return IP(src=f"10.1.{5 + i // 250}.{i % 250 + 1}", dst=VIP, **more)


def ip6(i):
    return IPv6(src=f"fd01::5:{i + 1:x}", dst=VIP6)


def ack(i, **more):
    return TCP(sport=3000 + i, dport=80, flags="A", seq=1, ack=1, **more)


def syn(i):
    return TCP(sport=3000 + i, dport=80, flags="S")


def nonsense(i):
    """Something that looks like a packet for the service, and then does not."""
    base = rng.choice(
        [
            ip4(i) / ack(i),
            ip4(i) / UDP(sport=1, dport=53) / b"x",
            ip4(i, proto=132) / Raw(rng.randbytes(20)),
            ip4(i) / ICMP(type=3, code=4) / IP(src=VIP, dst="10.1.0.9") / ack(i),
            ip6(i) / ack(i),
            ip6(i) / ICMPv6PacketTooBig() / IPv6(src=VIP6, dst="fd01::9") / ack(i),
            ip6(i) / IPv6ExtHdrFragment(m=1) / ack(i),
            ip6(i) / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"123")]) / ack(i),
            ip4(i, flags="MF", frag=rng.choice([0, 1, 100])) / ack(i),
        ]
    )
    # Flags off, so that what is whole makes no entry for being a SYN.
    data = bytearray(bytes(base))
    for _ in range(rng.randrange(4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    version = 6 if base.version == 6 else 4
    return Ether(dst=mac, type=0x86DD if version == 6 else 0x800) / Raw(bytes(data))


frames = []
for i in range(count):
    ether = Ether(dst=mac)
    if what == "options":
        frames.append(ether / ip4(i, options=[IPOption_NOP()] * (4 * (i % 10))) / ack(i))
    elif what == "extensions":
        pad = [PadN(optdata=bytes(4))]
        frames.append(
            ether
            / ip6(i)
            / IPv6ExtHdrHopByHop(options=pad)
            / IPv6ExtHdrDestOpt(options=pad)
            / ack(i)
        )
    elif what == "many-extensions":
        packet = ether / ip6(i)
        for _ in range(12):
            packet /= IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
        frames.append(packet / syn(i))
    elif what == "torn":
        # The first fragment of a packet, and not of a length that it may have: reassembly lets it pass.
        frames.append(ether / ip6(i) / IPv6ExtHdrFragment(m=1, id=i) / syn(i))
    elif what == "fragments":
        frames += [ether / part for part in fragment(ip4(i, id=i + 1) / ack(i) / bytes(900), 300)]
    elif what == "tcp-options":
        frames.append(ether / ip4(i) / ack(i, options=[("NOP", None)] * 40))
    elif what == "martians":
        frames.append(ether / IP(src=f"127.0.0.{i + 1}", dst=VIP) / TCP(sport=3000, dport=80))
    elif what == "nonsense":
        frames.append(nonsense(i))
sendp(frames)
