#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""hooks.py SECONDS

Switches express mode on and off in this namespace, as fast as it can, while others list the hooks of
PRE_ROUTING, as `nft list hooks` does. Prints how often both were done. In the end it is off."""

import json
import multiprocessing
import socket
import struct
import sys
import time

from genl import DUMP, REQUEST, Family, attr, what

SET_NETNS = 10
NETLINK_NETFILTER, LIST_HOOKS, IPV4, PRE_ROUTING = 12, 12 << 8, 2, 0
DONE = 3


def list_hooks(listed, ours):
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    sock.bind((0, 0))
    asked = struct.pack("!BBH", IPV4, 0, 0) + attr(1, struct.pack("!I", PRE_ROUTING))
    message = struct.pack("=IHHII", 16 + len(asked), LIST_HOOKS, REQUEST | DUMP, 0, 0) + asked
    while True:
        sock.send(message)
        done = False
        while not done:
            data = sock.recv(1 << 16)
            ours.value += b"ip_vs_mhs" in data
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                done |= kind in (2, DONE)
                data = data[(length + 3) & ~3 :]
        listed.value += 1


def main():
    end = time.monotonic() + float(sys.argv[1])
    # Without locks: who is terminated may hold one.
    listed, ours = (multiprocessing.Value("L", 0, lock=False) for _ in range(2))
    lister = multiprocessing.Process(target=list_hooks, args=(listed, ours), daemon=True)
    lister.start()
    family, switched, amiss = Family(), 0, []
    while time.monotonic() < end or switched % 2:
        switched += 1
        answer = what(family.ask(SET_NETNS, attr(1, struct.pack("=B", switched % 2)), REQUEST)[-1])
        if answer != "ok":
            amiss.append(answer)
    lister.terminate()
    print(json.dumps({"switched": switched, "listed": listed.value, "ours": ours.value, "amiss": amiss[:5]}))


main()
