"""Rows under a head, as data. On a terminal rich draws them, which only ``terminal`` may load.

Elsewhere each row is one uncut line, made here: rich takes seconds for ten thousand rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from reconciler.base.records import dataclass
from reconciler.output.text import Line

MARGIN = 2
"""Blanks before each row, and between two columns."""

Row = tuple[Sequence[str], str]
"""The cells, already safe to show, and the style of the row."""


@dataclass(frozen=True, slots=True)
class Table:
    """``rows`` have a cell for each word of ``head``; ``right`` are the columns of numbers."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    right: frozenset[int] = frozenset()


Block = Line | Table
"""What views yield, and a terminal writes."""


def lines_of(blocks: Iterable[Block]) -> Iterator[Line]:
    """All as lines; the columns of a table are filled up with blanks."""
    for block in blocks:
        if not isinstance(block, Table):
            yield block
            continue
        rows = ((block.head, "quiet"), *block.rows) if block.rows else ()
        widths = [max(map(len, column)) for column in zip(*(row for row, _ in rows), strict=True)]
        for row, style in rows:
            cells = [
                cell.rjust(width) if at in block.right else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            yield f"{' ' * MARGIN}{(' ' * MARGIN).join(cells)}".rstrip(), style
