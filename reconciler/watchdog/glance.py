"""A look at a small spec by the loop itself, which takes a tenth of what a child takes for it.

It must not act or say anything, nor look at what could hang, or takes its time: all but the
expected is left to a pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import UnknownState

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.core.model import Spec
    from reconciler.host.processes import Identity

_MOST = 20
"""Resources that are looked at, one after the other, while nothing else is heard."""


def is_as_declared(
    context: Context, spec: Spec, are_watched: Callable[[Iterable[Identity]], bool]
) -> bool:
    """Would a pass find nothing to do, to say or to remember? False also where only that can tell.

    ``are_watched``: does the end of each of these wake the loop?
    """
    brief = (
        len(spec.resources) <= _MOST
        and not spec.empty
        and all(
            one.kind == "process"
            and one.present
            and one.skip is None
            and one.held is None
            and one.want.looks_briefly
            for one in spec.resources
        )
    )
    if not brief or spec.last_good or spec.metrics is not None:
        return False
    from reconciler.host.daemon_log import too_large
    from reconciler.host.filesystems import leads_to_server

    if leads_to_server(context.folder(spec)) or not context.is_silent(spec):
        return False

    host = context.host(spec)
    with suppress(OSError, UnknownState):
        if host.marks.kinds() or too_large(os.path.join(host.state_dir, "log")):
            return False
        host.walltime.note()
        for one in spec.resources:
            # Whoever has no record of his own is looked for among all processes of the host.
            seen = host.start_records.of(one.id, alive=True)
            current = [each.identity for each in seen if each.digest == one.want.digest()]
            if not len(current) == len(seen) == one.want.instances or not are_watched(current):
                return False
        return True
    return False
