"""tmux sessions with their windows and panes.

It must not touch a session that is not ours, nor what a person opened or types in ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from reconciler.base.errors import UnknownState
from reconciler.base.records import dataclass, replace
from reconciler.core.kind import Batched, Completed, Diagnosed, Kind, Prefetched, Running
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Claim,
    Key,
    Observation,
    Resource,
    not_known,
)
from reconciler.kinds.session.resource import Session, declared_panes, holder

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.host.processes import Identity
    from reconciler.host.tmux import Pane

_NO_SHELLS = ("nologin", "false", "true", "sync")
"""Shells of accounts that nobody is to log in to, nologin(8), passwd(5)."""
_LAYOUT = (
    r"even-horizontal|even-vertical|main-horizontal|main-vertical|tiled|[0-9a-f]{4},[0-9x,\[\]{}]+"
)
_LAYOUTS = (
    "write even-horizontal, even-vertical, main-horizontal, main-vertical, tiled, or what "
    "tmux list-windows shows"
)


@dataclass(frozen=True, slots=True)
class SessionState:
    """Each pane, as ``window.number``, with ``running``, ``dead`` or ``absent``.

    ``windows`` counts those that other kinds or people opened; None is left alone.
    """

    panes: tuple[tuple[str, str], ...] = ()


class Sessions(Kind[Session, SessionState], Completed, Batched, Prefetched, Running, Diagnosed):
    """The section ``sessions``."""

    section = "sessions"
    resource = Session

    def named(self, want: Session, name: str) -> Session:
        return want if want.session is not None else replace(want, session=name)

    def check(self, want: Session) -> Iterable[tuple[str, str]]:
        name = want.tmux_name
        if (
            any(character in ".:#\\$\u241f" or not character.isprintable() for character in name)
            or name[0] in "=@$%+-!{~^"
        ):
            words = "use letters, digits, blanks, '_' and '-'"
            yield "session", f"tmux cannot keep a session named {name!r}; {words}"
        if want.socket is not None and ("/" in want.socket or want.socket in (".", "..")):
            yield "socket", "is the name that tmux -L takes, not a path"
        for at, window in enumerate(want.windows):
            if window.layout is not None and not re.fullmatch(_LAYOUT, window.layout):
                # Some that it does not know make tmux 3.3 end, with all of its sessions.
                words = f"there is no layout {window.layout!r}; {_LAYOUTS}"
                yield f"windows[{at}].layout", words
        if want.command is not None and want.windows:
            yield "command", "write either command or windows, not both"
        keys = [key for key, _ in want.layout()]
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            yield "windows", f"two windows are named {key!r}"
        for at, window in enumerate(want.windows):
            if window.panes:
                continue
            yield (
                f"windows[{at}].panes",
                "a window needs at least one pane; leave 'panes' out for a shell",
            )

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

    def begin(self, resources: Sequence[Resource[Session]], host: Host) -> None:
        for resource in resources:
            host.tmux.begin(resource.want.socket)

    def observe(
        self, resources: Sequence[Resource[Session]], host: Host
    ) -> Sequence[Observation[SessionState]]:
        return [self._look(resource, host) for resource in resources]

    def _look(self, resource: Resource[Session], host: Host) -> Observation[SessionState]:
        want = resource.want
        try:
            panes = host.tmux.session(want.socket, want.tmux_name, host.owner)
            made = host.tmux.made_for(want.socket, want.tmux_name, host.owner)
            there = declared_panes(made)
            ours = bool(panes) and panes[0].owner == host.owner
            state = self._state(want, there)
            missing = not panes if resource.present else not ours
            if missing or (resource.present and state != self.expected(want)):
                host.tmux.refuse_lost(want.socket)
        except UnknownState as error:
            return not_known(error)
        if not resource.present:
            left = ours or any(one.mark for one in made) or holder(made) is not None
            return Observation(SessionState()) if left else ABSENT
        if state != self.expected(want) and panes and not ours:
            return not_ours(want.tmux_name, want.socket, host.owner)
        # What a person has moved out of it runs, though the session has ended.
        return Observation(state) if panes or there else ABSENT

    def _state(self, want: Session, there: Mapping[str, Pane]) -> SessionState:
        return SessionState(
            tuple(
                (key, "absent" if key not in there else "dead" if there[key].dead else "running")
                for key, _ in self.expected(want).panes
            )
        )

    def watch(
        self, resource: Resource[Session], have: SessionState | None, host: Host
    ) -> Iterable[Identity]:
        from reconciler.host.processes import look_up

        want = resource.want
        if have is None:
            return []
        panes = host.tmux.made_for(want.socket, want.tmux_name, host.owner)
        held = holder(panes)
        # A process in a window is watched by who has started it.
        ours = [one for one in panes if not one.dead and (one is held or one.mark.isdigit())]
        entries = [look_up(pane.pid) for pane in ours]
        return [entry.identity for entry in entries if entry is not None]

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
        # What acts is not loaded where nothing is to be done.
        from reconciler.kinds.session.actions import MakePanes, MakeSession, RemoveSession

        if not resource.present:
            return (RemoveSession(resource.want),)
        if have is None:
            return (MakeSession(resource.want),)
        return (MakePanes(resource.want, tuple(p for p in have.panes if p[1] != "running")),)

    def run_all(self, actions: Sequence[Action], host: Host) -> Sequence[Exception | None]:
        from reconciler.kinds.session.actions import SessionAction, run_all

        return run_all(cast("Sequence[SessionAction]", actions), host)

    def evidence(self, resource: Resource[Session], host: Host) -> str | None:
        """Why a shell may have ended at once."""
        account = host.users.account(None)
        shells = any(
            pane.command is None for _, one in resource.want.layout() for pane in one.panes
        )
        if not shells or os.path.basename(account.shell) not in _NO_SHELLS:
            return None
        return (
            f"a pane without a command is a shell, and the shell of {account.name} is "
            f"{account.shell}; write a command for it, such as [bash, -l]"
        )


def not_ours(session: str, socket: str | None, owner: str) -> Observation[Any]:
    """Why a session is left alone, and what hands it over."""
    from reconciler.host.remedy import remedy
    from reconciler.host.tmux import SESSION_MARK, target

    server = ("-L", socket) if socket else ()
    words = ("set-option", "-t", target(session), SESSION_MARK, owner)
    return not_known(
        UnknownState(
            f"tmux session {session} is there but was not made by this spec, so it is left alone; "
            "rename it, or hand it over",
            remedy=remedy("tmux", *server, *words),
        )
    )


KIND = Sessions()
