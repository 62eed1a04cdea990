"""What is written down of every daemon that was started: which process it is, and from what.

Each has a file ``run/NAME.PID`` in the state directory of its spec, which it writes itself before
it becomes its program: a boot id, a process id, a start time in clock ticks, the digest of what it
was started from, and the ``session_tag`` of its session. Old files lack the last. Where somebody
waits for its end, ``waiter`` writes how it has ended into a second file beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cached_property

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.clock import boot_id
from reconciler.host.processes import Identity, look_up
from reconciler.host.trust import own_bytes, refuse_untrusted
from reconciler.host.walk import reported

_LONGEST = 256
ENDED = ".ended"
"""What the name of the second file ends in."""
_LOG = ".log-start"
READY = ".ready"
"""The same of one that says whether it is ready: ``ready``, or ``late``."""
RENEWED = ".renewed"
"""The same of one that is to be started anew when its turn has come."""
STOPPED = "stopped"
"""How one has ended that was stopped by us: in whichever way, it has not finished."""
_SOON = 5.0
"""Seconds for which one that has ended stays a zombie, until its waiter has written that down."""


@dataclass(frozen=True, slots=True)
class StartRecord:
    """One start of this boot. ``tag`` is empty where it is not known."""

    identity: Identity
    digest: str
    tag: str


def note_of(identity: Identity, word: str) -> bytes:
    """What a second file holds: how it has ended, a number or the name of a signal, or the like."""
    return f"{boot_id()} {identity.pid} {identity.start} {word}\n".encode()


def file_name(mark: str) -> str:
    """What the files of that resource are called, its log as well."""
    name = mark.partition(":")[2]
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:60]
    if safe == name:
        return safe
    return f"{safe}-{blake2b(name.encode(), digest_size=6).hexdigest()}"


class StartRecords:
    """Those of one spec, as they were when they were first asked for."""

    def __init__(self, state_dir: str) -> None:
        self.folder = f"{state_dir}/run"
        self._known: dict[str, list[StartRecord]] = {}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """The names of the files, by what stands before the number."""
        found: dict[str, list[str]] = {}
        try:
            names = os.listdir(self.folder) if refuse_untrusted(self.folder) else []
        except (OSError, HostError):
            return {}  # What others could have written there is no record of ours.
        for name in names:
            found.setdefault(name.rpartition(".")[0], []).append(name)
        return found

    def of(self, mark: str, alive: bool) -> list[StartRecord]:
        """Those of a resource whose processes are ``alive``, or not. Raises UnknownState."""
        if mark not in self._known:
            read = (self._read(name) for name in self._names.get(file_name(mark), ()))
            self._known[mark] = [one for one in read if one is not None]
        return [one for one in self._known[mark] if _lives(one.identity) == alive]

    def _read(self, name: str) -> StartRecord | None:
        text = own_bytes(f"{self.folder}/{name}", _LONGEST) or b""
        try:
            boot, pid, ticks, digest, *tag = text.decode("ascii").split()
            if boot != boot_id():
                return None
            return StartRecord(Identity(int(ticks), int(pid)), digest, "".join(tag))
        except ValueError:
            return None

    def status(self, mark: str, identity: Identity) -> str | None:
        """How that process of the resource has ended: a number, or the name of a signal.

        None: nobody has written it down. Raises UnknownState.
        """
        end = time.monotonic() + _SOON
        while True:
            zombie = look_up(identity.pid, zombies=True)
            word = self.noted(mark, identity, ENDED)
            if word is not None:
                return word
            if zombie is None or zombie.identity != identity or time.monotonic() > end:
                return None
            time.sleep(0.005)

    def noted(self, mark: str, identity: Identity, of: str) -> str | None:
        """The word in that second file ``of`` the process, if there is one."""
        path = f"{self.folder}/{file_name(mark)}.{identity.pid}{of}"
        words = (own_bytes(path, _LONGEST) or b"").decode("ascii", "replace").split()
        return words[-1] if words[:-1] == note_of(identity, "").decode().split() else None

    def note(self, mark: str, identity: Identity, of: str, word: str) -> None:
        """Write it. Raises HostError."""
        from reconciler.host.place import put_at

        path = f"{self.folder}/{file_name(mark)}.{identity.pid}{of}"
        with reported(f"cannot write {path}"):
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            put_at(path, note_of(identity, word), sync=False)

    def note_log(self, mark: str, path: str) -> None:
        """The process is about to be started: what stands in that log by now is not its own."""
        from reconciler.host.place import put_at

        with suppress(OSError, HostError):
            status = os.stat(path)
            where = f"{self.folder}/{file_name(mark)}{_LOG}"
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            put_at(where, f"{boot_id()} {status.st_ino} {status.st_size}".encode(), sync=False)

    def log_start(self, mark: str, status: os.stat_result) -> int:
        """Where in its log, which is so now, begins what it has written since it was started."""
        text = own_bytes(f"{self.folder}/{file_name(mark)}{_LOG}", _LONGEST) or b""
        with suppress(ValueError):
            boot, inode, size = text.decode("ascii").split()
            if (boot, int(inode)) == (boot_id(), status.st_ino) and int(size) <= status.st_size:
                return int(size)
        return 0

    def make_room(self, mark: str, finished: Callable[[], Collection[int]]) -> None:
        """Remove the files of that resource whose process has ended, but for those that have
        ``finished``, which is asked behind that: one may end any moment. Raises HostError."""
        ended = []
        for name in self._names.get(file_name(mark), ()):
            pid = name.rpartition(".")[2]
            if not (pid.isdigit() and look_up(int(pid))):
                ended.append((name, pid))
        kept = {str(pid) for pid in finished()} if ended else ()
        for name, pid in ended:
            if pid not in kept:
                for one in (name, f"{name}{ENDED}", f"{name}{READY}", f"{name}{RENEWED}"):
                    with suppress(OSError):
                        os.unlink(f"{self.folder}/{one}")


def _lives(identity: Identity) -> bool:
    entry = look_up(identity.pid)
    return entry is not None and entry.identity == identity
