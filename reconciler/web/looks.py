"""The looks at the host that all readers share: when one is due, and what it has seen.

With readers there is one every few seconds, and at once when a process has ended or the state has
changed; without, only one for each sample of the last hour. All of them together may take a small
share of a processor, so that a spec that takes long to look at is looked at more seldom. It must
not look by itself: a child does, and whatever it hangs on, it is killed in the end.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from reconciler.base.errors import BeingWritten, HostError
from reconciler.base.text import error_in_words, redacted
from reconciler.config.isolated import Invalid, Loading
from reconciler.core.model import Spec
from reconciler.host.child import Child
from reconciler.host.clock import Clock
from reconciler.host.inotify import FolderWatch
from reconciler.host.program import Installed, Replaced
from reconciler.host.trust import PATH_ONLY
from reconciler.web.samples import EVERY, Samples

T = TypeVar("T")
_LONGEST = 20.0
"""Seconds for a look; what hangs in it is unknown much sooner."""
_OFTEN, _SOON = 5.0, 0.3
"""Seconds between two looks for readers, and after something has happened: whoever mends that goes
first, and the page shows what has become of it."""
_DUE, _ASKED = (0.004, 0.4), (0.006, 1.0)
"""Of a processor for looks that are due, and for those that somebody asks for in between, with the
seconds of it that may be taken beforehand. Of what is for those that are due, half is kept for when
something has happened, so that this is seen at once."""
_MOST_WATCHED = 512


class Allowance:
    """Seconds of a processor that may be taken: a share of the time that passes."""

    def __init__(self, share: float, most: float) -> None:
        self._share, self._most = share, most
        self._credit, self._filled = most, time.monotonic()

    def wait(self, least: float) -> float:
        """Seconds until there is more than so much of it."""
        now = time.monotonic()
        self._credit = min(self._most, self._credit + (now - self._filled) * self._share)
        self._filled = now
        return (least - self._credit) / self._share

    def take(self, seconds: float) -> None:
        """They were taken, even if there were fewer."""
        self._credit -= seconds


class Looks:
    """What was seen last, and the samples of the last hour.

    ``look`` is done in a child, and gives a document as ``cli.commands.serve`` makes it; ``load``
    loads the spec anew, and ``known`` takes note of it. ``folder`` is its state directory.
    """

    def __init__(
        self,
        spec: Spec,
        look: Callable[[Spec], bytes],
        load: Callable[[], Loading],
        known: Callable[[Spec], Spec],
        folder: str,
    ) -> None:
        self.spec = spec
        self.document: dict[str, Any] | None = None
        self.error = ""
        """Why the last look has seen nothing."""
        self.broken = ""
        """What is wrong with the spec as it is now, while the last good one is shown."""
        self.number = 0
        """Of looks that have come to their end."""
        self.since: dict[str, tuple[str, float | None]] = {}
        """The state of each resource, and since when it was seen so; None: from the beginning."""
        self.samples = Samples()
        self.readers = 0
        self.replaced = asyncio.Event()
        """Is another program installed by now, that is to go on?"""
        self._installed = Installed(Clock(), lambda words, bad: None)
        self._look, self._load, self._known = look, load, known
        self._folder = folder
        self._watch = FolderWatch(folder)
        self._pids: dict[int, int] = {}
        """The processes whose end is heard of, each with its descriptor."""
        self._sources: Any = None
        self._loading: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._ended = asyncio.Condition()
        self._happened: float | None = None
        """When something did, for the first time since the last look."""
        self._asked = False
        self._began = self._over = time.monotonic()
        self._for_due, self._for_asked = Allowance(*_DUE), Allowance(*_ASKED)

    def happened(self) -> None:
        """Something has changed, for whoever reads."""
        if self._happened is None:
            self._happened = time.monotonic()
        self._wake.set()

    async def fresh(self, age: float, patience: float) -> None:
        """Have it looked at, unless that was done so many seconds ago; waits so long for it.

        What was seen last has to do for those who ask for more looks than they may have.
        """
        if self.number and time.monotonic() - self._over <= age:
            return
        if self._began <= self._over and not self._asked:  # None is under way, or comes at once.
            if self.number and self._for_asked.wait(0.0) > 0:
                return
            self._asked = True
            self._wake.set()
        await self.next(self.number, patience)

    async def next(self, number: int, patience: float) -> None:
        """Wait until there was a look after that one, for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience), self._ended:
                await self._ended.wait_for(lambda: self.number != number)

    async def run(self) -> None:
        """Look when it is due, until this is cancelled."""
        loop = asyncio.get_running_loop()
        if self._watch.descriptor is not None:
            loop.add_reader(self._watch.descriptor, self._state_changed)
        while True:
            await self._due()
            allowance = self._for_asked if self._asked else self._for_due
            self._happened, self._asked = None, False
            used = _used()
            try:
                await self._once()
                self._installed.look()
                self._installed.tend(())
            except Exception as error:  # Whatever it is, the page goes on, and says it.
                self.error = error_in_words(error)
            if isinstance(self._installed.over, Replaced):
                self.replaced.set()
            allowance.take(_used() - used)
            self._over = time.monotonic()
            async with self._ended:
                self.number += 1
                self._ended.notify_all()

    async def _due(self) -> None:
        """Wait until the next look is."""
        while True:
            due, least = self._began + (_OFTEN if self.readers else EVERY), _DUE[1] / 2
            if self.readers and self._happened is not None:
                due, least = min(due, self._happened + _SOON), 0.0
            left = max(due - time.monotonic(), self._for_due.wait(least))
            if self._asked or self.number == 0 or left <= 0:
                return
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    async def _once(self) -> None:
        self._began = time.monotonic()
        try:
            child = Child(partial(self._look, self.spec), _LONGEST)
        except OSError as error:
            self.error = f"no child can be made that looks: {error.strerror}"
            return
        try:
            document = marshal.loads(await _collected(child, child.collect))
        except HostError as error:
            self.error = error_in_words(error)
            return
        self.error = document.get("error", "")
        if self.error:
            return
        self.document = document
        if document["usage"] is not None:
            self.samples.take(document["usage"], document["at"])
        status, before = document["status"], self.since
        self.since = {
            one["id"]: before[one["id"]]
            if before.get(one["id"], ("",))[0] == one["state"]
            else (one["state"], status["time"] if before else None)
            for one in status["resources"]
        }
        self._hear(document["usage"] or {})
        if document["sources"] != self._sources and self._loading is None:
            self._loading = asyncio.create_task(self._reload(document["sources"]))

    async def _reload(self, sources: Any) -> None:
        """Take the spec as it is now; the last good one stays where it is not valid."""
        try:
            loading = self._load()
            spec: Spec = await _collected(loading.child, loading.collect)
            if spec.name != self.spec.name:
                raise HostError(f"its name has become {spec.name!r}; start another page for it")
            self.spec = self._known(spec)
            self.broken = ""
        except BeingWritten:
            return  # The next look finds it changed still.
        except Invalid as error:
            self.broken = redacted(error.text.strip())
        except Exception as error:
            self.broken = error_in_words(error)
        finally:
            self._loading = None
        self._sources = sources
        self.happened()

    # -- what calls for a look

    def _state_changed(self) -> None:
        if self._watch.changed():
            self.happened()

    def _hear(self, usage: dict[str, Any]) -> None:
        """Hear of the end of these processes, and of changes of the state."""
        loop = asyncio.get_running_loop()
        wanted = {pid for one in usage.values() for pid, _ in one["who"]}
        for pid in self._pids.keys() - wanted:
            self._forget(pid)
        for pid in sorted(wanted - self._pids.keys())[: _MOST_WATCHED - len(self._pids)]:
            with suppress(OSError):  # It has ended already: the next look tells.
                self._pids[pid] = os.pidfd_open(pid)
                loop.add_reader(self._pids[pid], self._process_ended, pid)
        folder = None
        with suppress(OSError):
            folder = os.open(self._folder, PATH_ONLY | os.O_DIRECTORY)
        self._watch.ensure(folder)
        if folder is not None:
            os.close(folder)

    def _process_ended(self, pid: int) -> None:
        self._forget(pid)
        self.happened()

    def _forget(self, pid: int) -> None:
        handle = self._pids.pop(pid)
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)


def _used() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


async def _readable(child: Child) -> None:
    """Wait until the child has said something, or its time is over."""
    loop, said = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(child.descriptor, said.set)
    try:
        async with asyncio.timeout(child.left):
            await said.wait()
    except TimeoutError:
        pass
    except asyncio.CancelledError:
        loop.remove_reader(child.descriptor)
        child.kill()
        raise
    finally:
        with suppress(ValueError):
            loop.remove_reader(child.descriptor)


async def _collected(child: Child, collect: Callable[[], T | None]) -> T:
    """What it has to say, once that is whole. Raises what ``collect`` does."""
    while True:
        await _readable(child)
        found = collect()
        if found is not None:
            return found
