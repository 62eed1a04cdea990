"""The probe that counts lines of a log, of those that were written recently.

It reads from the end, only as far as it must, and never more than 64 MiB.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Protocol

from reconciler.base.text import censored, printable
from reconciler.base.values import Verdict
from reconciler.host.probe import span
from reconciler.host.reading import PRIVATE, regular_file

_MOST = 64 * 2**20
_BLOCK = 2**20
_LONGEST = 300
_SLACK = 60.0
"""Seconds by which lines may stand in another order than they were written in."""
FURTHEST = 48
"""Bytes at the beginning of a line in which its time is looked for."""
_GZIP = 31
_LINE = 64 * 2**10
"""Bytes of a line that are looked at, from its beginning: whoever writes none needs no memory."""

ISO = re.compile(
    rb"(?<![0-9])([0-9]{4})[-/]([01][0-9])[-/]([0-3][0-9])[T ]"
    rb"([0-2][0-9]):([0-5][0-9]):([0-6][0-9])"
    rb"(?:[.,]([0-9]{1,9}))? ?(Z(?![A-Za-z])|[+-][0-2][0-9]:?[0-5][0-9](?![0-9]))?"
)
SYSLOG = re.compile(
    rb"^(?:<[0-9]{1,3}>)?(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +([0-3]?[0-9]) "
    rb"([0-2][0-9]):([0-5][0-9]):([0-6][0-9])"
)
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct",
           b"Nov", b"Dec")  # fmt: skip


def log(path: str, match: str, most: int, within: float) -> Verdict:
    """Do at most ``most`` of the lines that were written ``within`` so many seconds match?

    A line without a time belongs to the one above it. In a log without any time, every line
    counts while the log was written to recently. What was rotated to ``path.1`` or ``path.1.gz``
    is read on. Raises UnknownState, HostError and OSError.
    """
    tally = _Tally(re.compile(match), time.time() - within, within)
    found = _read(path, tally, backwards)
    if not tally.ended:
        older = _read(f"{path}.1", tally, backwards)
        found = older or _read(f"{path}.1.gz", tally, unpacked) or found
    if not found:
        return Verdict(False, f"there is no {path}")
    tally.rest()
    number = tally.count
    words = {0: "no line matches", 1: "1 line matches"}.get(number, f"{number:,} lines match")
    words += f" {match!r} within {span(within)}"
    if tally.capped:
        words += " (only the last 64 MiB were read)"
    if number <= most:
        return Verdict(True, words)
    if tally.hidden:
        last = PRIVATE
    else:
        last = printable(censored(tally.last.decode(errors="surrogateescape").strip()), _LONGEST)
    return Verdict(False, f"{words}, more than {most:,}; last: {last}")


class _Tally:
    """Takes lines, the last one first, and counts those that match and are recent."""

    def __init__(self, match: re.Pattern[str], since: float, within: float) -> None:
        self._match = match
        self.since = since
        self.count = 0
        self.last = b""
        self.left = _MOST
        self.capped = False
        self.hidden = False
        """Is a line of it not to be shown?"""
        self.ended = False
        self._waiting = 0
        """Lines that match and whose time is not known yet; the last of them is ``_newest``."""
        self._newest = b""

    def take(self, line: bytes) -> None:
        """One more line, which stands before all that were taken."""
        at = time_of(line)
        if at is None:
            self._hold(line)
        elif at >= self.since:
            self._hold(line)
            self.rest()
        else:
            self._waiting = 0
            self.ended = at < self.since - _SLACK

    def _hold(self, line: bytes) -> None:
        line = line[:_LINE].removesuffix(b"\r")
        if self._match.search(line.decode(errors="surrogateescape")):
            self._newest = self._newest if self._waiting else line
            self._waiting += 1

    def rest(self) -> None:
        """Those whose time is not known count."""
        if self._waiting and not self.last:
            self.last = self._newest
        self.count += self._waiting
        self._waiting = 0


_Source = Callable[[int, _Tally], Iterator[bytes]]


def _read(path: str, tally: _Tally, lines: _Source) -> bool:
    """Give the lines of the file to ``tally`` until it has had enough; is there such a file?"""
    try:
        with regular_file(path) as (handle, private):
            tally.hidden = tally.hidden or private
            if os.fstat(handle).st_mtime < tally.since:
                # Not written to since: it has nothing to say, nor has what is older than it.
                tally.ended = True
                return True
            for line in lines(handle, tally):
                tally.take(line)
                if tally.ended:
                    break
            return True
    except FileNotFoundError:
        return False


class Budget(Protocol):
    """How much may still be read: so many bytes are ``left``; ``capped`` and ``ended``: no more."""

    left: int
    capped: bool
    ended: bool


def backwards(handle: int, tally: Budget, end: int | None = None) -> Iterator[bytes]:
    """The lines of a file, or of what stands before its ``end``, the last one first, in blocks."""
    at = os.fstat(handle).st_size if end is None else end
    pieces: list[bytes] = []  # Of the line that began before what was read, the last one first.
    while at > 0:
        if tally.left <= 0:
            tally.capped = tally.ended = True
            return
        size = min(_BLOCK, at, tally.left)
        at -= size
        tally.left -= size
        block = os.pread(handle, size, at)
        lines = block.split(b"\n")
        if len(lines) > 1:
            yield from _joined(lines.pop(), pieces)
            pieces = []
            yield from (line for line in reversed(lines[1:]) if line)
        pieces.append(lines[0])
        del pieces[:-2]  # Only the beginning of a line that is longer than a block is looked at.
    yield from _joined(b"", pieces)


def _joined(last: bytes, pieces: list[bytes]) -> Iterator[bytes]:
    line = b"".join((last, *reversed(pieces)))
    if line:
        yield line


def unpacked(handle: int, tally: Budget) -> Iterator[bytes]:
    """The lines of a compressed file, the last one first; it can only be read from its start."""
    coder = zlib.decompressobj(_GZIP)
    kept = bytearray()
    try:
        while chunk := os.read(handle, _BLOCK):
            while chunk:
                kept += coder.decompress(chunk, _BLOCK)
                chunk = coder.unconsumed_tail
                if len(kept) > 2 * tally.left:
                    del kept[: len(kept) - tally.left]
                    tally.capped = True
                if coder.eof:
                    chunk = coder.unused_data
                    coder = zlib.decompressobj(_GZIP)
    except zlib.error:
        pass  # It is being written, or damaged; what could be read is read.
    if len(kept) > tally.left:
        del kept[: len(kept) - tally.left]
        tally.capped = True
    end = len(kept)
    while end > 0:
        at = kept.rfind(b"\n", 0, end)
        if at + 1 < end:
            yield bytes(kept[at + 1 : min(end, at + 1 + _LINE)])
        end = at


def time_of(line: bytes, now: float | None = None) -> float | None:
    """When a line was written, by its own words, in seconds since the epoch; None: it is silent.

    ISO 8601, with a blank for the T and / for the - as well; without a zone it is the local
    one. Or as syslog has it, without a year: then it is the last time that this day was.
    """
    head = line[:FURTHEST]
    found = ISO.search(head)
    try:
        if found is not None:
            year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
            moment = datetime(year, month, day, hour, minute, min(second, 59))
            fraction = float(b"0." + found[7]) if found[7] else 0.0
            zone = found[8]
            if zone is None:
                return moment.timestamp() + fraction
            return moment.replace(tzinfo=_zone(zone)).timestamp() + fraction
        found = SYSLOG.search(head)
        if found is None:
            return None
        month = _MONTHS.index(found[1]) + 1
        day, hour, minute, second = (int(part) for part in found.groups()[1:])
        now = time.time() if now is None else now
        for year in (time.localtime(now).tm_year, time.localtime(now).tm_year - 1):
            at = datetime(year, month, day, hour, minute, min(second, 59)).timestamp()
            if at <= now + 86400:
                return at
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _zone(text: bytes) -> timezone:
    if text == b"Z":
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return timezone(timedelta(minutes=-minutes if text[:1] == b"-" else minutes))
