"""Why a program was not started, in words. It must not start anything."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress


def not_found(program: str, path: str) -> str:
    """Why there is nothing to be run, in words."""
    if "/" not in program:
        for folder in path.split(":"):
            file = f"{folder}/{program}"
            if folder and os.path.isfile(file) and not os.stat(file).st_mode & 0o111:
                return f"{file} is there, but not executable; make it so with chmod +x"
        return f"no program {program!r} in its PATH; install it or write its path"
    try:
        mode = os.stat(program).st_mode
    except FileNotFoundError:
        return "it is not there; install it"
    except OSError as error:
        return f"it cannot be looked at: {reason(error)}"
    if stat.S_ISDIR(mode):
        return "it is a directory; write the path of a program"
    if stat.S_ISREG(mode) and not mode & 0o111:
        return "it is there, but not executable; make it so with chmod +x, or name its interpreter"
    return "it may not be run by this user"


def not_run(file: str, error: OSError) -> str:
    """Why execve(2) has refused a file that is there, in words."""
    if error.errno not in (errno.ENOENT, errno.ENOEXEC):
        return reason(error)
    first = b""
    with suppress(OSError):
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        first = os.read(handle, 256).partition(b"\n")[0]
        os.close(handle)
    if not first.startswith(b"#!"):
        return (
            "its first line names no interpreter, such as #!/bin/sh, and it is no binary"
            if error.errno == errno.ENOEXEC
            else reason(error)
        )
    if first.endswith(b"\r"):
        return "its lines end in CR LF, so that its interpreter is not found; save it with LF"
    interpreter = first[2:].strip().decode(errors="backslashreplace")
    return f"its interpreter {interpreter!r} is not there; install it, or correct its first line"


def reason(error: BaseException) -> str:
    """What went wrong, in words."""
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or type(error).__name__}{where}"
    return str(error) or type(error).__name__
