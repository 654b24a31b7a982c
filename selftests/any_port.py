#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes a service for all ports of 10.0.0.100, without persistence, or edits it.

IPVS has such services, ipvsadm does not make them; so this speaks its netlink
protocol (linux/ip_vs.h) by itself. Their servers ipvsadm can change.
"""

import argparse
import socket
import struct

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--proto", choices=["tcp", "udp"], default="tcp")
parser.add_argument("--edit", action="store_true", help="an existing one: its flags only")
parser.add_argument("--flag", type=int, choices=[1, 2, 3], action="append", default=[], help="-b flag-N")
args = parser.parse_args()

NLM_F_REQUEST, NLM_F_ACK = 1, 4
NEW_SERVICE, SET_SERVICE, NEW_DEST = 1, 2, 5
PROTO = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}[args.proto]
FLAGS = sum(4 << flag for flag in args.flag)


def attr(kind, data):
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + bytes(-size % 4)


def call(sock, family, command, version, payload):
    body = struct.pack("=BBH", command, version, 0) + payload
    flags = NLM_F_REQUEST | NLM_F_ACK
    sock.send(struct.pack("=IHHII", 16 + len(body), family, flags, 1, 0) + body)
    answer = sock.recv(65536)
    size, kind = struct.unpack_from("=IH", answer)
    if kind == 2:
        (error,) = struct.unpack_from("=i", answer, 16)
        if error:
            raise OSError(-error, f"command {command}")
    return answer[:size]


def family_id(sock, name):
    answer = call(sock, 16, 3, 1, attr(2, name + b"\0"))
    sock.recv(65536)
    at = 20
    while at < len(answer):
        size, kind = struct.unpack_from("=HH", answer, at)
        if kind == 1:
            return struct.unpack_from("=H", answer, at + 4)[0]
        at += (size + 3) & ~3
    raise OSError("no such family")


def address(text):
    return socket.inet_aton(text) + bytes(12)


sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
ipvs = family_id(sock, b"IPVS")
u16, u32 = struct.Struct("=H").pack, struct.Struct("=I").pack
name = attr(1, u16(socket.AF_INET)) + attr(2, u16(PROTO)) + attr(3, address("10.0.0.100"))
name += attr(4, u16(0))
settings = attr(6, b"mhs\0") + attr(7, struct.pack("=II", FLAGS, 0xFFFFFFFF))
settings += attr(8, u32(0)) + attr(9, u32(0xFFFFFFFF))
command = SET_SERVICE if args.edit else NEW_SERVICE
call(sock, ipvs, command, 1, attr(1 | 0x8000, name + settings))
for n in [] if args.edit else range(1, 5):
    dest = attr(1, address(f"10.0.0.1{n}")) + attr(2, u16(0))
    dest += attr(3, u32(3)) + attr(4, u32(1)) + attr(5, u32(0)) + attr(6, u32(0))
    call(sock, ipvs, NEW_DEST, 1, attr(1 | 0x8000, name) + attr(2 | 0x8000, dest))
