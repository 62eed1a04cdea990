"""The watchdog: a pass now, one every interval, and one whenever something happens.

It must not hold anything of the loop itself, which is in watchdog.py.
"""

from __future__ import annotations

import gc
import sys

from reconciler.exits import BUSY, DONE, INVALID
from reconciler.modes.answers import complain, tell
from reconciler.session import Session
from reconciler.spec.aside import Invalid
from reconciler.turns import Taken
from reconciler.watchdog import keep


def run(session: Session) -> int:
    """Go on until a signal says that it is enough."""
    gc.enable()  # This one lives for years.
    try:
        spec = session.load_aside()
        session.claim(spec)
        keep(session, spec, tell)
        return DONE
    except Taken as taken:
        return complain(f"{taken}; this loop does not begin", BUSY)
    except Invalid as error:
        sys.stderr.write(error.text)
        return INVALID
