"""What a user may write about how long files are kept. Pure data."""

from __future__ import annotations

from typing import Annotated

from reconciler.base.records import dataclass, field
from reconciler.core.fields import (
    Command,
    Duration,
    Flag,
    Path,
    Patterns,
    Signal,
    Size,
    choice,
    integer,
)
from reconciler.core.patterns import about
from reconciler.kinds.process.resource import Process

_MOST = 25_000


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
    age_by: Annotated[str, choice("mtime", "ctime", "atime", "birth")] | None = None
    """The time by which the age of a file is known, by default mtime."""
    older_than: Duration | None = None
    """A file that is older is due."""
    keep_last: Annotated[int, integer(1, 1_000_000)] | None = None
    """So many of the newest are kept in any case."""
    max_total: Size | None = None
    """The most that all may take on disk; the oldest are due until the rest fits."""
    max_file: Size | None = None
    """With rotate: a log that takes more on disk is due."""
    to: Path | None = None
    """A directory for move; a path that ends in .tar.gz for archive, with fields of strftime."""
    keep: Annotated[int, integer(1, 9998)] | None = None
    """With rotate: how many rotated files are kept."""
    compress: Flag | None = None
    """With rotate: rotated files are compressed."""
    method: Annotated[str, choice("rename", "copytruncate")] | None = None
    """With rotate: the log is renamed, or copied and then emptied."""
    signal: Signal | None = None
    """With rotate: which process is sent which signal after a rename."""
    run: Command | None = None
    """With rotate: a command that runs after a rename."""
    max_files_per_pass: Annotated[int, integer(1, 1_000_000)] | None = None
    """The most files that one pass takes, the oldest first."""
    skip_open: Flag | None = None
    """A file that a process holds open is left alone."""
    dry: Flag = False
    """Nothing is done; only a note says what would be."""
    told: Process | None = field(default=None, metadata={"written": False})
    streams: tuple[str, ...] = field(default=(), metadata={"written": False})
    """What daemons write to as their standard output, as far as it could be about that."""

    @property
    def rotates(self) -> bool:
        return self.action == "rotate"

    @property
    def kept(self) -> int:
        """How many rotated logs stay of each."""
        return self.keep or 5

    @property
    def most(self) -> int:
        """How many files one step is about."""
        return _MOST if self.max_files_per_pass is None else self.max_files_per_pass

    @property
    def compresses(self) -> bool:
        return self.rotates and self.compress is not False

    def is_about(self, path: str) -> bool:
        """Is it about the file at that path?"""
        return about(path, self.path, self.match, self.exclude, self.recursive)

    @property
    def copies(self) -> bool:
        return self.method == "copytruncate"
