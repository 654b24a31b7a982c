# SPDX-License-Identifier: GPL-2.0
"""Generic netlink, byte by byte: the families IPVS_MHS and IPVS (linux/ip_vs.h)."""

import errno
import socket
import struct

SOL_NETLINK = 270
ERROR, DONE = 2, 3
REQUEST, MULTI, ACK, DUMP_INTR, DUMP = 1, 2, 4, 0x10, 0x300
NESTED, NET_BYTEORDER = 0x8000, 0x4000
GET_SERVICE, GET_DEST, GET_SLOTS, GET_COUNTERS = 1, 2, 3, 4


def attr(kind, payload):
    return struct.pack("=HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def attrs(data):
    """The attributes in `data`, by number."""
    found = {}
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if size < 4 or size > len(data):
            break
        found[kind & 0x3FFF] = data[4:size]
        data = data[(size + 3) & ~3 :]
    return found


def key(**change):
    """The nest of a service, whole but for what is changed; None leaves a part out."""
    parts = {
        "family": attr(1, struct.pack("=H", 2)),
        "protocol": attr(2, struct.pack("=H", 6)),
        "address": attr(3, socket.inet_aton("10.0.0.100")),
        "port": attr(4, struct.pack("!H", 80)),
    }
    parts.update(change)
    return b"".join(part for part in parts.values() if part is not None)


def service(**change):
    return attr(NESTED | 1, key(**change))


class Family:
    """A socket that takes parts of up to `room` bytes, and the number of the family."""

    def __init__(self, room=1 << 16, name=b"IPVS_MHS"):
        self.room = room
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
        self.sock.setsockopt(SOL_NETLINK, 10, 1)  # NETLINK_CAP_ACK
        self.sock.setsockopt(SOL_NETLINK, 11, 1)  # NETLINK_EXT_ACK
        self.sock.bind((0, 0))
        self.sock.settimeout(60)
        self.seq = 1
        self.send(3, attr(2, name + b"\0"), number=16)  # CTRL_CMD_GETFAMILY
        found = attrs(self.answers()[0]["payload"][4:])
        (self.number,) = struct.unpack("=H", found[1])
        if 7 in found:
            groups = attrs(found[7])
            self.group = struct.unpack("=I", attrs(groups[1])[2])[0]

    def send(self, command, payload=b"", flags=REQUEST, number=None, head=None, size=None):
        self.seq += 1
        if head is None:
            head = struct.pack("=BBH", command, 1, 0)
        size = 16 + len(head) + len(payload) if size is None else size
        header = struct.pack("=IHHII", size, number or self.number, flags, self.seq, 0)
        self.sock.send(header + head + payload)

    def receive(self):
        """The messages of one part."""
        data = self.sock.recv(self.room)
        messages = []
        while len(data) >= 16:
            size, number, flags, seq, _ = struct.unpack_from("=IHHII", data)
            body = data[16:size]
            message = {"number": number, "flags": flags, "seq": seq, "payload": body}
            if number in (ERROR, DONE):
                message["error"] = -struct.unpack_from("=i", body)[0]
                skip = 4 if number == DONE else 20
                message["said"] = attrs(body[skip:]) if flags & 0x200 else {}
            messages.append(message)
            data = data[(size + 3) & ~3 :]
        return messages

    def answers(self):
        """All messages that answer one request."""
        messages = []
        while True:
            messages += self.receive()
            last = messages[-1]
            if last["number"] in (ERROR, DONE) or not last["flags"] & MULTI:
                return messages

    def ask(self, command, payload=b"", flags=REQUEST, **more):
        self.send(command, payload, flags, **more)
        return self.answers()


def what(message):
    """How an answer ends."""
    code = message.get("error", 0)
    return errno.errorcode.get(code, str(code)) if code else "ok"


NEW, SET, DEL, GET = 1, 2, 3, 4
NEW_DEST, SET_DEST, DEL_DEST, IPVS_GET_DEST = 5, 6, 7, 8
SET_CONFIG, ZERO, FLUSH = 12, 16, 17
MASQUERADE, LOCAL, TUNNEL, DIRECT = range(4)
u16, u32 = struct.Struct("=H").pack, struct.Struct("=I").pack


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def packed(address):
    """An address as IPVS takes it, 16 bytes of either family."""
    return socket.inet_pton(family_of(address), address).ljust(16, b"\0")


def ipvs_key(address="10.0.0.100", port=80, proto=6, mark=0, family=None):
    """The attributes that name a service of IPVS."""
    family = attr(1, u16(family or family_of(address)))
    if mark:
        return family + attr(5, u32(mark))
    return family + attr(2, u16(proto)) + attr(3, packed(address)) + attr(4, struct.pack("!H", port))


def ipvs_settings(scheduler=b"mhs\0", flags=0, timeout=0, netmask=0xFFFFFFFF):
    """The attributes that a new or edited service has besides."""
    settings = attr(6, scheduler) + attr(7, struct.pack("=II", flags, 0xFFFFFFFF))
    return settings + attr(8, u32(timeout)) + attr(9, u32(netmask))


def ipvs_dest(address, port=80, method=DIRECT, weight=1, upper=0, lower=0, tunnel=()):
    """The attributes of a server; `tunnel`: its type, port and flags."""
    dest = attr(1, packed(address)) + attr(2, struct.pack("!H", port)) + attr(3, u32(method))
    dest += attr(4, u32(weight & 0xFFFFFFFF)) + attr(5, u32(upper)) + attr(6, u32(lower))
    dest += attr(11, u16(family_of(address)))
    if tunnel:
        kind, port, flags = tunnel
        dest += attr(13, bytes([kind])) + attr(14, struct.pack("!H", port)) + attr(15, u16(flags))
    return dest


def request(service, dest=b""):
    """What a command of IPVS is about."""
    return attr(NESTED | 1, service) + (attr(NESTED | 2, dest) if dest else b"")


def dump(family, command, payload=b""):
    """The attributes of each answer, and how the dump ends."""
    answers = family.ask(command, payload, REQUEST | DUMP)
    return [attrs(m["payload"][4:]) for m in answers if m["number"] == family.number], what(answers[-1])


def address_of(family, data):
    return socket.inet_ntop(family, data[: 4 if family == socket.AF_INET else 16])


def number(data):
    return int.from_bytes(data, "little")


def port_of(data):
    return int.from_bytes(data, "big")


def name_of(nest):
    """A service, named by either family: IP family, and mark or protocol, address, port."""
    family, mark = number(nest[1]), number(nest.get(5, b""))
    if mark:
        return family, mark
    return family, number(nest[2]), address_of(family, nest[3]), port_of(nest[4])


def mhs_key(name):
    """The nest by which IPVS_MHS knows the service."""
    if len(name) == 2:
        return attr(NESTED | 1, attr(1, u16(name[0])) + attr(5, u32(name[1])))
    family, proto, address, port = name
    address = attr(3, socket.inet_pton(family, address))
    return service(
        family=attr(1, u16(family)), protocol=attr(2, u16(proto)), address=address, port=attr(4, struct.pack("!H", port))
    )


def ipvs_state(ipvs, scheduler=b"mhs"):
    """The services that have the scheduler, and of each server weight and method, as IPVS has them."""
    state = {}
    for answer in dump(ipvs, GET)[0]:
        nest = attrs(answer[1])
        if nest[6].rstrip(b"\0") != scheduler:
            continue
        named = b"".join(attr(kind, nest[kind]) for kind in (1, 2, 3, 4, 5) if kind in nest)
        servers = {}
        for dest in dump(ipvs, IPVS_GET_DEST, attr(NESTED | 1, named))[0]:
            dest = attrs(dest[2])
            address = address_of(number(dest[11]), dest[1])
            method = number(dest[3]) & 7
            # Of the others IPVS_MHS has no name.
            method = method if method in (MASQUERADE, TUNNEL, DIRECT) else LOCAL
            servers[address, port_of(dest[2])] = number(dest[4]), method
        state[name_of(nest)] = servers
    return state


# States of servers, in IPVS_MHS.
LIVE, DRAINING, GRACE = range(3)


def mhs_servers(mhs, name):
    """The servers of a service: attributes by index."""
    return {number(dest[3]): dest for dest in dump(mhs, GET_DEST, mhs_key(name))[0]}


def server_of(dest):
    return address_of(number(dest[4]), dest[5]), port_of(dest[6])


def mhs_state(mhs):
    """What ipvs_state() says, as IPVS_MHS has it."""
    state = {}
    for answer in dump(mhs, GET_SERVICE)[0]:
        name = name_of(attrs(answer[1]))
        state[name] = {
            server_of(dest): (number(dest[7]), number(dest.get(8, b"\1")))
            for dest in mhs_servers(mhs, name).values()
            if number(dest[9]) in (LIVE, DRAINING)
        }
    return state
