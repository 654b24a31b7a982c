#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Each command again and again, with the Nth allocation that it needs failing: N = 1, 2, 3 ...

  faults.py commands [KIND...]    changes of IPVS, and questions to IPVS_MHS; all kinds, or those
  faults.py module FILE PARAM...  loads the module, with each PARAM (NAME=VALUE) by itself
  faults.py starved SECONDS       a server is deleted without memory for a table, and then no worker
                                  gets any
  faults.py random SECONDS SEED   changes while one allocation in ten fails, also of work that is done
                                  later

For a command it ends when one succeeds in which nothing failed. After each, what IPVS_MHS knows
must be what IPVS knows, and that what the command's status says; a server that was deleted or
drained must have no slot of the new table, at once; and soon the table must be that of a service
which nothing ever failed for. Of those named "twice" two allocations in a row fail. Prints a line of
JSON for each kind.
"""

import collections
import ctypes
import errno
import json
import os
import random
import socket
import struct
import subprocess
import sys
import time

from genl import (
    ACK,
    DEL,
    DEL_DEST,
    DIRECT,
    DONE,
    DUMP,
    ERROR,
    FLUSH,
    GET_COUNTERS,
    GET_DEST,
    GET_SERVICE,
    GET_SLOTS,
    MASQUERADE,
    NEW,
    NEW_DEST,
    REQUEST,
    SET,
    SET_DEST,
    SOL_NETLINK,
    TUNNEL,
    ZERO,
    Family,
    attrs,
    dump,
    ipvs_dest,
    ipvs_key,
    ipvs_settings,
    ipvs_state,
    mhs_key,
    mhs_servers,
    mhs_state,
    name_of,
    number,
    request,
    server_of,
    what,
)

# More than any command needs.
MOST = 4000

HERE = os.path.dirname(os.path.abspath(__file__))

MAKE_IT_FAIL = os.open("/proc/self/make-it-fail", os.O_RDWR)


def numbers(first=1):
    """Of faults: whoever takes them must come to an end."""
    yield from range(first, MOST)
    sys.exit(f"no end after {MOST - 1} faults")


class Fault:
    """The Nth allocation of what is done inside fails. `hit` says whether there were that many."""

    file = os.open("/proc/thread-self/fail-nth", os.O_RDWR)

    def __init__(self, nth):
        self.nth = nth

    def __enter__(self):
        os.pwrite(self.file, str(self.nth).encode(), 0)
        return self

    def __exit__(self, *_):
        left = int(os.pread(self.file, 20, 0).strip() or 0)
        os.pwrite(self.file, b"0", 0)
        self.hit = left == 0


class Twice:
    """Two allocations in a row fail, from the Nth 64 bytes on. What asks once more before it goes
    without, as a vector does, gets nothing either."""

    directory = "/sys/kernel/debug/failslab"

    def __init__(self, nth):
        self.space = (nth - 1) * 64

    def set(self, **knobs):
        for knob, value in knobs.items():
            with open(f"{self.directory}/{knob.replace('_', '-')}", "w") as file:
                file.write(str(value))

    def __enter__(self):
        self.set(task_filter="Y", interval=1, space=self.space, times=2, probability=100)
        return self

    def __exit__(self, *_):
        with open(f"{self.directory}/times") as file:
            self.hit = int(file.read()) < 2
        self.set(probability=0, times=-1, space=0)


class Bench:
    """The service under test, and one with the same servers that nothing fails for."""

    NAME = (socket.AF_INET, 6, "10.0.0.100", 80)
    TWIN = (socket.AF_INET, 6, "10.0.0.101", 80)
    SERVERS = [f"10.0.0.1{n}" for n in range(1, 5)]

    def __init__(self):
        self.ipvs, self.mhs = Family(name=b"IPVS"), Family()
        # Events are made only for those who listen.
        self.ears = Family()
        self.ears.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.ears.sock.setsockopt(SOL_NETLINK, 1, self.ears.group)
        self.ears.sock.settimeout(0)

    def do(self, command, payload, nth=0, at_random=False, kind=Fault):
        """A command, and whether the fault was hit. Only what IPVS does inside of send() fails."""
        at_random |= kind is Twice
        try:
            with kind(nth) as fault:
                os.pwrite(MAKE_IT_FAIL, b"1" if at_random else b"0", 0)
                try:
                    self.ipvs.send(command, payload, REQUEST | ACK)
                finally:
                    os.pwrite(MAKE_IT_FAIL, b"0", 0)
        except OSError as error:
            # The message never came to IPVS.
            return errno.errorcode[error.errno], fault.hit
        try:
            return what(self.ipvs.answers()[-1]), fault.hit
        except OSError as error:
            # The answer could not be made: what IPVS did is not known from it.
            return "?" + errno.errorcode[error.errno], fault.hit

    def name(self, twin=False):
        return ipvs_key((self.TWIN if twin else self.NAME)[2])

    def sound(self, command, payload):
        end, _ = self.do(command, payload)
        if end != "ok":
            sys.exit(f"command {command} without a fault: {end}")

    def make(self, servers, scheduler=b"mhs\0", twin=False, flags=0):
        name = self.name(twin)
        self.sound(NEW, request(name + ipvs_settings(scheduler, flags)))
        for server, (method, weight) in servers.items():
            self.sound(NEW_DEST, request(name, ipvs_dest(server, method=method, weight=weight)))

    def clear(self):
        self.sound(FLUSH, b"")

    def twin(self, servers):
        """Makes the twin and returns its table."""
        self.make(servers, twin=True)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = self.table(self.TWIN)
            # The same twice: one that changes while it is read is neither of the two.
            if len(set(found)) == sum(weight > 0 for _, weight in servers.values()) and found == self.table(self.TWIN):
                return found
            time.sleep(0.1)
        sys.exit("the twin has no table")

    def table(self, name):
        """Which server each slot of the new table has."""
        servers = {index: server_of(dest) for index, dest in mhs_servers(self.mhs, name).items()}
        table = []
        for answer in dump(self.mhs, GET_SLOTS, mhs_key(name))[0]:
            new = struct.unpack(f"={len(answer[5]) // 2}H", answer[5])
            table += [servers.get(index) for index in new]
        return table

    def new_slots(self, server):
        """How many slots of the new table a server has, in whatever state."""
        dests = mhs_servers(self.mhs, self.NAME).values()
        return sum(number(dest[12]) for dest in dests if server_of(dest)[0] == server)

    def wait_for_slots(self, server):
        """Of servers that are added one after the other the table may be made a little later."""
        deadline = time.monotonic() + 20
        while not self.new_slots(server):
            if time.monotonic() > deadline:
                sys.exit(f"{server} has no slots")
            time.sleep(0.005)

    def hear(self):
        try:
            while True:
                self.ears.receive()
        except OSError:
            pass


FOUR = {server: (DIRECT, 1) for server in Bench.SERVERS}
LAST = Bench.SERVERS[-1]


def without(server):
    return {name: how for name, how in FOUR.items() if name != server}


def change(bench, command, payload, before, after, gone=None, scheduler=b"mhs\0", kind=Fault):
    """Runs one kind of command with each fault. `before` and `after`: the servers with and without
    it, or None where there is no service of mhs."""
    result = collections.Counter()
    ends = collections.Counter()
    amiss = []
    wanted = bench.twin(after) if after else []
    for nth in numbers():
        if before is not None:
            bench.make(before, scheduler)
        if gone:
            bench.wait_for_slots(gone)
        end, hit = bench.do(command, payload(bench), nth, kind=kind)
        result["hit"] += hit
        ends[end] += 1
        bench.hear()
        known, said = ipvs_state(bench.ipvs), mhs_state(bench.mhs)
        known.pop(bench.TWIN, None), said.pop(bench.TWIN, None)
        state = known.get(bench.NAME)
        now = {name: (method, weight) for (name, _), (weight, method) in state.items()} if state is not None else None
        states = [before if scheduler == b"mhs\0" else None, after]
        done = now == states[1]
        if end == "ok" and not done or end[0] not in "o?" and now != states[0]:
            amiss.append(f"{nth}: {end}, and IPVS has {now}")
        if done and gone and (slots := bench.new_slots(gone)):
            amiss.append(f"{nth}: {end}, and {gone} has {slots} slots")
        if done and after is not None:
            # A server that there was no memory for is tried again; so is a table.
            begin = time.monotonic()
            while True:
                said = mhs_state(bench.mhs)
                said.pop(bench.TWIN, None)
                table = bench.table(bench.NAME)
                # Without servers no slot has one.
                if said == known and (table == wanted if after else set(table) == {None}):
                    break
                if time.monotonic() - begin > 10:
                    result["never recovered"] += 1
                    amiss.append(f"{nth}: {end}, and {said} instead of {known}")
                    break
                time.sleep(0.1)
            waited = time.monotonic() - begin
            result["recovered later"] += waited > 0.2
        elif said != known:
            amiss.append(f"{nth}: {end}: {said} instead of {known}")
        if now is not None or before is not None:
            bench.do(DEL, request(bench.name()))
        if not hit:
            break
    bench.clear()
    return {"hit": result["hit"], "ends": dict(ends), "later": result["recovered later"],
            "never": result["never recovered"], "amiss": amiss[:5]}


def ask(bench, command, flags, payload):
    """A question with each fault: an answer that is whole, or an error."""
    ends, hits, amiss = collections.Counter(), 0, []
    whole = None
    for nth in numbers(0):
        family = Family(8192)
        # The kernel makes a part of a dump when the one before is read: all of it is in the count.
        messages = []
        with Fault(nth) as fault:
            try:
                family.send(command, payload, flags)
                while not messages or messages[-1]["number"] not in (ERROR, DONE):
                    messages += family.receive()
                    if not flags & DUMP and messages:
                        break
                end = what(messages[-1])
            except OSError as error:
                end = errno.errorcode[error.errno]
        family.sock.close()
        ends[end] += 1
        count = sum(m["number"] == family.number for m in messages)
        if nth == 0:
            whole = count
            continue
        hits += fault.hit
        if end == "ok" and count != whole:
            amiss.append(f"{nth}: {count} answers instead of {whole}")
        if not fault.hit:
            break
    return {"hit": hits, "ends": dict(ends), "amiss": amiss[:5]}


def join(bench):
    ends, hits = collections.Counter(), 0
    for nth in numbers():
        family = Family()
        with Fault(nth) as fault:
            try:
                family.sock.setsockopt(SOL_NETLINK, 1, family.group)
                end = "ok"
            except OSError as error:
                end = errno.errorcode[error.errno]
        ends[end] += 1
        hits += fault.hit
        family.sock.close()
        if not fault.hit:
            break
    return {"hit": hits, "ends": dict(ends), "amiss": []}


def restore(bench):
    """A service and its servers, as `ipvsadm -R` makes them, with one fault in all of it; what it
    hit is given again without one."""
    ends, hits, amiss, later = collections.Counter(), 0, [], 0
    wanted = bench.twin(FOUR)
    for nth in numbers():
        commands = [(NEW, request(bench.name() + ipvs_settings()))]
        commands += [(NEW_DEST, request(bench.name(), ipvs_dest(server))) for server in FOUR]
        left, again = nth, []
        for command, payload in commands:
            try:
                with Fault(left):
                    bench.ipvs.send(command, payload, REQUEST | ACK)
                    left = int(os.pread(Fault.file, 20, 0).strip() or 0)
                end = what(bench.ipvs.answers()[-1])
            except OSError as error:
                left, end = 0, errno.errorcode[error.errno]
            ends[end] += 1
            if end != "ok":
                again.append((command, payload))
        for command, payload in again:
            bench.do(command, payload)
        if again and again[0][0] == NEW:
            # The servers had nowhere to go.
            for command, payload in commands[1:]:
                bench.do(command, payload)
        hits += left == 0
        begin = time.monotonic()
        while bench.table(bench.NAME) != wanted:
            if time.monotonic() - begin > 10:
                amiss.append(f"{nth}: {mhs_state(bench.mhs).get(bench.NAME)}")
                break
            time.sleep(0.1)
        later += time.monotonic() - begin > 0.2
        bench.sound(DEL, request(bench.name()))
        if left:
            break
    bench.clear()
    return {"hit": hits, "ends": dict(ends), "later": later, "amiss": amiss[:5]}


def come_back(bench):
    """A server is deleted without a grace, with one fault; then another one is added, and it again.
    Then every new connection is answered."""
    ends, hits, amiss = collections.Counter(), 0, []
    other = Bench.SERVERS[0]
    switch = "/proc/sys/net/ipv4/vs/expire_nodest_conn"
    with open(switch, "w") as file:
        file.write("1")
    for nth in numbers():
        bench.make(without(other))
        bench.wait_for_slots(LAST)
        end, hit = bench.do(DEL_DEST, request(bench.name(), ipvs_dest(LAST)), nth)
        ends[end] += 1
        hits += hit
        if end == "ok":
            for server in other, LAST:
                bench.sound(NEW_DEST, request(bench.name(), ipvs_dest(server)))
            answered = json.loads(subprocess.run(
                ["ip", "netns", "exec", "client", "python3", f"{HERE}/load.py", "short", "40", "--timeout", "3"],
                check=True, capture_output=True).stdout)["answered"]
            if answered != 40:
                amiss.append(f"{nth}: {answered} of 40 connections are answered")
        bench.sound(DEL, request(bench.name()))
        if not hit:
            break
    with open(switch, "w") as file:
        file.write("0")
    return {"hit": hits, "ends": dict(ends), "amiss": amiss[:5]}


def unshown(bench):
    """A service gets its first server, with one fault. Where packets cannot find the service for that,
    each connection has an entry. They go on when, a session timeout later, they can, and others come."""
    ends, hits, stateful, amiss = collections.Counter(), 0, 0, []
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    session = 4

    def said():
        lines = b""
        while True:
            try:
                lines += os.read(log, 1 << 13)
            except BlockingIOError:
                return b"stays stateful" in lines
            except BrokenPipeError:
                # Some are gone already.
                pass

    def timeouts(seconds):
        subprocess.run(["ipvsadm", "--set", *[str(seconds)] * 3], check=True)

    timeouts(session)
    for nth in numbers():
        bench.make({})
        said()
        end, hit = bench.do(NEW_DEST, request(bench.name(), ipvs_dest(LAST)), nth)
        ends[end] += 1
        hits += hit
        if said():
            stateful += 1
            flows = subprocess.Popen(
                ["ip", "netns", "exec", "client", "python3", f"{HERE}/load.py", "long", "40", "--timeout", "5"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            flows.stdout.readline()
            time.sleep(session * 3 / 2 + 1)
            for server in without(LAST):
                bench.sound(NEW_DEST, request(bench.name(), ipvs_dest(server)))
            flows.stdin.write(b"status\n")
            flows.stdin.flush()
            status = json.loads(flows.stdout.readline())
            flows.communicate()
            if status["alive"] != 40:
                amiss.append(f"{nth}: {status['alive']} of 40 connections go on")
        bench.sound(DEL, request(bench.name()))
        if not hit:
            break
    if not stateful:
        amiss.append("packets could always find the service")
    timeouts(20)
    os.close(log)
    return {"hit": hits, "ends": dict(ends), "stateful": stateful, "amiss": amiss[:5]}


def kinds():
    """Every kind of command: its name, and what runs it."""
    name = Bench.name
    last = lambda **more: lambda b: request(name(b), ipvs_dest(LAST, **more))
    plain = lambda b: request(name(b))
    edit = lambda flags, scheduler=b"mhs\0": lambda b: request(name(b) + ipvs_settings(scheduler, flags))
    drained = {**FOUR, LAST: (DIRECT, 0)}
    heavy = {**FOUR, LAST: (DIRECT, 5)}
    tunnel = {**FOUR, LAST: (TUNNEL, 1)}
    masqueraded = {**FOUR, LAST: (MASQUERADE, 1)}
    changes = {
        "add a service": (NEW, edit(0), None, {}),
        "edit a service: flags": (SET, edit(4), FOUR, FOUR),
        "edit a service: from rr to mhs": (SET, edit(0), FOUR, FOUR, None, b"rr\0"),
        "edit a service: from mhs to rr": (SET, edit(0, b"rr\0"), FOUR, None),
        "delete a service": (DEL, plain, FOUR, None),
        "delete all services": (FLUSH, lambda b: b"", FOUR, None),
        "zero the counters": (ZERO, plain, FOUR, FOUR),
        "add the first server": (NEW_DEST, last(), {}, {LAST: (DIRECT, 1)}),
        "add a server": (NEW_DEST, last(), without(LAST), FOUR),
        "add a server by tunnel": (NEW_DEST, last(method=TUNNEL), without(LAST), tunnel),
        "add a server by masquerading": (NEW_DEST, last(method=MASQUERADE), without(LAST), masqueraded),
        "edit a server: weight": (SET_DEST, last(weight=5), FOUR, heavy),
        "drain a server": (SET_DEST, last(weight=0), FOUR, drained, LAST),
        "edit a server: by tunnel": (SET_DEST, last(method=TUNNEL), FOUR, tunnel),
        "edit a server: by masquerading": (SET_DEST, last(method=MASQUERADE), FOUR, masqueraded),
        "delete a server": (DEL_DEST, last(), FOUR, without(LAST), LAST),
        "delete the last server": (DEL_DEST, last(), {LAST: (DIRECT, 1)}, {}, LAST),
    }
    for text, args in changes.items():
        yield text, lambda bench, args=args: change(bench, *args)
    for text in ("add a server", "edit a server: weight", "drain a server", "delete a server"):
        yield f"{text}, twice", lambda bench, args=changes[text]: change(bench, *args, kind=Twice)
    yield "restore a service with its servers", restore
    yield "delete a server without a grace, and add it again", come_back
    yield "add the first server, then connections, then more servers", unshown
    one = mhs_key(Bench.NAME)
    questions = {
        "show a service": (GET_SERVICE, REQUEST, one),
        "list services": (GET_SERVICE, REQUEST | DUMP, b""),
        "list servers": (GET_DEST, REQUEST | DUMP, one),
        "list slots": (GET_SLOTS, REQUEST | DUMP, one),
        "list counters": (GET_COUNTERS, REQUEST | DUMP, b""),
    }
    for text, args in questions.items():
        yield text, lambda bench, args=args: ask(bench, *args)
    yield "listen to events", join


def commands(only):
    bench = Bench()
    for text, run in kinds():
        if only and text not in only:
            continue
        questions = "list" in text or "show" in text or "listen" in text
        if questions:
            bench.make(FOUR)
            bench.twin(FOUR)
        print(json.dumps({"kind": text, **run(bench)}), flush=True)
        bench.clear()


def workers(fail):
    """Whether allocations of the kernel's workers may fail."""
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/comm") as comm:
                if comm.read().startswith("kworker"):
                    with open(f"/proc/{process}/make-it-fail", "w") as file:
                        file.write("1" if fail else "0")
        except OSError:
            # It ended.
            pass


def probability(percent):
    """From now on that many allocations of the kernel's workers fail, and of commands at random."""
    for name in ("failslab", "fail_page_alloc"):
        for knob, value in (("task-filter", "Y"), ("times", -1), ("interval", 1), ("probability", percent)):
            with open(f"/sys/kernel/debug/{name}/{knob}", "w") as file:
                file.write(str(value))
    workers(percent)


def starved(seconds):
    """How often a table is tried again while there is no memory for it; then it is made."""
    bench, gone = Bench(), request(ipvs_key(), ipvs_dest(LAST))
    wanted = bench.twin(without(LAST))

    def failures():
        (answer,) = (a for a in dump(bench.mhs, GET_SERVICE)[0] if name_of(attrs(a[1])) == bench.NAME)
        return number(attrs(answer[13])[13])

    for nth in numbers():
        bench.make(FOUR)
        bench.wait_for_slots(LAST)
        # Before, since there is not much time until the next try.
        workers(True)
        _, hit = bench.do(DEL_DEST, gone, nth, kind=Twice)
        if first := failures():
            break
        if not hit:
            sys.exit("no table was ever refused its memory")
        bench.sound(DEL, request(bench.name()))
    begin = time.monotonic()
    probability(100)
    time.sleep(seconds)
    tried = failures() - first
    seconds = time.monotonic() - begin
    probability(0)
    amiss = []
    if not 1 <= tried <= seconds * 5 + 1:
        amiss.append(f"{tried} tries in {seconds:.1f} s")
    deadline = time.monotonic() + 10
    while bench.table(bench.NAME) != wanted:
        if time.monotonic() > deadline:
            amiss.append(f"{mhs_state(bench.mhs)}")
            break
        time.sleep(0.1)
    bench.clear()
    return {"kind": "starved", "hit": tried, "ends": {}, "amiss": amiss}


def at_random(seconds, seed):
    bench, rng = Bench(), random.Random(seed)
    servers = [f"10.0.0.1{n}" for n in range(1, 5)]
    bench.make(FOUR)
    ends, amiss = collections.Counter(), []
    rounds = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rounds += 1
        probability(10)
        for _ in range(6):
            # Servers 1 and 2 stay, so that there is always one that answers.
            server = rng.choice(servers[2:])
            command = rng.choice([NEW_DEST, SET_DEST, SET_DEST, DEL_DEST])
            dest = ipvs_dest(server, weight=rng.choice([0, 1, 3]), method=rng.choice([DIRECT, DIRECT, TUNNEL]))
            try:
                ends[bench.do(command, request(bench.name(), dest), at_random=True)[0]] += 1
            except (OSError, MemoryError) as error:
                ends[type(error).__name__] += 1
            time.sleep(0.02)
        probability(0)
        # What was not read is of no interest.
        bench.ipvs, bench.mhs = Family(name=b"IPVS"), Family()
        bench.hear()
        known = ipvs_state(bench.ipvs)[bench.NAME]
        for dest in mhs_servers(bench.mhs, bench.NAME).values():
            weight, _ = known.get(server_of(dest), (0, 0))
            if not weight and number(dest[12]):
                amiss.append(f"round {rounds}: {server_of(dest)} has new slots")
    known = ipvs_state(bench.ipvs)
    wanted = {name: (method, weight) for (name, _), (weight, method) in known[bench.NAME].items()}
    table = bench.twin(wanted)
    known = ipvs_state(bench.ipvs)
    deadline = time.monotonic() + 10
    while mhs_state(bench.mhs) != known or bench.table(bench.NAME) != table:
        if time.monotonic() > deadline:
            amiss.append(f"{mhs_state(bench.mhs)} instead of {known}")
            break
        time.sleep(0.1)
    bench.clear()
    return {"kind": "at random", "rounds": rounds, "ends": dict(ends), "amiss": amiss[:5]}


libc = ctypes.CDLL(None, use_errno=True)
FINIT_MODULE, DELETE_MODULE = 313, 176


def syscall(*args):
    return "ok" if libc.syscall(*args) == 0 else errno.errorcode[ctypes.get_errno()]


def module(path, params):
    """The module is there, or it is not; there is nothing between."""
    file = os.open(path, os.O_RDONLY)
    for param in ["", *params]:
        ends, hits, amiss = collections.Counter(), 0, []
        for nth in numbers():
            with Fault(nth) as fault:
                end = syscall(FINIT_MODULE, file, param.encode(), 0)
            ends[end] += 1
            hits += fault.hit
            there = os.path.isdir("/sys/module/ip_vs_mhs/holders")
            if (end == "ok") != there:
                amiss.append(f"{nth}: {end}, and it is {'' if there else 'not '}there")
            if end == "ok" and (gone := syscall(DELETE_MODULE, b"ip_vs_mhs", os.O_NONBLOCK)) != "ok":
                amiss.append(f"{nth}: cannot be unloaded: {gone}")
            if not fault.hit:
                break
        print(json.dumps({"kind": f"load the module {param}".strip(), "hit": hits, "ends": dict(ends), "amiss": amiss[:5]}), flush=True)


match sys.argv[1:]:
    case ["commands", *only]:
        commands(only)
    case ["starved", seconds]:
        print(json.dumps(starved(float(seconds))), flush=True)
    case ["random", seconds, seed]:
        print(json.dumps(at_random(float(seconds), int(seed))), flush=True)
    case ["module", path, *params]:
        module(path, params)
    case _:
        sys.exit(__doc__)
os._exit(0)
