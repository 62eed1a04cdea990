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

_TYPE = r"[fFwdDeqQvpLcbCxXrRzZmtThHaA][!+=~^$?-]*"
CONTENT = re.compile(rf"\A(?:[ \t]*(?:#[^\n]*)?\n)*{_TYPE}[ \t]+[\"']?[/%]")
NAMES = re.compile(r"/(user-)?tmpfiles\.d/")

_FOLDERS = {
    "t": "/run", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "T": "/tmp", "V": "/var/tmp",
    "%": "%",
}  # fmt: skip
_TEMPLATES = {
    "h": "user.home", "u": "user.name", "U": "user.uid", "H": "host.name", "l": "host.name",
}  # fmt: skip
_OF_A_USER = {"t": "/run/user/%U", "S": "%h/.local/state", "C": "%h/.cache",
              "L": "%h/.local/state/log"}  # fmt: skip
"""What these are in ``user-tmpfiles.d``."""
_SECONDS = (
    (1, ("", "s", "sec", "second", "seconds")),
    (60, ("m", "min", "minute", "minutes")),
    (3600, ("h", "hr", "hour", "hours")),
    (86400, ("d", "day", "days")),
    (7 * 86400, ("w", "week", "weeks")),
    (2629800, ("M", "month", "months")),
    (31557600, ("y", "year", "years")),
)
_SPANS = {name: seconds for seconds, names in _SECONDS for name in names}
"""Of systemd.time(7)."""
_WRITTEN = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_KEPT = "xX"
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
    read_all([original], draft)


def read_all(originals: Sequence[Original], draft: SpecDraft) -> None:
    """The same of several, of which each may be about what is in folders of another."""
    lines = [
        _parsed(original, number, text.strip())
        for original in originals
        for number, text in original.lines()
        if text.strip() and not text.lstrip().startswith("#")
    ]
    excluded = _Excluded(lines)
    for line in lines:
        try:
            if line.sort[0] not in _KEPT:
                _add(line, excluded, draft)
        except ValueError as error:
            draft.leave(draft.document, line.origin, str(error))
    for line in excluded.idle():
        draft.leave(draft.document, line.origin, "nothing is cleaned there")


class _Excluded:
    """What is not cleaned with the folder that it is in, by path: all that has its own line."""

    def __init__(self, lines: Sequence[_TmpfilesLine]) -> None:
        self._lines = sorted(lines, key=lambda one: one.path)
        self._paths = [one.path for one in self._lines]
        self._idle = {at for at, one in enumerate(self._lines) if one.sort[0] in _KEPT}

    def below(self, folder: str) -> list[_TmpfilesLine]:
        start = bisect_left(self._paths, f"{folder}/")
        end = bisect_left(self._paths, f"{folder}0")  # The sign after /.
        self._idle.difference_update(range(start, end))
        return self._lines[start:end]

    def idle(self) -> list[_TmpfilesLine]:
        """The ``x`` and ``X`` that nobody has asked for, in their order."""
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
    path = re.sub(r"/(?:\.?/)+", "/", path)
    if "/user-tmpfiles.d/" in original.path:
        path, rest = (
            re.sub("%(.)", lambda found: _OF_A_USER.get(found[1], found[0]), one)
            for one in (path, rest)
        )
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
    if line.mode.lstrip(":").startswith("~"):
        raise ValueError("a masked mode has no equivalent")
    span = no_age = ""
    try:
        span = _span(line.age.rpartition(":")[2].lstrip("~")) if line.age else ""
    except ValueError as error:
        no_age = str(error)
    if sort == "e" and not (line.mode or line.user or line.group):
        if no_age:
            raise ValueError(no_age)
        _clean(line, path, span, excluded, draft)
        return
    sections = {"L": "links", "F": "files", "f": "files", "z": "permissions", "Z": "permissions",
                "e": "permissions", "m": "permissions"}  # fmt: skip
    section = sections.get(sort, "directories")
    block = draft.add(section, name, line.origin)
    block.put("path", path, line.origin)
    reasons = (
        (no_age, f"its age: {no_age}"),
        ("!" in modifiers, "it holds at all times, not only at boot"),
        ("?" in modifiers, "it is made though its target is not there"),
        (sort == "L" and "+" not in modifiers, "a link that leads elsewhere is set back"),
        (
            "=" in modifiers or (sort == "L" and "+" in modifiers),
            "what is in its place and of another type is left",
        ),
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
    if sort in "dDevqQ" and span:
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
    # A line with .. is none of systemd's either, and would cost the rule all that it is to keep.
    below = [one for one in excluded.below(line.path.rstrip("/")) if "/../" not in f"{one.path}/"]
    if below:
        start = len(line.path.rstrip("/")) + 1
        # Where it is not known what is meant, rather more of it is kept.
        patterns = [specified(one.path.rstrip("/")[start:], "*") for one in below]
        block.put("exclude", patterns[0] if len(patterns) == 1 else patterns, below[0].origin)


def _age_by(times: set[str]) -> str:
    """That time which is the last of these for every file: nothing goes too early."""
    if len(times) == 1:
        return _TIMES[min(times)]
    return "ctime" if "a" not in times and "c" in times else "newest"


def _span(text: str) -> str:
    """``10d``, ``1w``, ``1d 12h`` as one duration of a spec. Raises ValueError."""
    parts = re.findall(r"([0-9]+)\s*([A-Za-z]*)\s*", text)
    if not parts or "".join(f"{n}{u}" for n, u in parts) != text.replace(" ", ""):
        raise ValueError(f"{text!r} is not an age")
    if any(unit not in _SPANS for _, unit in parts):
        raise ValueError(f"{text!r} is not an age here")
    total = sum(int(number) * _SPANS[unit] for number, unit in parts)
    if total == 0:
        raise ValueError("everything would go each time")
    unit, seconds = next(one for one in _WRITTEN if total % one[1] == 0)
    return f"{total // seconds}{unit}"


def specified(text: str, instead: str | None = None) -> str:
    """``%`` and a letter, as in tmpfiles.d(5); ``instead`` of one that has no equivalent.

    Raises ValueError where nothing is to stand there.
    """
    parts: list[str] = []
    done = 0
    for found in re.finditer(r"%(.?)", text):
        letter = found[1]
        if letter in _TEMPLATES:
            value: str = TemplateText(f"{{{{ {_TEMPLATES[letter]} }}}}")
        elif letter in _FOLDERS:
            value = _FOLDERS[letter]
        elif instead is not None:
            value = instead
        else:
            raise ValueError(f"%{letter} has no equivalent")
        parts += (text[done : found.start()], value)
        done = found.end()
    return joined(*parts, text[done:])
