"""What a spec has left on the host outside of its own folder, one name a line, for each kind.

A kind notes it here before it makes the first such thing, so that it is found again when the
spec no longer speaks of it. It must not be needed for what the spec does declare.
"""

from __future__ import annotations

import os
from contextlib import suppress

from reconciler.base.errors import HostError
from reconciler.host.trust import own_file
from reconciler.host.walk import reported

_LIMIT = 2**20


class Marks:
    """The marks of one spec, in the folder ``marks`` of its state directory."""

    def __init__(self, state_dir: str) -> None:
        self._folder = os.path.join(state_dir, "marks")

    def kinds(self) -> list[str]:
        """The kinds that have left something; one system call when there is nothing."""
        try:
            return sorted(name for name in os.listdir(self._folder) if name.isidentifier())
        except OSError:
            return []

    def of(self, kind: str) -> tuple[str, ...]:
        """What that kind has left."""
        return tuple((self._read(kind) or b"").decode(errors="replace").splitlines())

    def add(self, kind: str, name: str) -> None:
        """Note it, unless that is done already. Raises HostError."""
        seen = self._read(kind)
        names = (seen or b"").decode(errors="replace").splitlines()
        if name not in names:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            self._write(kind, sorted([*names, name]))

    def remove(self, kind: str, name: str) -> None:
        """It is gone. Raises HostError."""
        seen = self._read(kind)
        names = (seen or b"").decode(errors="replace").splitlines()
        if seen is None or name not in names:
            return
        left = [one for one in names if one != name]
        if left:
            self._write(kind, left)
        else:
            with suppress(OSError):
                os.unlink(self._path(kind))
                os.rmdir(self._folder)

    def _write(self, kind: str, names: list[str]) -> None:
        from reconciler.host.place import put_at

        path = self._path(kind)
        with reported(f"cannot write {path}"):
            put_at(path, "".join(f"{one}\n" for one in names).encode())

    def _path(self, kind: str) -> str:
        return os.path.join(self._folder, kind)

    def _read(self, kind: str) -> bytes | None:
        try:
            handle = own_file(self._path(kind))
        except (OSError, HostError):
            return None
        try:
            return os.read(handle, _LIMIT)
        finally:
            os.close(handle)
