#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A client that picks the addresses and ports of its flows, to have them where it wants them.

Finds flows from ADDRESS on, and writes address and port of each to FILE, 6 bytes:

  skew.py pick COUNT FILE ADDRESS KEY SIZE SLOT
                                   those that the key hashes to one slot
  skew.py sums COUNT FILE ADDRESS  with the same sum of address and port
  skew.py ports COUNT FILE ADDRESS with the same address
  skew.py any COUNT FILE ADDRESS   from a /14
  skew.py ask COUNT FILE ADDRESS NAME
                                   those of so many connections that NAME answered

Does something with the flows in FILE:

  skew.py send FILE FLAGS MAC [FIRST COUNT]
                                   a segment of each, with DSCP 8 to be told by; says how long each took
  skew.py live FILE                a connection for each, which asks until standard input ends
  skew.py fall FILE KEY            says where they fall by a key, and by the slots that 10.0.0.100:80
                                   has now

Each prints a line of JSON.
"""

import collections
import ipaddress
import itertools
import json
import math
import os
import select
import socket
import struct
import sys
import time
from pathlib import Path

from genl import GET_DEST, GET_SLOTS, Family, address_of, dump, number, service
from ring import Ring, checksum

VIP = "10.0.0.100"
FLOW = struct.Struct("!4sH")


class Hash:
    """SipHash-2-4 of a client's IPv4 address and port, as src/core/hash.rs has it.

    So many at a time: each has 128 bits of a large number, 64 of them for what a sum carries and a
    rotation shifts out. That is some fifteen times as fast as one after the other.
    """

    LANES = 256
    ONES = sum(1 << 128 * lane for lane in range(LANES))
    MASK = ONES * 0xFFFF_FFFF_FFFF_FFFF

    def __init__(self, key, size):
        k0, k1 = struct.unpack("<QQ", bytes.fromhex(key))
        words = (k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573)
        self.start = [word * self.ONES for word in words]
        self.size = size

    def slots(self, messages):
        """The slots of as many clients as there are lanes."""
        mask = self.MASK

        def rotate(x, bits):
            x <<= bits
            return (x | x >> 64) & mask

        a, b, c, d = self.start
        d ^= messages
        for turn in range(6):
            if turn == 2:
                a ^= messages
                c ^= 0xFF * self.ONES
            a = a + b & mask
            b = rotate(b, 13) ^ a
            a = rotate(a, 32)
            c = c + d & mask
            d = rotate(d, 16) ^ c
            a = a + d & mask
            d = rotate(d, 21) ^ a
            c = c + b & mask
            b = rotate(b, 17) ^ c
            c = rotate(c, 32)
        slots = (a ^ b ^ c ^ d) * self.size >> 64 & mask
        return memoryview(slots.to_bytes(16 * self.LANES, "little")).cast("Q")[::2].tolist()

    def of(self, flows):
        """The slot of each flow."""
        found = []
        for at in range(0, len(flows), self.LANES):
            part = flows[at : at + self.LANES]
            words = b"".join(flow + b"\0\6" + bytes(8) for flow in part)
            found += self.slots(int.from_bytes(words, "little"))[: len(part)]
        return found

    # The lowest byte of the port, which is the last before two bytes that make a word of it.
    LOW_BYTES = sum(lane << 128 * lane + 40 for lane in range(LANES))

    def all_of(self, address, high):
        """The slots of an address and each port with this high byte."""
        word = int.from_bytes(address + bytes([high]) + b"\0\0\6", "little")
        return self.slots(word * self.ONES + self.LOW_BYTES)


def addresses(first):
    first = int(ipaddress.ip_address(first))
    return (struct.pack("!I", first + i) for i in itertools.count())


def pick(count, first, key, size, slot):
    """Flows in a slot, and how many were looked at."""
    table = Hash(key, size)
    flows, tries = [], 0
    for address in addresses(first):
        # No port that a client does not get.
        for high in range(4, 256):
            slots = table.all_of(address, high)
            tries += len(slots)
            flows += [address + bytes([high, low]) for low, found in enumerate(slots) if found == slot]
            if len(flows) >= count:
                return flows[:count], tries


def sums(count, first):
    return [FLOW.pack(address, 60000 - i) for i, address in zip(range(count), addresses(first))]


def ports(count, first):
    address = next(addresses(first))
    return [FLOW.pack(address, 1024 + i) for i in range(count)]


def anybody(count, first):
    first = int(ipaddress.ip_address(first))
    # Each once.
    flows = {}
    while len(flows) < count:
        address, port = struct.unpack("!IH", os.urandom(6))
        flows[struct.pack("!IH", first + (address & 0x3FFFF), port | 1024)] = None
    return list(flows)


class Connection:
    """A connection from a certain port to the service."""

    def __init__(self, address, port):
        self.sock = socket.socket()
        self.sock.settimeout(20)
        # A reset when it is closed, so that nothing waits for the end of it.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.bind((address, port))
        self.sock.connect((VIP, 80))

    def ask(self):
        """The name of who answers."""
        self.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while b"\r\n\r\nrs" not in answer:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionResetError
            answer += data
        return answer.split(b"\r\n\r\n")[-1].decode()


def ask(count, first, name):
    """The flows of real connections that this server answered."""
    kept = []
    for i, address in zip(range(count), addresses(first)):
        connection = Connection(socket.inet_ntoa(address), 20000 + i)
        if connection.ask() == name:
            kept.append(FLOW.pack(address, 20000 + i))
        connection.sock.close()
    return kept


def live(flows):
    """Who answers, all the time."""
    connections = [Connection(socket.inet_ntoa(flow[:4]), *struct.unpack("!H", flow[4:])) for flow in flows]
    result = {"asked": 0, "broken": 0, "servers": collections.Counter()}
    print("open", flush=True)
    while True:
        for connection in list(connections):
            result["asked"] += 1
            try:
                result["servers"][connection.ask()] += 1
            except OSError:
                result["broken"] += 1
                connections.remove(connection)
        if select.select([sys.stdin], [], [], 0.5)[0]:
            return result


def send(flows, flags, mac):
    """A ring of frames at a time."""
    frames = 1024
    bits = sum({"S": 2, "A": 16, "R": 4}[flag] for flag in flags)
    ether = bytes.fromhex(mac.replace(":", "")) + b"\2\0\0\0\0\1\x08\0"
    target = socket.inet_aton(VIP)
    ring = Ring(frames, 128)
    port = int(os.environ.get("PORT", "80"))
    took = 0
    for at in range(0, len(flows), frames):
        part = flows[at : at + frames]
        for i, flow in enumerate(part):
            source = flow[:4]
            head = struct.pack("!BBHHHBBH", 0x45, 8 << 2, 40, 0, 0, 64, 6, 0) + source + target
            head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
            tcp = flow[4:] + struct.pack("!HIIBBHHH", port, 1, 1, 0x50, bits, 1024, 0, 0)
            pseudo = source + target + struct.pack("!BBH", 0, 6, len(tcp))
            tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
            ring.put(i, ether + head + tcp)
        begin = time.perf_counter_ns()
        ring.send(len(part))
        took += time.perf_counter_ns() - begin
    return {"nanoseconds": took // len(flows)}


def table():
    """For each slot its servers, old and new, by address."""
    family = Family()
    names = {0x7FFF: None}
    for dest in dump(family, GET_DEST, service())[0]:
        names[number(dest[3])] = address_of(number(dest[4]), dest[5])
    old, new = [], []
    for part in dump(family, GET_SLOTS, service())[0]:
        for servers, kind in ((old, 5), (new, 6)):
            servers += [names[index] for (index,) in struct.iter_unpack("=H", part[kind])]
    return old, new


def fall(flows, key):
    """How many flows fall where.

    Were they anybody's, the sum of squares that `deviation` is made from would have the chi-square
    distribution; it is given in standard deviations from its mean. `bound` is what a server gets
    then, all but once in 10^9 times.
    """
    old, new = table()
    slots = Hash(key, len(old)).of(flows)
    per_slot = collections.Counter(slots)
    mean, freedom = len(flows) / len(old), len(old) - 1
    squares = sum(n * n for n in per_slot.values()) / mean - len(flows)
    share = max(collections.Counter(new).values()) / len(new)
    return {
        "flows": len(flows),
        "slots": len(per_slot),
        "fullest_slot": max(per_slot.values()),
        "deviation": round((squares - freedom) / math.sqrt(2 * freedom), 2),
        "bound": math.ceil(len(flows) * share + 6 * math.sqrt(len(flows) * share * (1 - share))),
        "servers": collections.Counter(new[slot] for slot in slots),
        "unstable": sum(old[slot] != new[slot] for slot in slots),
        "unstable_slots": sum(a != b for a, b in zip(old, new)),
    }


def main(what, *args):
    if what in ("send", "live", "fall"):
        data = Path(args[0]).read_bytes()
        flows = [data[at : at + FLOW.size] for at in range(0, len(data), FLOW.size)]
        match what:
            case "send":
                flags, mac, *some = args[1:]
                first, count = map(int, some or (0, len(flows)))
                return send(flows[first : first + count], flags, mac)
            case "live":
                return live(flows)
            case "fall":
                return fall(flows, args[1])
    count, path, first = int(args[0]), Path(args[1]), args[2]
    result = {"asked": count}
    match what:
        case "pick":
            key, size, slot = args[3:]
            flows, result["tries"] = pick(count, first, key, int(size), int(slot))
        case "sums":
            flows = sums(count, first)
        case "ports":
            flows = ports(count, first)
        case "any":
            flows = anybody(count, first)
        case "ask":
            flows = ask(count, first, args[3])
        case _:
            sys.exit(__doc__)
    path.write_bytes(b"".join(flows))
    return result | {"flows": len(flows)}


print(json.dumps(main(*sys.argv[1:])))
