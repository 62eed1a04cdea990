"""tmux: what runs on a server, and commands for it.

What we make carries marks, which are options of tmux's own, wherever a person moves it. It must
not be asked for anything when no server runs, since asking could start one, and it never names
a session by a prefix. Values reach tmux on standard input, never as arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.host.command import AHEAD, Begun, Result, begin, find, run
from reconciler.host.processes import ended, signal_name
from reconciler.host.remedy import remedy
from reconciler.host.tmux_socket import sockets

SESSION_MARK = "@reconcile"
"""Session option that says which spec a session belongs to."""
NAME_MARK = "@reconcile_session"
"""Session option with the name that the spec has for it, whatever a person calls it now."""
HOME_MARK = "@reconcile_home"
"""Pane option: the session for which the pane was made, as ``home_of`` has it.

All marks of panes are the pane's own, and go with it wherever a person moves it. Older versions
had no such mark, and ``WINDOW_MARK`` on the window.
"""
WINDOW_MARK = "@reconcile_window"
PANE_MARK = "@reconcile_pane"
LAUNCH_MARK = "@reconcile_launch"
SESSION = "RECONCILE_SESSION"
"""Environment variable of the panes of a session: the state directory of its spec, and its name.

By it the server is known that has them, should it have lost its socket.
"""

_TIMEOUT = 5.0
_MORE = 0.1
"""Seconds that each further script may take."""
_HOOK = "after-show-messages[7077]"
"""The hook through which commands are run: commands of a hook have no hooks themselves, tmux(1)."""
_HISTORY = 50
"""Lines above those on the screen that are read for the last words of a pane."""
_MISSING = "tmux is not installed"
# A blank would do, were it not for what other people may have put into options of their own.
_SEPARATOR = "\u241f"
_FORMATS = {
    "session_id": "#{session_id}",
    "session": "#{session_name}",
    "owner": f"#{{{SESSION_MARK}}}",
    "declared": f"#{{{NAME_MARK}}}",
    "home": f"#{{{HOME_MARK}}}",
    "window": "#{window_index}",
    "window_id": "#{window_id}",
    "window_mark": f"#{{{WINDOW_MARK}}}",
    "id": "#{pane_id}",
    "mark": f"#{{{PANE_MARK}}}",
    "pid": "#{pane_pid}",
    "dead": "#{pane_dead}",
    "killed": "#{pane_dead_signal}",
    "status": "#{pane_dead_status}",
    "launch": f"#{{{LAUNCH_MARK}}}",
    # Whether tmux was given what ``start.for_pane`` gives it.
    "started": "#{m:*start.pane()*,#{pane_start_command}}",
}
_FORMAT = _SEPARATOR.join(_FORMATS.values())


@dataclass(frozen=True, slots=True)
class Pane:
    """One pane in a session; one that is linked to several is there for each.

    Marks are empty where there is none; ``owner`` and ``declared`` are the session's, ``home`` is
    the pane's own. ``pid`` is that of its first process. ``ending`` says how a dead pane's
    process ended. ``replaced``: a person has respawned it with a command of his own.
    """

    session_id: str
    session: str
    owner: str
    declared: str
    home: str
    window: int
    window_id: str
    window_mark: str
    id: str
    mark: str
    pid: int
    dead: bool
    ending: str
    launch: str
    replaced: bool


class _Panes:
    """The panes of one server, by what is asked for."""

    def __init__(self, panes: Sequence[Pane]) -> None:
        self.all = tuple(panes)
        self.by_home: dict[str, list[Pane]] = {}
        self.by_owner: dict[tuple[str, str], list[Pane]] = {}
        self.by_name: dict[str, list[Pane]] = {}
        for one in panes:
            self.by_home.setdefault(one.home, []).append(one)
            self.by_owner.setdefault((one.owner, one.declared), []).append(one)
            self.by_name.setdefault(one.session, []).append(one)


class Tmux:
    """The tmux servers of the caller. ``forget`` before every new look."""

    def __init__(self, state_dir: str, mends: bool) -> None:
        """``mends``: a server that has lost its socket may be told to make it anew by a look."""
        self._state_dir = state_dir
        self._mends = mends
        self._seen: dict[str | None, _Panes | UnknownState] = {}
        self._lost: dict[str | None, UnknownState | None] = {}
        self._begun: dict[str | None, Begun] = {}

    def forget(self) -> None:
        """Drop what was seen, so that the next look is a fresh one."""
        self.let_go()
        self._seen.clear()
        self._lost.clear()

    def begin(self, socket: str | None) -> None:
        """Ask the server now for what ``panes`` will wait for. What goes wrong is told by that."""
        if len(self._begun) < AHEAD and socket not in self._begun:
            with suppress(HostError):
                begun = self._ask(socket)
                if begun is not None:
                    self._begun[socket] = begun

    def let_go(self) -> None:
        """Nobody waits any more for what was begun."""
        while self._begun:
            self._begun.popitem()[1].drop()

    def panes(self, socket: str | None) -> tuple[Pane, ...]:
        """All panes of the server with that ``-L`` name; none when it does not run.

        Raises UnknownState when tmux is missing, or does not answer.
        """
        return self._panes(socket).all

    def _panes(self, socket: str | None) -> _Panes:
        if socket not in self._seen:
            try:
                self._seen[socket] = _Panes(self._look(socket))
            except UnknownState as error:
                self._seen[socket] = error  # A server that hangs is waited for once a look.
        seen = self._seen[socket]
        if isinstance(seen, UnknownState):
            raise seen
        return seen

    def session(self, socket: str | None, name: str, owner: str) -> list[Pane]:
        """The panes in one session of that spec, also where a person has given it another name.

        Where there is none, those in the one of that name, unless it is another of that spec's.
        """
        panes = self._panes(socket)
        found = panes.by_owner.get((owner, name)) or [
            one
            for one in panes.by_name.get(name, ())
            if one.owner != owner or one.declared in ("", name)
        ]
        return list(
            {one.id: one for one in found if one.session_id == found[0].session_id}.values()
        )

    def made_for(self, socket: str | None, name: str, owner: str) -> list[Pane]:
        """The panes with the marks of that session, wherever a person has moved them."""
        panes = self._panes(socket).by_home.get(home_of(owner, name), ())
        return list({one.id: one for one in panes}.values())

    def refuse_lost(self, socket: str | None) -> None:
        """To be called before something is taken for missing: it may be where nobody reaches it.

        Raises UnknownState.
        """
        if socket not in self._lost:
            self._lost[socket] = None
            with sockets(socket) as place:
                try:
                    answers = bool(self.panes(socket))
                    if place.has_others(answers):
                        from reconciler.host import lost_server

                        lost_server.refuse_lost(place, self._state_dir, answers)
                except UnknownState as error:
                    self._lost[socket] = error
        if (lost := self._lost[socket]) is not None:
            raise lost

    def options(
        self, socket: str | None, names: Sequence[str], of: str = "window"
    ) -> dict[str, dict[str, str]]:
        """What holds of these options in each window (or pane) of the server, by its id.

        A flag is ``1`` or ``0``; an option that tmux does not know is empty. Raises UnknownState.
        """
        form = _SEPARATOR.join(f"#{{{name}}}" for name in (f"{of}_id", *names))
        found = {}
        for line in self._listed(socket, self._ask(socket, f"list-{of}s", form)) or ():
            window, *values = line.split(_SEPARATOR)
            if len(values) == len(names):  # Else somebody's own option has broken the line.
                found[window] = dict(zip(names, values, strict=True))
        return found

    def _ask(
        self, socket: str | None, what: str = "list-panes", form: str = _FORMAT
    ) -> Begun | None:
        """What lists the panes, begun; None when no server runs."""
        program = find("tmux")
        if program is None:
            raise UnknownState(_MISSING, remedy=remedy("apt-get", "install", "tmux"))
        with sockets(socket) as place:
            if not place.exists():
                return None
            argv = (program, *place.server, what, "-a", "-F", form)
            return begin(argv, timeout=_TIMEOUT, passed=place.handle)

    def _listed(self, socket: str | None, begun: Begun | None) -> list[str] | None:
        """Its lines; None when no server runs. Raises UnknownState."""
        result = begun.result() if begun is not None else None
        if result is None or (result.status != 0 and _no_server(result)):
            return None
        if result.status == 0:
            return result.output.decode(errors="replace").split("\n")
        with sockets(socket) as place:
            raise UnknownState(f"tmux cannot be asked: {place.in_words(result.complaint)}")

    def _look(self, socket: str | None) -> tuple[Pane, ...]:
        for _ in range(3):
            lines = self._listed(socket, self._begun.pop(socket, None) or self._ask(socket))
            if lines is not None:
                return tuple(pane for line in lines if (pane := _pane(line)) is not None)
            from reconciler.host import lost_server

            with sockets(socket) as place:
                if not lost_server.made_reachable(place, self._mends):
                    return ()
        raise UnknownState("the tmux server loses its socket again and again")

    def command(self, socket: str | None, *scripts: Sequence[Sequence[str]]) -> None:
        """Run tmux commands, each a list of words; of a script up to its first that fails.

        Nothing comes between them, neither another client nor a hook of a person's, so that what
        one has made last is what the next finds as such. Starts the server when there is none,
        with the environment of managed processes. Raises HostError with what tmux said; it does
        not say of which script.
        """
        from reconciler.host import launch, lost_server, scope, start
        from reconciler.host.users import Users

        program = find("tmux")
        if program is None:
            raise HostError(_MISSING, remedy=remedy("apt-get", "install", "tmux"))
        text = ""
        for script in scripts:
            commands = " ; ".join(" ".join(quoted(word) for word in words) for words in script)
            # In one pair of quotes: a script that was cut off on its way is not run at all.
            text += f"set-hook -g {_HOOK} {quoted(commands)} ; "
            text += f"set-hook -R {_HOOK.partition('[')[0]} ; "
        text += f"set-hook -gu {_HOOK}\n"
        timeout = _TIMEOUT + _MORE * len(scripts)
        self._seen.pop(socket, None)
        account = Users().account(None)
        # What a new server begins with: it must not keep what happens to be in ours.
        environ = launch.environment(account, ()) | {"TERM": os.environ.get("TERM") or "screen"}
        with sockets(socket) as place:
            if place.answering() is not None or lost_server.made_reachable(place, mend=True):
                argv: tuple[str, ...] = (program, *place.server, "source-file", "-")
                result = run(
                    argv, timeout=timeout, send=text.encode(), environ=environ, passed=place.handle
                )
            else:
                # By its name: the panes of a server are told where it is. tmux makes the folder.
                # Else unchanged: a loop in a pane must see the environment that a pass sees.
                if place.base != (environ.get("TMUX_TMPDIR") or "/tmp"):
                    environ["TMUX_TMPDIR"] = place.base
                argv = (program, "-u", "-L", place.name, "start-server", ";", "source-file", "-")
                place.tell()
                # Its panes have what it has.
                result = start.run(
                    start.Program(argv, environ, account),
                    timeout=timeout,
                    send=text.encode(),
                    born=lambda _: scope.enter(f"tmux {place.name}"),
                )
            if result.status != 0 or result.errors:
                raise HostError(f"tmux refused: {place.in_words(result.complaint)}")

    def screen(self, socket: str | None, pane: str, lines: int) -> list[str]:
        """The last lines with text in a pane; none when they cannot be had."""
        program = find("tmux")
        if program is None:
            return []
        try:
            with sockets(socket) as place:
                # With some history: what tmux says of a dead pane scrolls the first line away.
                # Wrapped lines are joined, so that a value which was wrapped is known again.
                argv = (
                    *(program, *place.server, "capture-pane", "-p", "-J"),
                    *("-S", f"-{_HISTORY}", "-t", pane, ";"),
                    *("display-message", "-p", "-t", pane, "#{history_size} #{history_limit}"),
                )
                result = run(argv, timeout=_TIMEOUT, passed=place.handle)
        except HostError:
            return []
        *text, sizes = result.output.decode(errors="replace").splitlines() or [""]
        size, _, limit = sizes.partition(" ")
        if not size.isdigit() or int(size) >= min(_HISTORY, int(limit or 0)):
            text = text[1:]  # It may be the rest of a line that begins above.
        said = [line.strip() for line in text if line.strip()]
        return [line for line in said if not line.startswith("Pane is dead")][-lines:]

    def client(self, socket: str | None) -> list[str]:
        """How a person calls tmux for that server. Raises UnknownState."""
        with sockets(socket) as place:
            return place.client


def target(session: str) -> str:
    """How to name a session exactly; without ``=`` tmux takes any session of that prefix."""
    return f"={session}:"


def newest(session: str) -> str:
    """The window behind all others of the session, such as one that was put there just now."""
    return f"{session}{{end}}"


def literal(text: str) -> str:
    """A text where tmux expects a format; only ``#[`` cannot be written there, and is ``##[``."""
    return text.replace("#", "##")


def home_of(owner: str, session: str) -> str:
    """The mark of panes that the spec ``owner`` has made for its session of that name."""
    return f"{owner}/{session}"


def mark_pane(pane: str, home: str, window: str, mark: str) -> list[list[str]]:
    """Commands that mark a pane as ours."""
    marks = ((HOME_MARK, home), (WINDOW_MARK, window), (PANE_MARK, mark))
    return [["set-option", "-p", "-t", pane, name, value] for name, value in marks]


def quoted(word: str) -> str:
    """A word for tmux's own command language, with everything but plain characters escaped."""
    safe = re.sub(
        rb"[^A-Za-z0-9_@%./:=+-]",
        lambda match: b"\\%03o" % match[0][0],
        word.encode("utf-8", "surrogateescape"),
    )
    return f'"{safe.decode("ascii")}"'


def environment_options(environ: Mapping[str, str]) -> list[str]:
    """``-e NAME=VALUE`` for new-session, new-window and their like."""
    return [word for name, value in environ.items() for word in ("-e", f"{name}={value}")]


def _pane(line: str) -> Pane | None:
    try:
        seen: dict[str, Any] = dict(zip(_FORMATS, line.split(_SEPARATOR), strict=True))
        killed, status, started = (seen.pop(name) for name in ("killed", "status", "started"))
        seen["window"], pid = int(seen["window"]), int(seen["pid"])
    except ValueError:
        # A line that somebody's own options have broken cannot be one of ours.
        return None
    # Versions without that mark began panes otherwise.
    seen["replaced"] = bool(seen["home"] and seen["launch"] and started != "1")
    seen["home"] = seen["home"] or (
        home_of(seen["owner"], seen["session"]) if seen["owner"] else ""
    )
    seen["dead"] = seen["dead"] == "1" or ended(pid)  # Its server may not have asked yet.
    ending = f"exit status {status}" if status else ""
    if killed.isdigit():
        ending = f"killed by {signal_name(int(killed))}"
    return Pane(**{**seen, "pid": pid, "ending": ending})


def _no_server(result: Result) -> bool:
    said = result.complaint
    gone = ("No such file", "Connection refused")
    return (
        "no server running" in said
        or "lost server" in said
        or "server exited" in said
        or "no current target" in said  # It has no session left, and is about to end.
        or ("error connecting to" in said and any(word in said for word in gone))
    )
