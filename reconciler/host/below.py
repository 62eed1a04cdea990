"""All that is below a directory, one after the other, with its status.

It must not change anything.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator

from reconciler.base.errors import HostError, UnknownState
from reconciler.host.progress import Work, working
from reconciler.host.refusals import KnownEntries, Refused, refused, refused_set_id
from reconciler.host.tree import Moved, Tree, moved
from reconciler.host.trust import PATH_ONLY
from reconciler.host.walk import closing, joined, reason, shown

_MOST_NAMED = 20
"""Of what is left out so many are named."""


class Below:
    """All that is below a directory but symlinks, as (path, status), folder by folder.

    What is ``excluded`` is not entered, and what is ``right`` is entered but not given. What may
    not be read, is another mount or has gone meanwhile is left out: it is counted in ``missed``,
    and ``skipped`` names the first ones with the reason. ``own`` learns what nobody else could
    have put where it is. Iterating raises UnknownState when the directory itself cannot be read.
    """

    def __init__(
        self,
        path: str,
        own: KnownEntries,
        excluded: Callable[[str], bool] | None = None,
        right: Callable[[os.stat_result], bool] = lambda status: False,
    ) -> None:
        self.skipped: list[str] = []
        self.missed = 0
        self._own = own
        self._path = path.rstrip("/")
        self._excluded = excluded
        self._right = right
        self._tree: Tree | None = None
        self._above = 0
        """How many levels above the place of the tree that is what was given last."""

    def __iter__(self) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with (
                Tree(self._path or "/", wary=os.geteuid() == 0) as self._tree,
                working(f"look through {self._path}", None) as work,
            ):
                yield from self._entries(self._tree, work)
        except UnknownState:
            raise
        except HostError as error:
            raise UnknownState(f"cannot look through {self._path}: {error}") from None
        except OSError as error:
            raise UnknownState(f"cannot read below {self._path}: {reason(error)}") from None

    def refused(
        self, path: str, status: os.stat_result, mode: int | None, uid: int, gid: int
    ) -> Refused | None:
        """Why that is not done to ``path``, which was given last, or None."""
        tree = self._tree
        if tree is None or os.geteuid() != 0:
            return None
        found = refused_set_id(path, status, mode, uid, gid)
        if found is not None:
            return found
        if not tree.contested(self._above):
            self._own.learn(path, status)
            return None
        if self._own.has(path, status):
            return None
        folder = os.fstat(tree.here)
        if self._above:
            folder = os.stat("..", dir_fd=tree.here)
        return refused(path, status, folder, mode, uid, gid, named=False)

    def is_mounted(self, path: str) -> bool:
        """Is the file ``path``, which was given last, a mount point by itself?"""
        if self._tree is None or self._above:
            return False  # Of folders that was seen before.
        try:
            name = os.path.basename(path)
            entry = os.open(name, PATH_ONLY, dir_fd=self._tree.here)
        except OSError:
            return True
        with closing(entry):
            return not self._tree.is_here(entry)

    def left_out(self) -> list[str]:
        """What was left out, as ``skipped`` names it, and how much more there is."""
        more = self.missed - len(self.skipped)
        return [*self.skipped, *([f"{more} more"] if more else [])]

    def _entries(self, tree: Tree, work: Work) -> Iterator[tuple[str, os.stat_result]]:
        todo = [""]
        while todo:
            below = todo.pop()
            try:
                folder = tree.go(below)
                status = os.fstat(folder)
                if below and not self._right(status):
                    self._above = 1
                    yield f"{self._path}/{below}", status
                self._refuse_closed(tree, folder, status, below)
                files, folders, count = self._listed(folder, below)
            except OSError as error:
                if not below and not isinstance(error, Moved):
                    raise
                self._skip(below, error)
                if isinstance(error, PermissionError):
                    yield from self._one(tree, *below.rpartition("/")[::2])
                continue
            work.advance(count)
            self._above = 0
            for name in files:
                try:
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                except OSError as error:
                    self._skip(joined(below, name), error)
                else:
                    yield f"{self._path}/{joined(below, name)}", status
            todo += reversed(folders)

    def _refuse_closed(self, tree: Tree, folder: int, status: os.stat_result, below: str) -> None:
        """Raises Moved where the names in a folder are not for those who may have moved it here."""
        if os.geteuid() != 0 or status.st_uid != 0 or status.st_mode & stat.S_IROTH:
            return
        path = f"{self._path}/{below}".rstrip("/")
        if self._own.has(path, status):
            return
        if not below or tree.contested(above=1):
            from reconciler.host.reading import is_private

            if is_private(folder):
                above = os.stat("..", dir_fd=folder)
                raise Moved(errno.EPERM, moved(*os.path.split(path), above).reason)

    def _one(self, tree: Tree, below: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
        """A folder that cannot be read still has a mode and an owner."""
        self._above = 0
        try:
            status = os.stat(name, dir_fd=tree.go(below), follow_symlinks=False)
        except OSError:
            return
        if not self._right(status):
            yield f"{self._path}/{joined(below, name)}", status

    def _listed(self, folder: int, below: str) -> tuple[list[str], list[str], int]:
        """The names of files that are not right, and its folders as paths below the top; both
        sorted. And how many entries there are."""
        files: list[str] = []
        folders: list[str] = []
        count = 0
        excluded, right = self._excluded, self._right
        where = f"{self._path}/{below}/" if below else f"{self._path}/"
        with os.scandir(folder) as entries:
            # This loop runs for every file there is.
            for entry in entries:
                count += 1
                if entry.is_symlink() or (excluded is not None and excluded(where + entry.name)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(joined(below, entry.name))
                    continue
                try:
                    if not right(entry.stat(follow_symlinks=False)):
                        files.append(entry.name)
                except OSError as error:
                    self._skip(joined(below, entry.name), error)
        return sorted(files), sorted(folders), count

    def _skip(self, below: str, error: OSError) -> None:
        self.missed += 1
        if len(self.skipped) < _MOST_NAMED:
            self.skipped.append(f"{shown(below)}: {reason(error)}")
