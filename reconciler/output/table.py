"""Rows under a head: a table as data, and how it looks where nobody draws one.

It must not print; on a terminal rich draws it, which only ``terminal`` may load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from reconciler.base.records import dataclass
from reconciler.output.text import Line

MARGIN = 2
"""Blanks before each row, and between two columns."""
_LEAST = 20
"""Columns that are left to the last cell, however wide the others are."""

Row = tuple[Sequence[str], str]
"""The cells, already safe to show, and the style of the row."""


@dataclass(frozen=True, slots=True)
class Table:
    """``rows`` have a cell for each word of ``head``; the last one takes the room that is left.

    ``right`` are the columns whose cells are numbers. ``width``: no line is longer than that
    where it can be parted; None: one line a row, for programs that read lines.
    """

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    right: frozenset[int] = frozenset()
    width: int | None = None


Block = Line | Table
"""What views yield, and a terminal writes."""


def lines_of(blocks: Iterable[Block]) -> Iterator[Line]:
    """All as lines, for where nobody draws a table."""
    for block in blocks:
        if isinstance(block, Table):
            yield from _plain(block)
        else:
            yield block


def _plain(table: Table) -> Iterator[Line]:
    """The table as lines, its columns filled up with blanks."""
    from textwrap import wrap

    if not table.rows:
        return
    cells = [tuple(table.head), *(tuple(row) for row, _ in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    before = MARGIN + sum(width + MARGIN for width in widths[:-1])
    for row, style in ((table.head, "quiet"), *table.rows):
        start = " " * MARGIN
        for at, cell in enumerate(row[:-1]):
            filled = cell.rjust(widths[at]) if at in table.right else cell.ljust(widths[at])
            start += filled + " " * MARGIN
        if table.width is None:
            yield f"{start}{row[-1]}".rstrip(), style
            continue
        room = max(_LEAST, table.width - before)
        parts = wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) or [""]
        yield f"{start}{parts[0]}".rstrip(), style
        for part in parts[1:]:
            yield f"{' ' * before}{part}", style
