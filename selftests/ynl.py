#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The kernel's own command-line tool for netlink, cli.py, loaded once for many commands.

ynl.py DIRECTORY OPTION...: each line of standard input has further options, each
of which ends with a unit separator. The answer is a line with exit status and
number of bytes, then the bytes.
"""

import os
import sys
import tempfile

directory, *options = sys.argv[1:]
sys.path.insert(0, directory)
import cli  # noqa: E402

for line in sys.stdin:
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            sys.argv = ["cli.py", *options, *line.rstrip("\n").split("\x1f")[:-1]]
            cli.main()
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        data = output.read()
        head = f"{os.waitstatus_to_exitcode(status)} {len(data)}\n"
        os.write(1, head.encode() + data)
