"""Compressed files, written and read through descriptors in pieces.

It must not know what is compressed, nor keep more of it than a piece.
"""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

from reconciler.base.digests import blake2b
from reconciler.host.place import write_all
from reconciler.host.progress import Work

_CHUNK = 1 << 18
_GZIP = 31
"""The window size that means gzip's format, with no name and no time in its head."""


class Gzip:
    """Compresses to a descriptor; the same content gives the same bytes."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._coder = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        self._ready: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> int:
        """Compress ``data``; it reaches the descriptor later."""
        self._put(self._coder.compress(data))
        return len(data)

    def _put(self, data: bytes) -> None:
        self._ready.append(data)
        self._size += len(data)
        if self._size > _CHUNK:
            self._flush()

    def _flush(self) -> None:
        data, self._ready, self._size = b"".join(self._ready), [], 0
        write_all(self._handle, data)

    def finish(self) -> None:
        """Write the rest."""
        self._put(self._coder.flush())
        self._flush()


class TooMuch(Exception):
    """It holds more than was to be read. A few bytes may hold a thousand times as many."""


class MemberStart(NamedTuple):
    """Where a gzip member begins: in the file, in what all hold together, and the digest so far."""

    raw: int
    size: int
    digest: blake2b


class Gunzip:
    """Reads what is compressed in a descriptor, several gzip members too, to its very end.

    ``size`` is how much has been read, ``digest`` of all that, ``content`` where the last byte
    ended that is not zero, and ``last`` where the member began that is being read. ``work`` goes
    on by every byte of the descriptor. Of more than ``most`` bytes none is read, nor any that is
    appended meanwhile.
    """

    def __init__(self, handle: int, work: Work, most: int | None = None) -> None:
        self._most = most
        self._handle = handle
        self._at = os.lseek(handle, 0, os.SEEK_CUR)
        self._left = os.fstat(handle).st_size - self._at
        self._work = work
        self._coder = zlib.decompressobj(_GZIP)
        self._raw = b""
        self.size = 0
        self.content = 0
        self.digest = blake2b(digest_size=32)
        self.last = MemberStart(self._at, 0, self.digest.copy())

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; none at the end. Raises EOFError, zlib.error or TooMuch."""
        data = b""
        while not data:
            if self._coder.eof:
                self._raw = self._coder.unused_data or self._raw
                self._raw = self._raw or self._more()
                if not self._raw:
                    return b""
                self._coder = zlib.decompressobj(_GZIP)
                self.last = MemberStart(self._at - len(self._raw), self.size, self.digest.copy())
            self._raw = self._raw or self._more()
            ended = not self._raw
            data = self._coder.decompress(self._raw, size)
            if ended and not data and not self._coder.eof:
                raise EOFError("it ends in the middle")
            self._raw = self._coder.unconsumed_tail
        self.size += len(data)
        self.digest.update(data)
        if self._most is not None and self.size > self._most:
            raise TooMuch(f"more than {self._most} bytes")
        end = len(data.rstrip(b"\0"))
        if end:
            self.content = self.size - len(data) + end
        return data

    def _more(self) -> bytes:
        raw = os.read(self._handle, max(0, min(_CHUNK, self._left)))
        self._left -= len(raw)
        self._at += len(raw)
        self._work.advance(len(raw))
        return raw
