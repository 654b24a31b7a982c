# SPDX-License-Identifier: GPL-2.0
"""Runs in the guest: measures a part, and prints a line of JSON for each figure."""

import argparse
import importlib
import json
import os

import network
from injector import Injector
from packets import Frames


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("part")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trace", metavar="ROW", action="append", default=[])
    parser.add_argument("--scene", action="append", default=[])
    options = parser.parse_args()
    mac = network.setup()
    print(json.dumps({"kernel": os.uname().release}), flush=True)
    part = importlib.import_module(options.part)
    for figure in part.figures(Injector("in0"), Frames(mac), options):
        print(json.dumps(figure), flush=True)


main()
