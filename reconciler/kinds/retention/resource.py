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

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Retention:
    """What becomes of the files in ``path`` that match: with at least one condition.

    ``action`` is delete, move, archive or rotate; rotate is for logs that are written to.
    """

    path: Path
    action: Annotated[str, choice("delete", "move", "archive", "rotate")]
    match: Patterns = ("*",)
    exclude: Patterns = ()
    recursive: Flag = False
    age_by: Annotated[str, choice("mtime", "ctime", "atime", "birth")] | None = None
    older_than: Duration | None = None
    keep_last: Annotated[int, integer(1, 1_000_000)] | None = None
    max_total: Size | None = None
    max_file: Size | None = None
    to: Path | None = None
    keep: Annotated[int, integer(1, 9998)] | None = None
    compress: Flag | None = None
    method: Annotated[str, choice("rename", "copytruncate")] | None = None
    signal: Signal | None = None
    run: Command | None = None
    max_files_per_pass: Annotated[int, integer(1, 1_000_000)] | None = None
    skip_open: Flag | None = None
    dry: Flag = False
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
