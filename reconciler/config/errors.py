"""What is wrong with a spec, where, and what was probably intended: all of it at once.

It must not stop at the first problem, and it never prints anything that a terminal would obey.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.base.text import escaped, printable

if TYPE_CHECKING:
    from reconciler.config.nodes import SourceMark

SHOWN = 50
"""Problems that are printed before ``... and N more``."""
MOST = 1000
"""Problems after which no more are looked for."""
_WINDOW = 96
"""Characters of a source line that are shown at most."""
_WORTH_HIDING = 4
"""Characters that a secret must have to be redacted; less are in the way everywhere."""
_NONE: Mapping[str, bytes] = {}
_LINK = re.compile(r"://[^\s'\"]+")


class AlreadyReported(Exception):
    """What went wrong has been reported at its cause."""


class Problem(NamedTuple):
    """One thing that is wrong.

    ``line`` and ``column`` count from 1, in characters; ``line`` is 0 where there is no
    position, such as for a file that cannot be read. ``source_line`` is the line as written, or
    the part of a very long one around the place, and ``caret`` the index in it of the place.
    """

    file: str
    line: int
    column: int
    length: int
    message: str
    source_line: str | None = None
    hint: str | None = None
    caret: int = 0

    def lines(self) -> Iterator[tuple[str, str]]:
        """The way a compiler says it: one to four lines, each with its style."""
        where = printable(self.file)
        if self.line:
            where += f":{self.line}:{self.column}"
        yield f"{where}: error: {printable(self.message, 500)}", "bad"
        gutter = " " * 5
        if self.source_line is not None:
            gutter = " " * max(5, len(str(self.line)) + 2)
            text, caret = _drawn(self.source_line, self.caret, self.length)
            yield f"{self.line:>{len(gutter)}} | {text}", ""
            yield f"{gutter} | {caret}", "bad"
        if self.hint:
            yield f"{gutter} = {printable(self.hint, 4000)}", "change"

    def render(self) -> str:
        """The same as one text, without a final newline."""
        return "\n".join(text for text, _ in self.lines())


def _drawn(line: str, start: int, length: int) -> tuple[str, str]:
    """A source line, cut around the place, and the line with the caret below it."""
    first = 0
    if len(line) > _WINDOW:
        first = max(0, min(start - _WINDOW // 3, len(line) - _WINDOW))
    shown = line[first : first + _WINDOW]
    before = "..." if first else ""
    after = "..." if first + _WINDOW < len(line) else ""
    at = start - first
    pad = len(before) + _width(shown[:at])
    marked = _width(shown[at : at + max(1, length)])
    text = before + "".join(map(escaped, shown)) + after
    return text, " " * pad + "^" + "~" * (marked - 1)


def _width(text: str) -> int:
    """Terminal columns of ``text`` once escaped."""
    if text.isascii() and text.isprintable():
        return len(text)
    from rich.cells import cell_len

    return cell_len("".join(map(escaped, text)))


class SpecError(Exception):
    """The spec is not valid. ``problems`` are sorted by file and place; nothing was touched.

    ``files`` are those that it was made from, with the digest of what was read, which is empty
    where nothing could be.
    """

    def __init__(self, problems: Iterable[Problem], files: Mapping[str, bytes] = _NONE) -> None:
        self.files = dict(files)
        self.problems: tuple[Problem, ...] = tuple(
            sorted(set(problems), key=lambda p: (p.file, p.line, p.column, p.message))
        )
        super().__init__(self.problems)

    def lines(self) -> Iterator[tuple[str, str]]:
        """The problems for a person, with styles."""
        for problem in self.problems[:SHOWN]:
            yield from problem.lines()
        more = len(self.problems) - SHOWN
        if len(self.problems) >= MOST:
            yield f"... and at least {more} more", ""
        elif more > 0:
            yield f"... and {more} more", ""

    def __str__(self) -> str:
        return "\n".join(text for text, _ in self.lines())


def document(error: SpecError) -> list[dict[str, Any]]:
    """All problems as JSON data, in their order; ``line`` and ``column`` are null without one."""
    return [
        {
            "file": printable(problem.file),
            "line": problem.line or None,
            "column": problem.column or None,
            "message": printable(problem.message),
            "hint": None if problem.hint is None else printable(problem.hint),
        }
        for problem in error.problems
    ]


class Problems:
    """Collects problems while the work goes on, up to a number that nobody reads any more."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.files: dict[str, bytes] = {}
        """What was read, for ``SpecError``."""
        self._hidden: set[str] = set()
        # Near misses are looked for until that many names were compared: with thousands of
        # names and problems it would take minutes, and nobody reads that far.
        self._looks = 50_000

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(
        self,
        mark: SourceMark,
        message: str,
        hint: str | None = None,
        near: tuple[str, Iterable[str]] | None = None,
    ) -> None:
        """A problem at ``mark``; ``near`` is a word and those it may have been meant to be.

        Raises SpecError when there are far too many.
        """
        if near is not None and self._looks > 0:
            choices = list(near[1])
            self._looks -= len(choices)
            name = closest(near[0], choices)
            hint = hint if name is None else f"did you mean {name!r}?"
        for begin, end in mark.source.masks:
            value = mark.source.text[begin:end]
            if len(value) >= _WORTH_HIDING:
                # Also where it is quoted with what follows it, or only a part of it.
                message = _LINK.sub("://***", message.replace(value, "***"))
                hint = hint and _LINK.sub("://***", hint.replace(value, "***"))
        place = mark.source.place(mark.start, mark.end)
        self._keep(Problem(mark.source.shown, message=message, hint=hint, **place))

    def add_file(self, file: str, message: str, hint: str | None = None) -> None:
        """A problem that has no position in a file."""
        self._keep(Problem(file, 0, 0, 0, message, None, hint))

    def _keep(self, problem: Problem) -> None:
        self.found.append(problem)
        if len(self.found) >= MOST:
            self.stop_if_any()

    def stop_if_any(self) -> None:
        """Raises SpecError when something was found so far."""
        if self.found:
            raise SpecError(map(self._censored, self.found), self.files)

    def hide(self, values: Iterable[str]) -> None:
        """Nothing that is reported, now or before, shows any of these values."""
        self._hidden.update(value for value in values if len(value) >= _WORTH_HIDING)

    def _censored(self, problem: Problem) -> Problem:
        line, message, hint = problem.source_line, problem.message, problem.hint
        for value in sorted(self._hidden, key=len, reverse=True):
            message = message.replace(value, "***").replace(repr(value)[1:-1], "***")
            line = line and line.replace(value, "*" * len(value))
            hint = hint and hint.replace(value, "***")
        return problem._replace(message=message, source_line=line, hint=hint)


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The one of ``choices`` that ``word`` was probably meant to be."""
    if not 0 < len(word) <= 100:
        return None
    names = [name for name in choices if name != word and abs(len(name) - len(word)) <= 8]
    for name in names:
        if name.lower().replace("-", "_") == word.lower().replace("-", "_"):
            return name
    from difflib import get_close_matches

    found = get_close_matches(word, names, n=1, cutoff=0.6)
    return found[0] if found else None
