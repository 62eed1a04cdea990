"""How far long work has come, as a bar on the terminal of whoever waits for it.

It must not show anything of what ends soon, nor leave anything behind of what has ended.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.text import amount, printable
from reconciler.host.progress import BYTES, Work
from reconciler.output.terminal import Terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PATIENCE = 0.7
"""Seconds that work may take before it is shown."""
_EVERY = 0.1
"""Seconds between two drawings."""
_LONGEST = 44


class Bars:
    """Hears of work, and draws a bar for each that takes its time."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._begun: dict[Work, float] = {}
        self._shown: dict[Work, TaskID] = {}
        self._progress: Progress | None = None
        self._drawn = 0.0

        terminal.aside = self._take_off

    def begins(self, work: Work) -> None:
        """Wait whether it takes long."""
        if work.unit == BYTES or work.total is None or work.total > 1:
            self._begun[work] = time.monotonic()

    def moved(self, work: Work) -> None:
        """Draw it, if it is time to."""
        now = time.monotonic()
        if now - self._drawn < _EVERY or now - self._begun.get(work, now) < _PATIENCE:
            return
        self._drawn = now
        with suppress(OSError):  # Where nobody can see it any more, the work goes on.
            self._draw()

    def ends(self, work: Work) -> None:
        """Take it off the screen."""
        self._begun.pop(work, None)
        shown = self._shown.pop(work, None)
        if shown is None or self._progress is None:
            return
        if not self._shown:
            self._take_off()
            return
        with suppress(OSError):
            self._progress.remove_task(shown)
            self._progress.refresh()

    def _take_off(self) -> None:
        """Leave the screen as it would be without; what goes on is drawn again later."""
        progress, self._progress = self._progress, None
        self._shown.clear()
        if progress is not None:
            with suppress(OSError):
                progress.stop()

    def _draw(self) -> None:
        progress = self._progress or self._open()
        for work in self._begun:
            if work not in self._shown:
                self._shown[work] = progress.add_task("", total=work.total, much="")
            what = printable(work.what, _LONGEST)
            done = work.total if work.total is not None and work.done > work.total else work.done
            progress.update(
                self._shown[work], description=what, completed=done, total=work.total,
                much=_much(work),
            )  # fmt: skip
        progress.refresh()

    def _open(self) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = self._terminal.console()
        console.width -= len("^C ")  # Which the terminal would break the line for.
        self._progress = progress = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[much]}", markup=False),
            TimeRemainingColumn(compact=True),
            # Drawn by ourselves as work goes on: no thread, and one that hangs is seen to.
            console=console, transient=True, auto_refresh=False, expand=False,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        progress.start()
        console.show_cursor(True)  # A kill must not leave a terminal without one.
        return progress


def _much(work: Work) -> str:
    def said(number: int) -> str:
        return amount(number) if work.unit == BYTES else f"{number:,}"

    if work.total is None:
        return said(work.done)
    return f"{said(min(work.done, work.total))}/{said(work.total)}"
