"""What is written down of every daemon that was started: which process it is, and from what.

Each has a file ``run/NAME.PID`` in the state directory of its spec, which it writes itself before
it becomes its program: a boot id, a process id, a start time in clock ticks, the digest of what it
was started from, and the ``session_tag`` of its session. Old files lack the last.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.clock import boot_id
from reconciler.host.processes import Identity, look_up
from reconciler.host.trust import own_file, refuse_untrusted

_LONGEST = 256


@dataclass(frozen=True, slots=True)
class StartRecord:
    """One start of this boot. ``tag`` is empty where it is not known."""

    identity: Identity
    digest: str
    tag: str


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
        try:
            handle = own_file(f"{self.folder}/{name}")
        except (OSError, HostError):
            return None
        try:
            boot, pid, ticks, digest, *tag = os.read(handle, _LONGEST).decode("ascii").split()
            if boot != boot_id():
                return None
            return StartRecord(Identity(int(ticks), int(pid)), digest, "".join(tag))
        except (OSError, ValueError):
            return None
        finally:
            os.close(handle)

    def make_room(self, mark: str) -> None:
        """Remove the files of that resource whose process has ended. Raises UnknownState."""
        for name in self._names.get(file_name(mark), ()):
            pid = name.rpartition(".")[2]
            if not (pid.isdigit() and look_up(int(pid))):
                with suppress(OSError):
                    os.unlink(f"{self.folder}/{name}")


def _lives(identity: Identity) -> bool:
    entry = look_up(identity.pid)
    return entry is not None and entry.identity == identity
