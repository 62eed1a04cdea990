"""What a user may write about a tmux session, and how its panes are marked. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

from reconciler.base.records import dataclass, field
from reconciler.core.fields import Command, Environment, Flag, Name, Parsed, Path

if TYPE_CHECKING:
    from reconciler.host.tmux import Pane as SeenPane

HOLDER = "holder"
"""Mark of a window that only keeps a session open until a process moves in."""


def _lines(value: object) -> tuple[str, ...]:
    # What tmux takes is not loaded where nothing is to be read.
    from reconciler.kinds.session.options import parse_lines

    return parse_lines(value)


def _session_options(value: object) -> Options:
    from reconciler.kinds.session.options import parse_options

    return parse_options(value, of_window=False)


def _window_options(value: object) -> Options:
    from reconciler.kinds.session.options import parse_options

    return parse_options(value, of_window=True)


Options = tuple[tuple[str, str], ...]
_TEXT = {"type": "string", "minLength": 1}
_LINES = {"oneOf": [_TEXT, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_OPTIONS = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
Lines = Annotated[tuple[str, ...], Parsed(_lines, _LINES, secrets=True)]
SessionOptions = Annotated[Options, Parsed(_session_options, _OPTIONS, secrets=True)]
WindowOptions = Annotated[Options, Parsed(_window_options, _OPTIONS, secrets=True)]


@dataclass(frozen=True, slots=True)
class PaneSpec:
    """One pane; without a command it is a shell."""

    command: Command | None = None
    """A list of arguments, or a string for sh -c."""
    cwd: Path | None = None
    """The folder in which it begins."""
    type: Lines = ()
    """What is typed into it once, when it is made: a line, or a list of lines."""
    shell_before: Lines = ()
    """What is typed into it before that."""
    env: Environment = ()
    """Variables of its environment, with those of its window and session."""
    focus: Flag = False
    """Is it the active pane of its window when that is made?"""

    @property
    def is_typed_into(self) -> bool:
        """Does what is typed into every shell reach it?"""
        return self.command is None or bool(self.type)


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
    options: WindowOptions = ()
    """Options of tmux for it, such as main-pane-height or synchronize-panes."""
    shell_before: Lines = ()
    """What is typed into each of its shells, before what their panes have."""
    env: Environment = ()
    """Variables of its panes, with those of the session."""
    focus: Flag = False
    """Is it the active window when the session is made?"""


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
    options: SessionOptions = ()
    """Options of tmux for it, such as mouse or history-limit."""
    shell_before: Lines = ()
    """What is typed into each of its shells, before what their windows and panes have."""
    adopt: Flag = False
    """Is a session of that name which no spec has made taken over as it is, in its order?"""
    kill_tree: Flag = True
    """Does all that the command of a pane has started end with it?"""
    kept: bool = field(default=False, metadata={"written": False})
    """Is what runs in it left when it is taken out, since it was there before?"""

    @property
    def tmux_name(self) -> str:
        """The session's name in tmux."""
        return self.session or ""

    @property
    def server(self) -> str:
        """Its server, behind its name."""
        return f" (tmux -L {self.socket})" if self.socket else ""

    def layout(self) -> tuple[tuple[str, Window], ...]:
        """Its windows, each with the key that marks it: its name, or else its place.

        Those with the name of an earlier one have a number behind it.
        """
        windows = self.windows
        if self.command is not None:
            windows = (Window(self.session, panes=(PaneSpec(self.command),)),)
        taken = {window.name for window in windows}
        keys: list[str] = []
        for at, window in enumerate(windows):
            name = key = window.name or str(at)
            number = 1
            while key in keys or (key in taken and key != window.name):
                number += 1
                key = f"{name}#{number}"
            keys.append(key)
        return tuple(zip(keys, windows, strict=True))

    def commands(self) -> list[str]:
        """The keys of its panes that have a command."""
        return [
            f"{key}.{at}"
            for key, window in self.layout()
            for at, pane in enumerate(window.panes)
            if pane.command is not None
        ]

    def options_of(self) -> Iterator[tuple[str, str | None, str, str]]:
        """The options of it and of its windows: how they are called, window, name and value."""
        for name, value in self.options:
            yield f"option {name}", None, name, value
        for key, window in self.layout():
            for name, value in window.options:
                yield f"option {name} of window {key}", key, name, value


def declared_panes(panes: Iterable[SeenPane]) -> dict[str, SeenPane]:
    """The panes that we made for the spec, by their key."""
    return {
        f"{pane.window_mark.removeprefix('window:')}.{pane.mark}": pane
        for pane in panes
        if pane.window_mark.startswith("window:") and pane.mark
    }


def window_of(key: str, session: str, there: Mapping[str, SeenPane]) -> str | None:
    """The id of the window with that key; None where it is not in the session of that id."""
    mine = (pane for name, pane in there.items() if name.rpartition(".")[0] == key)
    return next((pane.window_id for pane in mine if pane.session_id == session), None)


def holder(panes: Iterable[SeenPane]) -> SeenPane | None:
    """The pane that keeps a session open.

    Older versions marked its window only, which a person may have split: then it is the oldest.
    """
    found = [one for one in panes if one.window_mark == HOLDER and one.mark in (HOLDER, "")]
    return min(found, key=lambda one: int(one.id[1:]), default=None)
