"""The spec that a loop keeps: taken anew when it has changed, or else the last good one.

It must not compile it in this process, nor look at the host beyond the files it was made from.
What is compared is what was seen before the files were read, so that no edit is missed, whenever
it is made; and a file is not taken while somebody writes to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from reconciler.host.clock import Clock
from reconciler.host.supervisor import Supervisor
from reconciler.model import BeingWritten, Facts, HostError, Spec
from reconciler.session import Session
from reconciler.spec.aside import Invalid
from reconciler.views.log import Log

_STILL = 1.0
"""Seconds without a change after which a changed file is read."""
_PATIENCE = 5.0
"""Seconds for which passes are held back while the spec is being changed."""

Seen = tuple[Facts, tuple[tuple[str, int, int, int, int, int] | str, ...]]


class Wait(NamedTuple):
    """What becomes of a pass: is it ``held`` back, and in how many seconds is the next (0: any)."""

    held: bool
    seconds: float


_GO_ON = Wait(False, 0.0)


class Kept:
    """The spec as it is kept now; ``taken`` is told of every one, the first as well.

    ``watch`` is given the files whose changes are to be noticed.
    """

    def __init__(
        self,
        session: Session,
        spec: Spec,
        log: Log,
        supervisor: Supervisor,
        clock: Clock,
        taken: Callable[[Spec], None],
        watch: Callable[[Sequence[str]], None],
    ) -> None:
        self.spec = spec
        self._session = session
        self._log = log
        self._supervisor = supervisor
        self._clock = clock
        self._taken = taken
        self._watch = watch
        self._wrong = ""
        """What is wrong with the file as it is now; empty: nothing is."""
        self._files = spec.files
        self._seen: Seen | None = None
        """What the spec was made from, as seen before it was read; None: not known yet."""
        self._changed: float | None = None
        """Since when what is there is something else; None: it is not."""
        self._last: Seen | None = None
        self._since = 0.0
        """How it looked last, and since when."""
        self._waits = ""
        """Why it is not read yet, where passes are held back no longer."""
        taken(spec)
        watch(self._files)

    def reload(self, asked: bool) -> Wait:
        """Take a changed spec once it is whole, or keep the last good one."""
        sources = self._sources()
        now = self._clock.monotonic()
        if not asked and self._seen is not None:
            if sources == self._seen:
                self._changed = None
                return _GO_ON
            self._changed = now if self._changed is None else self._changed
            if sources != self._last:
                self._last, self._since = sources, now
            left = self._since + _STILL - now
            if left > 0:
                return Wait(self._held(now), left)
        first = self._seen is None
        if not first:
            self._supervisor.reloading()
        try:
            self._load()
        except BeingWritten as error:
            return self._later(now, str(error))
        except Invalid as error:
            # What mends it may be in a file that only the new spec is made from.
            self._files = tuple(dict.fromkeys((*self.spec.files, *error.files)))
            self._watch(self._files)
            words = "the changed spec is not valid, so the last good one is kept"
            if self.spec.last_good:
                words = f"the spec is not valid, so {self._in_part()}"
            self._invalid(f"{words}: {error.text}", error.errors)
        except Exception as error:
            words = f"the changed spec cannot be read, so the last good one is kept: {error}"
            self._invalid(words, [])
        else:
            if self._wrong:
                self._session.report(f"the spec {self.spec.path} is valid again, and was taken")
            self._wrong = ""
        finally:
            if not first:
                self._supervisor.ready(f"keeps {self.spec.path}")
        self._changed, self._waits = None, ""
        return _GO_ON

    def remind(self) -> None:
        """Say, at each pass, that only a part of the last good spec is kept, if so."""
        if self.spec.last_good:
            words = f"{self._in_part()}, until {self.spec.path} is valid"
            self._log.event("last_good", words, "bad")

    def _in_part(self) -> str:
        from reconciler.spec.last_good import LACKS

        lacking = [one.id for one in self.spec.resources if one.skip == LACKS]
        words = "only processes, sessions, units and cron lines of the last good one are kept"
        without = f" (without {', '.join(lacking)}: the values of env are not known)"
        return words + (without if lacking else "")

    def _held(self, now: float) -> bool:
        return self._changed is not None and now - self._changed < _PATIENCE

    def _later(self, now: float, why: str) -> Wait:
        """Somebody still writes to it: how that is waited for, and for how long."""
        self._changed = now if self._changed is None else self._changed
        if self._held(now):
            return Wait(True, _STILL)
        if not self._waits:
            self._waits = f"{why}, so the last good spec is kept until it is saved"
            self._log.event("invalid", self._waits, "bad", errors=[])
        return _GO_ON  # That it was closed wakes the loop.

    def _invalid(self, words: str, errors: list[dict[str, Any]]) -> None:
        if words != self._wrong:
            self._log.event("invalid", words, "bad", errors=errors)
        if not self._wrong:
            self._session.report(words)
        self._wrong = words

    def _load(self) -> None:
        """Read it. A file that is new in it was not seen before: the next pass reads it again."""
        seen = self._sources()
        try:
            spec = self._session.load_aside(patience=0.0)
        except BeingWritten:
            raise
        except Exception:
            self._seen = seen
            raise
        self._seen = seen
        self._take(spec)

    def _take(self, spec: Spec) -> None:
        if spec.name != self.spec.name:
            raise HostError(
                f"its name has become {spec.name!r}; start another loop for it, and end this one"
            )
        if spec.resources != self.spec.resources or spec.loop_every != self.spec.loop_every:
            words = f"took the changed spec {spec.path}: {len(spec.resources)} resources"
            self._log.event("reloaded", words, "change", resources=len(spec.resources))
        self.spec = spec
        self._files = spec.files
        self._watch(self._files)
        self._taken(spec)

    def _sources(self) -> Seen:
        """What the spec is made from, as far as a change of it can be seen without reading."""
        found: list[tuple[str, int, int, int, int, int] | str] = []
        for path in self._files:
            try:
                one = os.stat(path)
            except OSError as error:
                found.append(f"{path}: {error.strerror}")
            else:
                # Not only the time of change: an editor may keep that, and a clock may jump.
                times = one.st_mtime_ns, one.st_ctime_ns
                found.append((path, one.st_dev, one.st_ino, *times, one.st_size))
        return self._session.facts(), tuple(found)
