"""What is wrong with a retention that a user wrote: fields that do not fit its action.

Every field that is taken has an effect. It must not look at the host.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING

from reconciler.core.patterns import below, never

if TYPE_CHECKING:
    from reconciler.kinds.retention.resource import Retention

_SYSTEM = ("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "opt", "proc", "root",
           "run", "sbin", "srv", "sys", "usr", "var")  # fmt: skip
_NEVER = frozenset(f"/{name}" for name in _SYSTEM)
"""Folders that no rule may go through as a whole."""
_ONLY_ROTATE = ("max_file", "keep", "compress", "method", "signal", "run")
_NEVER_ROTATE = ("keep_last", "max_total", "skip_open")


def wrong(want: Retention) -> Iterable[tuple[str, str]]:
    """Each field that is wrong, with what is wrong about it."""
    yield from _check_place(want)
    yield from _check_conditions(want)
    yield from _check_action(want)


def _check_place(want: Retention) -> Iterable[tuple[str, str]]:
    if want.path == "/" or (want.recursive and want.path in _NEVER):
        yield "path", f"{want.path} belongs to the system; name the folder below it that is meant"
    if any(sign in want.path for sign in "*?"):
        yield "path", "is a directory, not a glob; put the pattern into match"
    if want.path.startswith(("/proc/", "/sys/")):
        yield "path", f"{want.path} holds no files that could be kept or not"
    yield from never(want.path, want.exclude)
    for at, pattern in enumerate(want.exclude):
        if not want.recursive and "/" in below(want.path, pattern):
            yield f"exclude[{at}]", "a pattern with '/' matches nothing without recursive: true"
    if not want.recursive and any("/" in pattern for pattern in want.match):
        yield "match", "a pattern with '/' matches nothing without recursive: true"


def _check_conditions(want: Retention) -> Iterable[tuple[str, str]]:
    conditions = (want.older_than, want.keep_last, want.max_total, want.max_file)
    if all(condition is None for condition in conditions):
        some = "max_file or older_than" if want.rotates else "older_than, keep_last or max_total"
        yield "action", f"says nothing of when; give it {some}"
    for name in _NEVER_ROTATE if want.rotates else _ONLY_ROTATE:
        if getattr(want, name) is not None:
            others = "rotate" if want.rotates else want.action
            yield name, f"does not go with action: {others}"
    if want.rotates and want.age_by is not None and want.older_than is None:
        yield "age_by", "has no effect without older_than"
    if want.copies and want.age_by == "birth":
        yield "age_by", "a log that is copied and cut stays the same file, and its birth the same"


def _check_action(want: Retention) -> Iterable[tuple[str, str]]:
    if want.to is None and want.action in ("move", "archive"):
        goal = "a directory" if want.action == "move" else "a path that ends in .tar.gz"
        yield "action", f"{want.action} needs 'to', {goal}"
    if want.to is not None and want.action in ("delete", "rotate"):
        yield "to", f"does not go with action: {want.action}"
    if want.to is not None and want.action == "archive" and not want.to.endswith(".tar.gz"):
        yield "to", "an archive's name ends in .tar.gz"
    if want.to is not None and want.action == "move" and want.to == want.path:
        yield "to", "is where the files are already"
    if want.signal is not None:
        if want.run is not None:
            yield "run", "write either signal or run, not both"
        if f"SIG{want.signal[0]}" not in signal.Signals.__members__:
            yield "signal", f"there is no signal {want.signal[0]!r}; write HUP, USR1 or USR2"
    if want.run is not None and "/" in want.run[0] and not want.run[0].startswith("/"):
        yield "run", f"{want.run[0]!r} is not absolute; write its whole path"
