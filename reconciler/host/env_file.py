"""A file of variables for a process, as EnvironmentFile= of systemd.exec(5) reads it.

It must not be copied anywhere. Who could write to it could have a program of ours load his code:
only what root, the caller or the process's own user has written is believed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from reconciler.base.errors import HostError
from reconciler.host import trust
from reconciler.host.walk import closing, reported, sort_of

_MOST = 2**20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(
    r"""
    [ \t\r]* (?:
      [#;] (?:\\.|[^\\\n])* (?:\n|\Z)                        # a comment
    | (?P<name>[^\n=]*) (?: = (?P<value>
          [ \t\r]* (?: '[^']*(?:'|\Z) [ \t\r]* | "(?:\\.|[^"\\])*(?:"|\Z) [ \t\r]* )*
          (?:\\.|[^\\\n])*                                   # what stands without quotes
      )\\? )? (?:\n|\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(r"""'([^']*)(?:'|\Z)|"((?:\\.|[^"\\])*)(?:"|\Z)|[ \t\r]+""", re.DOTALL)


def variables(text: str) -> Iterator[tuple[str, str]]:
    """The assignments in it, in their order; what is none is passed over, as systemd does."""
    for match in _ASSIGNMENT.finditer(text):
        name, value = (match["name"] or "").rstrip(), match["value"]
        if value is not None and _NAME.fullmatch(name):
            yield name, _unquoted(value)


def _unquoted(value: str) -> str:
    """Quoted pieces, one behind the other, and then what stands without quotes to the end."""
    pieces, at = [], 0
    while (piece := _PIECE.match(value, at)) is not None and at < len(value):
        if piece[2] is not None:
            # Only what a shell needs it for loses its backslash, sh(1).
            pieces.append(re.sub(r'\\(["\\`$])|\\\n', lambda one: one[1] or "", piece[2]))
        else:
            pieces.append(piece[1] or "")
        at = piece.end()
    rest = re.sub(r"\\(.)", lambda one: one[1].strip("\n"), value[at:], flags=re.DOTALL)
    return "".join(pieces) + rest.rstrip(" \t\r\n")


def read(path: str, uid: int) -> str:
    """What it holds, for a process of that user. Raises HostError."""
    with reported(f"cannot read the env_file {path}"):
        try:
            handle = _opened(path, uid)
        except FileNotFoundError:
            raise HostError(f"there is no env_file {path}; make it, or leave it out") from None
        with closing(handle):
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise HostError(f"the env_file {path} is {sort_of(status)}, not a file")
            data = os.read(handle, _MOST + 1)
    if len(data) > _MOST:
        raise HostError(f"the env_file {path} is larger than 1 MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise HostError(f"the env_file {path} is not in UTF-8") from None
    if "\0" in text:
        raise HostError(f"the env_file {path} holds a NUL character")
    return text


def _opened(path: str, uid: int) -> int:
    """Raises Untrusted, OSError."""
    what = "the environment of the process"
    try:
        return trust.opened(path, what=what)
    except trust.Untrusted:
        # His own file, where he keeps it. By a link he could lead us to one that is not for him.
        handle = trust.opened(path, what=what, also=(uid,))
        if os.fstat(handle).st_uid == uid:
            return handle
        os.close(handle)
        raise
