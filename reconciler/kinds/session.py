"""tmux sessions with their windows and panes.

It must not touch a session that is not ours, nor what a person opened or types in ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reconciler.fields import Command, Environment, Name, Path
from reconciler.model import (
    ABSENT,
    Action,
    Change,
    Claim,
    HostError,
    Key,
    Kind,
    Observation,
    Resource,
    UnknownState,
)

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
class SessionState:
    """Each pane, as ``window.number``, with ``running``, ``dead`` or ``absent``.

    ``windows`` counts those that other kinds or people opened; None is left alone.
    """

    panes: tuple[tuple[str, str], ...] = ()


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
        there = _declared(host.tmux.session(want.socket, want.tmux_name))
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
    """Close our windows, and so the session, unless somebody has opened others in it."""

    want: Session

    def describe(self) -> str:
        """The action in words."""
        return f"close tmux session {self.want.tmux_name}" + _on(self.want.socket)

    def run(self, host: Host) -> None:
        """Raises HostError."""
        from reconciler.host.tmux import SESSION_MARK, target

        want = self.want
        here = target(want.tmux_name)
        panes = host.tmux.session(want.socket, want.tmux_name)
        ours = {pane.window for pane in panes if pane.window_mark}
        script = [["set-option", "-u", "-t", here, SESSION_MARK]]
        script += [["kill-window", "-t", f"{here}{window}"] for window in sorted(ours)]
        host.tmux.command(want.socket, script)


class Sessions(Kind[Session, SessionState]):
    """The section ``sessions``."""

    name = "session"
    section = "sessions"
    resource = Session

    def named(self, want: Session, name: str) -> Session:
        return want if want.session is not None else replace(want, session=name)

    def check(self, want: Session) -> Iterable[tuple[str, str]]:
        name = want.tmux_name
        if any(character in ".:#" for character in name) or name[0] in "=@$%+-!{~^":
            words = "use letters, digits, blanks, '_' and '-'"
            yield "session", f"tmux cannot keep a session named {name!r}; {words}"
        if want.socket is not None and ("/" in want.socket or want.socket in (".", "..")):
            yield "socket", "is the name that tmux -L takes, not a path"
        if want.command is not None and want.windows:
            yield "command", "write either command or windows, not both"
        keys = [key for key, _ in want.layout()]
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            yield "windows", f"two windows are named {key!r}"
        if any(not window.panes for window in want.windows):
            yield "windows", "a window needs at least one pane; leave 'panes' out for a shell"

    def claims(self, want: Session) -> Iterable[Claim]:
        return (Claim(Key("tmux session", f"{want.socket or 'default'}/{want.tmux_name}")),)

    def uses(self, want: Session) -> Iterable[Key]:
        folders = [want.cwd]
        for window in want.windows:
            folders += [window.cwd, *(pane.cwd for pane in window.panes)]
        return [Key("path", folder) for folder in dict.fromkeys(folders) if folder is not None]

    def expected(self, want: Session) -> SessionState:
        return SessionState(
            tuple(
                (f"{key}.{at}", "running")
                for key, window in want.layout()
                for at in range(len(window.panes))
            )
        )

    def observe(
        self, resources: Sequence[Resource[Session]], host: Host
    ) -> Sequence[Observation[SessionState]]:
        return [self._look(resource, host) for resource in resources]

    def _look(self, resource: Resource[Session], host: Host) -> Observation[SessionState]:
        want = resource.want
        try:
            panes = host.tmux.session(want.socket, want.tmux_name)
        except UnknownState as error:
            return Observation(unknown=str(error))
        if not panes:
            return ABSENT
        ours = panes[0].owner == host.owner
        if not resource.present:
            return Observation(SessionState()) if ours else ABSENT
        there = _declared(panes)
        expected = self.expected(want)
        seen = tuple(
            (key, "absent" if key not in there else "dead" if there[key].dead else "running")
            for key, _ in expected.panes
        )
        if seen != expected.panes and not ours:
            return Observation(unknown=not_ours(want.tmux_name, want.socket, host.owner))
        return Observation(SessionState(seen))

    def changes(
        self, expected: SessionState | None, have: SessionState | None
    ) -> tuple[Change, ...]:
        if expected is None or have is None:
            if expected is have:
                return ()
            words = ("absent", "present") if have is None else ("present", "absent")
            return (Change("state", *words),)
        pairs = zip(have.panes, expected.panes, strict=True)
        wrong = ((key, now, goal) for (key, now), (_, goal) in pairs if now != goal)
        return tuple(Change(f"pane {key}", now, goal) for key, now, goal in wrong)

    def actions(
        self, resource: Resource[Session], have: SessionState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        if not resource.present:
            return (RemoveSession(resource.want),)
        if have is None:
            return (MakeSession(resource.want),)
        return (MakePanes(resource.want, tuple(p for p in have.panes if p[1] != "running")),)


def not_ours(session: str, socket: str | None, owner: str) -> str:
    """Why a session is left alone, and what hands it over."""
    server = f" -L {socket}" if socket else ""
    return (
        f"tmux session {session} is there but was not made by this spec, so it is left alone; "
        f"rename it, or hand it over with: tmux{server} set-option -t '={session}:' @reconcile "
        f"{owner}"
    )


def _on(socket: str | None) -> str:
    return f" (tmux -L {socket})" if socket else ""


def _declared(panes: Iterable[SeenPane]) -> dict[str, SeenPane]:
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
    if cwd is not None and host.files.status(cwd) is None:
        raise HostError(f"the folder {cwd} to start in is not there; declare it under directories")
    return ["-c", folder.replace("#", "##")]


KIND = Sessions()
