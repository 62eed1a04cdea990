"""Probes of this host's health: each gives a verdict, in words with numbers.

They may block where a file system does. They must not change anything, nor
show a URL or a value of the environment.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from math import inf
from types import FrameType

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.text import amount, printable
from reconciler.base.values import Verdict
from reconciler.host.clock import WallTime
from reconciler.host.files import Files
from reconciler.host.folders import listed, regular_files
from reconciler.host.reading import is_private
from reconciler.host.walk import reason

_SAMPLE = 1.0
"""Seconds for which the processors are looked at."""


class _Late(BaseException):
    """The time is over. No library takes it for an error of its own."""


def bounded(
    probe: Callable[[], Verdict],
    timeout: float,
    parent: int | None = None,
    late_words: str = "no answer",
) -> Verdict:
    """The verdict of ``probe``, within ``timeout`` seconds. Only for the main thread.

    What cannot be known counts as failed. When ``parent`` has ended meanwhile, the whole process
    group is killed, since nobody else would do it.
    """

    def late(number: int, frame: FrameType | None) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        verdict = probe()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except _Late:
        verdict = Verdict(False, f"{late_words} within {span(timeout)}")
    except HostError as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        verdict = Verdict(False, f"cannot be known: {error}")
    except OSError as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        verdict = Verdict(False, f"cannot be known: {reason(error)}")
    signal.signal(signal.SIGALRM, before)
    if parent is not None and os.getppid() != parent and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    return Verdict(verdict.ok, printable(verdict.words))


def fresh(path: str, max_age: float, walltime: WallTime) -> Verdict:
    """Was what stands at ``path`` changed within ``max_age`` seconds? Raises UnknownState."""
    status = Files().status(path)
    if status is None:
        hint = "; it is one path, no pattern" if re.search(r"[*?[]", path) else ""
        return Verdict(False, f"there is no {path}{hint}")
    ahead = status.st_mtime - time.time()
    if ahead > max_age:
        return Verdict(False, f"its time is {span(ahead)} in the future: {path}")
    age = walltime.age(path, status.st_mtime)
    if age > max_age:
        return Verdict(False, f"last changed {span(age)} ago, more than {span(max_age)}: {path}")
    return Verdict(True, f"changed {span(age)} ago")


def queue(
    path: str,
    patterns: Sequence[str],
    max_age: float | None,
    max_count: int | None,
    walltime: WallTime,
) -> Verdict:
    """Are the regular files directly in the folder ``path`` few and young enough?

    A name that begins with a dot must be asked for. Raises UnknownState and OSError.
    """
    number, oldest, name = waiting(path, patterns, walltime)
    if number == 0:
        return Verdict(True, "no file waits")
    files = "1 file" if number == 1 else f"{number:,} files"
    wrong = []
    if max_age is not None and oldest > max_age:
        which = "the only file" if number == 1 else f"the oldest of {files}"
        where = f"{path.rstrip('/')}/{printable(name)}"
        wrong.append(f"{which} has waited {span(oldest)}, more than {span(max_age)}: {where}")
    if max_count is not None and number > max_count:
        wrong.append(f"{files} wait, more than {max_count:,}")
    well = f"{files} {'waits' if number == 1 else 'wait'}, the oldest for {span(oldest)}"
    return Verdict(not wrong, "; ".join(wrong) or well)


def waiting(path: str, patterns: Sequence[str], walltime: WallTime) -> tuple[int, float, str]:
    """How many of these files there are, the age of the oldest in seconds, and its name.

    The name is left out where the folder is closed. Raises UnknownState and OSError.
    """
    number, earliest = 0, (inf, "")
    try:
        with listed(path) as folder:
            hidden = is_private(folder)
            for name, status in regular_files(folder):
                if any(_matches(name, pattern) for pattern in patterns):
                    number += 1
                    earliest = min(earliest, (status.st_mtime, "" if hidden else name))
    except FileNotFoundError:
        raise UnknownState(f"there is no {path}") from None
    changed, name = earliest
    # By one name for all of them: what is remembered must not grow with each that comes.
    every = f"{path}/{' '.join(patterns)}"
    return number, max(0.0, walltime.age(every, changed)) if number else 0.0, name


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def disk(path: str, min_free: tuple[str, float] | None, max_used: float | None) -> Verdict:
    """Has the file system of ``path`` room for those who are not root? Raises UnknownState.

    ``min_free`` is ("%", percent) or ("B", bytes), ``max_used`` is in percent. Percentages hold
    for inodes too, where the file system counts them: without one no file can be made.
    """
    try:
        found = os.statvfs(path)
    except FileNotFoundError:
        return Verdict(False, f"there is no {path}")
    except OSError as error:
        raise UnknownState(f"cannot look at {path}: {reason(error)}") from None
    unit = found.f_frsize
    free = found.f_bavail * unit
    # What is kept back for root is neither, as df(1) has it.
    total = (found.f_blocks - found.f_bfree) * unit + free
    kinds = [(free, total, f"({amount(free)} of {amount(total)})")]
    if found.f_files:
        inodes = f"of the inodes ({found.f_favail:,} of {found.f_files:,})"
        kinds.append((found.f_favail, found.f_files, inodes))
    return _room(kinds, min_free, max_used)


def memory(swap: bool, min_free: tuple[str, float] | None, max_used: float | None) -> Verdict:
    """Is enough memory available, or enough swap free? As for ``disk``; no swap is enough."""
    import psutil

    if swap:
        total, free = (found := psutil.swap_memory()).total, found.free
    else:
        total, free = (now := psutil.virtual_memory()).total, now.available
    if not total:
        return Verdict(True, "no swap")
    return _room([(free, total, f"({amount(free)} of {amount(total)})")], min_free, max_used)


def load(most: float) -> Verdict:
    """Is the average load of the last five minutes at most that?"""
    _, now, _ = os.getloadavg()
    words = f"load {now:.2f} over 5 min"
    return Verdict(now <= most, words if now <= most else f"{words}, more than {most:g}")


def cpu(max_used: float) -> Verdict:
    """Are the processors used to at most that percentage, for a second?"""
    import psutil

    used = psutil.cpu_percent(_SAMPLE)
    words = f"{_percent(used)} of the processors used"
    return Verdict(used <= max_used, words if used <= max_used else f"{words}, over {max_used:g}%")


def _room(
    kinds: Sequence[tuple[int, int, str]],
    min_free: tuple[str, float] | None,
    max_used: float | None,
) -> Verdict:
    """``kinds``: what is free, of how much, and in words; a size holds for the first of them."""
    wrong, well = [], []
    for left, whole, words in kinds:
        percent = 100 * left / whole if whole else 0.0
        state = f"{_percent(percent)} free {words}"
        if words.startswith("of"):
            state = f"{_percent(percent)} {words} free"
        well.append(state)
        if min_free is not None and min_free[0] == "%" and percent < min_free[1]:
            wrong.append(f"{state}, less than {min_free[1]:g}%")
        elif max_used is not None and 100 - percent > max_used:
            wrong.append(f"{state}: more than {max_used:g}% used")
    if min_free is not None and min_free[0] == "B" and kinds[0][0] < min_free[1]:
        wrong.insert(0, f"{well[0]}, less than {amount(int(min_free[1]))}")
    return Verdict(not wrong, "; ".join(wrong or well))


def _percent(value: float) -> str:
    return f"{value:.1f}%" if value < 10 else f"{value:.0f}%"


def span(seconds: float) -> str:
    """A time span in its two largest units: ``0.5 s``, ``12 min``, ``2 h 3 min``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}".removesuffix(".0") + " s"
    left = round(seconds)
    words: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= length or words:
            words.append(f"{left // length} {unit}")
            left %= length
            if len(words) == 2 or not left:
                break
    return " ".join(word for word in words if not word.startswith("0 "))
