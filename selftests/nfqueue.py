#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""nfqueue.py NUMBER

Accepts every packet of a netfilter queue (NFQUEUE), until it is killed. Says "ready" when it listens.
Afterwards a packet goes on in this process's system call, not in a softirq."""

import socket
import struct
import sys

from genl import ACK, REQUEST, attr, attrs

NETLINK_NETFILTER = 12
PACKET, VERDICT, CONFIG = (3 << 8 | message for message in range(3))


def message(kind, flags, number, *attributes):
    content = struct.pack("!BBH", socket.AF_UNSPEC, 0, number) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(content), kind, flags, 0, 0) + content


def main():
    number = int(sys.argv[1])
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind((0, 0))
    bind = attr(1, struct.pack("!BBH", 1, 0, 0))
    no_content = attr(2, struct.pack("!IB", 0, 1))
    for settings in (bind, no_content):
        sock.send(message(CONFIG, REQUEST | ACK, number, settings))
        (error,) = struct.unpack_from("=i", sock.recv(1 << 16), 16)
        if error:
            sys.exit(f"queue {number}: error {-error}")
    print("ready", flush=True)
    while True:
        data = sock.recv(1 << 16)
        while len(data) >= 16:
            length, kind = struct.unpack_from("=IH", data)
            if kind == PACKET:
                header = attrs(data[20:length])[1]
                (packet,) = struct.unpack_from("!I", header)
                sock.send(message(VERDICT, REQUEST, number, attr(2, struct.pack("!II", 1, packet))))
            data = data[(length + 3) & ~3 :]


main()
