"""The loop from its beginning to its end: it takes the lock, runs, and hands on or lets go.

It must not decide what a pass does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from reconciler.base.errors import DONE, TROUBLE, HostError
from reconciler.core.model import Spec
from reconciler.host.clock import Clock
from reconciler.host.descriptors import raise_limit, usual_limit
from reconciler.host.environment import start_again
from reconciler.host.init import is_parent
from reconciler.host.program import Replaced
from reconciler.host.progress import on_waiting
from reconciler.host.supervisor import Supervisor
from reconciler.output.log import Log
from reconciler.output.text import given
from reconciler.state.folder import Newer, hand_on, turn
from reconciler.state.heartbeat import HeartbeatWriter
from reconciler.watchdog.events import Loop
from reconciler.watchdog.loop import Watchdog

if TYPE_CHECKING:
    from reconciler.cli.context import Context

_PATIENCE = 60.0
"""Seconds that a starting loop waits for a pass that is at work."""
_OF_SPEC = ("AI_CO_HOME", "TMUX_TMPDIR")
"""Variables of the environment by which a spec may mean something else."""


def keep(context: Context, spec: Spec, report: Callable[[str], None]) -> int:
    """Keep the spec until a signal ends it; the exit status.

    When another program was installed meanwhile, or has used the store, this process becomes that
    one. Raises turns.Taken and HostError.
    """
    folder = context.folder(spec)
    supervisor = Supervisor()
    # A pass that starts this loop as a service holds the lock, and waits for this word.
    supervisor.ready("waits for a pass that is at work")

    def taken_over(words: str) -> None:
        report(words)
        context.report(words, "another watchdog goes on in its place")

    with turn(folder, taken_over, _PATIENCE) as lock:
        clock = Clock()
        raise_limit()
        heart = HeartbeatWriter(folder, clock, _call(context, spec))
        context.terminal.wait_for_nobody()
        log = Log(context.terminal, context.options.json, context.options.quiet)
        watchdog = Watchdog(context, spec, heart, log, supervisor)
        on_waiting(watchdog.moved)

        def begun() -> None:
            words = f"{spec.name}: the loop begins, pid {os.getpid()}, {spec.path}"
            words += given(context.about(spec))
            log.event("begin", words, pid=os.getpid(), resources=len(spec.resources))
            supervisor.ready(f"keeps {spec.path}")

        loop = Loop(watchdog, clock, watchdog.parts)
        other: Newer | Replaced | None = None
        try:
            loop.run(begun)
        except (Newer, Replaced) as found:
            # The supervisor's process goes on, as another program, unless that is to end as well.
            other = None if loop.stopping else found
        finally:
            if other is None:
                supervisor.stopping()
                heart.stop()
        if other is not None:
            if isinstance(other, Newer):
                log.event("newer", f"{other}; the program that is installed now takes over", "bad")
            else:
                log.event("replaced", str(other), "change")
            context.terminal.flush()
            _become_other(other, lock)
        goes_on, status = "what it manages goes on", DONE
        if is_parent():
            from reconciler.watchdog.shutdown import end_all

            goes_on = "with the container it has stopped what it manages"
            if not end_all(context, watchdog.spec, log.outcome, loop.asked_to_end):
                goes_on, status = "not all that it manages could be stopped", TROUBLE
        log.event("end", f"{spec.name}: the loop ends; {goes_on}")
        return status


def _call(context: Context, spec: Spec) -> dict[str, Any]:
    """What it was called with, for who wants to mean the same; of what is secret only the names."""
    from reconciler.config.scope import is_secret_setting

    options, users = context.options, context.users
    given = [(word, *word.partition("=")[::2]) for word in options.set]
    files = (word.partition("=")[::2] for word in options.set_file)
    named = options.spec is not None and os.sep not in options.spec
    return {
        "spec": options.spec if named else os.path.abspath(spec.path),
        "set": [word for word, name, value in given if not is_secret_setting(name, value)],
        "hidden": [name for _, name, value in given if is_secret_setting(name, value)],
        "set_file": [f"{name}={os.path.abspath(users.expanded(path))}" for name, path in files],
        "trust": list(map(str, options.trust)),
        "environ": {name: os.environ.get(name) for name in _OF_SPEC},
    }


def _become_other(why: Exception, lock: int) -> NoReturn:
    """Become the program that is installed now; the lock stays ours. Raises HostError."""
    usual_limit()
    try:
        start_again(environ=hand_on(lock))
    except OSError as error:
        raise HostError(f"{why}; it cannot be started: {error.strerror}") from None
