"""Bytes of a spec file, if it can be trusted. It must not wait: no pipe, device or endless file.

It must stay light, since it runs in every pass, also when the compiled spec is used.
"""

from __future__ import annotations

import os
import stat

from reconciler.base.digests import blake2b
from reconciler.host import trust
from reconciler.host.environment import note

LIMIT = 8 * 1024 * 1024
"""The most bytes that a file may have."""
NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
"""What the name of a spec is made of."""
_IN_NAMES = b"abcdefghijklmnopqrstuvwxyz0123456789_-"


class ReadError(Exception):
    """The file cannot be read or trusted. ``hint`` is what fixes it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def read(path: str, what: str = "the spec") -> bytes:
    """The content of ``path``. Raises ReadError, also where somebody else could have written it."""
    if "\0" in path:
        raise ReadError("a file name cannot hold a NUL character")
    notes: list[trust.Untrusted] = []
    try:
        fd = trust.opened(path, notes=notes)
    except trust.Untrusted as untrusted:
        raise ReadError(untrusted.reason, untrusted.remedy) from None
    except OSError as error:
        raise _cannot(what, error) from None
    for one in notes:
        note(f"{what}: {one.reason}")
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ReadError(f"{what} is {kind}", "name a YAML file")
        if status.st_size > LIMIT:
            raise _too_large(what, status.st_size)
        parts: list[bytes] = []
        left = LIMIT + 1
        while left > 0 and (part := os.read(fd, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
        if left <= 0:
            raise _too_large(what, LIMIT + 1)
        return b"".join(parts)
    except OSError as error:
        raise _cannot(what, error) from None
    finally:
        os.close(fd)


def digest(data: bytes) -> bytes:
    """By which a file is known to be as it was read."""
    return blake2b(data, digest_size=32).digest()


def digest_now(path: str) -> bytes:
    """The digest of a file, or of the names in a folder whose path ends with a slash.

    Raises ReadError.
    """
    if not path.endswith("/"):
        return digest(read(path))
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise _cannot(f"the folder {path}", error) from None
    return digest(os.fsencode("\0".join(names)))


def name_in(data: bytes) -> str | None:
    """The name that the main file of a spec gives itself, where it can be known without YAML."""
    lines = [line for line in data.split(b"\n") if line.startswith((b"name: ", b"name:\t"))]
    if len(lines) != 1:
        return None
    # Without a regular expression, which each pass would have to compile.
    word = lines[0][5:].partition(b" #")[0].strip()
    if word[:1] in (b"'", b'"') and word[:1] == word[-1:]:
        word = word[1:-1]
    return word.decode() if word and not word.translate(None, _IN_NAMES) else None


def _cannot(what: str, error: OSError) -> ReadError:
    if isinstance(error, FileNotFoundError):
        return ReadError(f"{what} does not exist")
    reason = (error.strerror or str(error)).lower()
    return ReadError(f"{what} cannot be read: {reason}")


def _too_large(what: str, size: int) -> ReadError:
    return ReadError(
        f"{what} is too large: {size:,} bytes, and the most is {LIMIT:,}",
        "split it with include, or use for_each for what repeats",
    )
