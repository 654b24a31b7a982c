# SPDX-License-Identifier: GPL-2.0
"""Sphinx: how scripts/doc makes these pages."""

import re
from pathlib import Path

from docutils import nodes

TOP = Path(__file__).resolve().parent.parent

project = "ip_vs_mhs"
copyright = "the ip_vs_mhs authors, GPL-2.0"
version = release = re.search(r'^PACKAGE_VERSION="(.*)"$', (TOP / "dkms.conf").read_text(), re.M)[1]
extensions = []
# Most examples are commands; none is Python.
highlight_language = "none"
html_theme = "furo"
html_title = "ip_vs_mhs"
html_copy_source = False
# Options keep their two hyphens.
smartquotes = False


def selftest(role, rawtext, text, lineno, inliner, options=None, content=None):
    """:selftest:`NAME` or :selftest:`NAME: RESULT`: a script, and words of the result that it prints.

    Both must be there, so that a page cannot lean on a test that is gone.
    """
    name, _, result = text.partition(": ")
    script = TOP / "selftests" / "tests" / f"{name}.sh"
    if not script.exists():
        problem = f"no selftest {name}"
    elif result not in script.read_text():
        problem = f"{name}.sh does not say '{result}'"
    else:
        shown = [nodes.literal(text=name)]
        if result:
            shown += [nodes.Text(": "), nodes.emphasis(text=result)]
        return shown, []
    message = inliner.reporter.error(problem, line=lineno)
    return [inliner.problematic(rawtext, rawtext, message)], [message]


def source(role, rawtext, text, lineno, inliner, options=None, content=None):
    """:source:`PATH`: a file of the repository, which must be there."""
    if (TOP / text).exists():
        return [nodes.literal(text=text)], []
    message = inliner.reporter.error(f"no file {text}", line=lineno)
    return [inliner.problematic(rawtext, rawtext, message)], [message]


def setup(app):
    app.add_role("selftest", selftest)
    app.add_role("source", source)
    return {"parallel_read_safe": True}
