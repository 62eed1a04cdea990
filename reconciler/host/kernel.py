"""System calls that Python's ``os`` lacks, through ctypes: loaded only by what needs them.

It must not decide anything; each function is one call, with its errors as OSError.
"""

from __future__ import annotations

import ctypes
import errno
import os

_C = ctypes.CDLL(None, use_errno=True)
_NO_REPLACE = 1
_EXCHANGE = 2
_COLLAPSE = 0x08
_NO_FOLLOW = 0x100
_BIRTH = 0x800
_JOIN_SESSION_KEYRING = 1
_SET_CHILD_SUBREAPER = 36
_SET_SECUREBITS = 28
_CAPABILITIES_3 = 0x20080522
"""The version of the two sets of 32 bits, capget(2)."""
_IO_OF_PROCESS = 1
_NUMBERS = {
    "x86_64": (250, 251), "aarch64": (219, 30), "riscv64": (219, 30), "loongarch64": (219, 30),
    "i686": (288, 289), "armv7l": (311, 314), "ppc64le": (271, 273), "s390x": (280, 282),
}  # fmt: skip
"""The numbers of keyctl(2) and ioprio_set(2), which the C library does not have, by machine."""


class _Statx(ctypes.Structure):
    """The beginning of struct statx, statx(2); birth is at byte 80."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("before", ctypes.c_byte * 76),
        ("seconds", ctypes.c_int64),
        ("nanoseconds", ctypes.c_uint32),
        ("after", ctypes.c_byte * 164),
    )


def rename_new(source: int, name: str, folder: int, goal: str) -> None:
    """Rename, never onto something: renameat2(2). Raises OSError, FileExistsError among them."""
    call = _C.renameat2
    if call(source, os.fsencode(name), folder, os.fsencode(goal), _NO_REPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), name)
    # A file system without that flag, such as NFS: link(2) does not replace either.
    os.link(name, goal, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
    os.unlink(name, dir_fd=source)


def exchange(source: int, name: str, folder: int, goal: str) -> None:
    """Let two names have what the other has, at once: renameat2(2), EXCHANGE. Raises OSError."""
    call = _C.renameat2
    if call(source, os.fsencode(name), folder, os.fsencode(goal), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), goal)


def collapse(handle: int, length: int) -> bool:
    """Take the first ``length`` bytes out of a file, at once: fallocate(2), COLLAPSE_RANGE.

    ``length`` is a multiple of the block size and less than the size. False where the file
    system cannot.
    """
    size = ctypes.c_int64
    call = _C.fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, size, size)
    if call(handle, _COLLAPSE, 0, length) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ETXTBSY):
        return False
    raise OSError(number, os.strerror(number))


def birth(folder: int, name: str) -> int | None:
    """When a file was made, in nanoseconds since the epoch; None where the file system knows not.

    Raises OSError.
    """
    found = _Statx()
    if _C.statx(folder, os.fsencode(name), _NO_FOLLOW, _BIRTH, ctypes.byref(found)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    if not found.mask & _BIRTH:
        return None
    return int(found.seconds) * 10**9 + int(found.nanoseconds)


def new_session_keyring() -> None:
    """Have a new, empty one: keyctl(2). Where it is refused, as in containers, that is no error."""
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is not None:
        _C.syscall(ctypes.c_long(numbers[0]), ctypes.c_long(_JOIN_SESSION_KEYRING), None)


def adopt_orphans() -> None:
    """Be the parent, instead of init, of all below us whose own ends: prctl(2). Raises OSError."""
    if _C.prctl(_SET_CHILD_SUBREAPER, *(ctypes.c_ulong(number) for number in (1, 0, 0, 0))) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def usual_securebits() -> None:
    """Let a change of ids take capabilities away, as it does: capabilities(7), prctl(2).

    It is no error where it fails, as where they are locked.
    """
    _C.prctl(_SET_SECUREBITS, *(ctypes.c_ulong(0) for _ in range(4)))


def drop_capabilities(inheritable_only: bool) -> None:
    """Have none, or none that a program inherits, and so no ambient one: capset(2).

    Raises OSError.
    """
    head = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    # Effective, permitted and inheritable, the lower 32 of each first.
    sets = (ctypes.c_uint32 * 6)()
    failed = inheritable_only and _C.capget(head, sets) != 0
    sets[2] = sets[5] = 0
    if failed or _C.capset(head, sets) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def usual_io_priority() -> None:
    """Have the one that goes with the nice value: ioprio_set(2). It is no error where it fails."""
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is not None:
        _C.syscall(ctypes.c_long(numbers[1]), ctypes.c_long(_IO_OF_PROCESS), 0, 0)
