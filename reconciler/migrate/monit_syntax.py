"""A monitrc as words, statements, and the clauses of a check, also of what it includes.

Noise words are left out, as monit's own grammar has it. What they ask for is not known here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reconciler.migrate.document import Origin
from reconciler.migrate.original import Original, opened

_TOKEN = re.compile(r"""[ \t\r\n,]+|\#[^\n]*|"([^"]*)"|'([^']*)'|([^\s"',]+)""")
_NOISE = {"is", "as", "are", "on", "only", "with", "within", "and", "has", "using", "use", "the",
          "sum", "program", "programs", "than", "for", "usage", "was", "but", "of"}  # fmt: skip
_STARTS = ("start", "stop", "restart", "if", "depends", "depend", "group", "every", "mode",
           "onreboot", "alert", "noalert", "else", "ignore")  # fmt: skip
_ACTIONS = ("alert", "restart", "start", "stop", "exec", "unmonitor", "timeout")
_VALUED = ("host|hostname|port|address|type|unixsocket|unix|protocol|proto|request|count|size|"
           "password")  # fmt: skip
_ASKED = [
    re.compile(rf"(?:^|(?<= )){one}(?= |$)", re.IGNORECASE)
    for one in (
        r"http (headers) (\[[^\]]*\])",
        r'(content) (?:=+ )?"([^"]*)"',
        r"(status) (?:=+ )?([0-9]+)",
        r"(timeout) ([0-9]+) seconds?",
        rf'({_VALUED}) (?:=+ )?(?:"([^"]*)"|(\S+))',
        r"(ssl|tls|failed|ping[46]?|icmp)",
    )
]
"""What a connection may be asked with, in the order in which one may hold the next."""
_ALSO = {"hostname": "host", "unix": "unixsocket", "proto": "protocol", "tls": "ssl"}
_DEEPEST = 16


class MonitWord(NamedTuple):
    text: str
    line: int
    quoted: bool
    original: Original


class MonitClause(NamedTuple):
    """A part of a check: its first word, and all of its words."""

    words: Sequence[MonitWord]

    @property
    def first(self) -> str:
        return self.words[0].text.lower()

    @property
    def origin(self) -> Origin:
        shown = " ".join(f'"{one.text}"' if one.quoted else one.text for one in self.words)
        return self.words[0].original.at(self.words[0].line, shown)

    def after(self, *names: str) -> str | None:
        """The word behind the first of these, noise and ``=`` passed over."""
        for at, word in enumerate(self.words):
            if word.text.lower() in names and not word.quoted:
                rest = (one for one in self.words[at + 1 :]
                        if one.quoted or one.text.lower() not in {*_NOISE, "=", "=="})  # fmt: skip
                return next((one.text for one in rest), None)
        return None

    def plain(self, until: str = "then") -> str:
        """The condition in lower case without noise; quoted words stay as they are."""
        found = []
        for word in self.words[1:]:
            low = word.text.lower()
            if low == until and not word.quoted:
                break
            if word.quoted:
                found.append(f'"{word.text}"')
            elif low not in _NOISE:
                found.append(low)
        return " ".join(found)


def _words(original: Original) -> Iterator[MonitWord]:
    text, at, line = original.text, 0, 1
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise original.refused(line, "a quote has no end")
        if found.lastindex is not None:
            yield MonitWord(found[found.lastindex], line, found.lastindex < 3, original)
        line += text.count("\n", at, found.end())
        at = found.end()


def statements(original: Original, seen: set[str]) -> Iterator[list[MonitWord]]:
    """Each ``set`` and ``check``, also of what is included."""
    statement: list[MonitWord] = []
    words = list(_words(original))
    for at, word in enumerate(words):
        begins = not word.quoted and word.text.lower() in ("set", "check", "include")
        if begins and statement and statement[0].text.lower() == "include":
            yield from _included(statement, seen)
            statement = []
        if begins and (at == 0 or not _continues(words[at - 1])):
            if statement:
                yield statement
            statement = [word]
        elif statement:
            statement.append(word)
        else:
            raise original.refused(word.line, f"{word.text!r} is neither set, check nor include")
    if statement and statement[0].text.lower() == "include":
        yield from _included(statement, seen)
    elif statement:
        yield statement


def _continues(before: MonitWord) -> bool:
    return not before.quoted and before.text.lower() in ("group", "not", "request", "=")


def _included(statement: Sequence[MonitWord], seen: set[str]) -> Iterator[list[MonitWord]]:
    word = statement[-1]
    origin = word.original.at(word.line, f"include {word.text}")
    for path in word.original.matching(word.text, origin):
        real = os.path.realpath(path)
        if real in seen:
            raise word.original.refused(word.line, f"files include one another: {origin.text}")
        if len(seen) > _DEEPEST:
            raise word.original.refused(word.line, "includes are nested too deep")
        if os.path.isfile(path):
            yield from statements(opened(path, origin, word.original), seen | {real})


def clauses_of(words: Sequence[MonitWord]) -> tuple[Sequence[MonitWord], list[MonitClause]]:
    """What stands before the first clause, and the clauses."""
    starts = []
    for at, word in enumerate(words):
        low = word.text.lower()
        before = words[at - 1].text.lower() if at else ""
        inner = before in ("group", "onreboot", "mode", "repeat") or (
            before in ("then", "else", "on") and low in _ACTIONS
        )
        if at > 2 and low in _STARTS and not word.quoted and not inner:
            starts.append(at)
    if not starts:
        return words, []
    ends = [*starts[1:], len(words)]
    clauses = [MonitClause(words[a:b]) for a, b in zip(starts, ends, strict=True)]
    return words[: starts[0]], clauses


def without_cycles(text: str) -> tuple[str, int]:
    """A condition without ``for 3 cycles``, and the number."""
    found = re.search(r" (?:([0-9]+) times? )?([0-9]+) cycles?$", text)
    if found is None or re.search(r"restarts?", text):
        return text, 1
    return text[: found.start()], int(found[1] or found[2])


def connection(clause: MonitClause) -> tuple[dict[str, str], list[str]]:
    """What a connection, or a ping, is asked with by name; and the words of what is not known."""
    words = [one for one in clause.words[1:] if one.quoted or one.text.lower() not in _NOISE]
    texts = [f'"{one.text}"' if one.quoted else one.text for one in words]
    end = next((at for at, text in enumerate(texts) if text.lower() == "then"), len(texts))
    rest = without_cycles(" ".join(texts[:end]))[0]
    asked: dict[str, str] = {}

    def taken(found: re.Match[str]) -> str:
        name = found[1].lower()
        asked[_ALSO.get(name, name)] = next((one for one in found.groups()[1:] if one), "")
        return " "

    for pattern in _ASKED:
        rest = pattern.sub(taken, rest)
    return asked, [*rest.split(), *(["password"] if "password" in asked else [])]
