"""Where lines for people go: plain, or in colour on a terminal. The only user of rich."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from reconciler.views.text import Line

_STYLES = {"good": "green", "change": "yellow", "bad": "bold red", "quiet": "dim", "": ""}


class Terminal:
    """Writes lines to standard output, or to standard error when that is taken by JSON."""

    def __init__(self, color: str, to_errors: bool) -> None:
        self._file: TextIO = sys.stderr if to_errors else sys.stdout
        wanted = color == "always" or (
            color == "auto" and not os.environ.get("NO_COLOR") and self._file.isatty()
        )
        self._colored = wanted

    def write(self, lines: Iterable[Line]) -> None:
        """Print the lines at once, so that a watching person sees them as they come."""
        if self._colored:
            self._write_colored(lines)
        else:
            self._file.writelines(f"{text}\n" for text, _ in lines)
        self._file.flush()

    def _write_colored(self, lines: Iterable[Line]) -> None:
        from rich.console import Console
        from rich.text import Text

        console = Console(file=self._file, force_terminal=True, soft_wrap=True, highlight=False)
        for text, style in lines:
            console.print(Text(text, style=_STYLES[style]))
