"""What is written down of every daemon that was started: which process it is, and from what.

Each has a file ``run/NAME.PID`` in the state directory of its spec, which it writes itself before
it becomes its program: a boot id, a process id, a start time in clock ticks, the digest of what it
was started from, and the ``session_tag`` of its session. Old files lack the last. Where somebody
waits for its end, ``waiter`` writes how it has ended into a second file beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress
from functools import cached_property

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.clock import boot_id
from reconciler.host.processes import Identity, look_up
from reconciler.host.trust import own_bytes, refuse_untrusted

_LONGEST = 256
ENDED = ".ended"
"""What the name of the second file ends in."""
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


def ended_as(identity: Identity, status: str) -> bytes:
    """What the second file holds: ``status`` is a number, or the name of a signal."""
    return f"{boot_id()} {identity.pid} {identity.start} {status}\n".encode()


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
        path = f"{self.folder}/{file_name(mark)}.{identity.pid}{ENDED}"
        end = time.monotonic() + _SOON
        while True:
            zombie = look_up(identity.pid, zombies=True)
            with suppress(ValueError):
                words = (own_bytes(path, _LONGEST) or b"").decode("ascii").split()
                if words[:-1] == ended_as(identity, "").decode().split():
                    return words[-1]
            if zombie is None or zombie.identity != identity or time.monotonic() > end:
                return None
            time.sleep(0.005)

    def note_stop(self, mark: str, identity: Identity) -> None:
        """It is about to be stopped."""
        from reconciler.host.place import put_at

        path = f"{self.folder}/{file_name(mark)}.{identity.pid}{ENDED}"
        with suppress(OSError, HostError):
            put_at(path, ended_as(identity, STOPPED), sync=False)

    def make_room(self, mark: str, but: Collection[Identity] = ()) -> None:
        """Remove the files of that resource whose process has ended. Raises UnknownState."""
        kept = {one.pid for one in but}
        for name in self._names.get(file_name(mark), ()):
            pid = name.rpartition(".")[2]
            if not (pid.isdigit() and (int(pid) in kept or look_up(int(pid)))):
                for one in (name, f"{name}{ENDED}"):
                    with suppress(OSError):
                        os.unlink(f"{self.folder}/{one}")


def _lives(identity: Identity) -> bool:
    entry = look_up(identity.pid)
    return entry is not None and entry.identity == identity
