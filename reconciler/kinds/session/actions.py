"""How a session, its windows and its panes are made and closed, by scripts of tmux commands.

A script runs in one go, see ``Tmux.command``; what exists is named by the ids that tmux has
printed, and what has just been made as the newest. It must not decide what to make: that is the
session kind's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.host.descendants import Descendants, end_all, ending
from reconciler.host.process_snapshot import ProcessSnapshot
from reconciler.host.processes import Identity, environment, look_up
from reconciler.host.tmux import (
    NAME_MARK,
    SESSION,
    SESSION_MARK,
    environment_options,
    home_of,
    literal,
    mark_pane,
    newest,
    target,
)
from reconciler.host.walk import sort_of
from reconciler.kinds.session.resource import (
    HOLDER,
    PaneSpec,
    Session,
    Window,
    declared_panes,
    holder,
)

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.tmux import Pane

_PANE = "RECONCILE_PANE"
"""Environment variable of what runs in a pane with a command, and of all that comes of it."""
_HOLD = ("sleep", "infinity")
_ENDING = 10.0
"""Seconds that what runs in a pane has to end once that is closed."""
_SIZE = ("-x", "200", "-y", "50")


@dataclass(frozen=True, slots=True)
class MakeSession:
    """Make the session with all its windows, or with one that only holds it open."""

    want: Session

    def describe(self) -> str:
        return f"make tmux session {self.want.tmux_name}" + _on(self.want.socket)

    def script(self, host: Host) -> Script:
        """What is still to be done. Raises HostError."""
        want = self.want
        if want.layout():
            return windows(want, None, host)
        there = host.tmux.session(want.socket, want.tmux_name, host.owner)
        return held(want, host) if not there else []


@dataclass(frozen=True, slots=True)
class MakePanes:
    """Make the missing panes, and respawn the dead ones, of a session that is there."""

    want: Session
    panes: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        words = (
            f"{'respawn' if now == 'dead' else 'make'} pane {pane}" for pane, now in self.panes
        )
        return f"in tmux session {self.want.tmux_name}{_on(self.want.socket)}: " + ", ".join(words)

    def script(self, host: Host) -> Script:
        """What is still to be done. Raises HostError."""
        return windows(self.want, {pane for pane, _ in self.panes}, host)


@dataclass(frozen=True, slots=True)
class RemoveSession:
    """Close our panes, and so the session, unless somebody has opened others in it."""

    want: Session

    def describe(self) -> str:
        return f"close our windows of tmux session {self.want.tmux_name}" + _on(self.want.socket)

    def going(self, host: Host) -> list[Pane]:
        """By ids, which never move, and pane by pane: a person may have split our windows."""
        panes = host.tmux.made_for(self.want.socket, self.want.tmux_name, host.owner)
        held = holder(panes)
        return [one for one in panes if one.mark or one is held]

    def script(self, host: Host) -> Script:
        """What is still to be done. Raises UnknownState."""
        want = self.want
        script = []
        panes = host.tmux.session(want.socket, want.tmux_name, host.owner)
        if panes and panes[0].owner == host.owner:
            here = f"{panes[0].session_id}:"
            script = [["set-option", "-u", "-t", here, one] for one in (SESSION_MARK, NAME_MARK)]
        return script + [["kill-pane", "-t", one.id] for one in self.going(host)]


class _Trees(Descendants):
    """All that has come of the panes with these marks, by its environment and by who leads it."""

    def __init__(self, marks: Collection[str]) -> None:
        super().__init__(None)
        self._marks = marks

    def look(self, table: ProcessSnapshot) -> list[Identity]:
        uid = os.geteuid()
        users = table.of_user(uid)
        found = {pid for pid in users if environment(pid).get(_PANE) in self._marks}
        found = (table.led(found) if found else found) - table.ours - table.carriers(uid).keys()
        return sorted(table.entries[pid].identity for pid in found if pid in table.entries)


SessionAction = MakeSession | MakePanes | RemoveSession
Script = list[list[str]]


def run_all(actions: Sequence[SessionAction], host: Host) -> list[HostError | None]:
    """Do all of them, those of one server in one call of tmux; an outcome for each."""
    found: list[HostError | None] = [None] * len(actions)
    marks: dict[int, list[str]] = {}
    removed: dict[int, list[str]] = {}
    running: list[Identity] = []
    for at, action in enumerate(actions):
        try:
            if isinstance(action, RemoveSession):
                removed[at] = _marks(action, host)
                entries = [look_up(one.pid) for one in action.going(host)]
                running += [entry.identity for entry in entries if entry is not None]
            else:
                marks[at] = _marks(action, host)
        except HostError as error:
            found[at] = error
    _end_trees(marks, host, found)
    scripts: dict[str | None, dict[int, Script]] = {}
    for at, action in enumerate(actions):
        try:
            script = action.script(host) if found[at] is None else []
        except HostError as error:
            found[at] = error
            continue
        if script:
            scripts.setdefault(action.want.socket, {})[at] = script
    for socket, some in scripts.items():
        try:
            host.tmux.command(socket, *some.values())
        except HostError as error:
            for at in some:
                found[at] = error if len(some) == 1 else _alone(actions[at], host, error)
    # What is in them is told by SIGHUP, and what it needs may be about to end as well.
    host.processes.wait(running, host.clock.monotonic() + _ENDING)
    _end_trees(removed, host, found)
    return found


def _marks(action: SessionAction, host: Host) -> list[str]:
    """The marks of those of its panes that end, or have ended, with all that came of them."""
    want = action.want
    if not want.kill_tree:
        return []
    there = declared_panes(host.tmux.made_for(want.socket, want.tmux_name, host.owner))
    runs = [] if isinstance(action, RemoveSession) else [k for k, p in there.items() if not p.dead]
    return [_pane_mark(want, key, host) for key in want.commands() if key not in runs]


def _pane_mark(want: Session, key: str, host: Host) -> str:
    return f"{host.state_dir}/{want.tmux_name}:{key}"


def _end_trees(
    marks: Mapping[int, Collection[str]], host: Host, found: list[HostError | None]
) -> None:
    """End what has come of the panes with these marks; what cannot be ended fails its action."""
    every = {mark for some in marks.values() for mark in some}
    trees = ending(host.processes, _Trees(every), None, "TERM", _ENDING)
    for _, error in end_all(host.processes, [trees] if every else []):
        for at in marks if error is not None else ():
            found[at] = found[at] or error


def _alone(action: SessionAction, host: Host, error: HostError) -> HostError | None:
    """Where one of many has failed: do what this one has still to do by itself."""
    host.tmux.forget()
    try:
        script = action.script(host)
        if script and isinstance(error, UnknownState):
            return error  # Whatever took too long does so again.
        if script:
            host.tmux.command(action.want.socket, script)
    except HostError as own:
        return own
    return None


def _on(socket: str | None) -> str:
    return f" (tmux -L {socket})" if socket else ""


def held(want: Session, host: Host) -> Script:
    """The session with one window, which only holds it open. Raises HostError."""
    name = want.tmux_name
    first = [*_environment(want, host), *_folder(want.cwd, host), "--", *_HOLD]
    made = newest(target(name))
    marks = mark_pane(made, home_of(host.owner, name), HOLDER, HOLDER)
    return [*_session(want, first, host), *marks]


def windows(want: Session, todo: Collection[str] | None, host: Host) -> Script:
    """The panes of these keys, or of all, that do not run, and the session if it is missing.

    Raises HostError.
    """
    name = want.tmux_name
    home = home_of(host.owner, name)
    there = declared_panes(host.tmux.made_for(want.socket, name, host.owner))
    panes = host.tmux.session(want.socket, name, host.owner)
    here = f"{panes[0].session_id}:" if panes else target(name)
    script: list[list[str]] = []
    for key, window in want.layout():
        keys = [f"{key}.{at}" for at in range(len(window.panes))]
        alive = [there[one] for one in keys if one in there]
        window_id = next((p.window_id for p in alive if f"{p.session_id}:" == here), None)
        for at, pane in enumerate(window.panes):
            dead = there.get(keys[at])
            if (todo is not None and keys[at] not in todo) or (dead is not None and not dead.dead):
                continue
            start = _start(pane, window, want, keys[at], host)
            if dead is not None:
                made = dead.id
                script.append(["respawn-pane", "-k", "-t", made, *start])
            elif window_id is not None:
                # What is split off becomes the active pane of the window, which then names it.
                made = window_id
                # There is room for it, whatever small screen a person looks at it with.
                script.append(["resize-window", "-t", made, *_SIZE])
                script.append(["split-window", "-t", made, *start])
            else:
                made = window_id = newest(here)
                start = ["-n", literal(window.name or name), *start]
                if panes or script:
                    script.append(["new-window", "-d", "-a", "-t", made, *start])
                else:
                    script += _session(want, start, host)
            script += mark_pane(made, home, f"window:{key}", str(at))
            if pane.command is not None:
                # What it said before it ended stays to be read; a shell that was left just goes.
                script.append(["set-option", "-p", "-t", made, "remain-on-exit", "on"])
            if dead is None and len(window.panes) > 1:
                script.append(["select-layout", "-t", made, window.layout or "tiled"])
                # Now it has the size of that screen again.
                script.append(["set-option", "-w", "-u", "-t", made, "window-size"])
    return script


def _session(want: Session, first: Sequence[str], host: Host) -> Script:
    """A new session with its first pane.

    It outlives whoever has it on a screen, whatever people have set for all of their sessions.
    """
    here = target(want.tmux_name)
    return [
        ["new-session", "-d", "-s", want.tmux_name, *_SIZE, *first],
        # It is the first pane's alone; what people open in the session is theirs.
        ["set-environment", "-t", here, "-u", _PANE],
        ["set-option", "-t", here, SESSION_MARK, host.owner],
        ["set-option", "-t", here, NAME_MARK, want.tmux_name],
        ["set-option", "-t", here, "destroy-unattached", "off"],
        ["set-option", "-s", "exit-unattached", "off"],
    ]


def _start(pane: PaneSpec, window: Window, want: Session, key: str, host: Host) -> list[str]:
    # Without a command, tmux would take what a person has as default-command.
    command: Sequence[str] = pane.command or ("/bin/sh", "-c", 'exec "${SHELL:-/bin/sh}" -l')
    if len(command) == 1:
        # One word alone would be a text for a shell.
        command = ("/bin/sh", "-c", 'exec "$0"', *command)
    cwd = pane.cwd or window.cwd or want.cwd
    mark = {} if pane.command is None else {_PANE: _pane_mark(want, key, host)}
    options = [*_environment(want, host), *environment_options(mark)]
    return [*options, *_folder(cwd, host), "--", *command]


def _environment(want: Session, host: Host) -> list[str]:
    # Also for each pane: where a person has moved it, the session has another one.
    environ = {name: secret.reveal() for name, secret in want.env}
    environ[SESSION] = f"{host.state_dir}/{want.tmux_name}"
    return environment_options(environ)


def _folder(cwd: str | None, host: Host) -> list[str]:
    """``-c`` for tmux, which would silently take another folder for one that is missing.

    Raises HostError.
    """
    folder = cwd or host.users.account(None).home
    if cwd is not None:
        status = host.files.status(cwd)
        if status is None:
            words = "is not there; declare it under directories"
            raise HostError(f"the folder {cwd} to start in {words}")
        if "#[" in cwd:
            raise HostError(
                f"the folder {cwd} to start in has '#[' in its name, which tmux does not take"
            )
        if not stat.S_ISDIR(status.st_mode):
            raise HostError(f"the folder {cwd} to start in is {sort_of(status)}")
    return ["-c", literal(folder)]
