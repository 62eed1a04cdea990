"""Bytes of a spec file, if it can be trusted. It must not wait: no pipe, device or endless file.

It must stay light, since it runs in every pass, also when the compiled spec is used.
"""

from __future__ import annotations

import os
import stat

LIMIT = 8 * 1024 * 1024
"""The most bytes that a file may have."""
_LINKS = 40


class ReadError(Exception):
    """The file cannot be read or trusted. ``hint`` is what mends it."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def read(path: str, what: str = "the spec") -> bytes:
    """The content of ``path``. Raises ReadError.

    As root, only of a file that nobody else could have written or put in place.
    """
    if "\0" in path:
        raise ReadError("a file name cannot hold a NUL character")
    if os.geteuid() == 0:
        _trust_way(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot(what, error) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ReadError(f"{what} is {kind}", "name a YAML file")
        if os.geteuid() == 0:
            _trust(path, status)
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


def _trust_way(path: str) -> None:
    """Every directory and symlink that leads to ``path`` must be root's own.

    Walked by hand: whoever may swap a symlink on the way decides what is read, so that looking
    at the resolved path alone is not enough. Missing parts are left for open() to report.
    """
    here = "/"
    todo = [part for part in os.path.abspath(path).split("/") if part][::-1]
    links = 0
    try:
        _trust(here, os.lstat(here))
        while todo:
            part = todo.pop()
            if part == "..":
                here = os.path.dirname(here)
                continue
            step = os.path.join(here, part)
            status = os.lstat(step)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _LINKS:
                    raise ReadError("there is a circle of symbolic links on the way to it")
                if status.st_uid != 0:
                    raise _untrusted(step, f"the symbolic link {step} belongs to", status, "-h ")
                target = os.readlink(step)
                if target.startswith("/"):
                    here = "/"
                todo += [p for p in target.split("/") if p not in ("", ".")][::-1]
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
                _trust(step, status)
            here = step
    except OSError:
        return


def _trust(path: str, status: os.stat_result) -> None:
    """Raises ReadError when someone other than root could change the file or directory."""
    folder = stat.S_ISDIR(status.st_mode)
    if status.st_uid != 0:
        what = "the directory " if folder else ""
        raise _untrusted(path, f"{what}{path} belongs to", status)
    if folder and status.st_mode & stat.S_ISVTX:
        return  # Others may add entries there, but not replace those of root.
    others = bool(status.st_mode & stat.S_IWOTH)
    group = bool(status.st_mode & stat.S_IWGRP) and status.st_gid != 0
    if others or group:
        who = "everybody" if others else f"group {status.st_gid}"
        mend = ("g" if group else "") + ("o" if others else "") + "-w"
        raise ReadError(
            f"not trusted by root: {who} may write to {path}", f"chmod {mend} {_quoted(path)}"
        )


def _untrusted(path: str, what: str, status: os.stat_result, flag: str = "") -> ReadError:
    return ReadError(
        f"not trusted by root: {what} user {status.st_uid}, who could change what it says",
        f"chown {flag}root {_quoted(path)}",
    )


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)
