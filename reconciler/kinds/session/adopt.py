"""A session that no spec has made, taken over as it is.

It must not touch one that is another spec's, nor what is not declared of this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.host.tmux import home_of, mark_pane
from reconciler.kinds.session.scripts import STAYS, marked

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.tmux import Pane
    from reconciler.kinds.session.resource import Session


def adopted(want: Session, panes: Sequence[Pane]) -> dict[str, Pane]:
    """The panes of a session that no spec has made, by the keys of those declared in their order.

    Empty where another spec has made it.
    """
    if not panes or panes[0].owner:
        return {}
    windows: dict[str, list[Pane]] = {}
    for pane in panes:
        windows.setdefault(pane.window_id, []).append(pane)
    return {
        f"{key}.{at}": pane
        for (key, window), found in zip(want.layout(), windows.values(), strict=False)
        for at, pane in enumerate(found[: len(window.panes)])
    }


def adopt(want: Session, panes: Mapping[str, Pane], session: str, host: Host) -> None:
    """Mark a session and these panes of it, by their keys, as ours. Raises HostError."""
    here, home = f"{session}:", home_of(host.owner, want.tmux_name)
    script = marked(want, here, host)
    commands = set(want.commands())
    for key, pane in panes.items():
        window, _, at = key.rpartition(".")
        script += mark_pane(pane.id, home, f"window:{window}", at)
        if key in commands:
            script.append(["set-option", "-p", "-t", pane.id, "remain-on-exit", "on"])
    host.tmux.command(want.socket, STAYS, script)
