#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""HTTP clients by the hundred, in one process.

  load.py short N   N short connections, each from its own address
  load.py long N    N connections that keep sending until standard input ends;
                    a line "status" there asks for a line of JSON
  load.py stray N   N TCP segments of no connection, each from its own flow;
                    with N = 0 until killed

The servers answer with their name. A long connection remembers who answered
first; any other answer counts as moved.
"""

import argparse
import asyncio
import collections
import ipaddress
import itertools
import json
import socket
import struct
import sys


def vip(args, index):
    """The virtual address of a connection: several take turns."""
    return args.vip[index % len(args.vip)]


def source(args, index):
    """The client address of a connection."""
    net = "fd01::" if ":" in vip(args, index) else "10.1.0.0"
    if args.one_address:
        index = 0
    return str(ipaddress.ip_address(net) + 1 + args.first + index)


REQUEST = "GET / HTTP/1.1\r\nHost: x\r\nConnection: {}\r\n\r\n"


class Stream:
    """A TCP connection or SCTP association that carries HTTP."""

    async def open(self, args, index):
        address = vip(args, index)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        proto = socket.IPPROTO_SCTP if args.proto == "sctp" else socket.IPPROTO_TCP
        self.timeout = args.timeout
        sock = socket.socket(family, socket.SOCK_STREAM, proto)
        sock.setblocking(False)
        sock.bind((source(args, index), 0))
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.sock_connect(sock, (address, args.port)), self.timeout)
        except BaseException:
            sock.close()
            raise
        self.reader, self.writer = await asyncio.open_connection(sock=sock)

    async def ask(self, last=False):
        """Sends a request and returns the name of who answered."""
        self.writer.write(REQUEST.format("close" if last else "keep-alive").encode())
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), self.timeout)
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = await asyncio.wait_for(self.reader.readexactly(length), self.timeout)
        return body.decode()

    def close(self, abort=False):
        if abort:
            # RST or ABORT: entries end soon, and the next test need not wait.
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()


class Datagrams:
    """A UDP flow. A datagram that is lost is sent again, as clients of UDP do."""

    async def open(self, args, index):
        address = vip(args, index)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.timeout = args.timeout
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((source(args, index), 0))
        self.sock.connect((address, args.port))
        self.serial = 0
        self.size = args.size

    async def ask(self, last=False):
        loop = asyncio.get_running_loop()
        self.serial += 1
        for _ in range(max(1, int(self.timeout / 2))):
            await loop.sock_sendall(self.sock, str(self.serial).ljust(self.size).encode())
            try:
                while True:
                    answer = await asyncio.wait_for(loop.sock_recv(self.sock, 65536), 2)
                    serial, name = answer.decode().split()
                    if int(serial) == self.serial:
                        return name
            except asyncio.TimeoutError:
                continue
        raise asyncio.TimeoutError

    def close(self, abort=False):
        self.sock.close()


async def connect(args, index):
    flow = Datagrams() if args.proto == "udp" else Stream()
    await flow.open(args, index)
    return flow


async def short(args):
    servers = collections.Counter()
    errors = collections.Counter()
    by_client = {}
    gate = asyncio.Semaphore(args.conc)

    async def one(index):
        async with gate:
            try:
                flow = await connect(args, index)
                name = await flow.ask(last=True)
                servers[name] += 1
                by_client[source(args, index)] = name
                flow.close()
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                errors[type(error).__name__] += 1

    await asyncio.gather(*(one(i) for i in range(args.count)))
    answer = {
        "asked": args.count,
        "answered": sum(servers.values()),
        "failed": sum(errors.values()),
        "servers": dict(sorted(servers.items())),
        "errors": errors,
    }
    if args.clients:
        answer["clients"] = by_client
    return answer


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def stray(args):
    """Segments out of nothing, IPv4."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    dst = socket.inet_aton(vip(args, 0))
    bits = sum({"S": 2, "A": 16, "R": 4, "F": 1}[flag] for flag in args.flags)
    numbers = range(args.count) if args.count else itertools.count()
    for i in numbers:
        src = socket.inet_aton(source(args, i % 60000))
        ports = struct.pack("!HH", 1024 + i % 60000, args.port)
        tcp = ports + struct.pack("!IIBBHHH", i, i, 0x50, bits, 1024, 0, 0)
        pseudo = src + dst + struct.pack("!BBH", 0, 6, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + src + dst
        try:
            raw.sendto(ip + tcp, (vip(args, 0), 0))
        except OSError:
            pass  # A full queue loses packets, as any network does.
    print(json.dumps({"sent": args.count}))


class Long:
    """Connections that go on."""

    def __init__(self, args):
        self.args = args
        self.state = {}
        self.home = {}
        self.rounds = 0
        self.stopping = False

    async def one(self, index):
        try:
            flow = await connect(self.args, index)
            self.home[index] = await flow.ask()
            self.state[index] = "alive"
            while not self.stopping:
                await asyncio.sleep(self.args.pause)
                name = await flow.ask()
                self.rounds += 1
                if name != self.home[index]:
                    self.state[index] = "moved"
                    return
            flow.close(abort=True)
        except asyncio.TimeoutError:
            self.state[index] = "hung"
        except (OSError, asyncio.IncompleteReadError):
            self.state[index] = "reset"

    def status(self):
        states = collections.Counter(self.state.values())
        homes = collections.Counter(
            home for index, home in self.home.items() if self.state.get(index) == "alive"
        )
        broken = collections.Counter(
            home for index, home in self.home.items() if self.state.get(index) != "alive"
        )
        return {
            "total": self.args.count,
            "alive": states["alive"],
            "broken": self.args.count - states["alive"],
            "states": states,
            "servers": dict(sorted(homes.items())),
            "broken_on": dict(sorted(broken.items())),
            "broken_at": collections.Counter(
                vip(self.args, index) for index, state in self.state.items() if state != "alive"
            ),
            "rounds": self.rounds,
        }

    async def run(self):
        tasks = []
        for index in range(self.args.count):
            tasks.append(asyncio.ensure_future(self.one(index)))
            if index % 20 == 19:
                await asyncio.sleep(0.05)
        while len(self.state) < self.args.count:
            await asyncio.sleep(0.1)
        print(json.dumps(self.status()), flush=True)
        loop = asyncio.get_running_loop()
        lines = asyncio.StreamReader()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        while line := await lines.readline():
            if line.strip() == b"status":
                # Let every connection speak at least twice, so that the answer is about now.
                before = self.rounds
                alive = self.status()["alive"]
                for _ in range(600):
                    if self.rounds - before >= 2 * alive:
                        break
                    await asyncio.sleep(0.1)
                print(json.dumps(self.status()), flush=True)
        self.stopping = True
        await asyncio.gather(*tasks)


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["short", "long", "stray"])
    parser.add_argument("count", type=int)
    parser.add_argument(
        "--vip", type=lambda text: text.split(","), default=["10.0.0.100"], help="or several, by commas"
    )
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--proto", choices=["tcp", "udp", "sctp"], default="tcp")
    parser.add_argument("--size", type=int, default=0, help="bytes of a datagram, at least")
    parser.add_argument("--conc", type=int, default=20, help="connections at a time")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between requests")
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--first", type=int, default=0, help="the first client's number")
    parser.add_argument("--one-address", action="store_true", help="all from one address")
    parser.add_argument("--clients", action="store_true", help="say who got whom")
    parser.add_argument("--flags", default="A", help="of stray segments: letters of SARF")
    return parser.parse_args(argv)


def main():
    args = parse()
    match args.what:
        case "short":
            print(json.dumps(asyncio.run(short(args))), flush=True)
        case "long":
            asyncio.run(Long(args).run())
        case "stray":
            stray(args)


if __name__ == "__main__":
    main()
