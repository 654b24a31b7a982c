# SPDX-License-Identifier: GPL-2.0
"""Runs in the guest: measures, and prints a line of JSON for each figure."""

import argparse
import base64
import gzip
import json
from pathlib import Path

import network
import rows
from injector import Injector
from packets import Frames


def say(text):
    print(f"# {text}", flush=True)


def emit(**what):
    print(json.dumps(what), flush=True)


def symbols(modules):
    """Where functions are: those of modules, which come and go, or of the kernel."""
    lines = Path("/proc/kallsyms").read_text().splitlines()
    text = "\n".join(
        line for line in lines if line.split()[1] in "tTwW" and line.endswith("]") == modules
    )
    return base64.b64encode(gzip.compress(text.encode())).decode()


def sections():
    """Where the parts of our module are."""
    directory = Path("/sys/module/ip_vs_mhs/sections")
    return {path.name: path.read_text().strip() for path in directory.glob("*")}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trace", metavar="ROW", action="append", default=[])
    parser.add_argument("--scene", action="append")
    options = parser.parse_args()
    mac = network.setup()
    bench = rows.Bench(Injector("in0"), Frames(mac), options.trace)
    for scene in rows.QUICK if options.quick else rows.SCENES:
        if options.scene and scene.__name__ not in options.scene:
            continue
        say(scene.__doc__)
        for row in scene(bench):
            emit(row=row)
            if row["name"] in options.trace:
                emit(traced=row["name"], symbols=symbols(modules=True), sections=sections())
    if options.trace:
        emit(symbols=symbols(modules=False))


main()
