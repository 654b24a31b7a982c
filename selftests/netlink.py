#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Talks to the netlink family IPVS_MHS byte by byte, as no well-behaved tool does.

  netlink.py malformed         messages that are wrong in one way each
  netlink.py fuzz COUNT SEED   messages that are wrong in any way
  netlink.py torn WHAT COMMAND...
                               a dump of WHAT (services, dests, slots, unstable or
                               counters) of the service 10.0.0.100:80; after its
                               first part the command is run, then it goes on
  netlink.py hold              begins a dump of slots, says so, and reads on when
                               standard input ends
  netlink.py watch             asks for everything, over and over, until standard input ends
  netlink.py each              how each kind of request there is ends
  netlink.py join              joins the group of events
  netlink.py listen            counts events until standard input ends
  netlink.py container         what the services of a user namespace of one's own tell of themselves
  netlink.py starve            adds servers, each with one more allocation before one fails, and
                               looks which events came
  netlink.py method            a server's weight changes, and at once another's method: how many new
                               slots the latter has as it was before
  netlink.py sums              counts packets of all services, and says what does not add up
  netlink.py deaf              joins with little room, says so, and looks what came when
                               standard input ends

Each prints one line of JSON.
"""

import collections
import errno
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys

from genl import (
    ACK,
    DONE,
    DUMP,
    DUMP_INTR,
    ERROR,
    GET_COUNTERS,
    GET_DEST,
    GET_SERVICE,
    GET_SLOTS,
    GET,
    GRACE,
    IPVS_GET_DEST,
    MASQUERADE,
    NESTED,
    NET_BYTEORDER,
    NEW_DEST,
    REQUEST,
    SET_DEST,
    SOL_NETLINK,
    Family,
    attr,
    attrs,
    dump,
    ipvs_dest,
    ipvs_key,
    key,
    mhs_servers,
    name_of,
    number,
    request,
    service,
    what,
)

DEST_NTF, FAILURE_NTF, GET_NETNS, SET_NETNS = 7, 8, 9, 10
COMMANDS = 11


def explained(message):
    """Whether an error says more than its number: in words, or which attribute."""
    return bool({1, 2, 5, 6} & set(message.get("said", {})))


def malformed():
    """Each is refused; where the attributes are to blame, with an explanation."""
    do, dump = REQUEST | ACK, REQUEST | DUMP
    words = bytes(range(200))
    deep = b"\1\2\3\4"
    for _ in range(200):
        deep = attr(NESTED | 1, deep)
    cases = {
        "nothing": (GET_SERVICE, b"", do),
        "empty nest": (GET_SERVICE, attr(NESTED | 1, b""), do),
        "no nest": (GET_SERVICE, attr(1, key()), do),
        "not even a nest": (GET_SERVICE, attr(NESTED | 1, words), do),
        "a deep nest": (GET_SERVICE, deep, do),
        "an unknown attribute": (GET_SERVICE, service() + attr(99, b"1234"), do),
        "the largest attribute": (GET_SERVICE, service() + attr(0x3FFF, b"1234"), do),
        "attribute 0": (GET_SERVICE, service() + attr(0, b"1234"), do),
        "an answer's attribute": (GET_SERVICE, service() + attr(4, bytes(4)), do),
        "unknown in the nest": (GET_SERVICE, service(x=attr(6, b"1234")), do),
        "0 in the nest": (GET_SERVICE, service(x=attr(0, b"1234")), do),
        "no family": (GET_SERVICE, service(family=None), do),
        "no protocol": (GET_SERVICE, service(protocol=None), do),
        "no address": (GET_SERVICE, service(address=None), do),
        "no port": (GET_SERVICE, service(port=None), do),
        "family 7": (GET_SERVICE, service(family=attr(1, struct.pack("=H", 7))), do),
        "family of 1 byte": (GET_SERVICE, service(family=attr(1, b"\2")), do),
        "family of 4 bytes": (GET_SERVICE, service(family=attr(1, struct.pack("=I", 2))), do),
        "family, a string": (GET_SERVICE, service(family=attr(1, b"inet\0")), do),
        "protocol 1": (GET_SERVICE, service(protocol=attr(2, struct.pack("=H", 1))), do),
        "protocol, empty": (GET_SERVICE, service(protocol=attr(2, b"")), do),
        "no byte of address": (GET_SERVICE, service(address=attr(3, b"")), do),
        "3 bytes of address": (GET_SERVICE, service(address=attr(3, b"123")), do),
        "5 bytes of address": (
            GET_SERVICE,
            service(address=attr(3, socket.inet_aton("10.0.0.100") + b"5")),
            do,
        ),
        "16 bytes for inet": (
            GET_SERVICE,
            service(address=attr(3, socket.inet_aton("10.0.0.100") + bytes(12))),
            do,
        ),
        "4 bytes for inet6": (
            GET_SERVICE,
            service(family=attr(1, struct.pack("=H", 10))),
            do,
        ),
        "17 bytes of address": (GET_SERVICE, service(address=attr(3, bytes(17))), do),
        "30000 bytes of address": (GET_SERVICE, service(address=attr(3, bytes(30000))), do),
        "port of 1 byte": (GET_SERVICE, service(port=attr(4, b"8")), do),
        "port of 8 bytes": (GET_SERVICE, service(port=attr(4, bytes(8))), do),
        "fwmark 0": (
            GET_SERVICE,
            attr(NESTED | 1, attr(1, b"\2\0") + attr(5, bytes(4))),
            do,
        ),
        "fwmark of 2 bytes": (
            GET_SERVICE,
            attr(NESTED | 1, attr(1, b"\2\0") + attr(5, b"\1\0")),
            do,
        ),
        "fwmark and address": (GET_SERVICE, service(x=attr(5, struct.pack("=I", 1))), do),
        "another service": (GET_SERVICE, service(port=attr(4, b"\0\1")), do),
        "an attribute of 3 bytes": (GET_SERVICE, struct.pack("=HH", 3, 1), do),
        "an attribute of 0 bytes": (GET_SERVICE, struct.pack("=HH", 0, 1), do),
        "longer than the message": (GET_SERVICE, struct.pack("=HH", 60000, NESTED | 1), do),
        "longer than its nest": (
            GET_SERVICE,
            attr(NESTED | 1, struct.pack("=HH", 200, 1) + bytes(8)),
            do,
        ),
        "more after the end": (GET_SERVICE, service() + b"\1\2\3", do),
        "1000 attributes": (GET_SERVICE, attr(99, b"1234") * 1000, do),
        "attributes of all services": (GET_SERVICE, service(), dump),
        "dests of nobody": (GET_DEST, b"", dump),
        "dests of another": (GET_DEST, service(port=attr(4, b"\0\1")), dump),
        "dests, an unknown attribute": (GET_DEST, service() + attr(2, bytes(4)), dump),
        "slots of nobody": (GET_SLOTS, attr(2, b""), dump),
        "slots of another": (GET_SLOTS, service(port=attr(4, b"\0\1")), dump),
        "a flag with a value": (GET_SLOTS, service() + attr(2, b"1234"), dump),
        "slots, an unknown attribute": (GET_SLOTS, service() + attr(4, bytes(4)), dump),
        "counters of another": (GET_COUNTERS, service(port=attr(4, b"\0\1")), dump),
        "counters, a broken nest": (GET_COUNTERS, attr(NESTED | 1, words), dump),
    }
    # Refused by netlink itself, which has less to say.
    plain = {
        "dests, not a dump": (GET_DEST, service(), do),
        "slots, not a dump": (GET_SLOTS, service(), do),
        "counters, not a dump": (GET_COUNTERS, service(), do),
        "a reserved field": (GET_SERVICE, service(), do, struct.pack("=BBH", 1, 1, 1)),
        "half a header": (GET_SERVICE, b"", do, b"\1\1"),
    }
    for command in [0, *range(5, 256, 25), COMMANDS, 255]:
        plain[f"command {command}"] = (command, service(), do)
        plain[f"dump {command}"] = (command, service(), dump)
    result = {"cases": 0, "refused": 0, "explained": 0, "amiss": []}
    for name, (command, payload, flags, *head) in {**cases, **plain}.items():
        answers = Family().ask(command, payload, flags, head=head[0] if head else None)
        result["cases"] += 1
        # What is malformed is not looked for.
        wanted = ["ENOENT"] if "another" in name else ["EINVAL", "ERANGE", "ENOTSUP"]
        refused = len(answers) == 1 and what(answers[-1]) in wanted
        result["refused"] += refused
        result["explained"] += explained(answers[-1])
        if not refused or (name in cases and not explained(answers[-1])):
            result["amiss"].append(f"{name}: {what(answers[-1])}")
    return result


def fuzz(count, seed):
    """Any bytes after the header: answered or refused, each; and then all is as it was."""
    rng = random.Random(seed)
    good = [
        service(),
        service() + attr(2, b""),
        attr(NESTED | 1, attr(1, b"\2\0") + attr(5, struct.pack("=I", 1))),
        service(family=attr(1, b"\12\0"), address=attr(3, bytes(16))),
        b"",
    ]

    def tree(depth):
        if depth == 0 or rng.random() < 0.3:
            return rng.randbytes(rng.choice([0, 1, 2, 3, 4, 8, 16, 17, 100]))
        parts = range(rng.randrange(6))
        kinds = [0, 1, 2, 3, 4, 5, 6, 7, 0x3FFF, NESTED | 1, NESTED | 2, NET_BYTEORDER | 4]
        return b"".join(attr(rng.choice(kinds), tree(depth - 1)) for _ in parts)

    def message():
        if rng.random() < 0.3:
            return tree(4)
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(5)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(5):
                case 0 if data:
                    data[at % len(data)] = rng.randrange(256)
                case 1:
                    del data[at:]
                case 2:
                    data[at:at] = rng.randbytes(rng.randrange(9))
                case 3:
                    data += rng.choice(good)
                case 4 if data:
                    data[at % len(data)] ^= 1 << rng.randrange(8)
        return bytes(data)

    family = Family()
    ends = collections.Counter()
    for i in range(count):
        command = rng.choice([1, 1, 2, 2, 3, 3, 4, 4, rng.randrange(256)])
        flags = REQUEST | ACK | rng.choice([0, DUMP, DUMP, rng.randrange(0x10000)])
        payload = message()
        size = None
        if rng.random() < 0.1:
            size = rng.choice([0, 15, 16, 18, 20, 16 + len(payload), 70000])
        if i % 50 == 0:
            # A dump that is not read to its end goes with its socket.
            family.sock.close()
            family = Family()
        family.send(command, payload, flags, size=size)
        # What netlink takes for no message at all, it does not answer.
        told = size is None or 16 <= size <= 20 + len(payload)
        if not told or not flags & REQUEST:
            ends["not a message"] += 1
            continue
        if rng.random() < 0.02:
            ends["not read"] += 1
            family.sock.close()
            family = Family()
            continue
        ends[what(family.answers()[-1])] += 1
        # The acknowledgement of an answer that is not an error.
        family.sock.settimeout(0)
        try:
            while True:
                family.receive()
        except BlockingIOError:
            family.sock.settimeout(60)
    answer = Family().ask(GET_SERVICE, service())
    return {"sent": count, "ends": dict(ends), "answers": what(answer[-1]) == "ok"}


# Little, so that every dump has several parts.
ROOM = 8192

DUMPS = {
    "services": (GET_SERVICE, b""),
    "dests": (GET_DEST, service()),
    "slots": (GET_SLOTS, service()),
    "unstable": (GET_SLOTS, service() + attr(2, b"")),
    "counters": (GET_COUNTERS, b""),
}


def torn(kind, command):
    """Netlink prepares a part of a dump when the one before is read, so the first is old."""
    family = Family(ROOM)
    family.send(*DUMPS[kind], REQUEST | DUMP)
    messages = family.receive()
    done = subprocess.run(command, check=False) if command else None
    while messages[-1]["number"] not in (ERROR, DONE):
        messages += family.receive()
    parts = [attrs(m["payload"][4:]) for m in messages if m["number"] == family.number]
    return {
        "messages": len(parts),
        "interrupted": sum(bool(m["flags"] & DUMP_INTR) for m in messages),
        "end": what(messages[-1]),
        "explained": explained(messages[-1]),
        "slots": sum(len(part.get(4, b"")) // 4 for part in parts) if kind != "services" else 0,
        "status": done.returncode if done else None,
    }


def hold():
    family = Family(ROOM)
    family.send(*DUMPS["slots"], REQUEST | DUMP)
    messages = family.receive()
    print("open", flush=True)
    sys.stdin.read()
    while messages[-1]["number"] not in (ERROR, DONE):
        messages += family.receive()
    return {"end": what(messages[-1])}


def watch():
    """Every dump of slots has each slot once, torn or not; what was whole is of one generation."""
    family = Family(ROOM)
    result = collections.Counter()
    print("open", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        for kind, (command, payload) in DUMPS.items():
            answers = family.ask(command, payload, REQUEST | DUMP)
            parts = [attrs(m["payload"][4:]) for m in answers if m["number"] == family.number]
            torn = any(m["flags"] & DUMP_INTR for m in answers)
            result["dumps"] += 1
            result["torn"] += torn
            result["failed"] += what(answers[-1]) != "ok"
            if kind in ("dests", "slots"):
                states = {part[2 if kind == "dests" else 3] for part in parts}
                result["amiss"] += len(states) > 1 and not torn
            if kind == "slots":
                result["amiss"] += sum(len(part[4]) // 4 for part in parts) != 16381
    return dict(result)


def each():
    family = Family()
    requests = {kind: (*request, REQUEST | DUMP) for kind, request in DUMPS.items()}
    requests |= {
        "service": (GET_SERVICE, service(), REQUEST | ACK),
        "netns": (GET_NETNS, b"", REQUEST | ACK),
        "nothing set": (SET_NETNS, b"", REQUEST | ACK),
    }
    ends = {}
    for name, request in requests.items():
        answers = family.ask(*request)
        # The acknowledgement comes after an answer.
        if answers[-1]["number"] == family.number:
            answers = family.answers()
        ends[name] = what(answers[-1])
    return ends


def join():
    family = Family()
    try:
        family.sock.setsockopt(SOL_NETLINK, 1, family.group)
    except OSError as error:
        return {"end": errno.errorcode[error.errno]}
    return {"end": "ok"}


def listen():
    """How many events of each command come until standard input ends, and how often some are lost."""
    family = Family()
    family.sock.setsockopt(SOL_NETLINK, 1, family.group)
    print("open", flush=True)
    counts = collections.Counter()
    more = True
    while more:
        more = sys.stdin not in select.select([family.sock, sys.stdin], [], [])[0]
        family.sock.settimeout(0)
        try:
            while True:
                counts.update(str(message["payload"][0]) for message in family.receive())
        except BlockingIOError:
            pass
        except OSError as error:
            counts[errno.errorcode[error.errno]] += 1
    return dict(counts)


def container():
    """A service is made by a socket option: the family IPVS takes more than capabilities of one's own."""
    add_service = 0x482
    user = struct.Struct("=H2x4sH2xI16sIII")  # ip_vs_service_user
    made = user.pack(6, socket.inet_aton("10.0.0.100"), socket.htons(80), 0, b"mhs", 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.IPPROTO_IP, add_service, made)
    family = Family()
    answers = family.ask(GET_SERVICE, service()), family.ask(GET_SERVICE, b"", REQUEST | DUMP)
    return [sorted(attrs(found[0]["payload"][4:])) for found in answers]


def starve():
    """IPVS does what it is asked inside of send(), so the allocations counted are its own."""
    ipvs, family = Family(name=b"IPVS"), Family()
    family.sock.setsockopt(SOL_NETLINK, 1, family.group)
    family.sock.settimeout(0)
    ends, heard, untold, causes = collections.Counter(), collections.Counter(), [], set()

    def come():
        events = collections.Counter()
        while True:
            try:
                for message in family.receive():
                    kind = message["payload"][0]
                    if kind == FAILURE_NTF:
                        events["failure"] += 1
                        causes.add(number(attrs(message["payload"][4:])[3]))
                    elif kind == DEST_NTF:
                        events["server"] += 1
            except BlockingIOError:
                return events
            except OSError as error:
                events[errno.errorcode[error.errno]] += 1

    fail = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
    for nth in range(1, 60):
        payload = request(ipvs_key(), ipvs_dest(f"10.0.5.{nth}"))
        os.pwrite(fail, str(nth).encode(), 0)
        try:
            try:
                ipvs.send(NEW_DEST, payload, REQUEST | ACK)
            finally:
                left = os.pread(fail, 20, 0).strip()
                os.pwrite(fail, b"0", 0)
            end = what(ipvs.answers()[-1])
        except OSError as error:
            end = errno.errorcode[error.errno]
        ends[end] += 1
        events = come()
        if end == "ok" and not events:
            untold.append(nth)
        heard += events
        if left != b"0":
            break
    return {
        "allocations": nth - 1, "ends": dict(ends), "heard": dict(heard), "untold": untold, "causes": list(causes)
    }


def method():
    ipvs, mhs = Family(name=b"IPVS"), Family()
    for dest in ipvs_dest("10.0.0.11", weight=3), ipvs_dest("10.0.0.12", method=MASQUERADE):
        ipvs.ask(SET_DEST, request(ipvs_key(), dest), REQUEST | ACK)
    dests = mhs_servers(mhs, (socket.AF_INET, 6, "10.0.0.100", 80)).values()
    return {"grace": [number(dest[12]) for dest in dests if number(dest[9]) == GRACE]}


def sums():
    """A packet is counted for its server, its service, its CPU, and by IPVS: nowhere more often."""
    family, ipvs = Family(), Family(name=b"IPVS")
    result = {"packets": 0, "services": 0, "amiss": []}

    def differ(name, where, got, wanted):
        if got != wanted:
            result["amiss"].append(f"{name}: {where}: {got} instead of {wanted}")

    def counters(answer, at):
        found = attrs(answer[at])
        return [number(found[1]), number(found[2])]

    def ipvs_counts(nest, stats):
        # Connections, packets, bytes.
        found = attrs(nest[stats])
        return [number(found[1]), number(found[2]), number(found[4])]

    by_cpu = collections.defaultdict(lambda: [0, 0])
    for answer in dump(family, GET_COUNTERS)[0]:
        name = name_of(attrs(answer[1]))
        by_cpu[name] = [a + b for a, b in zip(by_cpu[name], counters(answer, 3))]
    known = {}
    for answer in dump(ipvs, GET)[0]:
        nest = attrs(answer[1])
        named = b"".join(attr(kind, nest[kind]) for kind in (1, 2, 3, 4, 5) if kind in nest)
        dests = dump(ipvs, IPVS_GET_DEST, attr(NESTED | 1, named))[0]
        each = [ipvs_counts(attrs(dest[2]), 12) for dest in dests]
        known[name_of(nest)] = ipvs_counts(nest, 12), [sum(column) for column in zip(*each)]
    for answer in dump(family, GET_SERVICE)[0]:
        name = name_of(attrs(answer[1]))
        of_service = counters(answer, 13)
        of_servers = [[number(dest[13]), number(dest[14])] for dest in mhs_servers(family, name).values()]
        differ(name, "servers", [sum(column) for column in zip(*of_servers)], of_service)
        differ(name, "CPUs", by_cpu[name], of_service)
        of_ipvs, of_dests = known[name]
        differ(name, "servers, by IPVS", of_dests, of_ipvs)
        if of_service[0] > of_ipvs[1] or of_service[1] > of_ipvs[2]:
            result["amiss"].append(f"{name}: {of_service} without an entry, {of_ipvs} by IPVS")
        result["packets"] += of_ipvs[1]
        result["services"] += 1
    return result


def deaf():
    family = Family()
    family.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    family.sock.setsockopt(SOL_NETLINK, 1, family.group)
    print("open", flush=True)
    sys.stdin.read()
    try:
        family.receive()
    except OSError as error:
        return {"end": errno.errorcode[error.errno]}
    return {"end": "ok"}


match sys.argv[1:]:
    case ["malformed"]:
        result = malformed()
    case ["fuzz", count, seed]:
        result = fuzz(int(count), int(seed))
    case ["torn", kind, *command]:
        result = torn(kind, command)
    case ["hold"]:
        result = hold()
    case ["watch"]:
        result = watch()
    case ["each"]:
        result = each()
    case ["join"]:
        result = join()
    case ["container"]:
        result = container()
    case ["starve"]:
        result = starve()
    case ["method"]:
        result = method()
    case ["sums"]:
        result = sums()
    case ["deaf"]:
        result = deaf()
    case ["listen"]:
        result = listen()
    case _:
        sys.exit(__doc__)
print(json.dumps(result), flush=True)
os._exit(0)
