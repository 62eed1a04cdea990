"""tmpfiles.d: directories, links, files, permissions, and how long what is in them is kept."""

from __future__ import annotations

import re
import shlex
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from reconciler.migrate.document import Origin, SpecBlock, TemplateText, joined
from reconciler.migrate.draft import SpecDraft
from reconciler.migrate.original import Original

_TYPE = r"[fFwdDeqQvpLcbCxXrRzZtThHaA][!+=~^$?-]*"
CONTENT = re.compile(rf"\A(?:[ \t]*(?:#[^\n]*)?\n)*{_TYPE}[ \t]+[\"']?[/%]")
NAMES = re.compile(r"/(user-)?tmpfiles\.d/")

_FOLDERS = {
    "t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "T": "/tmp", "V": "/var/tmp",
    "%": "%",
}  # fmt: skip
_TEMPLATES = {
    "h": "user.home", "u": "user.name", "U": "user.uid", "H": "host.name", "l": "host.name",
}  # fmt: skip
_SPANS = {"": "s", "s": "s", "sec": "s", "min": "m", "m": "m", "h": "h", "hr": "h", "d": "d",
          "w": "d", "ms": "ms", "day": "d", "days": "d", "week": "d", "weeks": "d", "minutes": "m",
          "hours": "h", "hour": "h", "seconds": "s", "second": "s", "minute": "m"}  # fmt: skip
_TIMES = {"a": "atime", "b": "birth", "c": "ctime", "m": "mtime"}
_WHY = {
    "f": "a file that is there keeps its content, and here it would be replaced; F is imported",
    "w": "nothing writes into a file that is another's",
    "C": "nothing is copied once and then left",
    "r": "nothing is removed at boot", "R": "nothing is removed at boot",
    "p": "no pipes are made", "c": "no devices are made", "b": "no devices are made",
    "a": "access control lists are not set", "A": "access control lists are not set",
    "t": "extended attributes are not set", "T": "extended attributes are not set",
    "h": "file attributes are not set", "H": "file attributes are not set",
}  # fmt: skip


class _TmpfilesLine(NamedTuple):
    origin: Origin
    sort: str
    path: str
    mode: str
    user: str
    group: str
    age: str
    argument: str


def read(original: Original, draft: SpecDraft) -> None:
    """All its lines. Raises NotImported."""
    lines = [
        _parsed(original, number, text.strip())
        for number, text in original.lines()
        if text.strip() and not text.lstrip().startswith("#")
    ]
    excluded = _Excluded(lines)
    for line in lines:
        try:
            if line.sort[0] not in "xX":
                _add(line, excluded, draft)
        except ValueError as error:
            draft.leave(draft.document, line.origin, str(error))
    for line in excluded.idle():
        draft.leave(draft.document, line.origin, "nothing is cleaned there")


class _Excluded:
    """The lines that keep something from being cleaned, by their paths."""

    def __init__(self, lines: Sequence[_TmpfilesLine]) -> None:
        self._lines = sorted(
            (one for one in lines if one.sort[0] in "xX"), key=lambda one: one.path
        )
        self._paths = [one.path for one in self._lines]
        self._idle = set(range(len(self._lines)))

    def below(self, folder: str) -> list[_TmpfilesLine]:
        start = bisect_left(self._paths, f"{folder}/")
        end = bisect_left(self._paths, f"{folder}0")  # The sign after /.
        self._idle.difference_update(range(start, end))
        return self._lines[start:end]

    def idle(self) -> list[_TmpfilesLine]:
        """Those that nobody has asked for, in their order."""
        return sorted((self._lines[at] for at in self._idle), key=lambda one: one.origin.line)


def _parsed(original: Original, number: int, text: str) -> _TmpfilesLine:
    words: list[str] = []
    rest = text
    while rest and len(words) < 6:
        found = re.match(r"""("(?:[^"\\]|\\.)*"|'[^']*'|[^\s"']\S*)(?:\s+|$)""", rest)
        if found is None:
            raise original.refused(number, "a quote has no end")
        words.append(_unquoted(found[1]))
        rest = rest[found.end() :]
    if len(words) < 2 or not re.fullmatch(_TYPE, words[0]):
        raise original.refused(number, "is not TYPE PATH …, as in tmpfiles.d(5)")
    sort, path, mode, user, group, age = (*words, *[""] * (6 - len(words)))
    plain = ["" if one == "-" else one for one in (mode, user, group, age, rest)]
    return _TmpfilesLine(original.at(number, text), sort, path, *plain)


def _unquoted(word: str) -> str:
    if word[:1] in ("'", '"'):
        return shlex.split(word)[0]
    return word


def _add(line: _TmpfilesLine, excluded: _Excluded, draft: SpecDraft) -> None:
    """The resources of a line. Raises ValueError where it has no equivalent."""
    sort, modifiers = line.sort[0], line.sort[1:]
    path = specified(line.path)
    name = line.path.rstrip("/").rpartition("/")[2]
    content = sort == "F" or (sort == "f" and "+" in modifiers)
    if content and ("~" in modifiers or "^" in modifiers):
        raise ValueError("encoded content, and credentials, have no equivalent")
    if sort in _WHY and not content:
        raise ValueError(_WHY[sort])
    span = _span(line.age.rpartition(":")[2].lstrip("~")) if line.age else ""
    if line.mode.lstrip(":").startswith("~"):
        raise ValueError("a masked mode has no equivalent")
    if sort == "e" and not (line.mode or line.user or line.group):
        _clean(line, path, span, excluded, draft)
        return
    sections = {"L": "links", "F": "files", "f": "files", "z": "permissions", "Z": "permissions",
                "e": "permissions"}  # fmt: skip
    section = sections.get(sort, "directories")
    block = draft.add(section, name, line.origin)
    block.put("path", path, line.origin)
    reasons = (
        ("!" in modifiers, "it holds at all times, not only at boot"),
        ("=" in modifiers, "what is in its place and of another type is left"),
        # Below /run nothing is left of the boot before.
        (sort == "D" and not line.path.startswith("/run/"), "what is in it stays at a boot"),
        (
            ":" in f"{line.mode[:1]}{line.user[:1]}{line.group[:1]}",
            "it holds for what is there too",
        ),
    )
    if any(applies for applies, _ in reasons):
        words = "; ".join(reason for applies, reason in reasons if applies)
        draft.leave(block, line.origin, words)
    if sort == "L":
        target = specified(line.argument) if line.argument else f"/usr/share/factory{line.path}"
        block.put("target", target, line.origin)
        return
    if content:
        text = line.argument.encode("latin-1", "backslashreplace").decode("unicode_escape")
        text = text.encode("latin-1", "ignore").decode("utf-8", "replace")
        block.put("content", specified(text), line.origin)
    if sort == "Z":
        block.put("recursive", True, line.origin)
    usual = {"directories": "0755", "files": "0644"}.get(section, "")
    _rights(block, line, usual)
    if sort in "dDevqQ" and line.age:
        _clean(line, path, span, excluded, draft)


def _rights(block: SpecBlock, line: _TmpfilesLine, usual: str) -> None:
    """Mode, owner and group; with ``:`` they are for what is made new only."""
    mode = line.mode.lstrip(":") or usual
    if mode:
        block.put("mode", mode.zfill(4), line.origin)
    for name, value in (("owner", line.user), ("group", line.group)):
        if value:
            block.put(name, specified(value.lstrip(":")), line.origin)


def _clean(
    line: _TmpfilesLine, path: str, span: str, excluded: _Excluded, draft: SpecDraft
) -> None:
    """A rule that deletes what is older than the age."""
    by, colon, age = line.age.rpartition(":")
    block = draft.add("retention", line.path.rstrip("/").rpartition("/")[2], line.origin)
    if age.startswith("~"):
        block.say("what lies in the folder itself was kept")
    times = {one for one in by if one.islower()} if colon else set("abcm")
    block.put("path", path, line.origin)
    block.put("recursive", True, line.origin)
    block.put("action", "delete", line.origin)
    block.put("older_than", span, line.origin)
    block.put("age_by", _age_by(times), line.origin)
    if not colon or any(one.isupper() for one in by):  # These are for folders.
        block.put("remove_empty", True, line.origin)
    below = excluded.below(line.path.rstrip("/"))
    if below:
        start = len(line.path.rstrip("/")) + 1
        patterns = [one.path[start:] for one in below]
        block.put("exclude", patterns[0] if len(patterns) == 1 else patterns, below[0].origin)


def _age_by(times: set[str]) -> str:
    """That time which is the last of these for every file: nothing goes too early."""
    if len(times) == 1:
        return _TIMES[min(times)]
    return "ctime" if "a" not in times and "c" in times else "newest"


def _span(text: str) -> str:
    """``10d``, ``1w``, ``1d 12h`` as one duration of a spec. Raises ValueError."""
    if re.fullmatch(r"0[a-z]*", text):
        raise ValueError("everything would go each time")
    parts = re.findall(r"([0-9]+)\s*([a-z]*)\s*", text)
    if not parts or "".join(f"{n}{u}" for n, u in parts) != text.replace(" ", ""):
        raise ValueError(f"{text!r} is not an age")
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if any(unit not in _SPANS or _SPANS[unit] == "ms" for _, unit in parts):
        raise ValueError(f"{text!r} is not an age here")
    if len(parts) == 1:
        number, unit = parts[0]
        weeks = 7 if unit.startswith("w") else 1
        return f"{int(number) * weeks}{_SPANS[unit]}"
    total = sum(
        int(number) * seconds[_SPANS[unit]] * (7 if unit.startswith("w") else 1)
        for number, unit in parts
    )
    return f"{total}s"


def specified(text: str) -> str:
    """``%`` and a letter, as in tmpfiles.d(5). Raises ValueError."""
    parts: list[str] = []
    done = 0
    for found in re.finditer(r"%(.?)", text):
        letter = found[1]
        if letter in _TEMPLATES:
            value: str = TemplateText(f"{{{{ {_TEMPLATES[letter]} }}}}")
        elif letter in _FOLDERS:
            value = _FOLDERS[letter]
        else:
            raise ValueError(f"%{letter} has no equivalent")
        parts += (text[done : found.start()], value)
        done = found.end()
    return joined(*parts, text[done:])
