"""Where lines for people go: plain, or in colour on a terminal. The only user of rich."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from reconciler.text import Censor
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
        self.censor = Censor()
        """What must not be printed, as soon as that is known."""
        self.error: OSError | None = None
        """Why lines could not be printed, if so. Nobody reading is no reason to stop working."""

    def write(self, lines: Iterable[Line]) -> None:
        """Print the lines at once, so that a watching person sees them as they come."""
        if self.error is not None:
            return
        lines = [(self.censor.text(text), style) for text, style in lines]
        try:
            if self._colored:
                self._write_colored(lines)
            else:
                self._file.writelines(f"{text}\n" for text, _ in lines)
            self._file.flush()
        except OSError as error:
            self.error = error
            discard(self._file)

    def put(self, line: str) -> None:
        """Print one line for programs on standard output, at once."""
        if self.error is None:
            try:
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
            except OSError as error:
                self.error = error
                discard(sys.stdout)

    def _write_colored(self, lines: Iterable[Line]) -> None:
        from rich.console import Console
        from rich.text import Text

        # rich would heed NO_COLOR once more, also where colour was asked for outright.
        console = Console(
            file=self._file, force_terminal=True, no_color=False, soft_wrap=True, highlight=False
        )
        for text, style in lines:
            console.print(Text(text, style=_STYLES[style]))


def discard(file: TextIO) -> None:
    """Send what is left for ``file``, also at exit, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)
