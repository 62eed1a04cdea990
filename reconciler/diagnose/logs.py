"""The logs that a spec speaks of, each read from its end.

It must not read the host by itself. It is called in a child of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from reconciler.base.errors import HostError
from reconciler.base.redaction import censored, without_values
from reconciler.diagnose.loglines import analysed
from reconciler.host.folders import matching, tail

_FILES = 30
_LAST = 3


def read(
    named: Sequence[tuple[str, str]], globs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """What is in the logs: those ``named`` by (id, path), and those that match (id, pattern)."""
    wanted: dict[str, list[str]] = {}
    for ident, path in named:
        wanted.setdefault(path, []).append(ident)
    for ident, pattern in globs:
        for path in matching(pattern):
            wanted.setdefault(path, []).append(ident)
    return [{"path": path, "ids": ids, **_one(path)} for path, ids in list(wanted.items())[:_FILES]]


def _one(path: str) -> dict[str, Any]:
    try:
        log = tail(path)
    except FileNotFoundError:
        return {"missing": True}
    except OSError as error:
        return {"reason": (error.strerror or str(error)).lower()}
    except HostError as error:
        return {"reason": str(error)}
    now = time.time()
    # Before anything is made of it: a secret whose digits were squeezed out is not known again.
    lines = without_values("\n".join(log.lines)).split("\n")
    found = analysed(lines, now)
    said = [line.strip() for line in lines if line.strip()]
    last = found["last_time"] if found["last_time"] is not None else log.changed
    return {
        "size": log.size,
        "whole": log.whole,
        "changed": round(log.changed, 3),
        "silent": round(max(0.0, now - max(last, log.changed)), 1),
        "last": [censored(line)[:500] for line in said[-_LAST:]],
        **found,
    }
