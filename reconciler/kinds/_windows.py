"""tmux windows and panes: what a user may write, and the actions that make it so.

It must not decide whether to act: that is the session kind's.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING

from reconciler.fields import Command, Environment, Name, Path
from reconciler.host.walk import sort_of
from reconciler.model import HostError
from reconciler.records import dataclass

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.tmux import Pane as SeenPane

HOLDER = "holder"
"""Mark of a window that only keeps a session open until a process moves in."""
_HOLD = ("sleep", "infinity")
_SIZE = ("-x", "200", "-y", "50")


@dataclass(frozen=True, slots=True)
class Pane:
    """One pane; without a command it is a shell."""

    command: Command | None = None
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """One window; without panes it has one, with a shell."""

    name: Name | None = None
    cwd: Path | None = None
    panes: tuple[Pane, ...] = (Pane(),)
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
            windows = (Window(self.session, None, (Pane(self.command),)),)
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
        from reconciler.host.tmux import SESSION_MARK, environment_options, target

        want = self.want
        here = target(want.tmux_name)
        environ = {name: secret.reveal() for name, secret in want.env}
        start = ["new-session", "-d", "-s", want.tmux_name, *_SIZE, *environment_options(environ)]
        layout = want.layout()
        if layout:
            key, window = layout[0]
            script = _window(start, here, key, window, want, host)
        else:
            start += _place(want.tmux_name, want.cwd, host)
            script = [[*start, "--", *_HOLD], _mark_window(here, HOLDER)]
        script.append(["set-option", "-t", here, SESSION_MARK, host.owner])
        for key, window in layout[1:]:
            script += _window(["new-window", "-t", here], here, key, window, want, host)
        if len(layout) > 1:
            script.append(["select-window", "-t", f"{here}^"])
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
        from reconciler.host.tmux import target

        want = self.want
        there = declared_panes(host.tmux.session(want.socket, want.tmux_name))
        free = 1 + max(pane.window for pane in host.tmux.session(want.socket, want.tmux_name))
        todo = {pane for pane, _ in self.panes}
        script: list[list[str]] = []
        for key, window in want.layout():
            numbers = [at for at in range(len(window.panes)) if f"{key}.{at}" in todo]
            alive = [pane for name, pane in there.items() if name.rpartition(".")[0] == key]
            if not alive and numbers:
                here = f"{target(want.tmux_name)}{free}"
                free += 1
                script += _window(["new-window", "-d", "-t", here], here, key, window, want, host)
                continue
            for at in numbers:
                dead = there.get(f"{key}.{at}")
                if dead is not None:
                    start = ["respawn-pane", "-k", "-t", dead.id]
                    script.append([*start, *_start(window.panes[at], window, want, host)])
                else:
                    here = f"{target(want.tmux_name)}{alive[0].window}"
                    script += _split(here, at, window, want, host)
        host.tmux.command(want.socket, script)


@dataclass(frozen=True, slots=True)
class RemoveSession:
    """Close our panes, and so the session, unless somebody has opened others in it."""

    want: Session

    def describe(self) -> str:
        """The action in words."""
        return f"close our windows of tmux session {self.want.tmux_name}" + _on(self.want.socket)

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.tmux import SESSION_MARK, target

        want = self.want
        here = target(want.tmux_name)
        panes = host.tmux.session(want.socket, want.tmux_name)
        ours = [pane.id for pane in panes if pane.mark or pane.window_mark == HOLDER]
        script = [["set-option", "-u", "-t", here, SESSION_MARK]]
        # By ids, which never move, and pane by pane: a person may have split our windows.
        script += [["kill-pane", "-t", pane] for pane in ours]
        host.tmux.command(want.socket, script)


def _on(socket: str | None) -> str:
    return f" (tmux -L {socket})" if socket else ""


def declared_panes(panes: Iterable[SeenPane]) -> dict[str, SeenPane]:
    """The panes that we made for the spec, by their key."""
    return {
        f"{pane.window_mark.removeprefix('window:')}.{pane.mark}": pane
        for pane in panes
        if pane.window_mark.startswith("window:") and pane.mark
    }


def _mark_window(here: str, mark: str) -> list[str]:
    from reconciler.host.tmux import WINDOW_MARK

    return ["set-option", "-w", "-t", here, WINDOW_MARK, mark]


def _window(
    start: list[str], here: str, key: str, window: Window, want: Session, host: Host
) -> list[list[str]]:
    """Commands for one window with its panes. ``start`` makes it, ``here`` then names it."""
    from reconciler.host.tmux import PANE_MARK

    name = window.name or want.tmux_name
    first = window.panes[0]
    script = [
        [*start, "-n", name.replace("#", "##"), *_start(first, window, want, host)],
        _mark_window(here, f"window:{key}"),
        ["set-option", "-p", "-t", here, PANE_MARK, "0"],
        *_keep_dead(here, first),
    ]
    for at in range(1, len(window.panes)):
        script += _split(here, at, window, want, host)
    return script


def _split(here: str, at: int, window: Window, want: Session, host: Host) -> list[list[str]]:
    from reconciler.host.tmux import PANE_MARK

    pane = window.panes[at]
    return [
        # The new pane becomes the window's active one, so that the window names it.
        ["split-window", "-t", here, *_start(pane, window, want, host)],
        ["set-option", "-p", "-t", here, PANE_MARK, str(at)],
        *_keep_dead(here, pane),
        ["select-layout", "-t", here, window.layout or "tiled"],
    ]


def _keep_dead(here: str, pane: Pane) -> list[list[str]]:
    # What a command said before it ended stays to be read; a shell that was left just goes.
    if pane.command is None:
        return []
    return [["set-option", "-p", "-t", here, "remain-on-exit", "on"]]


def _start(pane: Pane, window: Window, want: Session, host: Host) -> list[str]:
    cwd = pane.cwd or window.cwd or want.cwd
    command = ["--", *pane.command] if pane.command is not None else []
    return [*start_directory(cwd, host), *command]


def _place(name: str, cwd: str | None, host: Host) -> list[str]:
    return ["-n", name.replace("#", "##"), *start_directory(cwd, host)]


def start_directory(cwd: str | None, host: Host) -> list[str]:
    """``-c`` for tmux, which would silently take another folder for one that is missing.

    Raises HostError.
    """
    folder = cwd or host.users.account(None).home
    if cwd is not None:
        status = host.files.status(cwd)
        if status is None:
            words = "is not there; declare it under directories"
            raise HostError(f"the folder {cwd} to start in {words}")
        if not stat.S_ISDIR(status.st_mode):
            raise HostError(f"the folder {cwd} to start in is {sort_of(status)}")
    return ["-c", folder.replace("#", "##")]
