#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes seeds for the target `flow` of packets that this kernel sends itself.

    unshare -n src/core/fuzz/seeds.py DIRECTORY

Each is a file, from its IP header on: TCP from SYN to RST, UDP, options and
extension headers, fragments, and the ICMP errors about some of these.
"""

import fcntl
import hashlib
import pathlib
import socket
import struct
import sys

ETH_P_ALL = 3
IPV6_HOPOPTS, IPV6_DSTOPTS = 54, 59


def up(name, mtu):
    """Brings a device up."""
    with socket.socket() as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", name, 0x41))  # SIOCSIFFLAGS
        fcntl.ioctl(s, 0x8922, struct.pack("16si12x", name, mtu))  # SIOCSIFMTU


def converse(family, host):
    """A TCP connection that is reset, one that is refused; UDP with and without a listener."""
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname()[:2])
        server, _ = listener.accept()
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        server.recv(100)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        server.close()
    try:
        socket.create_connection((host, 9))
    except ConnectionRefusedError:
        pass
    options = [None]
    if family == socket.AF_INET:
        options.append((socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([7, 7, 4, 0, 0, 0, 0, 0])))
    else:
        pad = bytes([0, 0, 1, 4, 0, 0, 0, 0])
        options += [(socket.IPPROTO_IPV6, number, pad) for number in (IPV6_HOPOPTS, IPV6_DSTOPTS)]
    for option in options:
        for size in (4, 2000):
            with socket.socket(family, socket.SOCK_DGRAM) as s:
                if option:
                    s.setsockopt(*option)
                s.sendto(bytes(size), (host, 9))


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    up(b"lo", 1500)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as capture:
        capture.bind(("lo", ETH_P_ALL))
        capture.settimeout(0.5)
        converse(socket.AF_INET, "127.0.0.1")
        converse(socket.AF_INET6, "::1")
        try:
            while True:
                packet = capture.recv(200)
                name = hashlib.sha1(packet).hexdigest()
                (directory / name).write_bytes(packet)
        except TimeoutError:
            pass


main()
