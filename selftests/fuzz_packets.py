#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Packets for the virtual services that are wrong in any way.

  fuzz_packets.py services [--no-marks]     the services, for ipvsadm -R
  fuzz_packets.py send COUNT [--seed S] [--first N] [--no-marks]

Each packet begins as one that a service would forward, or as an error about one; then bits flip,
lengths change, pieces are cut out, put in or exchanged, and some checksums are made right again.
Packet N of a seed is the same in every run (N is rounded down, COUNT up, to whole batches), and the
kernel's log says which batches were under way, so what it complains about can be sent again.
"""

import argparse
import ipaddress
import json
import random
import struct

from ring import Ring
import layers  # noqa: F401
from scapy.all import (
    AH,
    GRE,
    ICMP,
    IP,
    SCTP,
    TCP,
    UDP,
    Dot1Q,
    Ether,
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPOption_LSRR,
    IPOption_NOP,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    Raw,
    SCTPChunkAbort,
    SCTPChunkData,
    SCTPChunkInit,
    conf,
    fragment,
    getmacbyip,
)

BATCH = 256
# A virtual address each for what is plain, by mark, in tunnels, and what has entries.
PLAIN, MARKED, TUNNELS, STATEFUL = ("10.0.0.100", "10.0.0.101", "10.0.0.102", "10.0.0.103")
SIX = {PLAIN: "fd00::100", MARKED: "fd00::101", TUNNELS: "fd00::102"}

# What stands for the client until a packet is sent; nobody else has these bytes.
CLIENT, CLIENT6, CPORT = "198.19.77.88", "fd02::4d58:9abc", 0xBEEF
CLIENTS = [ipaddress.ip_address(address).packed for address in (CLIENT, CLIENT6)]

FLAGS = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}

# Protocol, virtual address, port, servers, options of the service, options of a server.
SERVICES = [
    ("tcp", PLAIN, 80, 4, "", "-g"),
    ("udp", PLAIN, 53, 4, "", "-g"),
    ("sctp", PLAIN, 99, 4, "", "-g"),
    ("tcp", PLAIN, 443, 6, "-b flag-2", "-g"),
    ("udp", PLAIN, 443, 4, "-o", "-g"),
    ("tcp", PLAIN, 444, 4, "-b flag-1,flag-2", "-g -x 50 -y 20"),
    ("tcp", SIX[PLAIN], 80, 4, "", "-g"),
    ("udp", SIX[PLAIN], 53, 4, "", "-g"),
    ("sctp", SIX[PLAIN], 99, 4, "", "-g"),
    ("tcp", TUNNELS, 81, 4, "", "-i"),
    ("tcp", TUNNELS, 82, 4, "", "-i --tun-type gue --tun-port 5555 --tun-nocsum"),
    ("udp", TUNNELS, 82, 4, "", "-i --tun-type gue --tun-port 5555 --tun-remcsum"),
    ("tcp", TUNNELS, 83, 4, "", "-i --tun-type gre --tun-csum"),
    ("tcp", TUNNELS, 84, -4, "", "-i"),
    ("tcp", SIX[TUNNELS], 81, 4, "", "-i"),
    ("udp", SIX[TUNNELS], 82, -4, "", "-i"),
]
ENTRIES = [
    ("tcp", STATEFUL, 80, 4, "", "-m"),
    ("udp", STATEFUL, 53, 4, "", "-m"),
    ("tcp", STATEFUL, 81, 4, "-b flag-3", "-g"),
    ("sctp", STATEFUL, 81, 4, "-b flag-3", "-i"),
    ("tcp", STATEFUL, 82, 4, "-p 60", "-g"),
    ("tcp", STATEFUL, 21, 4, "", "-g"),
]


def services(marks):
    """Lines for ipvsadm -R."""
    for proto, vip, port, servers, options, way in SERVICES + ENTRIES:
        six = ":" in vip
        name = f"{FLAGS[proto]} {f'[{vip}]' if six else vip}:{port}"
        yield f"-A {name} -s mhs {options}"
        # A negative number: servers of the other family.
        for n in range(1, abs(servers) + 1):
            server = f"[fd00::1{n}]" if six == (servers > 0) else f"10.0.0.1{n}"
            yield f"-a {name} -r {server}:{port} {way} -w {n}"
    for name in ["-f 1", "-f 2 -6"] if marks else []:
        yield f"-A {name} -s mhs"
        for n in range(1, 5):
            yield f"-a {name} -r {'[fd00::1%d]' % n if '6' in name else '10.0.0.1%d' % n}:0 -g"


def transports(proto, port):
    """The packets that a client sends, without their IP header."""
    ports = {"sport": CPORT, "dport": port}
    if proto == "tcp":
        for flags in ("S", "A", "R", "FA", "SA"):
            yield TCP(flags=flags, seq=1, ack=1, **ports)
        yield TCP(flags="PA", options=[("MSS", 1400), ("SAckOK", b""), ("WScale", 7)], **ports) / bytes(90)
    elif proto == "udp":
        yield UDP(**ports) / b"datagram"
        yield UDP(**ports)
    else:
        head = {"tag": 1, **ports}
        yield SCTP(sport=CPORT, dport=port, tag=0) / SCTPChunkInit(init_tag=1, a_rwnd=65536)
        yield SCTP(**head) / SCTPChunkData(data=b"data", tsn=1)
        yield SCTP(**head) / SCTPChunkAbort()


def answer(proto, port):
    """The first bytes of what a server sends."""
    kind = {"tcp": TCP, "udp": UDP, "sctp": SCTP}[proto]
    return kind(sport=port, dport=CPORT)


def errors(vip, proto, port):
    """ICMP errors about what a server sent, and about what was put into a tunnel."""
    if ":" in vip:
        quoted = IPv6(src=vip, dst=CLIENT6) / answer(proto, port) / bytes(20)
        for kind in (ICMPv6PacketTooBig(mtu=1280), ICMPv6DestUnreach(code=3), ICMPv6TimeExceeded()):
            yield IPv6(src=CLIENT6, dst=vip) / kind / quoted
        options = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"1234")])
        quoted = IPv6(src=vip, dst=CLIENT6) / options / answer(proto, port)
        yield IPv6(src=CLIENT6, dst=vip) / ICMPv6PacketTooBig(mtu=1280) / quoted
        return
    quoted = IP(src=vip, dst=CLIENT) / answer(proto, port) / bytes(8)
    for kind, code in ((3, 4), (3, 1), (11, 0), (4, 0), (5, 1)):
        yield IP(src=CLIENT, dst=vip) / ICMP(type=kind, code=code, nexthopmtu=1400) / quoted
    sent = IP(src=CLIENT, dst=vip) / next(iter(transports(proto, port)))
    for head in (
        IP(proto=4),
        IP() / GRE(),
        IP() / GRE(chksum_present=1),
        IP() / UDP(sport=5555, dport=5555, chksum=0) / Raw(b"\0\4\0\0"),
        IP() / UDP(sport=5555, dport=5555, chksum=0) / Raw(b"\2\4\x10\0" + bytes(8)),
    ):
        head.src, head.dst = "10.0.0.1", "10.0.0.11"
        yield IP(src=CLIENT, dst="10.0.0.1") / ICMP(type=3, code=4, nexthopmtu=1300) / head / sent


def packets(vip, proto, port):
    """Groups of packets that belong together, each from its IP header on."""
    six = ":" in vip
    head = (lambda: IPv6(src=CLIENT6, dst=vip)) if six else (lambda: IP(src=CLIENT, dst=vip))
    for part in transports(proto, port):
        yield [head() / part]
    for packet in errors(vip, proto, port):
        yield [packet]
    part = next(iter(transports(proto, port)))
    big = answer(proto, port).__class__(sport=CPORT, dport=port) / bytes(1200)
    if six:
        pad = [PadN(optdata=bytes(4))]
        yield [head() / ICMPv6EchoRequest(data=b"echo")]
        yield [head() / IPv6ExtHdrHopByHop(options=pad) / IPv6ExtHdrDestOpt(options=pad) / part]
        yield [head() / IPv6ExtHdrRouting(addresses=[vip]) / part]
        yield [head() / IPv6ExtHdrFragment(id=1) / part]
        yield [head() / AH(spi=1, icv=bytes(12)) / part]
        raw = bytes(head() / big)[40:]
        number = {"tcp": 6, "udp": 17, "sctp": 132}[proto]
        yield [
            head() / IPv6ExtHdrFragment(id=2, nh=number, offset=at // 8, m=at < 800) / Raw(raw[at : at + 400])
            for at in range(0, len(raw), 400)
        ]
        yield [IPv6(src=CLIENT6, dst=SIX[PLAIN]) / head() / part]
    else:
        yield [head() / ICMP() / b"echo"]
        yield [IP(src=CLIENT, dst=vip, options=[IPOption_NOP()] * 8) / part]
        yield [IP(src=CLIENT, dst=vip, options=[IPOption_LSRR(routers=[vip])]) / part]
        yield list(fragment(IP(src=CLIENT, dst=vip, id=1) / big, 400))
        yield [IP(src=CLIENT, dst=PLAIN) / head() / part]
        yield [IP(src=CLIENT, dst=PLAIN) / GRE() / head() / part]
        yield [IP(src=CLIENT, dst=PLAIN) / UDP(sport=CPORT, dport=5555) / Raw(b"\0\4\0\0") / head() / part]


def virtio(flags=0, kind=0, head=0, size=0, start=0, offset=0):
    """struct virtio_net_hdr: what the device that sends is asked to do."""
    return struct.pack("<BBHHHH", flags, kind, head, size, start, offset)


class Seed:
    """A packet, in front of it VNET bytes for the device, and where things are in it."""

    VNET = 10

    def __init__(self, ether, packet, vlan=False, super_packet=None):
        tag = Dot1Q(vlan=0) if vlan else None
        frame = bytes(ether / tag / packet if tag else ether / packet)
        self.l3 = self.VNET + (18 if vlan else 14)
        self.super_packet = super_packet is not None
        self.data = (super_packet or bytes(self.VNET)) + frame
        self.clients = [
            (at, len(client)) for client in CLIENTS for at in self.places(client)
        ]
        self.ports = self.places(struct.pack("!H", CPORT))

    def places(self, needle):
        at = -1
        found = []
        while (at := self.data.find(needle, at + 1)) >= 0:
            found.append(at)
        return found


def seeds(mac, marks):
    """All groups of seeds."""
    targets = [service[:3] for service in SERVICES + ENTRIES]
    targets += [("tcp", PLAIN, 8080), ("udp", PLAIN, 9), ("tcp", SIX[PLAIN], 9)]
    if marks:
        targets += [(proto, vip, 7) for proto in FLAGS for vip in (MARKED, SIX[MARKED])]
    four, six = Ether(dst=mac, type=0x800), Ether(dst=mac, type=0x86DD)
    groups = []
    for proto, vip, port in targets:
        ether = six if ":" in vip else four
        groups += [[Seed(ether, p) for p in group] for group in packets(vip, proto, port)]
        part = next(iter(transports(proto, port)))
        head = IPv6(src=CLIENT6, dst=vip) if ":" in vip else IP(src=CLIENT, dst=vip)
        groups.append([Seed(ether, head / part, vlan=True)])
        # Super-packets, to be cut by the network: GSO of TCP, IPv4 (1) and IPv6 (4), and UDP (3, 5).
        if proto != "sctp":
            start = 54 if ":" in vip else 34
            kinds = [5, 3] if proto == "udp" else [4 if ":" in vip else 1]
            for kind in kinds:
                own = 20 if proto == "tcp" else 8
                vnet = virtio(1, kind, start + own, 700, start, 16 if proto == "tcp" else 6)
                big = part.__class__(sport=CPORT, dport=port) / bytes(2800)
                groups.append([Seed(ether, head / big, super_packet=vnet)])
    return groups


BYTES = [0, 1, 4, 5, 6, 15, 16, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 64, 127, 128, 132, 135, 254, 255]
WORDS = [0, 1, 8, 19, 20, 21, 28, 39, 40, 41, 63, 64, 1280, 1500, 0x1FFF, 0x2000, 0x3FFF, 0x4000, 0x7FFF, 0xFFFF]


def total(data):
    """The Internet checksum (RFC 1071)."""
    data = bytes(data) + b"\0" * (len(data) & 1)
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    value = (value & 0xFFFF) + (value >> 16)
    return ~((value & 0xFFFF) + (value >> 16)) & 0xFFFF


class Fuzzer:
    """Mutates seeds; what comes out depends on `rng` alone."""

    def __init__(self, groups):
        self.groups = groups
        self.seeds = [seed for group in groups for seed in group]

    def batch(self, rng, count):
        """Exactly `count` packets."""
        made = []
        while len(made) < count:
            group = rng.choice(self.groups)
            client = rng.randbytes(16)
            port = rng.randbytes(2)
            # Fragments of one packet are of one client, and mostly left alone.
            calm = len(group) > 1 and rng.random() < 0.7
            for seed in group:
                made.append(self.packet(rng, seed, client, port, calm))
        return made[:count]

    def packet(self, rng, seed, client, port, calm):
        data = bytearray(seed.data)
        for at, size in seed.clients:
            # Half of an address: it stays one that can be a client's.
            data[at + size // 2 : at + size] = client[: size // 2]
        for at in seed.ports:
            data[at : at + 2] = port
        l3 = seed.l3
        was = len(data)
        if not calm:
            for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 2, 5))):
                self.mutate(rng, data, l3 if rng.random() < 0.97 else Seed.VNET + 12)
        self.amend(rng, data, l3, was)
        self.device(rng, seed, data)
        return data

    def mutate(self, rng, data, start):
        """One change, more likely near the front."""
        size = len(data) - start
        if size < 2:
            return
        at = start + int(rng.random() ** 2 * (size - 1))
        match rng.randrange(11):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2 | 3:
                data[at] = rng.choice(BYTES)
            case 4:
                struct.pack_into("!H", data, at, rng.choice(WORDS))
            case 5:
                del data[at:]
            case 6:
                data += rng.randbytes(rng.randrange(1, 64))
            case 7:
                # The rest of another packet, at the same place or anywhere.
                other = rng.choice(self.seeds).data
                begin = at if rng.random() < 0.5 else rng.randrange(len(other))
                data[at:] = other[begin : begin + 1500]
            case 8:
                del data[at : at + rng.randrange(1, 24)]
            case 9:
                data[at:at] = rng.randbytes(rng.randrange(1, 24))
            case 10:
                # A field of the IP header that is a length or says what follows.
                six = data[start] >> 4 == 6
                offset, size = rng.choice([(4, 2), (6, 1)] if six else [(0, 1), (2, 2), (6, 2), (9, 1)])
                at = min(start + offset, len(data) - 2)
                value = rng.randrange(0x10000) if rng.random() < 0.5 else rng.choice(WORDS)
                data[at : at + size] = value.to_bytes(2, "big")[-size:]
        del data[4000:]

    def amend(self, rng, data, l3, was):
        """Makes right what the stack would look at before anybody else sees the packet."""
        if len(data) < l3 + 20:
            return
        if data[l3] >> 4 == 6:
            if len(data) != was and len(data) >= l3 + 40 and rng.random() < 0.85:
                struct.pack_into("!H", data, l3 + 4, len(data) - l3 - 40)
            return
        if len(data) != was and rng.random() < 0.85:
            struct.pack_into("!H", data, l3 + 2, len(data) - l3)
        end = l3 + max(20, (data[l3] & 15) * 4)
        if rng.random() < 0.95:
            data[l3 + 10 : l3 + 12] = b"\0\0"
            struct.pack_into("!H", data, l3 + 10, total(data[l3:end]))
        if data[l3 + 9] == 1 and len(data) >= end + 8 and rng.random() < 0.8:
            data[end + 2 : end + 4] = b"\0\0"
            struct.pack_into("!H", data, end + 2, total(data[end:]))

    def device(self, rng, seed, data):
        """How much of the packet lies in one piece, and what the device is to do with it."""
        frame = len(data) - Seed.VNET
        if seed.super_packet:
            if rng.random() < 0.4:
                at = rng.randrange(Seed.VNET)
                data[at] = rng.choice((0, 1, 2, 3, 4, 5, 20, 54, 255))
        elif rng.random() < 0.6:
            head = rng.choice((0, 14, 33, 34, 35, 42, 53, 54, 55, 74, frame))
            data[: Seed.VNET] = virtio(head=min(head, frame))
            if rng.random() < 0.05:
                data[: Seed.VNET] = virtio(1, 0, min(head, frame), 0, rng.randrange(frame + 1), rng.choice((6, 16, 2)))
        else:
            data[: Seed.VNET] = virtio(head=frame)


def send(args):
    conf.verb = 0
    conf.iface = "eth0"
    fuzzer = Fuzzer(seeds(getmacbyip(PLAIN), args.marks))
    ring = Ring(BATCH, 8192, vnet=True)
    first = args.first // BATCH
    end = first + -(-args.count // BATCH)
    for batch in range(first, end):
        if (batch - first) % 16 == 0:
            with open("/dev/kmsg", "w") as log:
                log.write(f"fuzz_packets: seed {args.seed}, packets from {batch * BATCH} on\n")
        rng = random.Random(f"{args.seed}/{batch}")
        for frame, packet in enumerate(fuzzer.batch(rng, BATCH)):
            ring.put(frame, packet)
        ring.send()
    print(json.dumps({"sent": (end - first) * BATCH, "refused": ring.refused, "seed": args.seed, "seeds": len(fuzzer.seeds)}))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("what", choices=["services", "send"])
parser.add_argument("count", type=int, nargs="?", default=20000)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--first", type=int, default=0, help="the number of the first packet")
parser.add_argument("--no-marks", dest="marks", action="store_false", help="no services by mark")
args = parser.parse_args()
if args.what == "services":
    print("\n".join(services(args.marks)))
else:
    send(args)
