"""A tmux session of this host with its windows and panes, for a spec."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError
from reconciler.base.text import censored
from reconciler.host.process_facts import facts
from reconciler.migrate.document import Origin, SpecBlock
from reconciler.migrate.draft import SpecDraft

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.tmux import Pane

_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "mksh", "tcsh", "csh")


def add_session(name: str, origin: Origin, draft: SpecDraft, host: Host) -> None:
    """The session of that name, or ``SOCKET/NAME``. Raises HostError."""
    server, slash, rest = name.partition("/")
    socket, called = (server, rest) if slash else (None, name)
    panes = [one for one in host.tmux.panes(socket) if one.session == called]
    if not panes:
        known = sorted({one.session for one in host.tmux.panes(socket)})
        there = f"; there is {', '.join(known)}" if known else ""
        raise HostError(f"there is no tmux session of that name{there}")
    if panes[0].owner:
        raise HostError(f"is of the spec {panes[0].owner} already")
    of_window = host.tmux.options(
        socket, ["window_name", "window_layout", "window_active", "session_path"]
    )
    of_pane = host.tmux.options(socket, ["pane_current_path", "pane_active"], "pane")
    made = draft.add("sessions", called, origin)
    made.put("session", called, origin)
    made.put("adopt", True, origin)
    if socket is not None:
        made.put("socket", socket, origin)
    folder = of_window[panes[0].window_id]["session_path"]
    if folder:
        made.put("cwd", folder, origin)
    windows: dict[str, SpecBlock] = {}
    for pane in panes:
        seen = of_window[pane.window_id]
        if pane.window_id not in windows:
            window = windows[pane.window_id] = SpecBlock()
            window.put("name", seen["window_name"], origin)
            if seen["window_active"] == "1" and len({one.window_id for one in panes}) > 1:
                window.put("focus", True, origin)
            if sum(one.window_id == pane.window_id for one in panes) > 1:
                window.put("layout", seen["window_layout"], origin)
            window.put("panes", [], origin)
        window = windows[pane.window_id]
        window["panes"].append(_pane(pane, of_pane.get(pane.id, {}), folder, origin))
    made.put("windows", list(windows.values()), origin)


def _pane(pane: Pane, seen: dict[str, Any], folder: str, origin: Origin) -> SpecBlock:
    made = SpecBlock()
    words: list[str] = []
    with suppress(HostError):
        found = facts(pane.pid)
        if found.uid == os.geteuid():
            words = list(found.arguments)
        else:
            made.say("its process is another user's, who decides what it is called: left out")
    program = words[0].rpartition("/")[2].lstrip("-") if words else ""
    if words and not (program in _SHELLS and (len(words) == 1 or words[1:] in (["-l"], ["-i"]))):
        if censored(" ".join(words)) == " ".join(words):
            made.put("command", words, origin)
        else:
            made.say("its command looks as if it held a secret, and is left out")
    path = seen.get("pane_current_path", "")
    if path and path != folder:
        made.put("cwd", path, origin)
    return made
