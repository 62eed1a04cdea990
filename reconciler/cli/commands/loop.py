"""The watchdog: a pass now, one every interval, and one whenever something happens.

It must not hold anything of the loop itself, which is in watchdog.py.
"""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.base.errors import BUSY, INVALID, HostError, UnknownState
from reconciler.base.text import redacted
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage, complain, tell
from reconciler.config.isolated import Asked, Invalid
from reconciler.state.folder import LockHeld
from reconciler.watchdog.run import keep

if TYPE_CHECKING:
    from reconciler.core.model import Spec

_LOOK = 10.0
"""Seconds for a look at the store."""


def run(context: Context) -> int:
    """Go on until a signal says that it is enough."""
    gc.enable()  # This one lives for years.
    try:
        try:
            spec = context.known(context.load_isolated().wait())
        except Asked as error:
            raise InvalidUsage(str(error)) from None
        except Invalid as error:
            last_good = context.last_good()
            if last_good is None:
                sys.stderr.write(redacted(error.text))
                return INVALID
            spec = last_good
        _refuse_unreadable(context, spec)
        context.claim(spec)
        return keep(context, spec, tell)
    except LockHeld as taken:
        return complain(f"{taken}; this loop does not begin", BUSY)


def _refuse_unreadable(context: Context, spec: Spec) -> None:
    """Raise HostError where a newer version has made the store, or it cannot be read.

    It is looked at by a child: a loop that has nothing to remember does not load SQLite.
    """
    from reconciler.host.child import answer

    def look() -> bytes:
        try:
            context.store(spec, False)
        except HostError as error:
            return f"{error}".encode("utf-8", "surrogateescape")
        return b""

    with suppress(UnknownState):
        words = answer(look, _LOOK)
        if words:
            raise HostError(words.decode("utf-8", "surrogateescape"))
