"""Looks through a directory for the files that a rule is about, however many there are.

It must not change anything, keep what is not due, follow a symlink or leave the mount.
"""

from __future__ import annotations

import errno
import io
import marshal
import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import translate
from typing import Any

from reconciler.base.records import dataclass, field
from reconciler.host.choose import Chooser, Chosen, Rule
from reconciler.host.found import File, pack
from reconciler.host.progress import Work, unwatched, working
from reconciler.host.rotated import Names
from reconciler.host.tree import Elsewhere, Emptied, Moved, Tree
from reconciler.host.walk import joined, reason, shown, taken

_ALONE = 10_000
"""After so many entries a second process takes half of what is left."""
_MANY = 0xFFFF
"""Entries of one folder after which it is told that the look goes on; all bits are set."""
_PIECE = 1000
"""Files of one folder that are handed on at once."""
_LARGE = 512 * 1024
"""The size in bytes from which on a folder itself is shared by two."""
_Part = tuple[str, int | None]
"""A folder, and which half of its entries, by their inode numbers; None for all."""
OURS = re.compile(r"(?s)\..*\.reconcile")
"""The name of a file that is being written, as ``private_folder.passing_name`` gives it."""
_PRIVATE = re.compile(r"(?s)\..*\.reconcile\.d(\.[0-9a-f]{8})?")
"""The name of a folder in which something of ours is made, ``place``."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for. ``rule`` is about those that match.

    ``age_by`` is mtime, ctime, atime, newest of these, or birth. ``larger`` is a size in bytes
    beyond which a log is due, and ``since`` the time in nanoseconds before which its last
    rotation, or its first line, makes it due. ``logs`` leaves out what has been rotated
    already, and tells what is left to be done about it. ``never`` is a pattern for whole paths,
    ``shun`` a folder that is not entered. ``empty`` folders are told, where they are as old as
    the rule says of files.
    """

    path: str
    rule: Rule
    match: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    recursive: bool = False
    age_by: str = "mtime"
    larger: int | None = None
    since: int | None = None
    logs: Names | None = None
    never: str | None = None
    shun: str | None = None
    empty: bool = False


@dataclass(slots=True)
class SeenFiles:
    """What was found. ``rotated`` are uncompressed rotated logs, ``newest`` those of them that were
    rotated last, and ``passing`` logs whose rotation a pass did not finish, all as (folder, name).
    ``empty`` are folders; ``unread`` says which could not be read, ``left_out`` which are not
    entered, and why (root's own in somebody's folder, nested too deeply), ``ageless`` how many
    files have no time of birth, or one that no clock shows."""

    chosen: Chosen = field(default_factory=Chosen)
    rotated: list[tuple[str, str]] = field(default_factory=list)
    newest: set[tuple[str, str]] = field(default_factory=set)
    passing: list[tuple[str, str]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    ageless: int = 0


def scan(wanted: Wanted) -> SeenFiles:
    """Look once through the whole of it. Raises OSError or HostError when the top is unreadable."""
    with Emptied(wanted.path) as tree, working(f"look through {wanted.path}", None) as work:
        look = _Scanner(wanted, tree, work)
        # With one processor to run on, two processes would only take turns.
        left = look.through(
            [("", None)], wanted.logs is not None or len(os.sched_getaffinity(0)) < 2
        )
        if left:
            _share(look, left)
        return look.seen()


class _Scanner:
    """One way through the tree, or through a part of it."""

    def __init__(self, wanted: Wanted, tree: Tree, work: Work) -> None:
        self.wanted = wanted
        self.tree = tree
        self.work = work
        self.chooser = Chooser(wanted.rule)
        self._found = SeenFiles()
        self._count = 0
        self._match = None if wanted.match == ("*",) else _either(wanted.match)
        self._exclude = _either(wanted.exclude) if wanted.exclude else None
        self._never = re.compile(wanted.never).fullmatch if wanted.never else None
        self._newest: dict[str, tuple[tuple[int, ...], str, bool]] = {}
        """Of each log of one folder the newest rotated one: order, name, is it compressed?"""
        self._running: list[File] = []
        """Logs of one folder that may be due by the calendar."""

    def seen(self) -> SeenFiles:
        """The result."""
        self._found.chosen = self.chooser.chosen()
        return self._found

    def plain(self) -> Iterator[Any]:
        """The same as plain values, in pieces, for the other process."""
        found = self._found
        yield found.unread, found.left_out, found.ageless, found.empty
        yield from self.chooser.plain()

    def merge(self, pieces: Iterator[Any]) -> None:
        """Take over what the other process has found."""
        unread, left_out, ageless, empty = next(pieces)
        # A folder that was shared has been tried by both.
        self._found.unread = sorted({*self._found.unread, *unread})
        self._found.left_out = sorted({*self._found.left_out, *left_out})
        self._found.ageless += ageless
        self._found.empty += empty
        self.chooser.merge(pieces)

    def through(self, todo: list[_Part], whole: bool = True) -> list[_Part]:
        """Look through those folders and all below them.

        Unless it must be the ``whole``, it ends early where there is enough left for two; what
        is left is returned.
        """
        while todo:
            enough = len(todo) > 1 and self._count > _ALONE
            if not whole and (enough or (len(todo) == 1 and self.shares(todo[0]))):
                return todo
            below, half = todo.pop()
            try:
                folder = self.tree.go(below)
                for entry in self._entries(folder, below, half):
                    if self._enters(entry.name, below):
                        todo.append((joined(below, entry.name), None))
            except Moved as error:
                self._found.left_out.append(str(error.strerror))
            except Elsewhere:
                continue
            except (FileNotFoundError, NotADirectoryError):
                if not below:
                    raise
            except OSError as error:
                if not below:
                    raise
                deep = error.errno == errno.ENAMETOOLONG
                left_out = self._found.left_out if deep else self._found.unread
                left_out.append(f"{shown(below)}: {reason(error)}")
        return todo

    def shares(self, part: _Part) -> bool:
        """Is it a folder of so many entries that two should share it?"""
        try:
            # Most file systems say in a folder's size how many entries it has.
            return os.fstat(self.tree.go(part[0])).st_size > _LARGE
        except OSError:
            return False

    def _entries(self, folder: int, below: str, half: int | None) -> Iterator[os.DirEntry[str]]:
        """The folders in it; its files go to the chooser."""
        wanted = self.wanted
        named = self._named if wanted.logs is None else self._is_log
        plain = self._match is None and self._exclude is None and wanted.logs is None
        early = wanted.rule.before if wanted.rule.only_age and wanted.larger is None else None
        attribute = _TIMES.get(wanted.age_by)
        simple = attribute == "st_mtime_ns"
        limit = early if early is not None else 0
        # A file that is due by its age alone is packed at once, without a File in between.
        packs = early is not None and wanted.logs is None
        names: list[str] = []
        numbers: list[bytes] = []
        count = 0
        self.work.advance(0)
        with os.scandir(folder) as entries:
            # This loop runs for every file there is: nothing is called that need not be.
            for entry in entries:
                count += 1
                if not count & _MANY:
                    self.work.advance(_MANY)
                if half is not None and entry.inode() & 1 != half:
                    continue
                if not entry.is_file(follow_symlinks=False):
                    if entry.is_dir(follow_symlinks=False):
                        yield entry
                    continue
                name = entry.name
                if not plain and not named(name, below):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                    if simple:
                        time = status.st_mtime_ns
                    elif attribute is not None:
                        time = getattr(status, attribute)
                    elif wanted.age_by == "newest":
                        time = max(status.st_mtime_ns, status.st_ctime_ns, status.st_atime_ns)
                    else:
                        # Of a time that is not known nobody can say that it is long ago.
                        made = self._birth(folder, name)
                        time = 2**63 - 1 if made is None else made
                except FileNotFoundError:
                    continue
                if early is not None and time >= limit:
                    continue
                if self._is_left_alone(name, below):
                    continue
                try:
                    number = pack(
                        time, status.st_dev, status.st_ino, status.st_size,
                        status.st_mtime_ns, status.st_ctime_ns, taken(status),
                    )  # fmt: skip
                except struct.error:
                    self._found.ageless += 1
                    continue
                if not packs:
                    self._add(File(
                        time, below, name, status.st_dev, status.st_ino, status.st_size,
                        status.st_mtime_ns, status.st_ctime_ns, taken(status),
                    ), status.st_nlink > 1)  # fmt: skip
                    continue
                names.append(name)
                numbers.append(number)
                if len(names) == _PIECE:
                    self.chooser.hold(below, names, numbers)
                    names, numbers = [], []
        self.chooser.hold(below, names, numbers)
        self.work.advance(count & _MANY)
        self._count += count
        if wanted.logs is not None:
            self._judge(folder, below)
        if not count and wanted.empty and below and half is None:
            changed = os.fstat(folder).st_mtime_ns
            if wanted.rule.before is not None and changed < wanted.rule.before:
                self._found.empty.append(below)

    def _is_left_alone(self, name: str, below: str) -> bool:
        # What is being written by us, and what ``never`` names, is rare: looked at last.
        if name[0] == "." and OURS.fullmatch(name):
            return True
        return self._never is not None and bool(
            self._never(f"{self.wanted.path}/{joined(below, name)}")
        )

    def _add(self, file: File, linked: bool) -> None:
        wanted = self.wanted
        if wanted.logs is None:
            self.chooser.add(file, linked)
        elif file.size and (
            (wanted.larger is not None and file.taken > wanted.larger)
            or (wanted.rule.before is not None and file.time < wanted.rule.before)
        ):
            self.chooser.must(file)
        elif file.size and wanted.since is not None:
            self._running.append(file)

    def _judge(self, folder: int, below: str) -> None:
        """Which logs of that folder, of which all is seen now, are due by the calendar?"""
        for _, name, compressed in self._newest.values():
            if not compressed:
                self._found.newest.add((below, name))
        for file in self._running:
            began = file.mtime
            with suppress(OSError):
                if file.name in self._newest:
                    newest = os.stat(self._newest[file.name][1], dir_fd=folder)
                    # A log is judged by its own time where that is before its last rotation.
                    if file.mtime >= newest.st_ctime_ns:
                        began = newest.st_mtime_ns
                elif (made := self._birth(folder, file.name)) is not None:
                    began = min(began, made)
            if began < (self.wanted.since or 0):
                self.chooser.must(file)
        self._newest.clear()
        self._running.clear()

    def _is_log(self, name: str, below: str) -> bool:
        """Is the rule about a log of that name, which is not rotated yet?"""
        names, found = self.wanted.logs or Names(1), self._found
        rotated = names.parsed(name)
        if rotated is not None and self._named(rotated.log, below):
            newest = self._newest.get(rotated.log)
            if newest is None or rotated.order > newest[0]:
                self._newest[rotated.log] = rotated.order, name, rotated.compressed
            if not rotated.compressed and names.keeps(rotated):
                found.rotated.append((below, name))
            return False
        if OURS.fullmatch(name):
            log = name[1 : -len(".reconcile")]
            # Of a draft for what is rotated already, the rotated log itself is left to do.
            if names.parsed(log) is None and self._named(log, below):
                found.passing.append((below, log))
            return False
        return self._named(name, below)

    def _named(self, name: str, below: str) -> bool:
        """Is the rule about a file of that name?"""
        path = f"{below}/{name}" if below else name
        match, exclude = self._match, self._exclude
        if match is not None and not match(name) and not (below and match(path)):
            return False
        return exclude is None or not (exclude(name) or (below and exclude(path)))

    def _enters(self, name: str, below: str) -> bool:
        if not self.wanted.recursive or _PRIVATE.fullmatch(name):
            return False
        path = f"{below}/{name}" if below else name
        exclude = self._exclude
        if exclude is not None and (exclude(name) or exclude(path)):
            return False
        return f"{self.wanted.path}/{path}" != self.wanted.shun

    def _birth(self, folder: int, name: str) -> int | None:
        from reconciler.host.kernel import birth

        made = birth(folder, name)
        if made is None:
            self._found.ageless += 1
        return made


_TIMES = {"mtime": "st_mtime_ns", "ctime": "st_ctime_ns", "atime": "st_atime_ns"}


def _either(patterns: tuple[str, ...]) -> Callable[[str], object]:
    return re.compile("|".join(map(translate, patterns))).match


def _share(look: _Scanner, left: list[_Part]) -> None:
    """Go through what is left with a second process, whose findings are taken over."""
    # Of many folders each gets about as much in any case.
    large = {part for part in left if look.shares(part)} if len(left) < 64 else set()
    small = [part for part in left if part not in large]
    ours, theirs = ([*small[half::2], *((below, half) for below, _ in large)] for half in (0, 1))
    said, say = os.pipe()
    try:
        child = os.fork()
    except OSError:
        child = -1  # The rest of this finds no answer, and does it alone.
    if child == 0:
        try:
            unwatched()
            os.close(said)
            look.tree.reopen()
            other = _Scanner(look.wanted, look.tree, look.work)
            other.through(theirs)
            for piece in other.plain():
                answer = memoryview(marshal.dumps(piece))
                while answer:
                    answer = answer[os.write(say, answer) :]
            os._exit(0)
        finally:
            os._exit(1)
    os.close(say)
    ended = -1
    try:
        look.through(ours)
        with open(said, "rb", closefd=False) as pipe:
            found = io.BytesIO(pipe.read())
    finally:
        os.close(said)
        if child > 0:
            ended = os.waitpid(child, 0)[1]
    if ended == 0:
        look.merge(_loaded(found))
    else:
        look.through(theirs)


def _loaded(pieces: io.BytesIO) -> Iterator[Any]:
    while True:
        try:
            yield marshal.load(pieces)
        except EOFError:
            return
