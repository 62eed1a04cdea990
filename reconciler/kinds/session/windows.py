"""tmux windows and panes: what a user may write, and the actions that make it so.

It must not decide whether to act: that is the session kind's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from reconciler.base.records import dataclass
from reconciler.core.fields import Command, Environment, Name, Path

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.tmux import Pane as SeenPane

HOLDER = "holder"
"""Mark of a window that only keeps a session open until a process moves in."""
_ENDING = 10.0
"""Seconds that what runs in a pane has to end once that is closed."""


@dataclass(frozen=True, slots=True)
class PaneSpec:
    """One pane; without a command it is a shell."""

    command: Command | None = None
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """One window; without panes it has one, with a shell."""

    name: Name | None = None
    cwd: Path | None = None
    panes: tuple[PaneSpec, ...] = (PaneSpec(),)
    layout: Name | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A tmux session with its windows, or with ``command`` in one pane.

    ``socket`` is the server's ``-L`` name. Without windows it only holds processes.
    """

    session: Name | None = None
    socket: Name | None = None
    cwd: Path | None = None
    env: Environment = ()
    windows: tuple[Window, ...] = ()
    command: Command | None = None

    @property
    def tmux_name(self) -> str:
        """The session's name in tmux."""
        return self.session or ""

    def layout(self) -> tuple[tuple[str, Window], ...]:
        """Its windows, each with the key that marks it."""
        windows = self.windows
        if self.command is not None:
            windows = (Window(self.session, None, (PaneSpec(self.command),)),)
        return tuple((window.name or str(at), window) for at, window in enumerate(windows))


@dataclass(frozen=True, slots=True)
class MakeSession:
    """Make the session with all its windows, or with one that only holds it open."""

    want: Session

    def describe(self) -> str:
        """The action in words."""
        return f"make tmux session {self.want.tmux_name}" + _on(self.want.socket)

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.kinds.session import panes as _panes

        want = self.want
        script = _panes.windows(want, None, host) if want.layout() else _panes.held(want, host)
        host.tmux.command(want.socket, script)


@dataclass(frozen=True, slots=True)
class MakePanes:
    """Make the missing panes, and respawn the dead ones, of a session that is there."""

    want: Session
    panes: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        """The action in words."""
        words = (
            f"{'respawn' if now == 'dead' else 'make'} pane {pane}" for pane, now in self.panes
        )
        return f"in tmux session {self.want.tmux_name}{_on(self.want.socket)}: " + ", ".join(words)

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.kinds.session import panes as _panes

        todo = {pane for pane, _ in self.panes}
        host.tmux.command(self.want.socket, _panes.windows(self.want, todo, host))


@dataclass(frozen=True, slots=True)
class RemoveSession:
    """Close our panes, and so the session, unless somebody has opened others in it."""

    want: Session

    def describe(self) -> str:
        """The action in words."""
        return f"close our windows of tmux session {self.want.tmux_name}" + _on(self.want.socket)

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.processes import look_up
        from reconciler.host.tmux import NAME_MARK, SESSION_MARK

        want = self.want
        script = []
        panes = host.tmux.session(want.socket, want.tmux_name, host.owner)
        if panes and panes[0].owner == host.owner:
            here = f"{panes[0].session_id}:"
            script = [["set-option", "-u", "-t", here, one] for one in (SESSION_MARK, NAME_MARK)]
        panes = host.tmux.made_for(want.socket, want.tmux_name, host.owner)
        held = holder(panes)
        # By ids, which never move, and pane by pane: a person may have split our windows.
        going = [one for one in panes if one.mark or one is held]
        script += [["kill-pane", "-t", one.id] for one in going]
        entries = [look_up(one.pid) for one in going]
        host.tmux.command(want.socket, script)
        # What is in them is told by SIGHUP, and what it needs may be about to end as well.
        running = [entry.identity for entry in entries if entry is not None]
        host.processes.wait(running, host.clock.monotonic() + _ENDING)


def _on(socket: str | None) -> str:
    return f" (tmux -L {socket})" if socket else ""


def declared_panes(panes: Iterable[SeenPane]) -> dict[str, SeenPane]:
    """The panes that we made for the spec, by their key."""
    return {
        f"{pane.window_mark.removeprefix('window:')}.{pane.mark}": pane
        for pane in panes
        if pane.window_mark.startswith("window:") and pane.mark
    }


def holder(panes: Iterable[SeenPane]) -> SeenPane | None:
    """The pane that keeps a session open.

    Older versions marked its window only, which a person may have split: then it is the oldest.
    """
    found = [one for one in panes if one.window_mark == HOLDER and one.mark in (HOLDER, "")]
    return min(found, key=lambda one: int(one.id[1:]), default=None)
