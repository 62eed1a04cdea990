"""tmux sessions with their windows and panes.

It must not touch a session that is not ours, nor what a person opened or types in ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from reconciler.fields import Command, Environment, Name, Path, choice


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
    """What a user may write under ``sessions``."""

    session: Name | None = None
    socket: Name | None = None
    cwd: Path | None = None
    env: Environment = ()
    windows: tuple[Window, ...] = ()
    command: Command | None = None
