"""The loop's heartbeat in the state directory: who it is, and when it last moved.

It must not decide what follows from it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError
from reconciler.base.records import dataclass
from reconciler.host.clock import Clock, boot_id
from reconciler.host.place import put_at
from reconciler.host.processes import Identity, Processes, look_up
from reconciler.host.trust import own_bytes, own_file

_NAME = "loop"
_LAST = 400
"""Where in the file it stands when the last full pass ended, and how long it took; older programs
read what is before it."""
_CALL = 512
"""Where in the file it stands what the loop was called with; older programs read less."""
_LONGEST_CALL = 1 << 20
_BEATS = 3
_PAUSE = 0.02
_PATIENCE = 30.0
"""A loop counts as hung when it has not moved for three intervals and so many seconds."""


@dataclass(frozen=True, slots=True)
class WatchdogHeartbeat:
    """A loop that runs, or hangs.

    ``age`` is in seconds since it moved last. ``begun`` and ``done`` count its full passes.
    ``stopped``: by a signal, so that it does not move until it is told to.
    """

    identity: Identity
    age: float
    every: float
    begun: int
    done: int
    stopped: bool = False

    @property
    def healthy(self) -> bool:
        """Has it moved lately?"""
        return self.age <= _BEATS * self.every + _PATIENCE


def about_loop(loop: WatchdogHeartbeat | None) -> dict[str, Any]:
    """What is told of a loop, as a JSON value; times in seconds."""
    if loop is None:
        return {"running": False}
    return {
        "running": True,
        "healthy": loop.healthy and not loop.stopped,
        "stopped": loop.stopped,
        "pid": loop.identity.pid,
        "moved": round(loop.age, 3),
        "every": loop.every,
        "passes": loop.done,
    }


class HeartbeatWriter:
    """What the loop beats with; the file is there as long as it runs.

    Where the state directory cannot be written to, such as on a file system that has gone
    read-only, it beats in the caller's runtime directory. ``call`` is what it was called with.
    """

    def __init__(self, folder: str, clock: Clock, call: Mapping[str, Any] | None = None) -> None:
        self._call = call
        self._places = [_place(folder), _second_place(folder)]
        self._handles: dict[str, int] = {}
        self._clock = clock
        self._last = -1.0
        self._begun = self._done = 0
        entry = look_up(os.getpid())
        start = entry.identity.start if entry is not None else 0
        self._who = f"{boot_id()} {os.getpid()} {start}"

    def beat(self, every: float) -> None:
        """Say that the loop has moved; at most once a second reaches the file."""
        now = self._clock.monotonic()
        if not 0 <= now - self._last < 1.0:
            self._write(now, every)

    def begin(self, every: float) -> None:
        """A full pass begins."""
        self._begun += 1
        self._write(self._clock.monotonic(), every)

    def done(self, every: float, seconds: float) -> None:
        """The full pass has come to its end, after so many seconds."""
        self._done = self._begun
        self._write(self._clock.monotonic(), every, f"{self._clock.wall():.3f} {seconds:.3f}")

    def _write(self, now: float, every: float, last: str = "") -> None:
        self._last = now
        counts = f"{self._begun:12} {self._done:12}"
        line = f"{self._who} {now:15.3f} {every:12.3f} {counts}\n"
        for place in self._places:
            # A full disk must not end the loop, and the file keeps its place once it is written.
            with suppress(OSError, HostError):
                handle = self._handle(place)
                os.pwrite(handle, line.encode(), 0)
                if last:
                    os.pwrite(handle, last.ljust(_CALL - _LAST - 1).encode(), _LAST)
                return

    def _handle(self, place: str) -> int:
        if place not in self._handles:
            import json

            os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
            # A new one, whatever stands there: nobody else's file is written to.
            put_at(place, b"\n".rjust(_CALL) + json.dumps(self._call).encode(), sync=False)
            self._handles[place] = own_file(place, os.O_WRONLY)
        return self._handles[place]

    def stop(self) -> None:
        """The loop ends in an orderly way."""
        for place, handle in self._handles.items():
            os.close(handle)
            with suppress(OSError):
                os.unlink(place)


def _place(folder: str) -> str:
    return os.path.join(folder, _NAME)


def _second_place(folder: str) -> str:
    """Below the caller's runtime directory, which no full or broken disk can hold."""
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    uid = os.geteuid()
    runtime = "/run" if uid == 0 else f"/run/user/{uid}"
    with suppress(OSError):
        if given.startswith("/") and os.stat(given).st_uid == uid:
            runtime = given
    return f"{runtime}/reconcile/{blake2b(os.fsencode(folder), digest_size=8).hexdigest()}.loop"


def pulse(folder: str, clock: Clock) -> WatchdogHeartbeat | None:
    """The loop of that state directory; None when none runs, or not since this boot."""
    found = _read(_place(folder), clock)
    if found is None or not found.healthy:
        # Its disk may be the one that does not move any more.
        second = _read(_second_place(folder), clock)
        if second is not None and (found is None or second.age < found.age):
            return second
    return found


def _read(place: str, clock: Clock) -> WatchdogHeartbeat | None:
    words = (own_bytes(place, 400) or b"").decode(errors="replace").split()
    try:
        boot, pid, start, moved, every, begun, done = words
        identity = Identity(int(start), int(pid))
        age = clock.monotonic() - float(moved)
        entry = look_up(identity.pid)
        if boot != boot_id() or entry is None or entry.identity != identity:
            return None
        stopped = entry.state == "T"
        return WatchdogHeartbeat(identity, age, float(every), int(begun), int(done), stopped)
    except ValueError:
        return None


def last_pass(folder: str) -> tuple[float, float] | None:
    """When the loop's last full pass ended, in seconds since the epoch, and how long it took."""
    for place in (_place(folder), _second_place(folder)):
        words = (own_bytes(place, _CALL - _LAST, _LAST) or b"").decode(errors="replace").split()
        with suppress(ValueError):
            wall, seconds = words
            return float(wall), float(seconds)
    return None


def call(folder: str) -> dict[str, Any]:
    """What the loop of that state directory was called with, as ``watchdog.run`` tells it.

    Empty where none runs, or an older program does, which tells nothing.
    """
    import json

    for place in (_place(folder), _second_place(folder)):
        with suppress(ValueError):
            found = json.loads(own_bytes(place, _LONGEST_CALL, _CALL) or b"")
            if isinstance(found, dict):
                return found
    return {}


def ask(loop: WatchdogHeartbeat, folder: str, clock: Clock, patience: float) -> bool:
    """Have a loop make a full pass now; has it come to its end within ``patience`` seconds?"""
    last = clock.monotonic() + patience
    Processes(clock).tell([loop.identity], "USR1")
    while clock.monotonic() < last:
        now = pulse(folder, clock)
        if now is None or now.identity != loop.identity:
            return False
        # A pass that was under way already may have looked before we did.
        if now.done > loop.begun:
            return True
        clock.sleep(_PAUSE)
    return False


def end(hung: WatchdogHeartbeat, clock: Clock) -> None:
    """End a loop that hangs; what it manages goes on. Raises HostError when it stays."""
    Processes(clock).kill(hung.identity)
