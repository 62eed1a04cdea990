"""tmux sessions with their windows and panes.

It must not touch a session that is not ours, nor what a person opened or types in ours.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass, replace
from reconciler.core.claims import Claim, Key
from reconciler.core.kind import Batched, Completed, Diagnosed, Kind, Prefetched, Running
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Observation,
    Resource,
    not_known,
)
from reconciler.kinds.session.resource import Session, declared_panes, holder, window_of

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
_FLAGS = {"1": "on", "on": "on", "yes": "on", "0": "off", "off": "off", "no": "off"}
"""What tmux takes for a flag, and how it is called; a format shows it as a number."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """Each pane, as ``window.number``: ``running``, ``dead`` or ``absent``; and each option."""

    panes: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()


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
        if want.shell_before and not any(
            pane.is_typed_into for _, one in want.layout() for pane in one.panes
        ):
            yield "shell_before", "no pane of it has a shell to type into"
        if sum(window.focus for window in want.windows) > 1:
            yield "windows", "only one window can have the focus"
        for at, window in enumerate(want.windows):
            if not window.panes:
                words = "a window needs at least one pane; leave 'panes' out for a shell"
                yield f"windows[{at}].panes", words
            elif window.shell_before and not any(one.is_typed_into for one in window.panes):
                yield f"windows[{at}].shell_before", "no pane of it has a shell to type into"
            if sum(pane.focus for pane in window.panes) > 1:
                yield f"windows[{at}].panes", "only one pane of a window can have the focus"
            for number, pane in enumerate(window.panes):
                if pane.shell_before and not pane.is_typed_into:
                    where = f"windows[{at}].panes[{number}].shell_before"
                    yield where, "the pane has a command in place of a shell to type into"

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
            ),
            tuple((words, value) for words, _, _, value in want.options_of()),
        )

    def begin(self, resources: Sequence[Resource[Session]], host: Host) -> None:
        for resource in resources:
            host.tmux.begin(resource.want.socket)

    def observe(
        self, resources: Sequence[Resource[Session]], host: Host
    ) -> Sequence[Observation[SessionState]]:
        named: dict[str | None, set[str]] = {}
        for one in resources:
            if one.present:
                names = (name for _, _, name, _ in one.want.options_of())
                named.setdefault(one.want.socket, set()).update(names)

        @cache
        def options(socket: str | None) -> _Options:
            return host.tmux.options(socket, sorted(named[socket]))

        return [self._look(resource, options, host) for resource in resources]

    def _look(
        self, resource: Resource[Session], options: Callable[[str | None], _Options], host: Host
    ) -> Observation[SessionState]:
        want = resource.want
        try:
            panes = host.tmux.session(want.socket, want.tmux_name, host.owner)
            made = host.tmux.made_for(want.socket, want.tmux_name, host.owner)
            there = declared_panes(made)
            ours = bool(panes) and panes[0].owner == host.owner
            if want.adopt and not ours and resource.present:
                from reconciler.kinds.session.actions import adopt, adopted

                if found := adopted(want, panes):
                    there, ours = found, True
                    if host.remembers:  # Else nothing may be changed.
                        adopt(want, found, panes[0].session_id, host)
            state = SessionState(
                tuple((key, _condition(there.get(key))) for key, _ in self.expected(want).panes),
                tuple(_options_now(want, panes, there, options)) if ours else (),
            )
            wrong = state.panes != self.expected(want).panes or (bool(want.options) and not ours)
            missing = not panes if resource.present else not ours
            if missing or (resource.present and wrong):
                host.tmux.refuse_lost(want.socket)
        except HostError as error:
            return not_known(error)
        if not resource.present:
            left = ours or any(one.mark for one in made) or holder(made) is not None
            return Observation(SessionState()) if left else ABSENT
        if wrong and panes and not ours:
            return not_ours(want.tmux_name, want.socket, host.owner)
        # What a person has moved out of it runs, though the session has ended.
        return Observation(state) if panes or there else ABSENT

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
        found = [Change(f"pane {key}", now, goal) for (key, now), (_, goal) in pairs if now != goal]
        goals = dict(expected.options)
        found += [Change(key, now, goals[key]) for key, now in have.options if now != goals[key]]
        return tuple(found)

    def actions(
        self, resource: Resource[Session], have: SessionState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        # What acts is not loaded where nothing is to be done.
        from reconciler.kinds.session.actions import MakePanes, MakeSession, RemoveSession

        if not resource.present:
            return (RemoveSession(resource.want),)
        if have is None:
            return (MakeSession(resource.want),)
        options = tuple((one.field, one.want) for one in changes if one.field.startswith("option "))
        panes = tuple(one for one in have.panes if one[1] != "running")
        return (MakePanes(resource.want, panes, options),)

    def run_all(self, actions: Sequence[Action], host: Host) -> Sequence[Exception | None]:
        from reconciler.kinds.session.actions import SessionAction, run_all

        return run_all(cast("Sequence[SessionAction]", actions), host)

    def says(self, resource: Resource[Session], host: Host) -> Iterable[Key]:
        want = resource.want
        panes = host.tmux.session(want.socket, want.tmux_name, host.owner)
        return (Key("pane", f"{pane.id} {want.socket or ''}") for pane in panes)

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


_Options = Mapping[str, Mapping[str, str]]
"""What holds of options in each window, by its id."""


def _condition(pane: Pane | None) -> str:
    return "absent" if pane is None else "dead" if pane.dead else "running"


def _options_now(
    want: Session,
    panes: Sequence[Pane],
    there: Mapping[str, Pane],
    options: Callable[[str | None], _Options],
) -> Iterator[tuple[str, str]]:
    """Each declared option of what is there, in the words of the spec where it is as declared.

    Those of a window that a person has taken out of the session are his.
    """
    windows = {key: window_of(key, panes[0].session_id, there) for key, _ in want.layout()}
    for words, key, name, value in want.options_of():
        window = panes[0].window_id if key is None else windows[key]
        seen = options(want.socket).get(window or "")
        if seen is not None:
            same = _FLAGS.get(seen[name], seen[name]) == _FLAGS.get(value, value)
            now = _FLAGS.get(seen[name], seen[name]) if value in _FLAGS else seen[name]
            yield words, value if same else now or "not set"


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
