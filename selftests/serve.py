#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Answers with a name, over UDP or SCTP: serve.py PROTO ADDRESS PORT NAME."""

import asyncio
import socket
import sys


class Echo(asyncio.DatagramProtocol):
    def __init__(self, name):
        self.name = name

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data + b" " + self.name, addr)


async def main(proto, address, port, name):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    name = name.encode()

    async def serve(reader, writer):
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\n\r\n"
                writer.write(head.encode() + name)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    if proto == "udp":
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((address, port))
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: Echo(name), sock=sock)
    else:
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        await asyncio.start_server(serve, sock=sock, backlog=512)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
