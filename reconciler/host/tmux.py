"""tmux: what runs on a server, and commands for it.

It must not be asked for anything when no server runs, since asking could start one, and it
never names a session by a prefix. Values reach tmux on standard input, never as arguments.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from reconciler.host.command import AHEAD, PASSED, Begun, Result, begin, find, run
from reconciler.host.environment import note, runtime_folder
from reconciler.host.processes import ended
from reconciler.host.remedy import remedy
from reconciler.host.trust import Untrusted, opened
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
_DEFAULT = "default"
_USUAL = "/tmp"
_HISTORY = 50
"""Lines above those on the screen that are read for the last words of a pane."""
_MISSING = "tmux is not installed"
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
            raise UnknownState(_MISSING, remedy=remedy("apt-get", "install", "tmux"))
        with _sockets(socket) as place:
            if not place.exists():
                return None
            argv = (program, *place.server, "list-panes", "-a", "-F", _FORMAT)
            return begin(argv, timeout=_TIMEOUT, passed=place.handle)

    def _look(self, socket: str | None) -> tuple[Pane, ...]:
        begun = self._begun.pop(socket, None) or self._ask(socket)
        if begun is None:
            return ()
        result = begun.result()
        if result.status != 0:
            if _no_server(result):
                return ()
            with _sockets(socket) as place:
                said = place.in_words(result.complaint)
            raise UnknownState(f"tmux list-panes failed: {said}")
        lines = result.output.decode(errors="replace").split("\n")
        return tuple(pane for line in lines if (pane := _pane(line)) is not None)

    def command(self, socket: str | None, script: Sequence[Sequence[str]]) -> None:
        """Run tmux commands, each a list of words, all of them or (if misread) none.

        Starts the server when there is none, with the environment of managed processes.
        Raises HostError with what tmux said.
        """
        from reconciler.host import scope, start
        from reconciler.host.users import Users

        program = find("tmux")
        if program is None:
            raise HostError(_MISSING, remedy=remedy("apt-get", "install", "tmux"))
        lines = [" ".join(quoted(word) for word in words) for words in script]
        # In one pair of braces: a script that was cut off on its way is not run at all.
        text = "if-shell -F 1 {\n" + "\n".join(lines) + "\n}\n"
        account = Users().account(None)
        environ = _environment(account)
        with _sockets(socket) as place:
            if place.answers():
                argv: tuple[str, ...] = (program, *place.server, "source-file", "-")
                result = run(
                    argv, timeout=_TIMEOUT, send=text.encode(), environ=environ, passed=place.handle
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
                    timeout=_TIMEOUT,
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
            with _sockets(socket) as place:
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
        with _sockets(socket) as place:
            return place.client


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


class _Sockets:
    """The folder below ``base`` where tmux keeps the caller's sockets, and one of them, tmux(1).

    ``handle`` is the folder, which nobody else can exchange, once it was looked at; None where it
    is not there yet. ``spare``: the usual folder is not believed, so this one serves instead.
    """

    def __init__(self, base: str, name: str, spare: bool = False) -> None:
        self.base = base
        self.name = name
        self.path = f"{base}/tmux-{os.geteuid()}"
        self.spare = spare
        self.handle: int | None = None
        try:
            self.handle = opened(
                self.path, os.O_PATH | os.O_DIRECTORY, what="the tmux server there", notes=[]
            )
            status = os.fstat(self.handle)
        except FileNotFoundError:
            return
        except Untrusted as error:
            raise UnknownState(error.reason, remedy=error.remedy) from None
        except OSError as error:
            raise UnknownState(f"cannot look at {self.path}: {error.strerror}") from None
        # Whoever owns it could put a server of his own there, and a tmux client obeys its server.
        if status.st_uid != os.geteuid() or status.st_mode & 0o027:
            self.close()
            raise UnknownState(f"{self.path} is not a folder that is only ours")

    @property
    def server(self) -> tuple[str, ...]:
        """The words that make a tmux client talk to this server, through the folder we hold."""
        return ("-u", "-S", f"/proc/self/fd/{PASSED}/{self.name}")

    @property
    def client(self) -> list[str]:
        """The beginning of a command line for people."""
        if self.spare:
            return ["tmux", "-S", f"{self.path}/{self.name}"]
        return ["tmux"] if self.name == _DEFAULT else ["tmux", "-L", self.name]

    def exists(self) -> bool:
        """Is there a socket? Raises UnknownState where there is something else."""
        if self.handle is None:
            return False
        place = f"{self.path}/{self.name}"
        try:
            status = os.stat(self.name, dir_fd=self.handle)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise UnknownState(f"cannot look at {place}: {error.strerror}") from None
        if not stat.S_ISSOCK(status.st_mode):
            raise UnknownState(f"{place} is not tmux's socket; move it away")
        return True

    def answers(self) -> bool:
        """Does a server listen there?"""
        if not self.exists():
            return False
        from socket import AF_UNIX, socket

        with socket(AF_UNIX) as made:
            made.settimeout(_TIMEOUT)
            return made.connect_ex(f"/proc/self/fd/{self.handle}/{self.name}") == 0

    def tell(self) -> None:
        """Say how to attach to a server that is not where people look for it."""
        if self.spare:
            note(f"tmux runs in {self.path}; attach with: {remedy(*self.client, 'attach')}")

    def in_words(self, text: str) -> str:
        """What tmux has said, with the folder's own name."""
        return text.replace(f"/proc/self/fd/{PASSED}/", f"{self.path}/")

    def close(self) -> None:
        """Let go of the folder."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


@contextmanager
def _sockets(socket: str | None) -> Iterator[_Sockets]:
    """The server's place of that ``-L`` name. Raises UnknownState where none may be believed.

    Where somebody else could exchange the usual folder, or has made it, the server lives in
    ``/run``, or in the caller's own runtime directory. One that was begun there since ``/tmp`` was
    not believed stays until it ends.
    """
    name = socket or _DEFAULT
    base = os.environ.get("TMUX_TMPDIR") or ""
    if not os.path.isdir(base):
        base = _USUAL
    spare = "/run" if os.geteuid() == 0 else runtime_folder()
    place = None
    if base == _USUAL and spare and os.path.lexists(f"{spare}/tmux-{os.geteuid()}/{name}"):
        place = _Sockets(spare, name, spare=True)
        if not place.answers():
            place.close()
            place = None
    try:
        place = place or _Sockets(base, name)
    except UnknownState as error:
        words = f"{error}; no tmux server there is believed"
        if spare is None:
            raise UnknownState(words) from None
        note(words)
        place = _Sockets(spare, name, spare=True)
    try:
        yield place
    finally:
        place.close()


def _environment(account: Account) -> dict[str, str]:
    """What a new server begins with; it must not keep what happens to be in ours."""
    from reconciler.host.launch import environment

    environ = environment(account, ())
    environ["TERM"] = os.environ.get("TERM") or "screen"
    return environ
