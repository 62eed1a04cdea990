"""Several works at the same time, each in a child of its own and each with an end to its wait.

It must not be used for what changes anything: a child that takes too long is killed in the midst.
"""

from __future__ import annotations

import pickle
import select
from collections.abc import Callable, Collection
from functools import partial
from types import TracebackType
from typing import Any

from reconciler.base.errors import UnknownState
from reconciler.base.text import error_in_words
from reconciler.host.child import Child
from reconciler.host.command import BEAT, hurry
from reconciler.host.progress import working

_SHARE = 0.85
"""Of the time of a child: so long its programs are waited for, so that it still can tell."""


class Children:
    """The works that were begun; ``answers`` by name, and ``silent`` with why there is none."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.silent: dict[str, str] = {}
        self._running: dict[str, tuple[Child, float]] = {}

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self, name: str, work: Callable[[], Any], seconds: float) -> None:
        """Have ``work`` done, for at most so many seconds. What it gives must be plain data."""
        try:
            child = Child(partial(_told, work, seconds), seconds)
        except OSError as error:
            self.silent[name] = f"no child can be made for it: {error.strerror}"
        else:
            self._running[name] = child, seconds

    def wait(self, names: Collection[str] | None = None) -> None:
        """Wait until these, or all, have answered or had their time."""
        known = len(self._running)
        with working("look and ask", known) as work:
            while left := [child.left for child, _ in self._collect(names)]:
                poller = select.poll()
                for child, _ in self._running.values():
                    poller.register(child.descriptor, select.POLLIN)
                work.advance(known - len(self._running) - work.done)
                poller.poll(min(*left, BEAT) * 1000 + 1)

    def _collect(self, names: Collection[str] | None) -> list[tuple[Child, float]]:
        """Take what was said; those of ``names`` that are still at work."""
        for name, (child, seconds) in list(self._running.items()):
            late = child.left <= 0
            try:
                said = child.collect()
            except UnknownState as error:
                words = f"did not answer within {seconds:g} s" if late else str(error)
                self._running.pop(name)
                self.silent[name] = words
                continue
            if said is None:
                continue
            del self._running[name]
            well, value = pickle.loads(said)
            (self.answers if well else self.silent)[name] = value
        return [entry for name, entry in self._running.items() if names is None or name in names]

    def close(self) -> None:
        """End all that is under way."""
        while self._running:
            self._running.popitem()[1][0].kill()


def _told(work: Callable[[], Any], seconds: float) -> bytes:
    """The child's side."""
    hurry(seconds * _SHARE)
    try:
        return pickle.dumps((True, work()))
    except Exception as error:
        return pickle.dumps((False, error_in_words(error)))
