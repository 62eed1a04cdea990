"""The order in which files in pending/ have their turn, and who has to wait a little.
Must not run anything.
"""

from __future__ import annotations

import math
import os
import time

from reconciler.executor import claims, files
from reconciler.executor.commandfile import Command, CommandRefused, Unfinished, parse
from reconciler.executor.eventlog import EventLog
from reconciler.executor.folders import UntrustedFolder, held
from reconciler.executor.layout import Layout, is_command_name

SETTLE = 1.0  # seconds without a change, after which a broken file is not being written any more
SETTLE_MOST = 30.0  # seconds that a file may keep changing without becoming a command
AGAIN = 2.0  # seconds until a file that could not be moved is tried again


class _Unsettled:
    """A file that is no command yet: what it looked like, since when, and the first look at it."""

    __slots__ = ("first", "looks", "since")

    def __init__(self, looks: tuple[int, ...], now: float) -> None:
        self.looks = looks
        self.since = now
        self.first = now


class Pending:
    """Hands out the commands in pending/, oldest first."""

    def __init__(self, layout: Layout, log: EventLog) -> None:
        self._layout = layout
        self._log = log
        self._queue: list[str] = []  # the next one last
        self._unsettled: dict[str, _Unsettled] = {}
        self._wake: dict[str, float] = {}  # names that are left alone until then
        self.dirty = True

    def take_next(self) -> tuple[claims.QueueClaim, Command] | None:
        """The next command, claimed; None if there is none now. Raises OSError."""
        if self.dirty:
            self._scan()
        while self._queue:
            name = self._queue.pop()
            if self._wake.get(name, 0.0) > time.monotonic():
                continue
            try:
                taken = self._try(name)
            except claims.Gone:
                self._forget(name)
                continue
            except (claims.QueueBusy, UntrustedFolder):
                self._queue.append(name)
                raise
            except OSError as error:
                self._wake[name] = time.monotonic() + AGAIN
                self._log.error_once(f"pending/{name}", f"pending/{name} stays there: {error}")
                continue
            if taken is not None:
                return taken
        return None

    def wake_in(self) -> float:
        """Seconds until a file that waits has to be looked at again; infinite if none waits."""
        return max(0.0, min(self._wake.values(), default=math.inf) - time.monotonic())

    def look_again(self, happened: bool) -> None:
        """Have the directory read again if something happened in it or a file's time has come."""
        now = time.monotonic()
        if happened:
            self._wake.update((name, now) for name in self._unsettled)
        if happened or any(at <= now for at in self._wake.values()):
            self.dirty = True

    def _scan(self) -> None:
        found = []
        with held(self._layout.pending, readable=True) as pending, os.scandir(pending) as entries:
            for entry in entries:
                if is_command_name(entry.name):
                    try:
                        at = entry.stat(follow_symlinks=False).st_mtime_ns
                    except FileNotFoundError:
                        continue
                    found.append((at, entry.name))
        self.dirty = False
        found.sort(reverse=True)
        self._queue = [name for _, name in found]
        present = set(self._queue)
        for name in [name for name in self._wake if name not in present]:
            self._forget(name)
        for name in [name for name in self._unsettled if name not in present]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._wake.pop(name, None)
        self._unsettled.pop(name, None)

    def _try(self, name: str) -> tuple[claims.QueueClaim, Command] | None:
        try:
            command = self._read(name)
            if command is None:
                return None
            taken = claims.take(self._layout, name, command)
        except CommandRefused as error:
            reason = str(error)
            # take() has moved it itself if it got that far.
            if os.path.lexists(os.path.join(self._layout.pending, name)):
                claims.refuse(self._layout, name, reason)
            self._forget(name)
            self._log.error(f"refused {name}: {reason}")
            return None
        self._forget(name)
        return taken

    def _read(self, name: str) -> Command | None:
        """The command; None if the file may still be being written. Raises Refused, Gone."""
        with held(self._layout.pending) as pending:
            return self._read_in(pending, name)

    def _read_in(self, pending: int, name: str) -> Command | None:
        try:
            info, data = claims.read_command(pending, name)
            return parse(data, name.removesuffix(".json"))
        except FileNotFoundError:
            raise claims.Gone from None
        except files.NotRegular as error:
            raise CommandRefused(str(error)) from None
        except Unfinished as error:
            if self._settled(name, info):
                raise CommandRefused(str(error)) from None
        except PermissionError as error:  # whoever writes it may be about to give it away
            info = os.stat(name, dir_fd=pending, follow_symlinks=False)
            if self._settled(name, info):
                raise CommandRefused(f"it cannot be read: {error.strerror}") from None
        return None

    def _settled(self, name: str, info: os.stat_result) -> bool:
        """Whether the file has been the same for long enough, or has changed for too long."""
        now = time.monotonic()
        looks = (info.st_ino, info.st_size, info.st_mtime_ns)
        # The file's own time saves the wait for old files; one from the future is not believed.
        if time.time() - looks[2] / 1e9 > SETTLE:
            return True
        known = self._unsettled.setdefault(name, _Unsettled(looks, now))
        if known.looks != looks:
            known.looks, known.since = looks, now
        if now - known.since >= SETTLE or now - known.first >= SETTLE_MOST:
            return True
        self._wake[name] = min(known.since + SETTLE, known.first + SETTLE_MOST)
        return False
