"""The manual pages, made from the parsers of both programs by argparse-manpage.

``NAME.roff`` holds the sections that are written by hand, in its format for included material.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

from argparse_manpage.manpage import Manpage

from reconciler import __version__
from reconciler.cli.options import parser as reconcile
from reconciler.executor.options import parser as executor

_HERE = Path(__file__).parent


def pages() -> dict[str, str]:
    """Each page by the name of its file."""
    return {
        "reconcile.1": _page(reconcile(), "bring a host to what a YAML file says, and keep it so"),
        "ai-cmd-executor.1": _page(executor(), "run the shell commands that come into a folder"),
    }


def _page(parser: argparse.ArgumentParser, about: str) -> str:
    parser.epilog = None  # Its words are in the sections by hand.
    # As the date of the sources says, reproducible-builds.org, or of today.
    now = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    data = {
        "description": about,
        "include": str(_HERE / f"{parser.prog}.roff"),
        "manual_title": "User Commands",
        "project_name": "reconcile",
        "version": __version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime(now)),
    }
    made = Manpage(parser, data, format="single-commands-section")
    return "".join(f"{line}\n" for line in _tidied(str(made)))


def _tidied(page: str) -> Iterator[str]:
    """The page without what mandoc(1) warns of: blank and long lines, an escaped date."""
    literal = False
    for line in page.splitlines():
        literal = line == ".nf" or (literal and line != ".fi")
        if line.startswith(".TH"):
            yield line.replace("\\-", "-")
        elif literal or line.startswith("."):
            yield line
        else:
            for part in wrap(line, 78, break_long_words=False, break_on_hyphens=False):
                yield f"\\&{part}" if part[0] in ".'" else part  # No macro.
