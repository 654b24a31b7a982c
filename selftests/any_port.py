#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes a service for all ports of an address, without persistence, or edits it.

IPVS has such services, and of any protocol, and ipvsadm does not make them; so this speaks its
netlink protocol (linux/ip_vs.h) by itself. Their servers ipvsadm can change.
"""

import argparse
import socket

from genl import ACK, NEW, NEW_DEST, REQUEST, SET, Family, ipvs_dest, ipvs_key, ipvs_settings, request, what


def protocol(said):
    named = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
    if said in named:
        return named[said]
    if said.isdecimal() and int(said) < 1 << 16:
        return int(said)
    raise argparse.ArgumentTypeError(f"{said}: not tcp, udp or a number below 65536")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--proto", type=protocol, default="tcp", help="tcp, udp or a number")
parser.add_argument("--scheduler", default="mhs")
parser.add_argument("--address", default="10.0.0.100")
parser.add_argument("--empty", action="store_true", help="no servers")
parser.add_argument("--edit", action="store_true", help="an existing one: its flags only")
parser.add_argument("--flag", type=int, choices=[1, 2, 3], action="append", default=[], help="-b flag-N")
args = parser.parse_args()

FLAGS = sum(4 << flag for flag in args.flag)

ipvs = Family(name=b"IPVS")


def call(command, payload):
    end = what(ipvs.ask(command, payload, REQUEST | ACK)[-1])
    if end != "ok":
        raise OSError(f"command {command}: {end}")


name = ipvs_key(args.address, port=0, proto=args.proto)
call(SET if args.edit else NEW, request(name + ipvs_settings(args.scheduler.encode() + b"\0", FLAGS)))
for n in [] if args.edit or args.empty else range(1, 5):
    call(NEW_DEST, request(name, ipvs_dest(f"10.0.0.1{n}", port=0)))
