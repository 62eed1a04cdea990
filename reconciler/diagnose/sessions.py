"""The tmux sessions of a server, with their windows and panes, also those of other people.

It must not change anything. It is called in a child of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reconciler.host import Host


def listed(host: Host, socket: str) -> list[dict[str, Any]]:
    """Each session of the server with that ``-L`` name. Raises UnknownState."""
    found: dict[str, dict[str, Any]] = {}
    for pane in host.tmux.panes(None if socket == "default" else socket):
        session = found.setdefault(
            pane.session,
            {"socket": socket, "session": pane.session, "spec": pane.owner or None, "windows": []},
        )
        windows = session["windows"]
        if not windows or windows[-1]["window"] != pane.window:
            windows.append({"window": pane.window, "of": pane.window_mark or None, "panes": []})
        windows[-1]["panes"].append(
            {"pid": pane.pid, "dead": pane.dead, "ending": pane.ending or None}
        )
    return list(found.values())
