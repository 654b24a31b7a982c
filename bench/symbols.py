# SPDX-License-Identifier: GPL-2.0
"""Where the functions of the running kernel are, for bench/profile.py."""

import base64
import gzip
from pathlib import Path


def _packed(modules):
    lines = Path("/proc/kallsyms").read_text().splitlines()
    text = "\n".join(
        line for line in lines if line.split()[1] in "tTwW" and line.endswith("]") == modules
    )
    return base64.b64encode(gzip.compress(text.encode())).decode()


def of_modules(row):
    """The functions and sections of modules, which come and go, when `row` was traced."""
    directory = Path("/sys/module/ip_vs_mhs/sections")
    sections = {path.name: path.read_text().strip() for path in directory.glob("*")}
    return {"traced": row, "symbols": _packed(modules=True), "sections": sections}


def of_kernel():
    return {"symbols": _packed(modules=False)}
