#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Does with packets what ipvsadm-mhs simulate --plan wrote down: jet.py PLAN SUMMARY.

Each connection is a SYN from an address of its own, an ACK, more of them as the plan says, and a FIN.
They leave by eth0; behind the device "servers" each server is a MAC address, so that whoever looks
there sees where a packet was sent. Servers that fail are deleted, and their connections say no more.
A connection is broken if a packet of it gets to another server than the first one did, or to none.

Packets and changes come in the order of the plan, however late they are. SUMMARY is what simulate
--json said, for a session timeout and other times as they are in this guest. Prints as JSON what was
seen, and beside it how that differs from the plan.
"""

import argparse
import gc
import json
import socket
import struct
import time

import genl
from ring import Ring, Tap

VIP, PORT = "192.0.2.100", 80
# The numbers of simulate.
SERVER = int.from_bytes(socket.inet_aton("10.0.0.1"))
# Of in0, where the balancer gets packets.
BALANCER = bytes.fromhex("02000000ff01")
SYN, ACK, FIN = 2, 16, 1
FRAMES, SIZE = 512, 128
# Milliseconds whose packets are sent together.
PAUSE = 8
# Milliseconds after which somebody looks at the entries anyway: none may come and go unseen.
LOOK = 500
# What the last bytes of the server's MAC address and the client's address say.
SEEN = struct.Struct("!4xH20xI")

PLANNED, LIVE, ENDED, FAILED, BROKEN = range(5)


def folded(total):
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


class Template:
    """Segments of connections, made by writing the client's address and the flags into one."""

    # Flags are the 14th byte of TCP's header.
    FLAGS = 47

    def __init__(self):
        vip = socket.inet_aton(VIP)
        tcp = struct.pack("!HHIIBBHHH", 1024, PORT, 1, 1, 0x50, 0, 1024, 0, 0)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, bytes(4), vip)
        self.frame = bytearray(BALANCER + bytes.fromhex("02000000ff000800") + ip + tcp)
        self.ip = sum(struct.unpack("!10H", ip))
        self.tcp = sum(struct.unpack("!10H", tcp)) + sum(struct.unpack("!2H", vip)) + 6 + len(tcp)

    def segment(self, client, flags):
        half = (client >> 16) + (client & 0xFFFF)
        frame = self.frame
        struct.pack_into("!HI", frame, 24, folded(self.ip + half) ^ 0xFFFF, client)
        frame[self.FLAGS] = flags
        struct.pack_into("!H", frame, 50, folded(self.tcp + half + flags) ^ 0xFFFF)
        return bytes(frame)


class Flow:
    """A connection, and what became of it."""

    __slots__ = ("client", "start", "end", "gap", "server", "tracked", "state", "home", "entry", "unseen", "ack")

    def __init__(self, planned):
        self.client = int.from_bytes(socket.inet_aton(planned["client"]))
        self.start, self.end, self.gap = planned["start"], planned["end"], planned["gap"]
        # What is to be: its server, and whether it ever has an entry.
        self.server, self.tracked = planned["server"], planned["tracked"]
        # And what is.
        self.state, self.home, self.entry = PLANNED, None, False
        # Packets that were sent and have not arrived.
        self.unseen = 0
        # The packet that it sends again and again.
        self.ack = None


class Play:
    def __init__(self, plan, summary):
        self.flows = [Flow(planned) for planned in plan["flows"]]
        self.by_client = {flow.client: flow for flow in self.flows}
        self.samples = [(round(sample["minute"] * 60000), sample) for sample in summary["samples"]]
        self.end = self.samples[-1][0]
        # What happens in each millisecond: first changes, then packets, and then somebody looks.
        self.due = [[] for _ in range(self.end + 1)]
        for flow in self.flows:
            if flow.start <= self.end:
                self.due[flow.start].append(flow)
        self.changes = {}
        for at, change in plan["changes"]:
            self.changes.setdefault(at, []).extend(change.items())
        self.looks = {at for at, _ in self.samples}
        # Servers that are out, and how.
        self.out = {}
        self.ring = Ring(FRAMES, SIZE)
        self.tap = Tap("servers", 1 << 14, SIZE)
        self.template = Template()
        self.ipvs = genl.Family(name=b"IPVS")
        self.packets = self.under_way = self.lost = self.late = 0
        self.entries = []

    def send(self, flow, *packets):
        for packet in packets:
            self.ring.append(packet)
        self.packets += len(packets)
        self.under_way += len(packets)
        flow.unseen += len(packets)

    def flush(self):
        """What was sent leaves, and what arrived is looked at."""
        self.ring.flush()
        for server, client in self.tap.take(SEEN):
            flow = self.by_client[client]
            self.under_way -= 1
            flow.unseen -= 1
            if flow.home is None:
                flow.home = server
            elif flow.home != server and flow.state != FAILED:
                flow.state = BROKEN

    def all_arrive(self):
        """Waits for the packets that are under way; those that do not come are lost."""
        self.flush()
        end = time.monotonic() + 2
        while self.under_way and time.monotonic() < end:
            time.sleep(0.01)
            self.flush()
        if self.under_way:
            self.lost += self.under_way
            self.under_way = 0
            for flow in self.flows:
                if flow.unseen and flow.state != FAILED:
                    flow.state = BROKEN
                flow.unseen = 0

    def look(self):
        """Who has an entry."""
        count = 0
        with open("/proc/net/ip_vs_conn", encoding="ascii") as table:
            next(table)
            for line in table:
                count += 1
                self.by_client[int(line.split(None, 2)[1], 16)].entry = True
        return count

    def change(self, how, index):
        self.all_arrive()
        # Entries may go with it.
        self.look()
        address = socket.inet_ntoa((SERVER + index).to_bytes(4))
        known = how == "drain" or (how == "return" and self.out.get(index) == "drain")
        command = genl.DEL_DEST if how in ("fail", "delete") else genl.SET_DEST if known else genl.NEW_DEST
        dest = genl.ipvs_dest(address, weight=0 if how == "drain" else 1)
        answers = self.ipvs.ask(
            command, genl.request(genl.ipvs_key(VIP, PORT), dest), genl.REQUEST | genl.ACK
        )
        if genl.what(answers[-1]) != "ok":
            raise SystemExit(f"{how} {address}: {genl.what(answers[-1])}")
        if how == "return":
            del self.out[index]
            return
        self.out[index] = how
        if how == "fail":
            for flow in self.flows:
                if flow.home == index and flow.state == LIVE:
                    flow.state = FAILED

    def packet(self, flow, now):
        """The next packet of a flow."""
        if flow.state == LIVE and now < flow.end:
            self.send(flow, flow.ack)
        elif flow.state == LIVE:
            self.send(flow, flow.ack, self.template.segment(flow.client, FIN | ACK))
            flow.state = ENDED
            return
        elif flow.state == PLANNED:
            flow.state = LIVE
            flow.ack = self.template.segment(flow.client, ACK)
            # The client's answer to the server's SYN is there at once: entries are established.
            self.send(flow, self.template.segment(flow.client, SYN), flow.ack)
        else:
            return
        following = min(now + flow.gap, flow.end)
        if following <= self.end:
            self.due[following].append(flow)

    def run(self, limit):
        """Does it all, or as much as could be done until it was more milliseconds late than `limit`."""
        begin, elapsed = time.monotonic(), 0
        for now, due in enumerate(self.due):
            if elapsed < now:
                elapsed = (time.monotonic() - begin) * 1000
                self.late = max(self.late, int(elapsed) - now)
                if self.late > limit:
                    return
            if elapsed < now:
                self.flush()
                time.sleep((now + PAUSE - elapsed) / 1000)
            for change in self.changes.get(now, ()):
                self.change(*change)
            for flow in due:
                self.packet(flow, now)
            if now in self.looks:
                self.flush()
                self.entries.append(self.look())
            elif now % LOOK == 0:
                self.flush()
                self.look()
            due.clear()
        self.all_arrive()
        self.look()

    def load(self, servers):
        """What the busiest server has, over the average: as simulate counts it, of who lives now."""
        loads = {index: 0 for index in range(servers) if index not in self.out}
        for flow in self.flows:
            if flow.state == LIVE and flow.home in loads:
                loads[flow.home] += 1
        return max(loads.values()) * len(loads) / max(1, sum(loads.values()))

    def result(self, servers):
        flows = [flow for flow in self.flows if flow.state != PLANNED]
        wanted = [sample["mhs_entries"] for _, sample in self.samples]
        return {
            "connections": len(flows),
            "changes": sum(len(changes) for at, changes in self.changes.items() if at <= self.end),
            "packets": self.packets,
            "late": self.late,
            "lost": self.lost,
            # Connections that ended with their server.
            "failed": sum(flow.state == FAILED for flow in flows),
            "broken": sum(flow.state == BROKEN for flow in flows),
            "tracked": sum(flow.entry for flow in flows),
            "peak": max(self.entries, default=0),
            "load": self.load(servers),
            "expected": {
                # Those that are not so.
                "server_differs": sum(flow.home != flow.server for flow in flows),
                "tracked_differs": sum(flow.entry != flow.tracked for flow in flows),
                "tracked": sum(flow.tracked for flow in flows),
                "peak": max(wanted),
                "entries_differ": max(abs(got - want) for got, want in zip(self.entries, wanted)),
            },
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan")
    parser.add_argument("summary")
    parser.add_argument("--servers", type=int, required=True)
    parser.add_argument("--late", type=float, default=float("inf"), help="milliseconds; if it is later it stops")
    args = parser.parse_args()
    with open(args.plan, encoding="ascii") as plan, open(args.summary, encoding="ascii") as summary:
        play = Play(json.load(plan), json.load(summary))
    # Pauses would only make it late.
    gc.disable()
    play.run(args.late)
    dropped = play.tap.lost()
    if dropped:
        raise SystemExit(f"{dropped} packets were not looked at")
    print(json.dumps(play.result(args.servers)))


if __name__ == "__main__":
    main()
