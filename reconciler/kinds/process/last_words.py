"""What a process said last, and how it ended, for people who are to know why it does not run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.text import censored, redacted
from reconciler.host.processes import ending
from reconciler.kinds.process.actions import Place, log_path
from reconciler.kinds.process.match import runs

if TYPE_CHECKING:
    from reconciler.host import Host

_WORDS = 3
_TAIL = 64 * 1024
"""Bytes of a log that are read for its last lines."""
_LONGEST = 1000
"""Characters of each that are shown."""
_NEAR = 20
"""Lines from the end among which one that names an error is looked for: a trace may follow it."""
_ERROR = re.compile(r"(?:error|exception)\b|\b(?:fatal|panic)\b", re.IGNORECASE)


def last_words(
    mark: str,
    place: Place | None,
    logs: Sequence[str | None],
    user: str | None,
    host: Host,
    secrets: Sequence[str],
) -> str | None:
    """How it ended and what it said last, without its ``secrets``; None: nothing is known."""
    words: list[str] = []
    try:
        if place is not None:
            for _ in range(5):
                panes = (p for p in host.tmux.panes(place.socket) if runs(p, mark))
                pane = next(panes, None)
                # tmux 3.3 sometimes misses that its child has ended, or never asks how.
                how = (pane.ending or ending(pane.pid) or "") if pane is not None else ""
                if pane is None or how or not pane.dead:
                    break
                host.clock.sleep(0.05)  # It has asked, but not yet when it was looked at.
                host.tmux.forget()
            if pane is not None:
                words += [how, *(redacted(line, secrets) for line in _screen(place, pane.id, host))]
        else:
            from reconciler.host.daemon_log import last_lines

            account = host.users.account(user)
            uid = -1 if account.uid == os.geteuid() else account.uid
            for log in logs:
                path = log_path(mark, log, host)
                last = last_lines(path, _TAIL, host.log_ends.get(path), uid)
                # Before it is parted: a value may have several lines.
                said = redacted(last.decode(errors="replace"), secrets).splitlines()
                words += telling(said)
    except HostError:
        return None
    return "; ".join(censored(word)[:_LONGEST] for word in words if word) or None


def telling(lines: Sequence[str]) -> list[str]:
    """The last lines, each once, with the one before them that says why. Pure."""
    near = [line.strip() for line in lines if line.strip()][-_NEAR:]
    last = list(dict.fromkeys(reversed(near)))[:_WORDS][::-1]
    cause = next((line for line in reversed(near) if _ERROR.search(line)), None)
    cause = last[-1] if cause is None and last else cause
    return [] if cause is None else [cause, *(line for line in last if line != cause)]


def _screen(place: Place, pane: str, host: Host) -> list[str]:
    """What stands in the pane. tmux may learn of an end before it has read the last words."""
    for _ in range(5):
        words = host.tmux.screen(place.socket, pane, _WORDS)
        if words:
            return words
        host.clock.sleep(0.05)
    return []
