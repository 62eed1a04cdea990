"""What a user may write about a tmux session, and how its panes are marked. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from reconciler.base.records import dataclass
from reconciler.core.fields import Command, Environment, Flag, Name, Path

if TYPE_CHECKING:
    from reconciler.host.tmux import Pane as SeenPane

HOLDER = "holder"
"""Mark of a window that only keeps a session open until a process moves in."""


@dataclass(frozen=True, slots=True)
class PaneSpec:
    """One pane; without a command it is a shell."""

    command: Command | None = None
    """A list of arguments, or a string for sh -c."""
    cwd: Path | None = None
    """The folder in which it begins."""


@dataclass(frozen=True, slots=True)
class Window:
    """One window; without panes it has one, with a shell."""

    name: Name | None = None
    """Its name."""
    cwd: Path | None = None
    """The folder of its panes."""
    panes: tuple[PaneSpec, ...] = (PaneSpec(),)
    """Its panes, in their order."""
    layout: Name | None = None
    """A layout of tmux, such as tiled or main-vertical."""


@dataclass(frozen=True, slots=True)
class Session:
    """A tmux session with its windows, or with ``command`` in one pane.

    ``socket`` is the server's ``-L`` name. Without windows it only holds processes.
    """

    session: Name | None = None
    """Its name in tmux; by default the resource's name."""
    socket: Name | None = None
    """The name of the server's socket, as in tmux -L."""
    cwd: Path | None = None
    """The folder of its windows."""
    env: Environment = ()
    """Variables of its environment."""
    windows: tuple[Window, ...] = ()
    """Its windows, in their order."""
    command: Command | None = None
    """What runs in its one pane, where it has no windows."""
    kill_tree: Flag = True
    """Does all that the command of a pane has started end with it?"""

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

    def commands(self) -> list[str]:
        """The keys of its panes that have a command."""
        return [
            f"{key}.{at}"
            for key, window in self.layout()
            for at, pane in enumerate(window.panes)
            if pane.command is not None
        ]


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
