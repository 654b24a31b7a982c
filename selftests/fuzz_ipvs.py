#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Changes of IPVS that are wrong in any way, and dumps of IPVS_MHS meanwhile.

  fuzz_ipvs.py COUNT [SEED]

Services and servers of all kinds come, change and go, by messages that are sound, odd, or broken in
some place. A dozen dumps of the family IPVS_MHS are open all the time and read a part now and then;
somebody listens to events, and somebody has stopped to. After each hundred messages both families
are asked for all services that have the scheduler, and must say the same. Message N of a seed is
the same in every run. Prints a line of JSON.
"""

import collections
import json
import random
import socket
import sys

from genl import (
    ACK,
    DEL,
    DEL_DEST,
    DONE,
    DUMP,
    ERROR,
    FLUSH,
    GET,
    GET_COUNTERS,
    GET_DEST,
    GET_SERVICE,
    GET_SLOTS,
    IPVS_GET_DEST,
    MULTI,
    NESTED,
    NEW,
    NEW_DEST,
    REQUEST,
    SET,
    SET_CONFIG,
    SET_DEST,
    SOL_NETLINK,
    ZERO,
    Family,
    attr,
    ipvs_dest,
    ipvs_key,
    ipvs_settings,
    ipvs_state,
    mhs_key,
    mhs_state,
    request,
    u16,
    u32,
    what,
)

INET, INET6 = socket.AF_INET, socket.AF_INET6
SERVICES = [
    {"address": "10.0.0.100", "port": 80, "proto": 6},
    {"address": "10.0.0.100", "port": 53, "proto": 17},
    {"address": "10.0.0.100", "port": 99, "proto": 132},
    {"address": "10.0.0.100", "port": 0, "proto": 6},
    {"address": "10.0.0.100", "port": 21, "proto": 6},
    {"address": "fd00::100", "port": 80, "proto": 6},
    {"address": "fd00::100", "port": 53, "proto": 17},
    {"mark": 7},
    {"mark": 0xFFFFFFFF},
    {"mark": 7, "family": INET6},
    # What there should not be.
    {"address": "0.0.0.0", "port": 80, "proto": 6},
    {"address": "224.0.0.1", "port": 80, "proto": 17},
    {"address": "10.0.0.100", "port": 80, "proto": 50},
    {"address": "10.0.0.100", "port": 80, "proto": 0xFFFF},
    {"address": "fd00::100", "port": 80, "proto": 6, "family": INET},
    {"mark": 9, "family": 77},
]
SCHEDULERS = [b"mhs\0"] * 9 + [b"rr\0", b"sh\0", b"mh\0", b"", b"\0", b"mhs", b"mhs\0\0", b"x" * 15 + b"\0", b"m" * 200]
FLAGS = [0, 0, 0, 1, 2, 4, 8, 16, 28, 7, 0x20, 0xFFFFFFFF, 0x80000000]
NUMBERS = [0, 1, 2, 63, 64, 100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
SERVERS = [f"10.0.0.1{n}" for n in range(1, 5)] * 2 + [f"10.0.9.{n}" for n in range(1, 30)]
SERVERS += [f"fd00::1{n}" for n in range(1, 5)] + [f"fd00::9:{n}" for n in range(1, 9)]
SERVERS += ["10.0.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.9", "::", "::1", "ff02::1", "fe80::1"]
COMMANDS = [NEW] * 4 + [SET] * 3 + [DEL] * 2 + [NEW_DEST] * 12 + [SET_DEST] * 10 + [DEL_DEST] * 6
COMMANDS += [GET, IPVS_GET_DEST, ZERO, SET_CONFIG]


class Fuzzer:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.ipvs = Family(name=b"IPVS")
        self.ends = collections.Counter()
        self.dumps = [None] * 12
        self.dump_ends = collections.Counter()
        self.deaf, self.listener = Family(), Family()
        for family, room in ((self.deaf, 1), (self.listener, 1 << 20)):
            family.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            family.sock.setsockopt(SOL_NETLINK, 1, family.group)
        self.listener.sock.settimeout(0)
        self.events = 0

    def message(self):
        """A command, and what it says."""
        rng = self.rng
        command = rng.choice(COMMANDS)
        if rng.random() < 0.003:
            command = FLUSH
        # Mostly a few services, so that they live for a while and get servers.
        named = SERVICES[min(int(rng.expovariate(0.4)), len(SERVICES) - 1)]
        name = ipvs_key(**named)
        if command == SET_CONFIG:
            payload = b"".join(attr(kind, u32(rng.choice(NUMBERS))) for kind in (4, 5, 6) if rng.random() < 0.7)
        elif command in (NEW, SET, DEL, GET, ZERO, FLUSH):
            settings = b""
            if command in (NEW, SET):
                settings = ipvs_settings(
                    rng.choice(SCHEDULERS), rng.choice(FLAGS), rng.choice(NUMBERS), rng.choice([0, 24, 128, 0xFFFFFFFF])
                )
                if rng.random() < 0.05:
                    settings += attr(11, rng.choice([b"sip\0", b"", b"none\0"]))
            payload = request(name + settings)
        else:
            sane = rng.random() < 0.7
            dest = ipvs_dest(
                rng.choice(SERVERS),
                rng.choice([80, 80, 80, 0, 53]),
                rng.choice([3, 3, 3, 2, 0]) if sane else rng.choice([1, 4, 5, 7, 0x100, 0xFFFFFFFF]),
                rng.choice([1, 1, 0, 2, 50]) if sane else rng.choice(NUMBERS),
                *([0, 0] if sane else [rng.choice(NUMBERS), rng.choice(NUMBERS)]),
                rng.choice([(), (0, 0, 0), (1, 5555, 0), (2, 0, 1), (1, 0, 2), (255, 1, 0xFFFF)]),
            )
            payload = request(name, dest)
        if rng.random() < 0.2:
            payload = self.broken(bytearray(payload))
        flags = REQUEST | ACK
        if command in (GET, IPVS_GET_DEST):
            flags = rng.choice([flags, REQUEST | DUMP])
        return command, bytes(payload), flags

    def broken(self, data):
        """The same with some bytes, lengths or attributes changed."""
        rng = self.rng
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(7):
                case 0 if len(data):
                    data[at % len(data)] ^= 1 << rng.randrange(8)
                case 1 if len(data):
                    data[at % len(data)] = rng.randrange(256)
                case 2:
                    del data[at:]
                case 3:
                    data[at:at] = rng.randbytes(rng.randrange(1, 9))
                case 4:
                    # The same attributes again, and then others.
                    data += bytes(data)
                case 5:
                    data = bytearray(attr(NESTED | rng.choice([1, 2, 3]), bytes(data)))
                case 6:
                    data += attr(rng.choice([1, 2, 3, 6, 11, 0, 99, NESTED | 2]), rng.randbytes(rng.choice([0, 2, 4, 8])))
            del data[4000:]
        return data

    def look(self):
        """One part of one of the dumps."""
        rng = self.rng
        at = rng.randrange(len(self.dumps))
        family = self.dumps[at]
        if family is None:
            # Little room, so that there are many parts.
            family = self.dumps[at] = Family(8192)
            named = SERVICES[min(int(rng.expovariate(0.4)), 9)]
            name = (named.get("family", INET), named["mark"]) if "mark" in named else (
                INET6 if ":" in named["address"] else INET, named["proto"], named["address"], named["port"]
            )
            command = rng.choice([GET_SERVICE, GET_DEST, GET_SLOTS, GET_SLOTS, GET_COUNTERS])
            family.send(command, b"" if command == GET_SERVICE else mhs_key(name), REQUEST | DUMP)
            return
        last = family.receive()[-1]
        done = last["number"] in (ERROR, DONE)
        if done:
            self.dump_ends[what(last)] += 1
        if done or rng.random() < 0.05:
            # Also in the middle of a dump.
            family.sock.close()
            self.dumps[at] = None

    def hear(self):
        try:
            while True:
                self.events += len(self.listener.receive())
        except OSError:
            pass

    def run(self, count):
        amiss, compared = [], 0
        for i in range(count):
            command, payload, flags = self.message()
            self.ipvs.send(command, payload, flags)
            answers = self.ipvs.answers()
            self.ends[what(answers[-1])] += 1
            # What is not a dump is answered, and then acknowledged.
            if flags & DUMP != DUMP and answers[-1]["number"] != ERROR:
                self.ipvs.answers()
            if self.rng.random() < 0.5:
                self.look()
            if i % 100 == 99:
                self.hear()
                said, known = mhs_state(Family()), ipvs_state(self.ipvs)
                compared += len(known)
                if said != known:
                    amiss.append(f"after {i}: {said} instead of {known}")
        return {
            "sent": count,
            "ends": dict(self.ends),
            "dumps": dict(self.dump_ends),
            "events": self.events,
            "services_compared": compared,
            "amiss": amiss[:5],
        }


fuzzer = Fuzzer(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
result = fuzzer.run(int(sys.argv[1]))
fuzzer.ipvs.ask(FLUSH, b"", REQUEST | ACK)
fuzzer.ipvs.ask(SET_CONFIG, b"".join(attr(kind, u32(n)) for kind, n in ((4, 900), (5, 120), (6, 300))), REQUEST | ACK)
print(json.dumps(result))
