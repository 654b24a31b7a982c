#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Everything at once, for a while, in the network of torture.sh.

  torture.py --seconds N --seed S         does it; one line of JSON in the end
  torture.py --seconds N --seed S --plan COUNT
                                          prints what each task would do first, and does nothing

Each task has a stream of actions of its own that depends on the seed and on nothing else, so the
same seed gives the same streams: a service belongs to one task, which knows without asking what it
made of it. Only how the streams interleave is left to the machine. What was done is printed as it
is done, with the clock of the kernel's log. The first thing amiss ends it:

  * a server that is deleted or of weight 0 answers a new connection
  * a command that should succeed does not, while memory is not made to fail
  * a command, or a task, takes minutes
  * the module cannot be unloaded when nothing uses it
"""

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import threading
import time

import load

SERVERS = range(1, 5)
# Seconds after which something hangs. 20,000 packets are sent in some tens of seconds; by a kernel that
# checks itself, when all else goes on too, in some hundreds.
PATIENCE = 1500 if os.path.exists("/sys/kernel/debug/kmemleak") else 300
FAILSLAB = pathlib.Path("/sys/kernel/debug/failslab")
CACHES = pathlib.Path("/sys/kernel/slab")
SYSCTL = pathlib.Path("/proc/sys/net/ipv4/vs")
# Clients by their numbers in load.py: those of checks, of masqueraded flows, of all other traffic.
CHECKS, MASQUERADED, TRAFFIC = 4096, 2 << 16, 3 << 16


@dataclasses.dataclass(frozen=True)
class Service:
    """What a task owns. Its servers are the boxes of lib.sh."""

    name: str
    option: str
    server: str
    vip: str
    port: int
    first: int
    proto: str = "tcp"
    methods: tuple = (
        "-g",
        "-i",
        "-i --tun-type gue --tun-port 5555 --tun-nocsum",
        "-i --tun-type gue --tun-port 5555 --tun-csum",
        "-i --tun-type gre --tun-nocsum",
    )
    schedulers: tuple = ("mhs", "mhs", "mhs", "mh", "rr")
    # What ipvsadm cannot make.
    any_port: bool = False

    @property
    def flags(self):
        """Sets of flags, as options."""
        flags = [f"-b flag-{n}" for n in (1, 2, 3)] + ["-b flag-1,flag-2", "-b flag-2,flag-3", ""]
        return flags + ["-o"] * (self.proto == "udp")


SERVICES = [
    Service("tcp", "-t 10.0.0.100:80", "10.0.0.1{}:80", "10.0.0.100", 80, CHECKS),
    Service("tcp6", "-t [fd00::100]:80", "[fd00::1{}]:80", "fd00::100", 80, CHECKS, methods=("-g", "-i")),
    Service("udp", "-u 10.0.0.100:53", "10.0.0.1{}:53", "10.0.0.100", 53, CHECKS + 8192, "udp"),
    Service("sctp", "--sctp-service 10.0.0.100:99", "10.0.0.1{}:99", "10.0.0.100", 99, CHECKS + 16384, "sctp"),
    Service("mark", "-f 1", "10.0.0.1{}:0", "10.0.0.101", 80, CHECKS + 24576),
    Service("mark6", "-f 2 -6", "[fd00::1{}]:0", "fd00::101", 80, CHECKS + 8192, methods=("-g", "-i")),
    Service("any", "-t 10.0.0.102:0", "10.0.0.1{}:0", "10.0.0.102", 80, CHECKS + 32768, any_port=True),
    Service("masq", "-t 10.0.0.103:80", "10.0.0.1{}:80", "10.0.0.103", 80, MASQUERADED, methods=("-m", "-m", "-g")),
]
WILD = "10.0.0.104"


@dataclasses.dataclass(frozen=True)
class Action:
    """What a task does next; `what` says how, and is printed."""

    kind: str
    what: tuple
    pause: float = 0.0

    def __str__(self):
        return f"{self.kind}: " + "; ".join(str(part) for part in self.what)


# Streams of actions. They must not look at the world.


def owner(service, rng):
    """A service and its servers come, change and go; now and then new connections are made."""
    weight, how = {}, {}
    scheduler, flags, persistence = "mhs", "", ""
    checks = 0

    def server(option, n):
        line = f"-{option} {service.option} -r {service.server.format(n)}"
        return line if option == "d" else f"{line} {how[n]} -w {weight[n]}"

    def put(n):
        weight[n] = rng.choice([1, 1, 1, 2, 3, 10, 0])
        how[n] = rng.choice(service.methods)
        return server("a", n)

    def make():
        if service.any_port:
            return "any_port --empty"
        return f"-A {service.option} -s {scheduler} {flags} {persistence}"

    def edit():
        if service.any_port:
            return "any_port --edit " + " ".join(
                f"--flag {flag[-1]}" for flag in flags.removeprefix("-b ").split(",") if flag
            )
        return f"-E {service.option} -s {scheduler} {flags} {persistence}"

    def act(kind, *lines):
        return Action(kind, lines, rng.choice([0, 0, 0.1, 0.5, 1]))

    yield act("make", make(), *[put(n) for n in SERVERS])
    wanted = {
        "add": 4, "delete": 3, "drain": 3, "weight": 3, "method": 2, "threshold": 1, "flap": 2,
        "scheduler": 1, "flags": 2, "persistence": 1, "remake": 1, "check": 6,
    }  # fmt: skip
    if service.any_port:
        for kind in ("scheduler", "persistence"):
            del wanted[kind]
    while True:
        kind = rng.choices(list(wanted), wanted.values())[0]
        here = sorted(weight)
        n = rng.choice(SERVERS if kind == "add" else here or SERVERS)
        match kind:
            case "add" if n not in weight:
                yield act(kind, put(n))
            case "delete" if len(here) > 1:
                line = server("d", n)
                del weight[n]
                yield act(kind, line)
            case "drain" if here:
                weight[n] = 0
                yield act(kind, server("e", n))
            case "weight" if here:
                weight[n] = rng.choice([1, 2, 3, 5, 100, 65535])
                yield act(kind, server("e", n))
            case "method" if here:
                how[n] = rng.choice(service.methods)
                yield act(kind, server("e", n))
            case "threshold" if here:
                upper = rng.choice([0, 1, 5, 50])
                yield act(kind, f"{server('e', n)} -x {upper} -y {upper // 2}")
            case "flap" if here:
                lines = []
                for _ in range(rng.randint(2, 6)):
                    if rng.random() < 0.5:
                        before = weight[n]
                        weight[n] = 0
                        lines.append(server("e", n))
                        weight[n] = before
                        lines.append(server("e", n))
                    else:
                        lines += [server("d", n), server("a", n)]
                yield act(kind, *lines)
            case "scheduler":
                lines = []
                for _ in range(rng.randint(1, 3)):
                    scheduler = rng.choice(service.schedulers)
                    lines.append(edit())
                yield act(kind, *lines)
            case "flags":
                flags = rng.choice(service.flags)
                if service.any_port and flags == "-o":
                    flags = ""
                yield act(kind, edit())
            case "persistence":
                persistence = "" if persistence else f"-p {rng.randint(3, 10)}"
                yield act(kind, edit())
            case "remake":
                lines = [f"-D {service.option}"]
                weight.clear()
                lines.append(make())
                some = rng.sample(SERVERS, rng.randint(1, 4))
                yield act(kind, *lines, *[put(n) for n in sorted(some)])
            case "check":
                gone = tuple(n for n in SERVERS if n not in weight)
                drained = tuple(n for n in here if weight[n] == 0)
                first = service.first + checks * 16 % 8192
                checks += 1
                # Not while clients are bound to servers, drained or not.
                drained = () if persistence else drained
                yield Action(kind, (service.name, first, ("gone", *gone), ("drained", *drained)))


def wild(name, rng):
    """Commands that make sense or do not, on services that others change, too."""
    while True:
        port = rng.choice([21, 81, 82])
        svc = f"-t {WILD}:{port}" if rng.random() < 0.8 else f"-t [fd00::104]:{port}"
        # Most are nobody, one is the balancer itself.
        server = rng.choice(["10.0.0.1", "fd00::1", f"10.0.5.{rng.randrange(60)}", f"fd00::5:{rng.randrange(9)}"])
        server = f"[{server}]" if ":" in server else server
        way = rng.choice(["-g", "-i", "-m", "-i --tun-type gre --tun-csum", "-i --tun-type gue --tun-port 5555"])
        rest = f"{way} -w {rng.choice([0, 1, 2, 65535])}"
        scheduler = rng.choice(["mhs", "mhs", "mhs", "mh", "rr", "sh", "nonesuch"])
        flags = rng.choice(["", "-b flag-1", "-b flag-2", "-b flag-3", "-p 5", "-p 5 -M 255.255.0.0", "-p 5 -M 64"])
        lines = [
            rng.choice(
                [f"-A {svc} -s {scheduler} {flags}"] * 3
                + [f"-E {svc} -s {scheduler} {flags}"] * 2
                + [f"-D {svc}"]
                + [f"-a {svc} -r {server}:{port} {rest}"] * 6
                + [f"-e {svc} -r {server}:{port} {rest}"] * 4
                + [f"-d {svc} -r {server}:{port}"] * 3
            )
        ]
        if rng.random() < 0.1:
            lines += [f"-a {svc} -r 10.0.6.{n}:{port} -g -w {rng.randint(0, 3)}" for n in range(rng.randint(5, 30))]
        yield Action("wild", tuple(lines), rng.choice([0, 0.1, 0.3]))


def module(name, rng):
    """All services go and come back; sometimes the module goes in between."""
    while True:
        pause = rng.uniform(8, 25)
        if rng.random() < 0.5:
            yield Action("restore", (f"after {rng.choice([0, 0.5, 2])} s",), pause)
            continue
        size = rng.choice([251, 509, 1021, 4093, 16381, 16381, 65521, 131071])
        key = rng.choice(["", f"hash_key={rng.randbytes(16).hex()}"])
        express = rng.choice([0, 1, 1])
        balance = rng.choice([0, 5, 10, 100])
        yield Action("reload", (f"table_size={size} balance={balance} express={express} {key}",), pause)


DEFAULTS = {
    "conntrack": 0, "conn_max": 1 << 20, "expire_nodest_conn": 0, "sloppy_tcp": 0, "sloppy_sctp": 0,
    "schedule_icmp": 0, "drop_entry": 0, "drop_packet": 0, "secure_tcp": 0, "conn_reuse_mode": 1,
    "expire_quiescent_template": 0, "backup_only": 0, "pmtu_disc": 1, "cache_bypass": 0,
    "ignore_tunneled": 0, "snat_reroute": 1, "nat_icmp_send": 0, "sync_persist_mode": 0,
    "run_estimation": 1, "est_nice": 0, "conn_lfactor": 4, "svc_lfactor": 3,
}  # fmt: skip
VALUES = {
    "conn_max": [1, 20, 100], "drop_entry": [1, 2, 3], "drop_packet": [1, 2, 3],
    "secure_tcp": [1, 2, 3], "conn_reuse_mode": [0], "pmtu_disc": [0], "snat_reroute": [0],
    "run_estimation": [0], "est_nice": [10], "conn_lfactor": [0, 8], "svc_lfactor": [0, 5],
}  # fmt: skip


def sysctls(name, rng):
    """Settings change, for a while."""
    while True:
        some = rng.sample(sorted(DEFAULTS), rng.randint(1, 3))
        yield Action("sysctl", tuple((key, rng.choice(VALUES.get(key, [1]))) for key in some), rng.uniform(0.5, 5))
        yield Action("sysctl", tuple((key, DEFAULTS[key]) for key in some), rng.uniform(0, 3))


def switches(name, rng):
    """Express mode, of one namespace."""
    while True:
        yield Action("switch", (f"ipvsadm-mhs express {rng.choice(['on', 'off'])}",), rng.uniform(0, 4))


def timeouts(name, rng):
    while True:
        tcp, fin, udp = (rng.choice([2, 5, 10, 20, 60]) for _ in range(3))
        yield Action("timeouts", (f"--set {tcp} {fin} {udp}",), rng.uniform(1, 10))


def sync(name, rng):
    """The daemons, of a group that other namespaces send to, too."""
    while True:
        state = rng.choice(["master", "backup"])
        ident = rng.choice([0, 7])
        options = f"--mcast-interface eth0 --syncid {ident}"
        yield Action("sync", (f"--start-daemon {state} {options}",), rng.uniform(1, 10))
        yield Action("sync", (f"--stop-daemon {state}",), rng.uniform(0, 3))


def questions(name, rng):
    """Those who ask, by every way there is."""
    names = ["10.0.0.100:80", "[fd00::100]:80", "udp:10.0.0.100:53", "fwmark:1", f"{WILD}:81"]
    while True:
        svc = rng.choice(names)
        what = rng.choice(["services", "dests", "slots", "unstable", "counters"])
        ynl = "python3 /host/ynl/pyynl/cli.py --spec /host/ynl/netlink/specs/ip_vs_mhs.yaml --no-schema --dump"
        questions = {
            "ipvsadm-mhs --json list": 3,
            f"ipvsadm-mhs --json show {svc}": 3,
            f"ipvsadm-mhs --json slots {svc}": 3,
            f"ipvsadm-mhs --json slots --unstable {svc}": 1,
            "ipvsadm-mhs metrics": 1,
            f"ipvsadm-mhs plan drain 10.0.0.1{rng.choice(SERVERS)}": 1,
            f"ipvsadm -Ln {rng.choice(['', '--stats', '--rate', '--thresholds', '--persistent-conn'])}": 2,
            "ipvsadm -Lnc": 1,
            "cat /proc/net/ip_vs /proc/net/ip_vs_conn /proc/net/ip_vs_stats_percpu": 1,
            f"python3 netlink.py fuzz {rng.choice([50, 300])} {rng.randrange(1 << 30)}": 2,
            f"python3 netlink.py torn {what}": 2,
            f"python3 netlink.py torn {what} ipvsadm -e -t {WILD}:81 -r 10.0.0.1:81 -g -w {rng.randrange(3)}": 1,
            f"{ynl} {rng.choice(['get-service', 'get-counters'])}": 1,
        }
        yield Action("question", (rng.choices(list(questions), questions.values())[0],), rng.uniform(0, 2))


def listeners(name, rng):
    """Those who listen to events, for some seconds; some do not read them."""
    while True:
        seconds = rng.randint(1, 10)
        command = rng.choice(
            [f"ipvsadm-mhs events --timeout {seconds}", f"netlink.py listen for {seconds}", f"netlink.py deaf for {seconds}"]
        )
        yield Action("listen", (command,), rng.uniform(0, 2))


def namespaces(name, rng):
    """Other balancers, deleted with all that is in them while they work."""
    for number in itertools.count():
        family = rng.choice([4, 4, 6])
        vip = f"10.0.0.16{number % 4}"
        svc = f"{vip}:80" if family == 4 else f"[fd00::16{number % 4}]:80"
        servers = [f"10.0.0.1{n}:80" if family == 4 else f"[fd00::1{n}]:80" for n in SERVERS]
        lines = [f"-A -t {svc} -s mhs {rng.choice(['', '-b flag-3', '-b flag-2'])}"]
        lines += [f"-a -t {svc} -r {server} {rng.choice(['-g', '-i'])}" for server in servers]
        more = []
        for _ in range(rng.randint(0, 6)):
            server = rng.choice(servers)
            more.append(rng.choice([f"-e -t {svc} -r {server} -g -w {rng.randint(0, 2)}", f"-d -t {svc} -r {server}"]))
        if rng.random() < 0.5:
            more.insert(0, "--start-daemon master --mcast-interface eth0 --syncid 7")
        end = rng.choice(["", "-C"])
        yield Action("namespace", (f"other{number % 4}", vip, *lines, *more, end), rng.uniform(0, 4))


def memory(name, rng):
    """Memory fails in bursts: for commands, or where entries are made."""
    while True:
        yield Action("memory", ("enough",), rng.uniform(3, 15))
        where = rng.choice(["commands", "commands", "entries"])
        yield Action("memory", (where, rng.choice([2, 5, 20])), rng.uniform(1, 6))


def packets(name, rng):
    """Packets that belong to no connection, and connections by the hundred."""
    vips = [service.vip for service in SERVICES if ":" not in service.vip] + [WILD, "10.0.0.160", "10.0.0.161"]
    while True:
        vip = rng.choice(vips)
        first = TRAFFIC + rng.randrange(0, 50000, 100)
        some = rng.choice([100, 1000, 20000])
        address = rng.choice(["10.0.0.100", "10.0.0.100", "fd00::100", "10.0.0.101", "fd00::101", "10.0.0.102"])
        kinds = rng.sample(["syn", "ack", "rst", "init", "heartbeat", "abort", "datagram", "error"], 3)
        what = {
            f"load.py stray {some} --flags {rng.choice('SARF')} --vip {vip} --first {first}": 8,
            f"load.py stray {some} --flags {rng.choice('SA')} --vip {vip} --first {first} --one-address": 1,
            f"load.py short {rng.choice([50, 200])} --timeout 3 --vip {address} --first {first}": 6,
            f"load.py short 100 --timeout 3 --vip {address} --first {first} --one-address": 1,
            f"load.py short 50 --timeout 3 --vip 10.0.0.103 --first {MASQUERADED + 16384}": 1,
            f"load.py short 100 --timeout 3 --proto udp --port 53 --first {first}": 3,
            f"load.py short 50 --timeout 3 --proto sctp --port 99 --first {first}": 2,
            f"craft.py {rng.choice(['options', 'extensions', 'fragments', 'tcp-options', 'nonsense'])} 500": 2,
            f"kinds.py 200 {rng.randint(2000, 60000)} {' '.join(kinds)}": 2,
            f"icmp.py {rng.choice(['3 1', '3 3', '3 4', '4 0', '11 0'])} 200": 2,
            f"flood.py {rng.choice([1024, 20480])}": 2,
        }
        yield Action("packets", (rng.choices(list(what), what.values())[0],), rng.uniform(0, 0.5))


def own_clients(name, rng):
    """The balancer's own processes are clients, too."""
    while True:
        url = rng.choice(["10.0.0.100", "[fd00::100]", "10.0.0.101", "10.0.0.102", "10.0.0.103", f"{WILD}:81"])
        yield Action("own client", (f"http://{url}/",), rng.uniform(0, 3))


def connections(name, rng):
    """Connections that go on for a while."""
    while True:
        what = rng.choice(
            ["", "--vip fd00::100", "--vip 10.0.0.101,10.0.0.102", "--proto udp --port 53", "--proto sctp --port 99"]
        )
        if rng.random() < 0.1:
            what = f"--vip 10.0.0.103 --first {MASQUERADED + 20000}"
        else:
            what += f" --first {TRAFFIC + rng.randrange(0, 50000, 100)}"
        number = rng.choice([20, 60])
        yield Action("connections", (f"load.py long {number} --pause 0.2 --timeout 4 {what}", rng.uniform(3, 30)))


class Torture:
    """The world that the streams are let loose on."""

    def __init__(self, seconds, talk):
        self.end = time.monotonic() + seconds
        self.talk = talk
        self.over = threading.Event()
        self.amiss = []
        self.done = collections.defaultdict(list)
        self.doing = {}
        self.kinds = collections.Counter()
        self.counts = collections.Counter()
        self.gate = threading.Condition()
        self.inside = 0
        self.outside = False
        # When there was no room or no memory for an entry last; what fails for want of memory.
        self.no_entry = {"room": float("-inf"), "memory": float("-inf")}
        self.failing = ""
        self.local = threading.local()

    def say(self, *words):
        stamp = time.clock_gettime(time.CLOCK_BOOTTIME)
        print(f"# [{stamp:12.6f}]", *words, flush=True)

    def wrong(self, what):
        self.amiss.append(what)
        self.say("amiss:", what)
        self.over.set()

    def wait(self, seconds):
        self.over.wait(min(seconds, max(0, self.end - time.monotonic())))
        if time.monotonic() >= self.end:
            self.over.set()

    @contextlib.contextmanager
    def changing(self):
        """Among others who change services."""
        with self.gate:
            self.gate.wait_for(lambda: not self.outside)
            self.inside += 1
        try:
            yield
        finally:
            with self.gate:
                self.inside -= 1
                self.gate.notify_all()

    @contextlib.contextmanager
    def alone(self):
        """Nobody else changes services."""
        with self.gate:
            self.gate.wait_for(lambda: not self.outside)
            self.outside = True
            self.gate.wait_for(lambda: self.inside == 0)
        try:
            yield
        finally:
            with self.gate:
                self.outside = False
                self.gate.notify_all()

    def run(self, command, text=None, fails=False):
        """A command to its end: what it said, and its status."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if fails:
            with contextlib.suppress(OSError):
                pathlib.Path(f"/proc/{process.pid}/make-it-fail").write_text("1")
        try:
            said, _ = process.communicate(text, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            stack = ""
            with contextlib.suppress(OSError):
                stack = pathlib.Path(f"/proc/{process.pid}/stack").read_text()
            self.wrong(f"{' '.join(command)} hangs: {stack}")
            process.kill()
            return "", -1
        return said, process.returncode

    def ipvsadm(self, line, may_fail=True):
        """A command that has to succeed; if memory fails, when it is given again."""
        for attempt in range(50):
            failing = may_fail and self.failing == "commands"
            fails = failing and attempt < 5
            said, status = self.run(["ipvsadm", *line.split()], fails=fails)
            if status == 0:
                return
            self.counts["commands that failed for want of memory"] += failing
            # What was done before memory failed is not to be done again.
            if attempt and ("exist" in said or "No such" in said or "not defined" in said):
                return
            if not failing and not attempt:
                self.wrong(f"ipvsadm {line}: {said.strip()} (status {status})")
                return
            time.sleep(0.1)
        self.wrong(f"ipvsadm {line}: still: {said.strip()} (status {status})")

    def change(self, service, line, may_fail=True):
        if line.startswith("any_port"):
            _, *options = line.split()
            said, status = self.run(["python3", "any_port.py", "--address", service.vip, *options])
            if status:
                self.wrong(f"{line}: {said.strip()}")
        else:
            self.ipvsadm(line, may_fail)

    def saved(self):
        """The configuration as commands."""
        said, status = self.run(["ipvsadm", "-Sn"])
        if status:
            self.wrong(f"ipvsadm -Sn: {said}")
        # It writes flags that it has no name for under the scheduler of the service as none at all.
        return [re.sub(r" -b *(?= -|$)", "", line) for line in said.splitlines()]

    # By kind of task.

    def owner(self, service, action):
        with self.changing():
            if action.kind == "check":
                self.check(service, *action.what[1:])
                return
            for line in action.what:
                self.change(service, line)

    def check(self, service, first, gone, drained):
        began = time.monotonic()
        address = ["--vip", service.vip, "--port", str(service.port), "--proto", service.proto]
        args = load.parse(["short", "16", "--first", str(first), "--timeout", "4", *address])
        self.enter("client")
        try:
            answer = asyncio.run(load.short(args))
        finally:
            self.enter("lb")
        self.counts["connections checked"] += answer["asked"]
        self.counts["connections answered"] += answer["answered"]
        never = {f"rs{n}": "is deleted" for n in gone[1:]}
        # Without an entry new flows go where those that are not new do.
        if max(self.no_entry.values()) < began:
            never |= {f"rs{n}": "is drained" for n in drained[1:]}
        for server, why in never.items():
            if number := answer["servers"].get(server):
                self.wrong(f"{service.name}: {server} {why} and answers {number} new connections")

    def wild(self, _, action):
        for line in action.what:
            with self.changing():
                self.run(["ipvsadm", *line.split()], fails=self.failing == "commands")

    @staticmethod
    def is_wild(line):
        return f" {WILD}:" in line or " [fd00::104]:" in line

    def module(self, _, action):
        with self.alone():
            saved = self.saved()
            # Nothing fails: without memory for netlink ipvsadm takes the older way, which knows no tunnels,
            # and all is to be as it was.
            self.ipvsadm("-C", may_fail=False)
            if action.kind == "restore":
                time.sleep(float(action.what[0].split()[1]))
            else:
                # Those who ask hold the module while they do, and namespaces go in the background.
                for _ in range(PATIENCE):
                    said, status = self.run(["rmmod", "ip_vs_mhs"])
                    if status == 0 or "not currently loaded" in said:
                        break
                    time.sleep(1)
                else:
                    used = pathlib.Path("/sys/module/ip_vs_mhs/refcnt").read_text().strip()
                    self.wrong(f"the module is not unloaded, reference count {used}: {said}")
                said, status = self.run(["modprobe", "ip_vs_mhs", *action.what[0].split()])
                if status:
                    self.wrong(f"modprobe: {said}")
                self.counts["reloads"] += 1
                self.counts["reloads with express mode"] += "express=1" in action.what[0]
            services = {service.option: service for service in SERVICES if service.any_port}
            for line in saved:
                words = line.split()
                service = services.get(" ".join(words[1:3]))
                if service and words[0] == "-A":
                    flags = [option for flag in words if flag.startswith("flag-") for option in flag.split(",")]
                    line = " ".join(["any_port --empty", *(f"--flag {flag[-1]}" for flag in flags)])
                if self.is_wild(line):
                    # IPVS refuses servers of another family than their service while it syncs.
                    self.run(["ipvsadm", *words])
                else:
                    self.change(service, line, may_fail=False)
            before, after = ({line for line in lines if not self.is_wild(line)} for lines in (saved, self.saved()))
            if not self.over.is_set() and before != after:
                self.wrong(f"restored, but without {before - after}, with {after - before}")

    def sysctls(self, _, action):
        for key, value in action.what:
            file = SYSCTL / key
            if not file.exists():
                continue
            if key == "conn_max" and value < 1000:
                self.no_entry["room"] = float("inf")
            try:
                file.write_text(str(value))
            except OSError as error:
                self.wrong(f"{key}={value}: {error}")
            if key == "conn_max" and value >= 1000:
                self.no_entry["room"] = time.monotonic()

    def timeouts(self, _, action):
        self.ipvsadm(action.what[0])

    def switches(self, _, action):
        # There is no module now and then.
        with contextlib.suppress(FileNotFoundError):
            self.run(action.what[0].split(), fails=self.failing == "commands")

    def sync(self, _, action):
        # IPVS refuses to start one while there are servers of another family than their service.
        self.run(["ipvsadm", *action.what[0].split()])

    def questions(self, _, action):
        # Not while others look whether all is as it was.
        changes = self.changing() if "ipvsadm -e" in action.what[0] else contextlib.nullcontext()
        with changes, contextlib.suppress(FileNotFoundError):
            self.run(action.what[0].split())

    def listeners(self, _, action):
        tool, *rest = action.what[0].split()
        if tool == "netlink.py":
            command = ["python3", "netlink.py", rest[0]]
        else:
            command = [tool, *rest]
        with contextlib.suppress(FileNotFoundError):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            self.finish(process, command, float(rest[-1]))

    def finish(self, process, command, seconds):
        """Ends a command that goes on until its standard input does."""
        self.wait(seconds)
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.wrong(f"{' '.join(command)} does not end")
            process.kill()

    def namespaces(self, _, action):
        name, vip, *lines = action.what
        number = name[-1]
        here = f"nsenter --net=/run/netns/{name} ".split()
        with self.changing():
            plug = '. ./lib.sh && rm -r "$WORK" && plug "$@"'
            addresses = [f"10.0.0.6{number}", f"fd00::6{number}"]
            said, status = self.run(["bash", "-c", plug, "-", name, *addresses])
            if status:
                self.wrong(f"{name}: {said}")
                return
            self.run(["ip", "-n", name, "addr", "add", f"{vip}/32", "dev", "eth0"])
            self.run(["ip", "-n", name, "-6", "addr", "add", f"fd00::16{number}/128", "dev", "eth0", "nodad"])
            self.run(["ip", "-n", name, "route", "add", "default", "via", "10.0.0.2"])
            self.run([*here, "ipvsadm", "--set", "5", "5", "5"])
            stray = ["python3", "load.py", "stray", "0", "--first", str(TRAFFIC)]
            stray = ["nsenter", "--net=/run/netns/client", *stray, "--flags", "S", "--vip", vip]
            traffic = subprocess.Popen(stray, stdout=subprocess.DEVNULL)
            for line in lines:
                if line:
                    self.run([*here, "ipvsadm", *line.split()])
            self.wait(0.5)
            said, status = self.run(["ip", "netns", "del", name])
            if status:
                self.wrong(f"{name}: {said}")
            self.wait(0.3)
            traffic.kill()
            traffic.wait()
            self.counts["namespaces"] += 1

    def memory(self, _, action):
        """Objects only. User-mode Linux does not outlive that a page of a process fails while it copies
        to one, and where vmalloc() fails the kernel's log says so at length.
        """
        where, *probability = action.what
        if not FAILSLAB.exists():
            return
        (FAILSLAB / "probability").write_text("0")
        if self.failing == "entries":
            self.no_entry["memory"] = time.monotonic()
        self.failing = ""
        if where == "enough":
            return
        if where == "entries":
            self.no_entry["memory"] = float("inf")
        for directory in CACHES.glob("*"):
            own = directory.name.startswith("kmalloc-") if where == "commands" else directory.name == "ip_vs_conn"
            # One that is merged with others has its name as a link.
            if not directory.is_symlink():
                (directory / "failslab").write_text(str(int(own)))
        settings = {
            "ignore-gfp-wait": "N",
            "verbose": "0",
            "times": "-1",
            "cache-filter": "Y",
            "task-filter": "Y" if where == "commands" else "N",
            "probability": str(probability[0]),
        }
        for key, value in settings.items():
            (FAILSLAB / key).write_text(value)
        self.failing = where

    def packets(self, _, action):
        self.run(["python3", *action.what[0].split()])

    def own_clients(self, _, action):
        self.run(["curl", "-g", "-s", "-m", "2", "-o", "/dev/null", action.what[0]])

    def connections(self, _, action):
        command, seconds = action.what
        command = ["python3", *command.split()]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.finish(process, command, seconds)

    # The tasks.

    def enter(self, netns):
        with open(f"/run/netns/{netns}", encoding="ascii") as file:
            os.setns(file.fileno(), os.CLONE_NEWNET)

    def task(self, name, netns, stream, do, subject):
        try:
            if netns:
                self.enter(netns)
            for number, action in enumerate(stream):
                if self.over.is_set():
                    return
                if self.talk:
                    self.say(f"{name} {number}: {action}")
                self.done[name].append(str(action))
                self.doing[name] = action
                self.kinds[action.kind] += 1
                do(subject, action)
                self.wait(action.pause)
        except Exception as error:  # A task that ends must not pass for one that found nothing.
            self.wrong(f"{name}: {type(error).__name__}: {error}")
            raise
        finally:
            self.doing.pop(name, None)


def tasks(seed):
    """Name, namespace, stream and subject of each task; what does it has the stream's name."""

    def stream(make, name, subject):
        return make(subject, random.Random(f"{seed} {name}"))

    for service in SERVICES:
        yield f"service {service.name}", "lb", owner, service, stream
    several = [
        (wild, "lb", 2),
        (module, "lb", 1),
        (sysctls, "lb", 1),
        (switches, "lb", 1),
        (timeouts, "lb", 1),
        (sync, "lb", 1),
        (questions, "lb", 1),
        (listeners, "lb", 1),
        (namespaces, None, 1),
        (memory, None, 1),
        (packets, "client", 2),
        (own_clients, "lb", 1),
        (connections, "client", 3),
    ]
    for make, netns, number in several:
        for n in range(number):
            yield f"{make.__name__} {n}", netns, make, None, stream


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--plan", type=int, metavar="COUNT")
    parser.add_argument("--quiet", action="store_true", help="only what is amiss")
    args = parser.parse_args()

    if args.plan is not None:
        for name, _, make, subject, stream in tasks(args.seed):
            for number, action in enumerate(itertools.islice(stream(make, name, subject), args.plan)):
                print(f"{name} {number}: {action}")
        return

    os.chdir(pathlib.Path(__file__).parent)
    torture = Torture(args.seconds, not args.quiet)
    threads = {}
    for name, netns, make, subject, stream in tasks(args.seed):
        parts = (name, netns, stream(make, name, subject), getattr(torture, make.__name__), subject)
        threads[name] = threading.Thread(target=torture.task, args=parts, daemon=True)
    for thread in threads.values():
        thread.start()
    while not torture.over.is_set():
        torture.wait(5)
    # What was begun is done to its end.
    last = time.monotonic() + 2 * PATIENCE
    for name, thread in threads.items():
        thread.join(max(0, last - time.monotonic()))
        if thread.is_alive():
            torture.wrong(f"{name} hangs at {torture.doing.get(name)}")

    torture.memory(None, Action("memory", ("enough",)))
    # The streams, once more: nothing that happened may have had a say in them.
    for name, _, make, subject, stream in tasks(args.seed):
        done = torture.done[name]
        again = [str(action) for action in itertools.islice(stream(make, name, subject), len(done))]
        if done != again:
            torture.wrong(f"{name}: another stream by the same seed")
    figures = {
        "seed": args.seed,
        "seconds": round(args.seconds),
        "amiss": torture.amiss,
        "actions": dict(sorted(torture.kinds.items())),
        **torture.counts,
    }
    print(json.dumps(figures), flush=True)
    os._exit(bool(torture.amiss))


main()
