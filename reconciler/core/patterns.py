"""Patterns for names and paths below a folder, as people write them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def as_matched(pattern: str) -> str:
    """The pattern without the slash behind it, with which people mean a folder."""
    return pattern.rstrip("/") or pattern


def never(path: str, patterns: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Each of ``exclude`` that can match nothing below ``path``, which may be a glob."""
    for at, pattern in enumerate(patterns):
        if pattern.startswith("/") and not _may_be_below(pattern, path):
            what = f"{pattern!r} is not below {path}; write a name, or a path below it"
        elif {".", ".."} & set(pattern.split("/")) or "//" in pattern:
            what = f"{pattern!r} matches nothing; write a name, or a path below {path}"
        else:
            continue
        yield f"exclude[{at}]", what


def below(path: str, pattern: str) -> str:
    """A pattern for whole paths as one for paths below ``path``; others as they are."""
    return pattern.removeprefix(f"{path.rstrip('/')}/") if pattern.startswith("/") else pattern


def about(
    path: str, top: str, match: Sequence[str], exclude: Sequence[str], recursive: bool
) -> bool:
    """Is a rule for what is in ``top`` about the file at ``path``? As a look through it has it."""
    from fnmatch import fnmatchcase

    start = f"{top.rstrip('/')}/"
    inside = path.removeprefix(start)
    if inside == path or ("/" in inside and not recursive):
        return False
    names = (inside.rpartition("/")[2], inside)
    folders = [inside[:at] for at, sign in enumerate(inside) if sign == "/"]
    left_out = any(
        fnmatchcase(name, below(top, pattern))
        for pattern in exclude
        for folder in (*folders, inside)
        for name in (folder, folder.rpartition("/")[2])
    )
    return not left_out and any(fnmatchcase(name, one) for name in names for one in match)


def _may_be_below(pattern: str, path: str) -> bool:
    """Could it match something at or below? Where both have their own signs, who knows."""
    for mine, top in zip(pattern.split("/"), path.split("/"), strict=False):
        plain = not any(sign in mine + top for sign in "*?[")
        if plain and mine != top:
            return False
    return True
