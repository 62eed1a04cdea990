"""Scalars as users write them, to values: durations, sizes, modes, paths, commands. No I/O.

It must not touch the host, nor know which field it reads for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from reconciler.base.values import Secret


class InvalidScalar(ValueError):
    """A part of a value is wrong: ``at`` leads to it, by the keys and indexes on the way.

    ``key``: it is the last key itself, and not what stands behind it.
    ``near`` is what was written, and the words of which one may have been meant.
    ``hint`` says what to do.
    """

    def __init__(
        self,
        message: str,
        at: tuple[str | int, ...] = (),
        near: tuple[str, Sequence[str]] | None = None,
        key: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.at = at
        self.key = key
        self.near = near


class Plain(str):
    """Text that stood without quotes in the YAML, where YAML 1.2 would give it a type."""

    __slots__ = ()


def parse_text(value: object) -> str:
    """Any text without NUL; an unquoted number stays the text it was. Raises ValueError."""
    if not isinstance(value, str):
        wrong = "a list" if isinstance(value, (list, tuple)) else "a mapping"
        raise ValueError(f"needs a single value, not {wrong}")
    if isinstance(value, Plain) and value in ("", "~", "null", "Null", "NULL"):
        raise ValueError("is empty; give it a value or leave the line out")
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return str(value)


def parse_name(value: object) -> str:
    """Text on one line, not empty. Raises ValueError."""
    text = parse_text(value)
    if not text:
        raise ValueError("is empty; give it a value or leave the line out")
    if not text.isprintable() and any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("holds a control character, such as a line break")
    return text


def _matched(pattern: str, value: object, wanted: str) -> re.Match[str]:
    text = parse_text(value)
    match = re.fullmatch(pattern, text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not {wanted}")
    return match


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)"


def parse_duration(value: object) -> float:
    """``500ms 30s 5m 2h 7d`` as seconds, always above zero. Raises ValueError."""
    wanted = "a duration; write a positive number and a unit, such as 500ms, 30s, 5m, 2h or 7d"
    match = _matched(_DURATION, value, wanted)
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds <= 0:
        raise ValueError("a duration must be longer than zero")
    return seconds


_QUIET = r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])"


def parse_quiet(value: object) -> tuple[int, int]:
    """``22:00-07:00`` as two times of the day, in minutes. Raises ValueError."""
    wanted = "a time of the day; write from when to when, such as 22:00-07:00"
    match = _matched(_QUIET, value, wanted)
    hour, minute, until_hour, until_minute = map(int, match.groups())
    begin, end = hour * 60 + minute, until_hour * 60 + until_minute
    if begin == end:
        raise ValueError("begins and ends at the same time; leave it out to be told at all hours")
    return begin, end


_SIZES = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_SIZE = r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(B|[KMGT]i?B)"


def parse_size(value: object) -> int:
    """``512KiB 20MiB 1GiB 10MB`` as bytes, above zero. Raises ValueError."""
    from math import ceil

    text = parse_text(value)
    match = re.fullmatch(_SIZE, text)
    size = ceil(float(match[1]) * _SIZES[match[2]]) if match else 0
    if size <= 0:
        near = {unit.lower(): unit for unit in _SIZES}
        number, letters = re.fullmatch(r"([0-9.]*)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        unit = near.get(letters.strip().lower())
        meant = f"; did you mean {number}{unit}?" if number and unit not in (None, letters) else ""
        raise ValueError(
            f"{text!r} is not a size; write a positive number and a unit, such as "
            f"512KiB, 20MiB, 1GiB or 10MB{meant}"
        )
    return size


def parse_mode(value: object) -> str:
    """A quoted octal string as four digits, ``"0755"``. Raises ValueError.

    YAML 1.2 reads an unquoted ``0755`` as the decimal number 755, so it is refused.
    """
    text = parse_text(value)
    octal = re.fullmatch(r"0o([0-7]{3,4})", text)
    if octal is not None:
        raise ValueError(f'{text!r} is not a mode as it is written here; write "{octal[1]:0>4}"')
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise ValueError(
            f"{text!r} is not a mode; write three or four octal digits (0 to 7) in quotes, "
            'such as "0755"'
        )
    if isinstance(value, Plain):
        raise ValueError(
            f'a mode needs quotes: write "{text.zfill(4)}" '
            f"(YAML reads {text} as the decimal number {int(text)})"
        )
    return text.zfill(4)


def parse_path(value: object) -> str:
    """An absolute path without ``..``, normalised (no double or final slash). Raises ValueError."""
    text = parse_name(value)
    if not text.startswith("/"):
        raise ValueError(
            f"{text!r} is not absolute; a path starts with / or ~ "
            "({{ spec.dir }} is the folder of the spec)"
        )
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"{text!r} holds '..'; write the path without it")
    encoded = text.encode("utf-8", "surrogateescape")
    if len(encoded) > 4095:
        raise ValueError("is longer than 4095 bytes, the longest path Linux takes")
    if len(parts) > 256:
        raise ValueError("is deeper than 256 folders")
    if max(map(len, encoded.split(b"/"))) > 255:
        raise ValueError("has a name longer than 255 bytes, the longest Linux takes")
    return "/" + "/".join(parts)


def parse_socket(value: object) -> str:
    """The path of a Unix socket, with ``unix:`` before it or not. Raises ValueError."""
    path = parse_path(parse_text(value).removeprefix("unix:"))
    if len(path.encode("utf-8", "surrogateescape")) > 107:
        raise ValueError(f"is longer than the 107 bytes of a socket's path: {path[:40]!r}")
    return path


def parse_flag(value: object) -> bool:
    """``true`` or ``false``. Raises ValueError."""
    text = parse_text(value)
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_number(value: object) -> float:
    """A decimal number. Raises ValueError."""
    return float(_matched(r"[0-9]{1,12}(\.[0-9]{1,6})?", value, "a number such as 2 or 1.5")[0])


_PERCENT = r"([0-9]{1,7}(?:\.[0-9]{1,3})?)\s*(%?)"


def parse_share(value: object) -> float:
    """``80%``, or ``80`` for the same, in percent of one processor core. Raises ValueError."""
    wanted = "a share of a core; write a percentage, such as 80%, or 250% for two and a half cores"
    match = _matched(_PERCENT, value, wanted)
    percent, text = float(match[1]), match[0]
    if percent < 1:
        hint = "" if match[2] or not percent else f"; write {percent * 100:g}% for {text} of a core"
        raise ValueError(f"{text} is less than 1%, the least that can be measured{hint}")
    return percent


def _each(values: Sequence[object], parse: Callable[[object], str]) -> tuple[str, ...]:
    """All of a list. Raises Wrong, which leads to the item."""
    found = []
    for at, item in enumerate(values):
        try:
            found.append(parse(item))
        except ValueError as error:
            raise InvalidScalar(str(error), (at,)) from None
    return tuple(found)


def parse_command(value: object) -> tuple[str, ...]:
    """A list of arguments, or a string, which becomes ``sh -c STRING``. Raises ValueError."""
    if isinstance(value, (list, tuple)):
        words = _each(value, parse_text)
        if not words or not words[0]:
            raise ValueError("a command needs at least the name of a program")
        return words
    text = parse_text(value)
    if not text.strip():
        raise ValueError("a command needs at least the name of a program")
    return ("sh", "-c", text)


def parse_patterns(value: object) -> tuple[str, ...]:
    """A glob, or a list of globs. Raises ValueError."""
    if not isinstance(value, (list, tuple)):
        return (parse_name(value),)
    if not value:
        raise ValueError("is empty; give it a pattern or leave the line out")
    return _each(value, parse_name)


def _is_signal(word: str) -> bool:
    from signal import Signals

    return f"SIG{word.upper().removeprefix('SIG')}" in Signals.__members__


def parse_signal(value: object) -> tuple[str, str]:
    """Which process is told what: ``{process: NAME, signal: HUP}`` or ``HUP process:NAME``.

    A signal left out is HUP. Returns the signal's name and the process's. Raises ValueError.
    """
    if isinstance(value, dict):
        unknown = sorted(set(value) - {"process", "signal"})
        if unknown or "process" not in value:
            wrong = f"has no field {unknown[0]!r}" if unknown else "needs 'process'"
            where = tuple(unknown[:1])
            raise InvalidScalar(f"{wrong}; write {{process: NAME, signal: HUP}}", where, key=True)
        words = [parse_name(value.get("signal", "HUP")), parse_name(value["process"])]
    else:
        words = parse_name(value).split()
        if len(words) == 1 and not _is_signal(words[0]):
            words = ["HUP", *words]
        if len(words) != 2:
            raise ValueError('needs a signal and a process, such as "HUP process:worker"')
    return words[0].upper().removeprefix("SIG"), words[1].removeprefix("process:")


def parse_comment(value: object) -> tuple[str, ...]:
    """``#``, or ``["<!--", "-->"]`` where a comment is closed. Raises ValueError."""
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise ValueError('needs what begins a comment and what ends it: ["<!--", "-->"]')
        return _each(value, parse_name)
    text = parse_name(value)
    if text == "<!--":
        raise ValueError('a comment that begins so must be closed; write ["<!--", "-->"]')
    return (text,)


KEPT = {
    "last": "newest",
    "daily": "last days, the newest of each,",
    "weekly": "last weeks, the newest of each,",
    "monthly": "last months, the newest of each,",
}


def parse_keep(value: object) -> tuple[tuple[str, int], ...]:
    """``{last: 5, daily: 7}`` as pairs, and ``5`` as one without a word. Raises ValueError."""
    number = integer_parser(1, 9998)
    if not isinstance(value, dict):
        return (("", number(value)),)
    found: dict[str, int] = {}
    for word, many in value.items():
        if word not in KEPT:
            known = ", ".join(KEPT)
            message = f"has no field {str(word)!r}; it has {known}"
            raise InvalidScalar(message, (word,), near=(str(word), tuple(KEPT)), key=True)
        try:
            found[word] = number(many)
        except ValueError as error:
            raise InvalidScalar(f"{word}: {error}", (word,)) from None
    if not found:
        raise ValueError("is empty; write how many are kept, such as {daily: 7, weekly: 4}")
    return tuple((word, found[word]) for word in KEPT if word in found)


def parse_regex(value: object) -> str:
    """A regular expression of Python's ``re``. Raises ValueError."""
    text = parse_text(value)
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return text


def parse_environment(value: object) -> tuple[tuple[str, Secret], ...]:
    """A mapping of environment names to values, as sorted pairs. Raises ValueError.

    The values are secrets: a message names the variable, never what it holds.
    """
    if not isinstance(value, dict):
        raise ValueError("needs a mapping of names to values, such as {LANG: C.UTF-8}")
    pairs = []
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", name):
            raise InvalidScalar(
                f"{name!r} is not a name for an environment variable", (name,), key=True
            )
        try:
            pairs.append((str(name), Secret.of(parse_text(text))))
        except ValueError as error:
            raise InvalidScalar(f"{name}: {error}", (name,)) from None
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def _is_deep(value: object, lists: int) -> bool:
    """Is there a mapping, or a list within more than so many?"""
    if isinstance(value, (list, tuple)):
        return not lists or any(_is_deep(one, lists - 1) for one in value)
    return isinstance(value, dict)


def parse_variables(value: object) -> tuple[str, ...]:
    """A mapping of names to scalars, or lists of them up to three deep. Raises ValueError.

    Gives the names, sorted.

    What they stand for is known only to the templates that use them.
    """
    if not isinstance(value, dict):
        raise ValueError("needs a mapping of names to values, such as {port: 8080}")
    for name, held in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise InvalidScalar(
                f"{name!r} is not a name that a template can use", (name,), key=True
            )
        if _is_deep(held, 3):
            raise InvalidScalar(
                f"{name} needs text, a number, true, false or a list of them", (name,)
            )
    return tuple(sorted(map(str, value)))


def integer_parser(least: int, most: int) -> Callable[[object], int]:
    """A parser of whole numbers from ``least`` to ``most``."""

    def parse(value: object) -> int:
        wanted = f"a whole number from {least} to {most}"
        number = int(_matched(r"[+-]?[0-9]{1,18}", value, wanted)[0])
        if not least <= number <= most:
            raise ValueError(f"{number} is outside {least} to {most}")
        return number

    return parse


def choice_parser(words: tuple[str, ...]) -> Callable[[object], str]:
    """A parser of one of a few words."""

    def parse(value: object) -> str:
        text = parse_text(value)
        if text not in words:
            raise InvalidScalar(f"{text!r} is none of {', '.join(words)}", near=(text, words))
        return text

    return parse
