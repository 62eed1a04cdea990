"""The spec that a loop keeps: taken anew when it has changed, or else the last good one.

It must not load it in this process, nor wait for the child that does; nor look at the host beyond
the files it was made from.
What is compared is what was seen before the files were read, so that no edit is missed, whenever
it is made; and a file is not taken while somebody writes to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.base.errors import BeingWritten, HostError
from reconciler.base.values import Facts
from reconciler.config.isolated import Invalid, Loading
from reconciler.core.model import Spec
from reconciler.host.clock import Clock
from reconciler.host.filesystems import leads_to_server
from reconciler.host.progress import is_dying
from reconciler.host.supervisor import Supervisor
from reconciler.output.log import Log
from reconciler.watchdog.events import EVERYTHING

if TYPE_CHECKING:
    from reconciler.cli.context import Context

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


class SpecReload:
    """The spec as it is kept now; ``taken`` is told of every one, the first as well.

    ``watch`` is given the files whose changes are to be noticed.
    """

    def __init__(
        self,
        context: Context,
        spec: Spec,
        log: Log,
        supervisor: Supervisor,
        clock: Clock,
        taken: Callable[[Spec], None],
        watch: Callable[[Sequence[str]], None],
    ) -> None:
        self.spec = spec
        self._context = context
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
        self._asked = False
        """Is it to be read, whether it looks changed or not?"""
        self._loading: Loading | None = None
        self._begun = 0.0
        self._before: Seen | None = None
        """Since when it is being loaded, and what its files looked like then."""
        self._result: Wait | None = None
        """What becomes of the pass behind it."""
        self._hung = 0
        """The child that has failed last; as long as it hangs there is no other one."""
        taken(spec)
        watch(self._files)

    def reload(self, asked: bool) -> Wait:
        """Have a changed spec loaded once it is whole; the pass is held back meanwhile."""
        now = self._clock.monotonic()
        self._asked = self._asked or asked
        if self._loading is not None:
            return self._still(now)
        if self._result is not None and not self._asked:
            result, self._result = self._result, None
            return result
        sources = self._sources()
        if not self._asked and self._seen is not None and sources is not None:
            if sources == self._seen:
                self._changed = None
                return _GO_ON
            self._changed = now if self._changed is None else self._changed
            if sources != self._last:
                self._last, self._since = sources, now
            left = self._since + _STILL - now
            if left > 0:
                return Wait(self._held(now), left)
        if is_dying(self._hung):
            return _GO_ON
        try:
            self._loading = self._context.load_isolated(patience=0.0)
        except OSError:
            return _GO_ON  # No process can be had just now.
        self._asked, self._before, self._begun = False, sources, now
        self._changed = now if self._changed is None else self._changed
        if self._seen is not None and sources is not None:
            self._supervisor.reloading()
        return self._still(now)

    def _still(self, now: float) -> Wait:
        """It is being loaded: passes wait for that, for some seconds."""
        left = self._begun + _PATIENCE - now
        if left > 0:
            return Wait(True, left)
        self._say_once(f"the spec {self.spec.path} is not read after {_PATIENCE:g} s")
        return _GO_ON

    # -- a part of the loop

    def descriptors(self) -> Collection[int]:
        """One where a spec is being loaded."""
        return () if self._loading is None else (self._loading.child.descriptor,)

    def due(self) -> float | None:
        """Seconds until one that hangs is left."""
        return None if self._loading is None else self._loading.child.left

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Take what was loaded; a pass goes by it."""
        loading = self._loading
        if loading is None or not (loading.child.descriptor in ready or not loading.child.left):
            return ()
        result = self._collected(loading)
        if self._loading is not None:
            return ()
        self._result = result
        return (EVERYTHING,)

    def close(self) -> None:
        """The loop ends."""
        if self._loading is not None:
            self._loading.child.kill()
            self._loading = None

    def _collected(self, loading: Loading) -> Wait:
        """A file that is new in it was not seen before: the next pass reads it again."""
        try:
            spec = loading.collect()
            if spec is None:
                return _GO_ON
            self._loading = None
            self._take(self._context.known(spec))
        except BeingWritten as error:
            self._loading = None
            return self._later(self._clock.monotonic(), str(error))
        except Invalid as error:
            # What fixes it may be in a file that only the new spec is made from.
            self._files = tuple(dict.fromkeys((*self.spec.files, *error.files)))
            self._watch(self._files)
            words = "the changed spec is not valid, so the last good one is kept"
            if self.spec.last_good:
                words = f"the spec is not valid, so {self._in_part()}"
            self._invalid(words, error.errors, error.text)
        except Exception as error:
            self._hung = loading.child.pid
            words = f"the changed spec cannot be read, so the last good one is kept: {error}"
            self._invalid(words, [])
        else:
            if self._wrong:
                self._context.report(f"the spec {self.spec.path} is valid again, and was taken")
            self._wrong = ""
        if self._seen is not None:
            self._supervisor.ready(f"keeps {self.spec.path}")
        self._loading, self._seen = None, self._before
        self._changed, self._waits = None, ""
        return _GO_ON

    def keeps(self, digest: str) -> bool:
        """Is that compiled spec the one in force, and what its files hold as far as can be seen?"""
        busy = self._loading is not None or self._wrong or self.spec.last_good
        with suppress(Exception):  # Whatever is wrong with it: who asks looks himself then.
            if not busy and self._seen is not None and self._sources() == self._seen:
                compiled = self._context.compiled()
                return compiled is not None and compiled.digest == digest
        return False

    def remind(self) -> None:
        """Say, at each pass, that only a part of the last good spec is kept, if so."""
        if self.spec.last_good:
            words = f"{self._in_part()}, until {self.spec.path} is valid"
            self._log.event("last_good", words, "bad")

    def _in_part(self) -> str:
        from reconciler.config.last_good import LACKS

        lacking = [one.id for one in self.spec.resources if one.skip == LACKS]
        words = "only processes, sessions, units and cron lines of the last good one are kept"
        without = f" (without {', '.join(lacking)}: the values of env are not known)"
        return words + (without if lacking else "")

    def _held(self, now: float) -> bool:
        return self._changed is not None and now - self._changed < _PATIENCE

    def _later(self, now: float, why: str) -> Wait:
        """Somebody still writes to it: how that is waited for, and for how long."""
        if self._seen is not None:
            self._supervisor.ready(f"keeps {self.spec.path}")
        if self._held(now):
            return Wait(True, _STILL)
        self._say_once(why)
        return _GO_ON  # That it was closed wakes the loop.

    def _say_once(self, why: str) -> None:
        if not self._waits:
            self._waits = f"{why}, so the last good spec is kept until then"
            self._log.event("invalid", self._waits, "bad", errors=[])

    def _invalid(self, words: str, errors: list[dict[str, Any]], text: str = "") -> None:
        whole = f"{words}:\n{text}" if text else words
        if whole != self._wrong:
            below = text.splitlines()
            self._log.event("invalid", words + ":" * bool(below), "bad", below, errors=errors)
        if not self._wrong:
            self._context.report(whole, "correct it; what was declared before is kept until then")
        self._wrong = whole

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

    def _sources(self) -> Seen | None:
        """What the spec is made from, as far as a change of it can be seen without reading.

        None: that could hang, so that it is for the child to see.
        """
        if any(map(leads_to_server, self._files)):
            return None
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
        return self._context.facts(), tuple(found)
