"""The tmux commands that make a session, its windows and its panes, as scripts.

A script runs in one go, see ``Tmux.command``; what exists is named by the ids that tmux has
printed, and what has just been made as the newest. It must not decide what to make: that is the
session kind's.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
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
    window_of,
)

if TYPE_CHECKING:
    from reconciler.base.values import Secret
    from reconciler.host import Host

PANE = "RECONCILE_PANE"
"""Environment variable of what runs in a pane with a command, and of all that comes of it."""
_HOLD = ("sleep", "infinity")
_SIZE = ("-x", "200", "-y", "50")
STAYS = [["set-option", "-s", "exit-unattached", "off"]]
"""The script that keeps a server which nobody looks at. Each option that is set has tmux go through
all sessions, so it is said once for all of them."""
Script = list[list[str]]
_Keys = Collection[str] | None
"""Those of panes, or the names of options; None: all of them."""


def marked(want: Session, here: str, host: Host) -> Script:
    """It is ours, and outlives whoever has it on a screen, whatever people have set for all."""
    return [
        ["set-option", "-t", here, SESSION_MARK, host.owner],
        ["set-option", "-t", here, NAME_MARK, want.tmux_name],
        ["set-option", "-t", here, "destroy-unattached", "off"],
    ]


class Scripts:
    """The scripts that make a session what its spec says, from what is there now.

    Each option has one of its own: one that tmux refuses keeps nothing else from being made.
    """

    def __init__(self, want: Session, host: Host) -> None:
        """Raises UnknownState."""
        name = want.tmux_name
        panes = host.tmux.session(want.socket, name, host.owner)
        made = host.tmux.made_for(want.socket, name, host.owner)
        self.want = want
        self.host = host
        self.there = declared_panes(made)
        self.session_id = panes[0].session_id if panes else ""
        self.here = f"{self.session_id}:" if panes else target(name)
        self.home = home_of(host.owner, name)
        self.missing = not panes
        self.fresh = self.missing and not want.layout()
        """Is it to be made with a window that only holds it open?"""
        self.begun = not self.missing
        """Is it there, or made by a script before?"""
        self.held = holder(one for one in made if one.session_id == self.session_id)

    def made(self, panes: _Keys, options: _Keys) -> list[Script]:
        """With the panes of these keys that do not run, and these options; None: all.

        Raises HostError.
        """
        layout = self.want.layout()
        of_windows = [
            script for key, window in layout for script in self._window(key, window, panes, options)
        ]
        # Some of its options, such as history-limit, hold for what is opened later.
        scripts = [self._held()] if self.fresh else []
        scripts += [*self._options(None, self.here, options), *of_windows]
        if layout and self.held is not None:
            scripts.append([["kill-pane", "-t", self.held.id]])
        return scripts

    def _held(self) -> Script:
        """A new session with a window that only holds it open."""
        want = self.want
        first = [*_environment(want, self.host), *_folder(want.cwd, self.host), "--", *_HOLD]
        marks = mark_pane(newest(self.here), self.home, HOLDER, HOLDER)
        return [*self._session(first), *marks]

    def _session(self, first: Sequence[str]) -> Script:
        """A new session; what its first pane alone is to know stays with that one."""
        want, here = self.want, self.here
        return [
            ["new-session", "-d", "-s", want.tmux_name, *_SIZE, *first],
            ["set-environment", "-u", "-t", here, PANE],
            *marked(want, here, self.host),
        ]

    def _begins_with(self, window: Window, pane: PaneSpec) -> bool:
        """Is it the first pane of a new session that has all that the session begins with, no more?

        Some options of a session, such as history-limit, hold only for what is opened later.
        """
        want = self.want
        apart = (*window.env, *pane.env) or (pane.cwd or window.cwd or want.cwd) != want.cwd
        if self.begun or apart or any(key is None for _, key, _, _ in want.options_of()):
            return False
        self.begun = True
        return True

    def _options(self, of: str | None, here: str, options: _Keys) -> list[Script]:
        """Those of a window, or of the session, that are to be set."""
        scope = () if of is None else ("-w",)
        return [
            [["set-option", *scope, "-t", here, name, value]]
            for words, key, name, value in self.want.options_of()
            if key == of and (options is None or words in options)
        ]

    def _window(self, key: str, window: Window, panes: _Keys, options: _Keys) -> list[Script]:
        """Raises HostError."""
        here = window_of(key, self.session_id, self.there)
        made_new = False
        script: Script = []
        for at, pane in enumerate(window.panes):
            name = f"{key}.{at}"
            old = self.there.get(name)
            if (panes is not None and name not in panes) or (old is not None and not old.dead):
                continue
            start = _start(pane, window, self.want, name, self.host)
            if old is not None:
                made = old.id
                script.append(["respawn-pane", "-k", "-t", made, *start])
            elif here is not None:
                # What is split off becomes the active pane of the window, which then names it.
                made = here
                # There is room for it, whatever small screen a person looks at it with.
                script.append(["resize-window", "-t", made, *_SIZE])
                script.append(["split-window", "-t", made, *start])
            else:
                made = here = newest(self.here)
                made_new = True
                title = literal(window.name or self.want.tmux_name)
                if self._begins_with(window, pane):
                    script += self._session(("-n", title, *start))
                else:
                    script.append(["new-window", "-d", *self._place(), "-n", title, *start])
            script += mark_pane(made, self.home, f"window:{key}", str(at))
            if pane.command is not None:
                # What it said before it ended stays to be read; a shell that was left just goes.
                script.append(["set-option", "-p", "-t", made, "remain-on-exit", "on"])
            if old is None and len(window.panes) > 1:
                script.append(["select-layout", "-t", made, window.layout or "tiled"])
                # Now it has the size of that screen again.
                script.append(["set-option", "-w", "-u", "-t", made, "window-size"])
            script += _typed(pane, window, self.want, made)
        for at in (at for at, pane in enumerate(window.panes) if made_new and pane.focus):
            # The last one is active, and the first comes next.
            script.append(["select-pane", "-t", f"{here}.+{at + 1}"])
        if made_new and window.focus and self.missing:
            script.append(["select-window", "-t", newest(self.here)])
        set_now = self._options(key, here, None if made_new else options) if here else []
        if set_now and window.layout and len(window.panes) > 1:
            set_now.append([["select-layout", "-t", here or "", window.layout]])
        return [script, *set_now] if script else set_now

    def _place(self) -> tuple[str, ...]:
        """Where a new window goes: behind all others, or in the place of what held it open."""
        if not self.begun:
            self.begun = self.fresh = True
            return ("-k", "-t", f"{self.here}{{start}}")
        return ("-a", "-t", newest(self.here))


def _typed(pane: PaneSpec, window: Window, want: Session, made: str) -> Script:
    """What is typed into a new pane, and into no other."""
    if not pane.is_typed_into:
        return []
    lines = (*want.shell_before, *window.shell_before, *pane.shell_before, *pane.type)
    script = []
    for line in lines:
        if line:
            script.append(["send-keys", "-t", made, "-l", "--", line])
        script.append(["send-keys", "-t", made, "Enter"])
    if script:
        # Where a person, or the spec, has them synchronized, all would get it.
        alone = ["-p", "-t", made, "synchronize-panes"]
        script = [["set-option", *alone, "off"], *script, ["set-option", "-u", *alone]]
    return script


def _start(pane: PaneSpec, window: Window, want: Session, key: str, host: Host) -> list[str]:
    # Without a command, tmux would take what a person has as default-command.
    command: Sequence[str] = pane.command or ("/bin/sh", "-c", 'exec "${SHELL:-/bin/sh}" -l')
    if len(command) == 1:
        # One word alone would be a text for a shell.
        command = ("/bin/sh", "-c", 'exec "$0"', *command)
    cwd = pane.cwd or window.cwd or want.cwd
    mark = {} if pane.command is None else {PANE: f"{session_of(want, host)}:{key}"}
    options = _environment(want, host, *window.env, *pane.env)
    return [*options, *environment_options(mark), *_folder(cwd, host), "--", *command]


def _environment(want: Session, host: Host, *more: tuple[str, Secret]) -> list[str]:
    # Also for each pane: where a person has moved it, the session has another one.
    environ = {name: secret.reveal() for name, secret in (*want.env, *more)}
    environ[SESSION] = session_of(want, host)
    return environment_options(environ)


def session_of(want: Session, host: Host) -> str:
    return f"{host.state_dir}/{want.tmux_name}"


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
