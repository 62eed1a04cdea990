"""Where lines and tables for people go: plain, or as rich draws them on a terminal.

It must not decide what is told. Only this module and ``progress`` load rich, and only when
something is drawn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from reconciler.base.text import count_of, redacted
from reconciler.output.text import MARGIN, Block, Line, Table, lines_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_STYLES = {
    "good": "green",
    "change": "yellow",
    "bad": "bold red",
    "quiet": "dim",
    "long": "",
    "": "",
}


class Terminal:
    """Writes lines to standard output, or to standard error when that is taken by JSON."""

    def __init__(self, color: str, to_errors: bool, whole: bool = True) -> None:
        self._output: TextIO = sys.stdout
        self._file: TextIO = sys.stderr if to_errors else sys.stdout
        self.watched = _is_terminal(self._file)
        """Is there a person who sees it as it is written?"""
        self.whole = whole
        self.colored = color == "always" or (
            color == "auto" and not os.environ.get("NO_COLOR") and self.watched
        )
        self._heading: Line | None = None
        self._headed: Line | None = None
        self.aside: Callable[[], None] = lambda: None
        """Takes off what is drawn on the terminal only for now, before something is written."""
        self.relay: Callable[[Sequence[Block]], None] | None = None
        """Where they go instead, in a child whose parent prints them."""
        self.error: OSError | None = None
        """Why lines could not be printed, if so. Nobody reading is no reason to stop working."""

    def write(self, blocks: Iterable[Block]) -> None:
        """Print them at once, so that a watching person sees them as they come."""
        if self.relay is not None:
            self.relay(list(blocks))
            return
        if self.error is not None:
            return
        blocks = [_censored(block) for block in blocks]
        if blocks and self._heading is not None:
            heading = _censored(self._heading)
            blocks = blocks if blocks[0] == heading else [heading, *blocks]
            self._heading, self._headed = None, self._heading
        elif blocks and blocks[0] == self._headed:
            del blocks[0]
        if self.watched and not self.whole:
            width = os.get_terminal_size(self._file.fileno()).columns or 80
            blocks = [_cut(block, width) for block in blocks]
        self.aside()
        try:
            if self.colored or (self.watched and any(isinstance(one, Table) for one in blocks)):
                self._draw(blocks)
            else:
                self._file.write("".join(f"{text}\n" for text, _ in lines_of(blocks)))
            self._file.flush()
        except OSError as error:
            self.error = error
            discard(self._file)

    def head(self, line: Line) -> None:
        """Have that line stand before the next one, if there is one; once, and not twice where
        that is the same one."""
        if line != self._headed:
            self._heading = line

    def put(self, line: str) -> None:
        """Print one line for programs on standard output, at once."""
        if self.error is None:
            try:
                self._output.write(f"{line}\n")
                self._output.flush()
            except OSError as error:
                self.error = error
                discard(self._output)

    def wait_for_nobody(self) -> None:
        """Never wait for a reader from now on; what is lost by that is counted, and told."""
        from reconciler.host.nonblocking_writer import NonblockingWriter

        def missed(number: int) -> str:
            lines = count_of(number, "line was", "lines were")
            return f"{lines} not written here, because nobody read what came before\n"

        def missed_in_json(number: int) -> str:
            return f'{{"event": "lost", "lines": {number}}}\n'

        output: Any = NonblockingWriter(sys.stdout, missed_in_json)
        file: Any = NonblockingWriter(self._file, missed)
        self._output, self._file = output, file

    def flush(self) -> None:
        """Write what had to wait for a reader, as far as that is possible now."""
        if self.error is None:
            try:
                self._output.flush()
                self._file.flush()
            except OSError as error:
                self.error = error
                discard(self._file)

    def console(self) -> Console:
        """The terminal, as rich draws on it."""
        from rich.console import Console

        # rich would heed NO_COLOR once more, also where colour was asked for outright.
        return Console(
            file=self._file, force_terminal=True, no_color=False, highlight=False,
            color_system="auto" if self.colored else None,
        )  # fmt: skip

    @contextmanager
    def live(self) -> Iterator[Callable[[Iterable[Block]], None]]:
        """Gives what draws blocks in the place of those before them.

        Where nobody watches, they are written where they differ from those.
        """
        if not self.watched:
            before: list[list[Line]] = []

            def write(blocks: Iterable[Block]) -> None:
                lines = list(lines_of(blocks))
                if [lines] != before:
                    before[:] = [lines]
                    self.write([*lines, ("", "")])

            yield write
            return
        from rich.console import Group
        from rich.live import Live

        console = self.console()
        # Drawn when there is something new: no thread.
        with Live(
            console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as screen:
            console.show_cursor(True)  # A kill must not leave a terminal without one.

            def show(blocks: Iterable[Block]) -> None:
                rows = [_rendered(_censored(block)) for block in blocks]
                screen.update(Group(*rows), refresh=True)

            yield show

    def _draw(self, blocks: Iterable[Block]) -> None:
        console = self.console()
        # Where it goes to no terminal, colours or not, there is no width to fit a table into.
        for block in blocks if self.watched else lines_of(blocks):
            console.print(_rendered(block), soft_wrap=not isinstance(block, Table))


def _rendered(block: Block) -> RenderableType:
    if isinstance(block, Table):
        return drawn(block)
    from rich.text import Text

    return Text(block[0], style=_STYLES[block[1]])


def _cut(block: Block, width: int) -> Block:
    if isinstance(block, Table) or block[1] != "long" or len(block[0]) <= width:
        return block
    return f"{block[0][: width - 1]}…", block[1]


def _censored(block: Block) -> Block:
    if isinstance(block, Table):
        rows = tuple((tuple(map(redacted, cells)), style) for cells, style in block.rows)
        return Table(block.head, rows, block.right)
    return redacted(block[0]), block[1]


def drawn(table: Table) -> RenderableType:
    """The table as rich knows it: the last column is folded where it does not fit, and where that
    is not enough, the first one."""
    from rich import table as rich
    from rich.padding import Padding
    from rich.text import Text

    drawn = rich.Table(box=None, padding=(0, MARGIN, 0, 0), pad_edge=False, header_style="dim")
    last = len(table.head) - 1
    for at, word in enumerate(table.head):
        options: dict[str, Any] = {"justify": "right" if at in table.right else "left"}
        drawn.add_column(Text(word), no_wrap=0 < at < last, overflow="fold", **options)
    for cells, style in table.rows:
        drawn.add_row(*map(Text, cells), style=_STYLES[style])
    return Padding(drawn, (0, 0, 0, MARGIN))


def _is_terminal(file: TextIO) -> bool:
    try:
        return file.isatty()
    except ValueError:
        return False  # It is closed.


def discard(file: TextIO) -> None:
    """Send what is left for ``file``, also at exit, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, file.fileno())
    os.close(nowhere)
