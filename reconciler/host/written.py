"""What we have written as whole files, and what is still to be done about them.

It is kept in the state directory: for what was written, its digest is noted before it is in
place, so that a pass that is killed in between is gone on with. It must hold no content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from operator import eq

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.place import own_file, put_at, write_all
from reconciler.host.reading import content
from reconciler.host.walk import closing

_NAME = "files"
_LONGEST = 4 << 20
_CHUNK = 1 << 20
SHOWN = 64 << 10
"""Bytes of a file that are shown in a plan."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """The digests of what was written to a path, the last one last, and is more to be done?"""

    digests: tuple[str, ...]
    unfinished: bool


class WrittenFiles:
    """The notes about all of them, by their paths."""

    def __init__(self, state_dir: str) -> None:
        self._path = os.path.join(state_dir, _NAME)

    def read(self) -> dict[str, WrittenFile]:
        """All of them. Raises HostError where the notes are not ours to believe."""
        if not os.path.lexists(self._path):
            return {}
        found: dict[str, WrittenFile] = {}
        for line in self._bytes().split(b"\0"):
            digest, _, rest = os.fsdecode(line).partition(" ")
            sort, _, path = rest.partition(" ")
            if not path:
                continue  # Killed while it was written.
            if sort == "begun":
                before = found[path].digests if path in found else ()
                found[path] = WrittenFile((*before, digest), True)
            elif sort == "done":
                found[path] = WrittenFile((digest,), False)
            else:
                found.pop(path, None)
        return found

    def note(self, path: str, digest: str, sort: str) -> None:
        """``begun``, ``done`` or ``gone``. Raises HostError or OSError."""
        with closing(own_file(self._path)) as handle:
            size = os.fstat(handle).st_size
            log = os.open(f"/proc/self/fd/{handle}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        with closing(log):
            # Behind half a line of one that was killed this begins one of its own.
            write_all(log, os.fsencode(f"\0{digest} {sort} {path}\0"))
        if size > _LONGEST:
            self._shorten()

    def _shorten(self) -> None:
        lines = [
            f"{digest} {'begun' if one.unfinished else 'done'} {path}\0"
            for path, one in self.read().items()
            for digest in one.digests
        ]
        put_at(self._path, os.fsencode("".join(lines)))

    def _bytes(self) -> bytes:
        with closing(own_file(self._path)) as handle:
            return content(handle, 64 << 20)


def chunks(data: bytes | int) -> Iterator[bytes]:
    """Bytes, or what is open there, piece by piece. Raises OSError."""
    at = 0
    while True:
        piece = data[at : at + _CHUNK] if isinstance(data, bytes) else b""
        chunk = os.pread(data, _CHUNK, at) if isinstance(data, int) else piece
        if not chunk:
            return
        yield chunk
        at += len(chunk)


def digest_of(data: bytes | int) -> str:
    """Of bytes, or of what is open there, however long. Raises OSError."""
    made = blake2b(digest_size=20)
    for chunk in chunks(data):
        made.update(chunk)
    return made.hexdigest()


def same_bytes(handle: int, size: int, other: bytes | int) -> bool:
    """Is it the same, byte for byte, what is open there and so long? In little memory.

    Raises OSError.
    """
    if size != (len(other) if isinstance(other, bytes) else os.fstat(other).st_size):
        return False
    if size <= _CHUNK and isinstance(other, bytes):
        return os.pread(handle, size + 1, 0) == other
    return all(map(eq, chunks(handle), chunks(other)))


def as_shown(text: str) -> str:
    """A text as a plan shows it, which is whether its last line has an end, too."""
    return text if not text or text.endswith("\n") else f"{text}\n\\ No newline at end of file"


def last_notes(state_dir: str) -> dict[str, WrittenFile]:
    """All notes; none where they cannot be read, as for somebody else's plan."""
    with suppress(OSError, HostError):
        return WrittenFiles(state_dir).read()
    return {}
