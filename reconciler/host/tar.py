"""What a tar holds, read to its very end, and the headers of its files.

It must not know where it comes from, nor look at the host.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from functools import cache
from typing import IO, Any
from zlib import adler32

from reconciler.host.gzipped import Gunzip

_CHUNK = 1 << 18
_LONGEST = 1 << 20
"""Bytes of an extended header, which is read whole: of zeros they take a thousandth in a file."""
_EXTENDED = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
OPTIONS: dict[str, Any] = {
    "format": tarfile.PAX_FORMAT, "encoding": "utf-8", "errors": "surrogateescape",
}  # fmt: skip


class BoundedTarInfo(tarfile.TarInfo):
    """For ``tarfile.open(tarinfo=)``: a header that is longer makes the archive one that cannot be
    read, and so do very many for one file: tarfile goes into each from the one before."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type not in _EXTENDED:
            return super()._proc_member(archive)  # type: ignore[misc]
        if self.size > _LONGEST:
            raise tarfile.ReadError("a header in it is too long")
        try:
            return super()._proc_member(archive)  # type: ignore[misc]
        except RecursionError:
            raise tarfile.ReadError("it has too many headers for one file") from None


def members(source: Gunzip) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None, int]]:
    """What an archive holds, to its very end, and where each one ends."""
    with tarfile.open(  # type: ignore[call-overload]
        fileobj=source, mode="r|", tarinfo=BoundedTarInfo, **OPTIONS
    ) as tar:
        for info in tar:
            if info.issparse():
                raise tarfile.ReadError(f"{info.name} is stored sparsely")
            yield info, tar.extractfile(info) if info.isreg() else None, tar.offset
            tar.members = []  # tarfile remembers all; there may be many.
        end = tar.offset
    while source.read(_CHUNK):
        pass
    # tarfile takes damage in the middle for the end; behind the real one all is zero.
    if source.content > end or source.size < end + tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it ends in the middle")


def header(info: tarfile.TarInfo) -> bytes:
    """What stands before a file in a tar; as tarfile has it, and for usual ones much faster."""
    name, mtime = info.name, int(info.mtime)
    numbers = (info.uid, info.gid, info.size >> 12, mtime >> 12)
    if len(name) > 100 or not name.isascii() or not all(0 <= one < 8**7 for one in numbers):
        return info.tobuf(**OPTIONS)
    record = b" mtime=%a\n" % info.mtime
    length = len(record) + 2
    record = b"%d%s" % (length, record)
    ours = _ustar(name.encode(), info.mode, info.uid, info.gid, info.size, mtime, tarfile.REGTYPE)
    return _pax_header(length) + record.ljust(tarfile.BLOCKSIZE, b"\0") + ours


@cache
def _pax_header(length: int) -> bytes:
    return _ustar(b"././@PaxHeader", 0, 0, 0, length, 0, tarfile.XHDTYPE)


def _ustar(name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, sort: bytes) -> bytes:
    """A header as POSIX has it, for what needs none of its extensions."""
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    head = name.ljust(100, b"\0") + numbers
    tail = sort + bytes(100) + tarfile.POSIX_MAGIC + bytes(247)
    # The check sum is that of a header with eight blanks in its place.
    return b"%s%06o\0 %s" % (head, _sum(head) + _sum(tail) + 8 * 32, tail)


def _sum(data: bytes) -> int:
    """Of all bytes; the lower half of adler32 is that of 256 bytes, and one more."""
    return sum((adler32(data[at : at + 256]) & 0xFFFF) - 1 for at in range(0, len(data), 256))
