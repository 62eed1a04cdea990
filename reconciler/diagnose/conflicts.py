"""Others who manage the same things: tmpfiles.d, logrotate, and other specs beside this one.

It must not judge, run anything, nor read the host by itself. It is called in a child of its own.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from reconciler.core.kind import GetKind
from reconciler.core.model import Spec
from reconciler.core.observe import shown
from reconciler.host import reading
from reconciler.host.folders import matching as logs_matching

if TYPE_CHECKING:
    from reconciler.host import Host

_TMPFILES = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d",
             "/usr/lib/tmpfiles.d")  # fmt: skip
_LOGROTATE = ("/etc/logrotate.conf", "/etc/logrotate.d")
_SPECS = 20
_SORTS = ("path", "files", "tmux session", "unit", "cron line")
_MADE = "dDvqQefFpLcbCwaAtThHzZ"
"""Types of tmpfiles.d(5) lines that make, clean or change what they name."""


def found(spec: Spec, host: Host, state_dir: str, get_kind: GetKind) -> list[dict[str, Any]]:
    """Who else manages a path, a log, a session, a unit or a cron line of the spec."""
    paths: dict[str, str] = {}
    logs: dict[str, str] = {}
    for one in spec.resources:
        if not one.present or one.skip is not None:
            continue
        kind = get_kind(one.kind)
        for claim in kind.claims(one.want):
            if claim.key.sort == "path":
                paths.setdefault(claim.key.value, one.id)
        for key in shown(kind, one, host):
            if key.sort == "log":
                logs[key.value] = one.id
            elif key.sort == "logs":
                for path in logs_matching(key.value):
                    logs.setdefault(path, one.id)
    return [*_tmpfiles(paths), *_logrotate(logs), *_specs(spec, state_dir, get_kind)]


def _tmpfiles(paths: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    texts: dict[str, tuple[str, str]] = {}
    for folder in _TMPFILES:
        for name, text in reading.texts([folder]):
            if name.endswith(".conf"):
                # tmpfiles.d(5): the first of a name hides the others.
                texts.setdefault(os.path.basename(name), (name, text))
    in_order = sorted(paths)
    kept = [path for _, text in texts.values() for sort, path, _ in _lines(text) if sort == "x"]
    for name, text in texts.values():
        yield from of_tmpfiles(name, text, paths, in_order, kept)


def _lines(text: str) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Of each line its type, its path, and all of its words."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and not line.lstrip().startswith("#") and "%" not in words[1]:
            yield words[0][:1], words[1].rstrip("/") or "/", words


def of_tmpfiles(
    name: str,
    text: str,
    paths: Mapping[str, str],
    in_order: Sequence[str],
    kept: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """The lines of one file that make, clean, change or remove one of the paths. Pure.

    ``in_order`` are the paths, sorted; ``kept`` is what is not cleaned with its folder.
    """
    for sort, path, words in _lines(text):
        age = words[5] if len(words) > 5 and words[5] != "-" else None
        begin = re.split(r"[*?[]", path, maxsplit=1)[0]
        prefix = f"{path.rstrip('/')}/"
        for ours in _beginning(in_order, begin):
            same = ours == path or fnmatchcase(ours, path)
            below = ours.startswith(prefix)
            if same and sort in _MADE:
                told = f"manages {path} as well" + (f", and cleans it after {age}" if age else "")
            elif below and sort in "dDvqQe" and age is not None and not _is_in(ours, kept):
                told = f"removes what is older than {age} below {path}"
            elif (same or below) and sort in "rRD" and (same or sort != "D"):
                told = f"removes {path} at boot"
            else:
                continue
            yield {"id": paths[ours], "path": ours, "with": name, "words": told}


def _is_in(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, one) or fnmatchcase(path, f"{one}/*") for one in patterns)


def _beginning(in_order: Sequence[str], prefix: str) -> Iterator[str]:
    """Those of the sorted paths that begin so."""
    for at in range(bisect_left(in_order, prefix), len(in_order)):
        if not in_order[at].startswith(prefix):
            return
        yield in_order[at]


def _logrotate(logs: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for name, text in reading.texts(_LOGROTATE):
        yield from of_logrotate(name, text, logs)


def of_logrotate(name: str, text: str, logs: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The patterns of one file of logrotate that match one of the logs. Pure."""
    depth = 0
    for line in text.splitlines():
        words = line.partition("#")[0].replace('"', " ").split()
        if depth == 0:
            for pattern in words:
                if not pattern.startswith("/"):
                    continue
                for path, ident in logs.items():
                    if fnmatchcase(path, pattern.rstrip("{")):
                        told = f"rotates it as well ({pattern})"
                        yield {"id": ident, "path": path, "with": name, "words": told}
        depth = max(0, depth + line.count("{") - line.count("}"))


def _specs(spec: Spec, state_dir: str, get_kind: GetKind) -> Iterator[dict[str, Any]]:
    from reconciler.config.cache import others

    ours: dict[tuple[str, str], tuple[str, Mapping[str, str]]] = {}
    for other in others(state_dir, spec.name, _SPECS):
        ours = ours or _claimed([spec], get_kind)
        for key, (ident, asks) in _claimed([other], get_kind).items():
            if key not in ours:
                continue
            mine, wanted = ours[key]
            differ = sorted(n for n in asks.keys() & wanted.keys() if asks[n] != wanted[n])
            words = f"{ident} of the spec {other.name} manages it as well"
            if differ:
                words += ", and asks for another " + " and ".join(differ)
            yield {"id": mine, "path": key[1], "with": other.path, "words": words}


def _claimed(
    specs: Sequence[Spec], get_kind: GetKind
) -> dict[tuple[str, str], tuple[str, Mapping[str, str]]]:
    found = {}
    for spec in specs:
        for resource in spec.resources:
            if resource.skip is not None or not resource.present or resource.orphan:
                continue
            for claim in get_kind(resource.kind).claims(resource.want):
                if claim.key.sort in _SORTS:
                    found[claim.key.sort, claim.key.value] = resource.id, claim.asks
    return found
