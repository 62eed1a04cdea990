"""What may not be written of a process although each field is valid by itself. Pure."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from difflib import get_close_matches

from reconciler.host.launch import STREAMS
from reconciler.kinds.process.resource import READY_FORMS, Process, Ready, Restart


def wrong_in(want: Process) -> Iterable[tuple[str, str]]:
    """What is wrong across the fields: (field, message)."""
    for name in ("log", "stderr") if want.session is not None else ():
        if getattr(want, name) is not None:
            yield name, "is for daemons; what runs in a session writes to its window"
    if want.log is not None and want.log.stderr is not None and want.stderr is not None:
        yield "stderr", "stands there twice; take one of stderr and log.stderr out"
    if want.log_path is not None and want.log_path == want.error_path:
        yield "stderr", "is the same file as the log; leave it out"
    if want.log_path in STREAMS and want.log is not None and want.log.max_size is not None:
        yield "log.max_size", f"is for files; {want.log_path} is kept by who runs the container"
    for name in want.secret:
        if name not in dict(want.env):
            near = get_close_matches(name, dict(want.env), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield "secret", f"{name!r} is no variable of env{hint}"
    if want.restart.success != Restart().success and want.restart.when == "always":
        yield "restart.success", "says nothing with when: always; write when: on_failure"
    if want.match is not None:
        ways = (want.match.cmdline, want.match.exe, want.match.pidfile)
        if sum(way is not None for way in ways) != 1:
            yield "match", "needs exactly one of cmdline, exe and pidfile"
    if want.restart.backoff.factor < 1:
        yield "restart.backoff.factor", "must be at least 1; pauses do not shrink"
    if want.restart.backoff.max < want.restart.backoff.initial:
        yield "restart.backoff.max", "must not be shorter than backoff.initial"
    if "/" in want.command[0] and not want.command[0].startswith("/"):
        yield "command", f"{want.command[0]!r} is not absolute; write its whole path"
    if f"SIG{want.stop.signal}" not in signal.Signals.__members__:
        yield (
            "stop.signal",
            f"there is no signal {want.stop.signal!r}; write TERM, INT, QUIT or HUP",
        )
    if want.cgroup is not None and not want.cgroup.limits:
        yield "cgroup", "needs at least one of memory_max, cpu_max and pids_max"
    if want.ready is not None:
        yield from _wrong_in_ready(want, want.ready)
    if want.limits is not None and not want.limits.used and want.limits.age is None:
        yield "limits", "needs at least one of memory, cpu, open_files, threads and age"


def _wrong_in_ready(want: Process, ready: Ready) -> Iterable[tuple[str, str]]:
    forms = f"{', '.join(READY_FORMS[:-1])} and {READY_FORMS[-1]}"
    if len(ready.forms) != 1:
        yield "ready", f"needs exactly one of {forms}"
    if want.session is not None and ready.notify:
        yield "ready.notify", "is for daemons; take another form of ready in a session"
    if want.session is not None and ready.log is not None and ready.log.path is None:
        yield "ready.log", "needs a path; what runs in a session writes to its window"
    if ready.log is not None and (ready.log.path or want.log_path) in STREAMS:
        yield "ready.log", f"cannot read {ready.log.path or want.log_path}; let it log to a file"
    if ready.tcp is not None and (ready.tcp.address is None) == (ready.tcp.unix is None):
        yield "ready.tcp", "needs one of address and unix"
