"""How sessions are made or taken over, and their panes closed with all that has come of them.

It must not decide what to make: that is the session kind's.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.host.descendants import Descendants, end_all, ending
from reconciler.host.process_snapshot import ProcessSnapshot
from reconciler.host.processes import Identity, environment, look_up
from reconciler.host.tmux import (
    HOME_MARK,
    NAME_MARK,
    PANE_MARK,
    SESSION_MARK,
    WINDOW_MARK,
    home_of,
    mark_pane,
)
from reconciler.kinds.session.resource import Session, declared_panes, holder
from reconciler.kinds.session.scripts import PANE, STAYS, Script, Scripts, marked, session_of

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.tmux import Pane

_ENDING = 10.0
"""Seconds that what runs in a pane has to end once that is closed."""


@dataclass(frozen=True, slots=True)
class MakeSession:
    """Make the session with all its windows, or with one that only holds it open."""

    want: Session

    def describe(self) -> str:
        return f"make tmux session {self.want.tmux_name}" + self.want.server

    def scripts(self, host: Host) -> list[Script]:
        """What is still to be done. Raises HostError."""
        return Scripts(self.want, host).made(None, None)


@dataclass(frozen=True, slots=True)
class MakePanes:
    """Make the missing panes, and respawn the dead ones, of a session that is there.

    ``options`` are those that are not as declared, with their values.
    """

    want: Session
    panes: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...] = ()

    def describe(self) -> str:
        words = [
            f"{'respawn' if now == 'dead' else 'make'} pane {pane}" for pane, now in self.panes
        ]
        words += [f"set {option} to {value}" for option, value in self.options]
        return f"in tmux session {self.want.tmux_name}{self.want.server}: " + ", ".join(words)

    def scripts(self, host: Host) -> list[Script]:
        """What is still to be done. Raises HostError."""
        panes, options = ({name for name, _ in some} for some in (self.panes, self.options))
        return Scripts(self.want, host).made(panes, options)


@dataclass(frozen=True, slots=True)
class RemoveSession:
    """Close our panes, and so the session, unless somebody has opened others in it."""

    want: Session

    def describe(self) -> str:
        what = "let go" if self.want.kept else "close our windows"
        return f"{what} of tmux session {self.want.tmux_name}" + self.want.server

    def going(self, host: Host) -> list[Pane]:
        """By ids, which never move, and pane by pane: a person may have split our windows."""
        panes = host.tmux.made_for(self.want.socket, self.want.tmux_name, host.owner)
        held = holder(panes)
        return [one for one in panes if one.mark or one is held]

    def scripts(self, host: Host) -> list[Script]:
        """What is still to be done. Raises UnknownState."""
        want = self.want
        script = []
        panes = host.tmux.session(want.socket, want.tmux_name, host.owner)
        if panes and panes[0].owner == host.owner:
            here = f"{panes[0].session_id}:"
            script = [["set-option", "-u", "-t", here, one] for one in (SESSION_MARK, NAME_MARK)]
        marks = (HOME_MARK, WINDOW_MARK, PANE_MARK) if want.kept else ()
        for one in self.going(host):
            unmarked = [["set-option", "-p", "-u", "-t", one.id, mark] for mark in marks]
            script += unmarked or [["kill-pane", "-t", one.id]]
        return [script] if script else []


class _Trees(Descendants):
    """All that has come of the panes with these marks, by its environment and by who leads it."""

    def __init__(self, marks: Collection[str]) -> None:
        super().__init__(None)
        self._marks = marks

    def look(self, table: ProcessSnapshot) -> list[Identity]:
        uid = os.geteuid()
        users = table.of_user(uid)
        found = {pid for pid in users if environment(pid).get(PANE) in self._marks}
        found = (table.led(found) if found else found) - table.ours - table.carriers(uid).keys()
        return sorted(table.entries[pid].identity for pid in found if pid in table.entries)


SessionAction = MakeSession | MakePanes | RemoveSession


def run_all(actions: Sequence[SessionAction], host: Host) -> list[HostError | None]:
    """Do all of them, those of one server in one call of tmux; an outcome for each."""
    found: list[HostError | None] = [None] * len(actions)
    marks: dict[int, list[str]] = {}
    removed: dict[int, list[str]] = {}
    running: list[Identity] = []
    for at, action in enumerate(actions):
        try:
            if action.want.kept:
                continue
            if isinstance(action, RemoveSession):
                removed[at] = _marks(action, host)
                entries = [look_up(one.pid) for one in action.going(host)]
                running += [entry.identity for entry in entries if entry is not None]
            else:
                marks[at] = _marks(action, host)
        except HostError as error:
            found[at] = error
    _end_trees(marks, host, found)
    todo: dict[str | None, dict[int, list[Script]]] = {}
    for at, action in enumerate(actions):
        try:
            scripts = action.scripts(host) if found[at] is None else []
        except HostError as error:
            found[at] = error
            continue
        if scripts:
            todo.setdefault(action.want.socket, {})[at] = scripts
    for socket, some in todo.items():
        try:
            host.tmux.command(socket, STAYS, *(one for scripts in some.values() for one in scripts))
        except HostError as error:
            for at in some:
                found[at] = error if len(some) == 1 else _alone(actions[at], host, error)
    # What is in them is told by SIGHUP, and what it needs may be about to end as well.
    host.processes.wait(running, host.clock.monotonic() + host.time_to_stop(_ENDING))
    _end_trees(removed, host, found)
    return found


def _marks(action: SessionAction, host: Host) -> list[str]:
    """The marks of those of its panes that end, or have ended, with all that came of them."""
    want = action.want
    if not want.kill_tree:
        return []
    there = declared_panes(host.tmux.made_for(want.socket, want.tmux_name, host.owner))
    runs = [] if isinstance(action, RemoveSession) else [k for k, p in there.items() if not p.dead]
    return [f"{session_of(want, host)}:{key}" for key in want.commands() if key not in runs]


def _end_trees(
    marks: Mapping[int, Collection[str]], host: Host, found: list[HostError | None]
) -> None:
    """End what has come of the panes with these marks; what cannot be ended fails its action."""
    every = {mark for some in marks.values() for mark in some}
    trees = ending(host.processes, _Trees(every), None, "TERM", host.time_to_stop(_ENDING))
    for _, error in end_all(host.processes, [trees] if every else []):
        for at in marks if error is not None else ():
            found[at] = found[at] or error


def _alone(action: SessionAction, host: Host, error: HostError) -> HostError | None:
    """Where one of many has failed: do what this one has still to do by itself."""
    host.tmux.forget()
    try:
        scripts = action.scripts(host)
        if scripts and isinstance(error, UnknownState):
            return error  # Whatever took too long does so again.
        if scripts:
            host.tmux.command(action.want.socket, STAYS, *scripts)
    except HostError as own:
        return own
    return None


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
