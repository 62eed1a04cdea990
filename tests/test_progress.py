"""Long work is told to whoever watches, and a table looks the same wherever it is put."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from reconciler.host import progress
from reconciler.host.child import answer
from reconciler.host.progress import BYTES, Work, watch, working
from reconciler.output.terminal import drawn
from reconciler.output.text import Table, lines_of


class Heard:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, int]] = []

    def begins(self, work: Work) -> None:
        self.said.append(("begins", work.what, work.done))

    def moved(self, work: Work) -> None:
        self.said.append(("moved", work.what, work.done))

    def ends(self, work: Work) -> None:
        self.said.append(("ends", work.what, work.done))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    monkeypatch.setattr(progress, "_watchers", [])
    made = Heard()
    watch(made)
    return made


def test_work_is_told_from_its_beginning_to_its_end(heard: Heard) -> None:
    with working("copy", 10, BYTES) as work:
        work.advance(4)
        with working("read", None) as inner:
            inner.advance()
        work.advance(6)
    assert heard.said == [
        ("begins", "copy", 0), ("moved", "copy", 4), ("begins", "read", 0), ("moved", "read", 1),
        ("ends", "read", 1), ("moved", "copy", 10), ("ends", "copy", 10),
    ]  # fmt: skip


def test_it_ends_also_when_it_fails(heard: Heard) -> None:
    with pytest.raises(ZeroDivisionError), working("count", 2):
        print(1 / 0)
    assert heard.said[-1] == ("ends", "count", 0)


@pytest.mark.usefixtures("free")
def test_a_child_tells_nobody(heard: Heard) -> None:
    def work() -> bytes:
        with working("in a child", 1) as inner:
            inner.advance()
        return repr((os.getpid(), heard.said)).encode()

    pid, said = eval(answer(work, 10.0).decode())
    assert (pid != os.getpid(), said, heard.said) == (True, [], [])


def test_a_table_is_one_line_a_row_or_folded() -> None:
    rows = ((("a", "1", "short"), "good"), (("bcd", "1,000", "so it is " * 4), "bad"))
    table = Table(("what", "files", "why"), rows, frozenset((1,)))
    assert list(lines_of([("head", ""), table])) == [
        ("head", ""),
        ("  what  files  why", "quiet"),
        ("  a         1  short", "good"),
        ("  bcd   1,000  so it is so it is so it is so it is", "bad"),
    ]
    narrow = Console(width=36, file=io.StringIO(), color_system=None)
    narrow.print(drawn(table))
    assert narrow.file.getvalue().splitlines()[-2:] == [  # type: ignore[attr-defined]
        "  bcd   1,000  so it is so it is so ",
        "               it is so it is       ",
    ]
    assert list(lines_of([Table(("a", "b"), ())])) == []
