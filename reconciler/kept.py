"""The spec that a loop keeps: taken anew when it has changed, or else the last good one.

It must not compile it in this process, nor look at the host beyond the files it was made from.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from reconciler.host.supervisor import Supervisor
from reconciler.model import Facts, HostError, Spec
from reconciler.session import Session
from reconciler.spec.aside import Invalid
from reconciler.views.log import Log

Seen = tuple[Facts, tuple[tuple[str, int, int, int] | str, ...]]


class Kept:
    """The spec as it is kept now; ``taken`` is told of every one, the first as well."""

    def __init__(
        self,
        session: Session,
        spec: Spec,
        log: Log,
        supervisor: Supervisor,
        taken: Callable[[Spec], None],
    ) -> None:
        self.spec = spec
        self._session = session
        self._log = log
        self._supervisor = supervisor
        self._taken = taken
        self._valid = True
        self._seen = self._sources()
        taken(spec)

    def reload(self, asked: bool) -> None:
        """Take a changed spec, or keep the last good one."""
        sources = self._sources()
        if not asked and sources == self._seen:
            return
        self._supervisor.reloading()
        self._seen = sources
        try:
            self._take(self._session.load_aside())
        except Invalid as error:
            words = f"the changed spec is not valid, so the last good one is kept: {error.text}"
            self._invalid(words, error.errors)
        except Exception as error:
            words = f"the changed spec cannot be read, so the last good one is kept: {error}"
            self._invalid(words, [])
        else:
            if not self._valid:
                self._session.report(f"the spec {self.spec.path} is valid again, and was taken")
            self._valid = True
        self._supervisor.ready(f"keeps {self.spec.path}")

    def _invalid(self, words: str, errors: list[dict[str, Any]]) -> None:
        self._log.event("invalid", words, "bad", errors=errors)
        if self._valid:
            self._session.report(words)
        self._valid = False

    def _take(self, spec: Spec) -> None:
        if spec.name != self.spec.name:
            raise HostError(
                f"its name has become {spec.name!r}; start another loop for it, and end this one"
            )
        if spec.resources != self.spec.resources or spec.loop_every != self.spec.loop_every:
            words = f"took the changed spec {spec.path}: {len(spec.resources)} resources"
            self._log.event("reloaded", words, "change", resources=len(spec.resources))
        self.spec = spec
        self._taken(spec)
        self._seen = self._sources()

    def _sources(self) -> Seen:
        """What the spec was made from, as far as a change of it can be seen without reading."""
        found: list[tuple[str, int, int, int] | str] = []
        for path in self.spec.files:
            try:
                status = os.stat(path)
            except OSError as error:
                found.append(f"{path}: {error.strerror}")
            else:
                # Not only the time of change: an editor may keep that, and a clock may jump.
                found.append((path, status.st_ino, status.st_mtime_ns, status.st_size))
        return self._session.facts(), tuple(found)
