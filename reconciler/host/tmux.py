"""tmux: what runs on a server, and commands for it.

It must not be asked for anything when no server runs, since asking could start one, and it
never names a session by a prefix. Values reach tmux on standard input, never as arguments.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from reconciler.host.command import AHEAD, Begun, Result, begin, find, run
from reconciler.host.processes import ended
from reconciler.model import HostError, UnknownState
from reconciler.records import dataclass

if TYPE_CHECKING:
    from reconciler.host.users import Account

SESSION_MARK = "@reconcile"
"""Session option that says which spec a session belongs to."""
WINDOW_MARK = "@reconcile_window"
PANE_MARK = "@reconcile_pane"
LAUNCH_MARK = "@reconcile_launch"

_TIMEOUT = 5.0
_MISSING = "tmux is not installed; install it, for example with: apt-get install tmux"
# A blank would do, were it not for what other people may have put into options of their own.
_SEPARATOR = "\u241f"
_FORMAT = _SEPARATOR.join(
    (
        "#{session_name}",
        f"#{{{SESSION_MARK}}}",
        "#{window_index}",
        "#{window_id}",
        f"#{{{WINDOW_MARK}}}",
        "#{pane_id}",
        f"#{{{PANE_MARK}}}",
        "#{pane_pid}",
        "#{pane_dead}",
        "#{pane_dead_signal}",
        "#{pane_dead_status}",
        f"#{{{LAUNCH_MARK}}}",
    )
)


@dataclass(frozen=True, slots=True)
class Pane:
    """One pane. Marks are empty where there is none; ``pid`` is that of its first process.

    ``ending`` says how a dead pane's process ended.
    """

    session: str
    owner: str
    window: int
    window_id: str
    window_mark: str
    id: str
    mark: str
    pid: int
    dead: bool
    ending: str
    launch: str


class Tmux:
    """The tmux servers of the caller. ``forget`` before every new look."""

    def __init__(self) -> None:
        self._seen: dict[str | None, tuple[Pane, ...] | UnknownState] = {}
        self._begun: dict[str | None, Begun] = {}

    def forget(self) -> None:
        """Drop what was seen, so that the next look is a fresh one."""
        self.let_go()
        self._seen.clear()

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
        if socket not in self._seen:
            try:
                self._seen[socket] = self._look(socket)
            except UnknownState as error:
                self._seen[socket] = error  # A server that hangs is waited for once a look.
        seen = self._seen[socket]
        if isinstance(seen, UnknownState):
            raise seen
        return seen

    def session(self, socket: str | None, name: str) -> list[Pane]:
        """The panes of one session; an empty list when there is no such session."""
        return [pane for pane in self.panes(socket) if pane.session == name]

    def _ask(self, socket: str | None) -> Begun | None:
        """What lists the panes, begun; None when no server runs."""
        program = find("tmux")
        if program is None:
            raise UnknownState(_MISSING)
        place = _socket_path(socket)
        if not _own_folder(os.path.dirname(place)):
            return None
        try:
            if not stat.S_ISSOCK(os.stat(place).st_mode):
                raise UnknownState(f"{place} is not tmux's socket; move it away")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise UnknownState(f"cannot look at {place}: {error.strerror}") from None
        argv = (program, "-u", "-S", place, "list-panes", "-a", "-F", _FORMAT)
        return begin(argv, timeout=_TIMEOUT)

    def _look(self, socket: str | None) -> tuple[Pane, ...]:
        begun = self._begun.pop(socket, None) or self._ask(socket)
        if begun is None:
            return ()
        result = begun.result()
        if result.status != 0:
            if _no_server(result):
                return ()
            raise UnknownState(f"tmux list-panes failed: {result.complaint}")
        lines = result.output.decode(errors="replace").split("\n")
        return tuple(pane for line in lines if (pane := _pane(line)) is not None)

    def command(self, socket: str | None, script: Sequence[Sequence[str]]) -> None:
        """Run tmux commands, each a list of words, all of them or (if misread) none.

        Starts the server when there is none, with the environment of managed processes.
        Raises HostError with what tmux said.
        """
        from reconciler.host import start
        from reconciler.host.users import Users

        program = find("tmux")
        if program is None:
            raise HostError(_MISSING)
        lines = [" ".join(quoted(word) for word in words) for words in script]
        # In one pair of braces: a script that was cut off on its way is not run at all.
        text = "if-shell -F 1 {\n" + "\n".join(lines) + "\n}\n"
        place = ("-L", socket) if socket is not None else ()
        argv = (program, "-u", *place, "start-server", ";", "source-file", "-")
        # It may start the server, whose panes have what it has.
        account = Users().account(None)
        begun = start.Program(argv, _environment(account), account)
        result = start.run(begun, timeout=_TIMEOUT, send=text.encode())
        if result.status != 0 or result.errors:
            raise HostError(f"tmux refused: {result.complaint}")

    def screen(self, socket: str | None, pane: str, lines: int) -> list[str]:
        """The last lines with text in a pane; none when they cannot be had."""
        program = find("tmux")
        if program is None:
            return []
        # With some history: what tmux says of a dead pane scrolls the first line away.
        place = (program, "-u", "-S", _socket_path(socket))
        argv = (*place, "capture-pane", "-p", "-S", "-50", "-t", pane)
        try:
            _own_folder(os.path.dirname(_socket_path(socket)))
            result = run(argv, timeout=_TIMEOUT)
        except HostError:
            return []
        text = result.output.decode(errors="replace").splitlines()
        said = [line.strip() for line in text if line.strip()]
        return [line for line in said if not line.startswith("Pane is dead")][-lines:]


def target(session: str) -> str:
    """How to name a session exactly; without ``=`` tmux takes any session of that prefix."""
    return f"={session}:"


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
    words = line.split(_SEPARATOR)
    try:
        (
            session,
            owner,
            window,
            window_id,
            window_mark,
            pane,
            mark,
            pid,
            dead,
            killed,
            status,
            launch,
        ) = words
        return Pane(
            session, owner, int(window), window_id, window_mark, pane, mark, int(pid),
            dead == "1" or ended(int(pid)),  # Its server may not have asked yet.
            f"signal {killed}" if killed else f"exit status {status}" if status else "", launch,
        )  # fmt: skip
    except ValueError:
        # A line that somebody's own options have broken cannot be one of ours.
        return None


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


def _socket_path(socket: str | None) -> str:
    """Where tmux keeps the socket of that ``-L`` name, tmux(1)."""
    base = os.environ.get("TMUX_TMPDIR") or ""
    if not os.path.isdir(base):
        base = "/tmp"
    return f"{base}/tmux-{os.geteuid()}/{socket or 'default'}"


def _own_folder(path: str) -> bool:
    """Is tmux's folder for sockets there? Raises UnknownState when it is not ours alone.

    Whoever owns it could put a server of his own there, and a tmux client obeys its server.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UnknownState(f"cannot look at {path}: {error.strerror}") from None
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if not ours or status.st_mode & 0o027:
        raise UnknownState(
            f"{path} is not a folder that is only ours, so no tmux server there is believed; "
            f"find out who made it, and remove it"
        )
    return True


def _environment(account: Account) -> dict[str, str]:
    """What a new server begins with; it must not keep what happens to be in ours."""
    from reconciler.host.launch import environment

    environ = environment(account, ())
    environ["TERM"] = os.environ.get("TERM") or "screen"
    return environ
