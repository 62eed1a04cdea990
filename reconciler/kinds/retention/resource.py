"""What a user may write about how long files are kept, and which fields go together. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Annotated, Any

from reconciler.base.records import dataclass, field
from reconciler.core.attributes import Attributes
from reconciler.core.fields import (
    Command,
    Duration,
    Flag,
    Keep,
    Mode,
    Name,
    Path,
    Patterns,
    Signal,
    Size,
    choice,
    integer,
)
from reconciler.core.patterns import about, below, never
from reconciler.host.rotated import Names, wrong_date
from reconciler.kinds.process.resource import Process

_MOST = 100_000
_SYSTEM = ("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "opt", "proc", "root",
           "run", "sbin", "srv", "sys", "usr", "var")  # fmt: skip
_NEVER = frozenset(f"/{name}" for name in _SYSTEM)
"""Folders that no rule may go through as a whole."""
_ONLY_ROTATE = ("max_file", "every", "name", "create", "compress", "delay_compress", "method",
                "signal", "run")  # fmt: skip
_CONDITIONS = {
    "rotate": (("max_file", "older_than", "every"), "max_file or older_than, or every"),
    "": (
        ("older_than", "keep_last", "keep", "max_total"),
        "older_than, keep_last, keep or max_total",
    ),
}
"""By which a file becomes due, with rotate and otherwise."""
_NEVER_ROTATE = ("keep_last", "max_total", "skip_open", "remove_empty")


@dataclass(frozen=True, slots=True)
class NewLog:
    """What the new log is given that takes the place of a renamed one."""

    mode: Mode | None = None
    """Permission bits in quotes, such as "0640"."""
    owner: Name | None = None
    """A user, by name or number."""
    group: Name | None = None
    """A group, by name or number."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What becomes of the files in ``path`` that match: with at least one condition.

    ``action`` is delete, move, archive or rotate; rotate is for logs that are written to.
    """

    path: Path
    """The directory; where it is missing, nothing is due."""
    action: Annotated[str, choice("delete", "move", "archive", "rotate")]
    """What is done with files that are due."""
    match: Patterns = ("*",)
    """A glob for names, or a list of globs; with recursive also for paths below path."""
    exclude: Patterns = ()
    """Globs for what is left alone; a folder that matches is not entered."""
    recursive: Flag = False
    """Files in folders below it as well."""
    age_by: Annotated[str, choice("mtime", "ctime", "atime", "birth", "newest")] | None = None
    """The time by which the age of a file is known, by default mtime."""
    older_than: Duration | None = None
    """A file that is older is due."""
    keep_last: Annotated[int, integer(1, 1_000_000)] | None = None
    """So many of the newest are kept in any case."""
    max_total: Size | None = None
    """The most that all may take on disk; the oldest are due until the rest fits."""
    max_file: Size | None = None
    """With rotate: a log that takes more on disk is due."""
    every: Annotated[str, choice("day", "week", "month")] | None = None
    """With rotate: a log is due that was not rotated since midnight, Monday or the first."""
    to: Path | None = None
    """A directory for move; a path that ends in .tar.gz for archive, with fields of strftime."""
    keep: Keep | None = None
    """How many rotated files are kept; of backups {last, daily, weekly, monthly}."""
    name: Name | None = None
    """With rotate: rotated files are called by this date, such as "%Y%m%d", not by a number."""
    create: NewLog | None = None
    """With rotate: mode, owner and group of a new log; what is left out is as it was."""
    compress: Flag | None = None
    """With rotate: rotated files are compressed."""
    delay_compress: Flag | None = None
    """With rotate: not before the next rotation."""
    method: Annotated[str, choice("rename", "copytruncate")] | None = None
    """With rotate: the log is renamed, or copied and then emptied."""
    signal: Signal | None = None
    """With rotate: which process is sent which signal after a rename."""
    run: Command | None = None
    """With rotate: a command that runs after it, for each log where it holds {}, its new name."""
    max_files_per_pass: Annotated[int, integer(1, 1_000_000)] | None = None
    """The most files that one pass takes, the oldest first."""
    skip_open: Flag | None = None
    """A file that a process holds open is left alone."""
    remove_empty: Flag | None = None
    """With recursive: folders below path that become empty, or are as old, are removed."""
    dry: Flag = False
    """Nothing is done; only a note says what would be."""
    told: Process | None = field(default=None, metadata={"written": False})
    streams: tuple[str, ...] = field(default=(), metadata={"written": False})
    """What daemons write to as their standard output, as far as it could be about that."""
    returned: tuple[tuple[Any, ...], ...] | None = field(default=None, metadata={"written": False})
    """Files that were moved to ``path``, with the fields of ``File``; no others are due."""

    @property
    def rotates(self) -> bool:
        return self.action == "rotate"

    @property
    def backups(self) -> tuple[tuple[str, int], ...]:
        """How many are kept whatever else is said, by what they are."""
        return self.keep or () if not self.rotates else ()

    @property
    def only_old(self) -> bool:
        """Is a file due by its own age alone?"""
        return self.keep_last is None and self.keep is None and self.max_total is None

    @property
    def created(self) -> Attributes | None:
        """Mode, owner and group of a new log."""
        new = self.create
        return None if new is None else Attributes(new.mode, new.owner, new.group)

    @property
    def names(self) -> Names:
        """What rotated logs are called, and how many stay of each."""
        return Names(dict(self.keep or ()).get("", 5), self.name)

    @property
    def most(self) -> int:
        """How many files one step is about."""
        return _MOST if self.max_files_per_pass is None else self.max_files_per_pass

    @property
    def compresses(self) -> bool:
        return self.rotates and self.compress is not False

    @property
    def marks(self) -> bool:
        """Is there something to be done about a log when it is renamed or copied?"""
        return (self.signal, self.run, self.create) != (None, None, None)

    def is_about(self, path: str) -> bool:
        """Is it about the file at that path?"""
        return about(path, self.path, self.match, self.exclude, self.recursive)

    @property
    def copies(self) -> bool:
        return self.method == "copytruncate"


def wrong(want: Retention) -> Iterable[tuple[str, str]]:
    """Each field that is wrong, with what is wrong about it."""
    yield from _check_place(want)
    yield from _check_conditions(want)
    yield from _check_action(want)


def _check_place(want: Retention) -> Iterable[tuple[str, str]]:
    if want.path == "/" or (want.recursive and want.path in _NEVER):
        yield "path", f"{want.path} belongs to the system; name a folder below it"
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
    conditions, some = _CONDITIONS["rotate" if want.rotates else ""]
    if all(getattr(want, condition) is None for condition in conditions):
        yield "action", f"says nothing of when; give it {some}"
    if want.rotates and want.keep is not None and want.keep[0][0]:
        yield "keep", "is a number where logs are rotated: how many rotated ones are kept"
    if not want.rotates and want.keep is not None and not want.keep[0][0]:
        yield "keep", f"does not go with action: {want.action}; write keep_last"
    if want.keep is not None and want.keep_last is not None:
        yield "keep_last", "is keep: {last: …} beside others; write it there"
    if want.remove_empty and not want.recursive:
        yield "remove_empty", "has no effect without recursive: true"
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
    if want.copies and want.create is not None:
        yield "create", "does not go with method: copytruncate, which leaves the log where it is"
    if want.delay_compress and want.compress is False:
        yield "delay_compress", "does not go with compress: false"
    if want.name is not None and (why := wrong_date(want.name)) is not None:
        yield "name", why
    if want.run is not None:
        from reconciler.core.run_command import wrong_place

        if (why := wrong_place(want.run)) is not None:
            yield "run", why
    if want.run is not None and "/" in want.run[0] and not want.run[0].startswith("/"):
        yield "run", f"{want.run[0]!r} is not absolute; write its whole path"
