#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""HTTP clients by the hundred, in one process.

  load.py short N   N short connections, each from its own address
  load.py long N    N connections that keep sending until standard input ends;
                    each line there is answered by a line of JSON
  load.py stray N   N TCP segments of no connection, each from its own flow;
                    with N = 0 until killed
  load.py serve   does what lines on standard input say: input, output, and words as above

The servers answer with their name. A long connection remembers who answered
first; any other answer counts as moved.

Long connections may come and go (--life), and then most of them are to
break for no reason. These lines on standard input give reasons:

  delete NAME   who lives on that server, or comes to, may break from now on
  drain NAME    so may UDP flows, which then live on elsewhere
  back NAME     who comes to that server from now on may not
  closed, open  who comes meanwhile may be refused

and who was silent for --silence seconds just before, too. What a drain or a deletion lets a UDP
flow do is to go elsewhere: it has no reason to hang, and is refused only when new ones are. "status"
asks for nothing else.
"""

import argparse
import asyncio
import collections
import ipaddress
import itertools
import json
import os
import random
import shlex
import signal
import socket
import struct
import sys
import time

from ring import checksum


def vip(args, index):
    """The virtual address of a connection: several take turns."""
    return args.vip[index % len(args.vip)]


def protocol(args, index):
    return args.proto[index % len(args.proto)]


def port(args, index):
    return args.port[index % len(args.port)]


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
        proto = socket.IPPROTO_SCTP if protocol(args, index) == "sctp" else socket.IPPROTO_TCP
        self.timeout = args.timeout
        sock = socket.socket(family, socket.SOCK_STREAM, proto)
        sock.setblocking(False)
        sock.bind((source(args, index), 0))
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.sock_connect(sock, (address, port(args, index))), self.timeout)
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
        self.sock.connect((address, port(args, index)))
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
    flow = Datagrams() if protocol(args, index) == "udp" else Stream()
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
            await asyncio.sleep(args.rest)

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


def stray(args):
    """Segments out of nothing, IPv4."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    dst = socket.inet_aton(vip(args, 0))
    bits = sum({"S": 2, "A": 16, "R": 4, "F": 1}[flag] for flag in args.flags)
    numbers = range(args.count) if args.count else itertools.count()
    for i in numbers:
        src = socket.inet_aton(source(args, i % 60000))
        ports = struct.pack("!HH", 1024 + i % 60000, port(args, i))
        tcp = ports + struct.pack("!IIBBHHH", i, i, 0x50, bits, 1024, 0, 0)
        pseudo = src + dst + struct.pack("!BBH", 0, 6, len(tcp))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + src + dst
        try:
            raw.sendto(ip + tcp, (vip(args, 0), 0))
        except OSError:
            pass  # A full queue loses packets, as any network does.
        # Who sends for ever must leave a CPU to others, if there is one only.
        if not args.count and i % 64 == 63:
            time.sleep(0.01)
    print(json.dumps({"sent": args.count}))


class Reasons:
    """When flows may break, and why."""

    def __init__(self):
        # For each server, or None for new flows: what happened to it, from when, until when.
        self.spans = collections.defaultdict(list)

    def begin(self, what, name=None):
        self.spans[name].append([what, time.monotonic(), float("inf")])

    def end(self, name=None):
        now = time.monotonic()
        for span in self.spans[name]:
            span[2] = min(span[2], now)

    def find(self, began, name, whats):
        """What happened to a server since then."""
        for what, _, end in self.spans[name]:
            if what in whats and end >= began:
                return what
        return None


class Flow:
    """A long connection, and what is known of it."""

    def __init__(self, index, proto):
        self.index = index
        self.proto = proto
        self.began = self.spoke = time.monotonic()
        self.home = None
        self.state = None
        self.reason = None
        self.got = None
        self.silent = 0
        self.rounds = 0

    def speaks(self):
        now = time.monotonic()
        self.silent = now - self.spoke
        self.spoke = now


class Long:
    """Connections that go on."""

    def __init__(self, args):
        self.args = args
        self.flows = {}
        self.reasons = Reasons()
        # New ones have numbers of their own.
        self.next = args.count
        self.random = random.Random(args.seed)
        self.rounds = 0
        # UDP flows that had a reason to go elsewhere.
        self.rehomed = 0
        self.stopping = False

    def reason(self, flow, state="moved"):
        """Why a flow may be broken, if it may."""
        find, reason = self.reasons.find, None
        if flow.home is None:
            reason = find(flow.began, None, ("closed",))
        elif flow.proto != "udp":
            reason = find(flow.began, flow.home, ("delete",))
        elif state == "moved" or state == "reset" and find(flow.spoke, None, ("closed",)):
            reason = find(flow.began, flow.home, ("delete", "drain"))
        if reason is None and self.args.silence and flow.silent > self.args.silence:
            reason = "silent"
        return reason

    async def live(self, index, life=None):
        """A connection from its beginning to its end."""
        flow = self.flows[index] = Flow(index, protocol(self.args, index))
        end = flow.began + life if life else float("inf")
        try:
            link = await connect(self.args, index)
            flow.home = flow.got = await link.ask()
            flow.state = "alive"
            while not self.stopping and time.monotonic() < end:
                await asyncio.sleep(min(self.args.pause, max(0, end - time.monotonic())))
                flow.speaks()
                got = flow.got = await link.ask()
                self.rounds += 1
                flow.rounds += 1
                if got == flow.home:
                    continue
                reason = self.reason(flow)
                if flow.proto == "udp" and reason:
                    self.rehomed += 1
                    flow.home = got
                    flow.began = time.monotonic()
                    continue
                flow.state, flow.reason = "moved", reason
                return
            if life:
                link.close()
                flow.state = "closed"
            else:
                link.close(abort=True)
        except asyncio.TimeoutError:
            flow.state, flow.reason = "hung", self.reason(flow, "hung")
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            flow.state, flow.reason = "reset", self.reason(flow, "reset")

    async def seat(self, index):
        """One connection after the other, or one for ever."""
        while True:
            mean = self.args.life
            await self.live(index, mean and self.random.expovariate(1 / mean))
            if not self.args.life or self.stopping:
                return
            if self.flows[index].state != "closed":
                await asyncio.sleep(self.args.pause)
            index, self.next = self.next, self.next + 1

    def story(self, flow):
        """What is known of a flow, for people."""
        now = time.monotonic()
        return (
            f"{flow.proto} from {source(self.args, flow.index)} that began {now - flow.began:.1f} s ago "
            f"on {flow.home}, {flow.rounds} answers, last sent {now - flow.spoke:.1f} s ago, "
            f"answered last by {flow.got}: {flow.state}"
        )

    def status(self):
        flows = [flow for flow in self.flows.values() if flow.state]
        states = collections.Counter(flow.state for flow in flows)
        broken = [flow for flow in flows if flow.state not in ("alive", "closed")]

        def by_home(flows):
            homes = collections.Counter(flow.home for flow in flows if flow.home)
            return dict(sorted(homes.items()))

        total = len(flows) if self.args.life else self.args.count
        wrong = [flow for flow in broken if not flow.reason]
        return {
            "total": total,
            "alive": states["alive"],
            "broken": total - states["alive"] - states["closed"],
            "states": states,
            "servers": by_home(flow for flow in flows if flow.state == "alive"),
            "protocols": {
                proto: by_home(flow for flow in flows if flow.state == "alive" and flow.proto == proto)
                for proto in self.args.proto
            },
            "broken_on": by_home(broken),
            "broken_at": collections.Counter(vip(self.args, flow.index) for flow in broken),
            "reasons": collections.Counter(flow.reason for flow in broken if flow.reason),
            "wrong": len(wrong),
            "wrong_states": collections.Counter(flow.state for flow in wrong),
            "first_wrong": [self.story(flow) for flow in wrong[:5]],
            "rehomed": self.rehomed,
            "rounds": self.rounds,
        }

    async def all_speak(self):
        """Lets every connection speak at least twice, so that an answer is about now, and one that
        is not answered has hung by then."""
        alive = [(flow, flow.rounds) for flow in self.flows.values() if flow.state == "alive"]
        while not all(flow.rounds >= n + 2 or flow.state != "alive" for flow, n in alive):
            await asyncio.sleep(0.1)

    async def answer(self, line):
        """What a line on standard input is answered."""
        what, *names = line.split()
        if what == "status":
            await self.all_speak()
            return self.status()
        if what in ("delete", "drain", "closed"):
            self.reasons.begin(what, *names)
        elif what in ("back", "open"):
            self.reasons.end(*names)
        else:
            sys.exit(f"'{line}': status, delete NAME, drain NAME, back NAME, closed or open")
        return {}

    async def run(self):
        tasks = []
        for index in range(self.args.count):
            tasks.append(asyncio.ensure_future(self.seat(index)))
            if index % 20 == 19:
                await asyncio.sleep(0.05)
        first = range(self.args.count)
        while not all(i in self.flows and self.flows[i].state for i in first):
            await asyncio.sleep(0.1)
        print(json.dumps(self.status()), flush=True)
        loop = asyncio.get_running_loop()
        lines = asyncio.StreamReader()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        while line := await lines.readline():
            print(json.dumps(await self.answer(line.decode().strip())), flush=True)
        self.stopping = True
        await asyncio.gather(*tasks)


def protocols(text):
    for proto in text.split(","):
        if proto not in ("tcp", "udp", "sctp"):
            raise argparse.ArgumentTypeError(f"'{proto}' is none of tcp, udp, sctp")
    return text.split(",")


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["short", "long", "stray"])
    parser.add_argument("count", type=int)
    parser.add_argument(
        "--vip", type=lambda text: text.split(","), default=["10.0.0.100"], help="or several, by commas"
    )
    parser.add_argument(
        "--port", type=lambda text: [int(one) for one in text.split(",")], default=[80],
        help="or several, by commas",
    )
    parser.add_argument("--proto", type=protocols, default=["tcp"], help="or several, by commas")
    parser.add_argument("--size", type=int, default=0, help="bytes of a datagram, at least")
    parser.add_argument("--conc", type=int, default=20, help="connections at a time")
    parser.add_argument("--rest", type=float, default=0, help="seconds after a short connection")
    parser.add_argument("--pause", type=float, default=1, help="seconds between requests")
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("--life", type=float, help="mean seconds of a long connection; then comes another")
    parser.add_argument("--seed", type=int, default=1, help="of lives")
    parser.add_argument(
        "--silence", type=float, default=0, help="seconds without a packet that may break a connection"
    )
    parser.add_argument("--first", type=int, default=0, help="the first client's number")
    parser.add_argument("--one-address", action="store_true", help="all from one address")
    parser.add_argument("--clients", action="store_true", help="say who got whom")
    parser.add_argument("--flags", default="A", help="of stray segments: letters of SARF")
    return parser.parse_args(argv)


def serve():
    """Makes a process for each line. What they all use is loaded once: in an emulated guest that takes longer
    than most of what they do."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := sys.stdin.readline():
        source, target, *words = shlex.split(line)
        if os.fork():
            continue
        for path, how, to in (source, os.O_RDONLY, 0), (target, os.O_WRONLY, 1):
            file = os.open(path, how)
            os.dup2(file, to)
            os.close(file)
        sys.stdin = open(0, encoding="utf-8", closefd=False)
        main(words)
        return


def main(words):
    if words == ["serve"]:
        return serve()
    args = parse(words)
    match args.what:
        case "short":
            print(json.dumps(asyncio.run(short(args))), flush=True)
        case "long":
            asyncio.run(Long(args).run())
        case "stray":
            stray(args)


if __name__ == "__main__":
    main(sys.argv[1:])
