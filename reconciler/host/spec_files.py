"""Spec files: where they are looked for, which come with the program, and their bytes.

They are read only if they can be trusted, and never waited for: no pipe, device or endless file. It
stays light, since it runs in every pass, also when the compiled spec is used.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from reconciler.base.digests import blake2b
from reconciler.host import trust
from reconciler.host.environment import note

FOUND_HERE = "specs/executor.yaml"
"""The spec that is found in the current folder without being named."""
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def folder(name: str) -> str:
    """The shipped folder ``specs`` or ``templates``: inside the wheel, or beside a checkout."""
    inside = os.path.join(_PACKAGE, name)
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(_PACKAGE), name)


def known_as(path: str) -> str:
    """What a spec is remembered by: its path, or its bare name where it is a shipped one."""
    here, _, name = path.rpartition("/")
    return name.removesuffix(".yaml") if here == folder("specs") else path


def names(text: str, path: str) -> bool:
    """Does a command line name the spec at ``path``, a shipped one also by its bare name?"""
    if path in text:
        return True
    known = known_as(path)
    word = rf"(?<![\w./-]){re.escape(known)}(?![\w./-])"
    return known != path and re.search(word, text) is not None


def path_of(known: str) -> str:
    """The path of a spec that is remembered like that."""
    return known if "/" in known else os.path.join(folder("specs"), f"{known}.yaml")


def shipped_specs() -> list[str]:
    """The names of the specs that come with this program, sorted; fragments are none."""
    names = {name.removesuffix(".yaml") for name in os.listdir(folder("specs")) if ".yaml" in name}
    return sorted(names - {"watchdog"})


def config_folder(environ: Mapping[str, str], home: str) -> str:
    """Where a user's specs lie, as the XDG base directory specification has it."""
    config = environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(config if config.startswith("/") else f"{home}/.config", "reconcile")


def copy_of(path: str, environ: Mapping[str, str], home: str) -> str | None:
    """Where ``--init`` puts a copy of the spec at ``path``; None: it is not a shipped one."""
    known = known_as(path)
    folder = "/etc/reconcile" if os.geteuid() == 0 else config_folder(environ, home)
    return None if known == path else f"{folder}/{known}.yaml"


def find_spec(
    given: str | None, environ: Mapping[str, str], home: str
) -> tuple[str | None, list[str]]:
    """The path of the spec to take, or None with all the places that were tried.

    A bare name such as ``executor`` that is no file here is one of the shipped specs.
    """
    if given is not None:
        if "/" not in given and not os.path.isfile(given):
            shipped = os.path.join(folder("specs"), given.removesuffix(".yaml") + ".yaml")
            if os.path.exists(shipped):
                return shipped, []
        return given, []
    usual = [
        environ.get("RECONCILE_SPEC", ""),
        FOUND_HERE,
        os.path.join(config_folder(environ, home), "spec.yaml"),
        "/etc/reconcile/spec.yaml",
    ]
    tried = [path for path in usual if path]
    return next((path for path in tried if os.path.exists(path)), None), tried


_places: list[tuple[str, str]] = []


def lies_elsewhere(place: str, now: str) -> None:
    """What belongs into the folder ``place`` lies in the folder ``now``."""
    _places[:] = [(place, now)] if place != now else []


def lying(path: str) -> str:
    """Where the file lies now whose place is ``path``."""
    return next((now + path[len(to) :] for to, now in _places if path.startswith(f"{to}/")), path)


def placed(path: str) -> str:
    """The place of the file that lies at ``path`` now."""
    return next((to + path[len(now) :] for to, now in _places if path.startswith(f"{now}/")), path)


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
