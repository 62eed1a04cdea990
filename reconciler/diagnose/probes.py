"""The checks of a spec, asked now, all at the same time.

It must not keep what they say: that is for passes. A check that takes too long is told to stop
before it is killed, so that it can take back what it has begun.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.base.records import replace
from reconciler.core.kind import GetKind, Probed
from reconciler.core.model import Resource
from reconciler.host.child import Children

if TYPE_CHECKING:
    from reconciler.host import Host

_GRACE = 0.3


def begin(
    children: Children,
    resources: Sequence[Resource[Any]],
    broken: Mapping[str, str],
    get_kind: GetKind,
    host: Host,
    seconds: float,
) -> tuple[list[str], list[dict[str, Any]]]:
    """Ask all but those that need something ``broken``: the ids asked, and what of the rest."""
    asked, rest = [], []
    for resource in resources:
        kind = get_kind(resource.kind)
        if not isinstance(kind, Probed) or resource.skip is not None or not resource.present:
            continue
        rhythm = kind.rhythm(resource.want)
        ident = resource.id
        need = next((one for one in (ident, *resource.needs) if one in broken), None)
        if need is not None:
            words = f"{need}: {broken[need]}"
            rest.append({"id": ident, "result": "not asked", "said": words, "seconds": 0.0})
            continue
        limit = min(rhythm.timeout, seconds)
        work = partial(_probe, resource, limit, rhythm.timeout, kind, host, os.getpid())
        children.begin(f"check {ident}", work, limit + 3 * _GRACE)
        asked.append(ident)
    return asked, rest


def gathered(children: Children, asked: Collection[str]) -> list[dict[str, Any]]:
    """What they have said."""
    found = []
    for ident in asked:
        name = f"check {ident}"
        silent = {"result": "unanswered", "said": children.silent.get(name, ""), "seconds": None}
        found.append({"id": ident, **children.answers.get(name, silent)})
    return found


def _probe(
    resource: Resource[Any],
    limit: float,
    whole: float,
    kind: Probed,
    host: Host,
    parent: int,
) -> dict[str, Any]:
    """The child's side."""
    began = time.monotonic()
    # Not ignored: what it runs would inherit that.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    if hasattr(resource.want, "timeout"):
        resource = replace(resource, want=replace(resource.want, timeout=limit))
    verdict = kind.probe(resource, host, parent)
    took = time.monotonic() - began
    late = not verdict.ok and took >= limit
    if late and os.getpgrp() == os.getpid():
        with suppress(OSError):
            os.killpg(0, signal.SIGINT)
        time.sleep(_GRACE)
    words = verdict.words
    if late and limit < whole:
        words = f"no answer within {limit:g} s (it may take {whole:g} s)"
    result = "ok" if verdict.ok else "unanswered" if late and limit < whole else "failing"
    return {"result": result, "said": words, "seconds": round(took, 3)}
