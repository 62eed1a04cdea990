"""Reports that sum up a period: when one is due, its figures from a child, and its words queued.

It must not hold up a pass: the figures are gathered in a child that may be killed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.values import Notify
from reconciler.core.kind import GetKind
from reconciler.core.messages import Message
from reconciler.core.model import Spec
from reconciler.host.child import Child, WithChild
from reconciler.host.clock import Clock
from reconciler.host.progress import readable
from reconciler.notify.delivery import off
from reconciler.notify.outbox import announce

if TYPE_CHECKING:
    from reconciler.host import Host
    from reconciler.state.store import Store
    from reconciler.state.store.outbox import Reported

_GATHERING, _DIAGNOSING = 20.0, 20.0
"""Seconds for the figures, and for a diagnosis beside them."""
_WEEK, _MONTH = 7 * 86400.0, 28 * 86400.0
"""From which period on a report has what processes have used, and a diagnosis."""
_REST = 60.0
"""Seconds until it is tried again, where nobody listens or something went wrong."""


def wanted(notify: Notify) -> bool:
    """Does anybody want reports who can be told?"""
    return bool(notify.report_every) and any(
        "report" in target.on and off(target) is None for target in notify.targets
    )


def left(last: Reported | None, period: float, wall: float) -> float:
    """Seconds until a report is due; 0 for now. Pure.

    By the monotonic clock. What was reported before this boot has no age by it; there the wall
    clock must do. Where that was set back, the period goes on from then.
    """
    if last is None:
        return 0.0
    age = last.age if last.age is not None else wall - last.wall
    return max(0.0, period - max(0.0, age))


class Reports(WithChild):
    """A part of the loop. ``opened`` gives the store, ``queued`` hears that there is a message,
    ``clean`` takes out what nobody may see; ``diagnosed`` gives the lines of a diagnosis, in a
    process of its own.
    """

    def __init__(
        self,
        clock: Clock,
        get_kind: GetKind,
        host: Callable[[Spec], Host],
        opened: Callable[[Spec], Store],
        clean: Callable[[str], str],
        queued: Callable[[], None],
        told: Callable[[str], None],
        diagnosed: Callable[[Spec], list[str]],
    ) -> None:
        self._diagnosed = diagnosed
        self._clock = clock
        self._get_kind = get_kind
        self._host = host
        self._opened = opened
        self._clean = clean
        self._queued = queued
        self._told = told
        self._spec: Spec | None = None
        self._due: list[float] = []
        self._at: float | None = None

    def take(self, spec: Spec) -> None:
        """This is the spec from now on."""
        self._at = self._clock.monotonic() if spec.notify.report_every else None

    def passed(self, spec: Spec) -> None:
        """A pass over all of it has come to its end."""
        self._spec = spec

    # -- a part of the loop

    def due(self) -> float | None:
        """Seconds until a report is due, or the child has had its time."""
        if self._child is not None:
            return super().due()
        if self._at is None or self._spec is None:
            return None
        return max(0.0, self._at - self._clock.monotonic())

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Begin what is due, and queue what has been gathered."""
        try:
            if self._child is not None:
                if self._child.descriptor in ready or self._child.left <= 0:
                    self._collect(self._child)
            elif self._spec is not None and self.due() == 0.0:
                self._begin(self._spec)
        except (HostError, OSError) as error:
            self._told(f"no report could be made: {error}")
            self._child = None
            self._at = self._clock.monotonic() + _REST
        return ()

    # -- without a loop

    def make(self) -> None:
        """Make those that are due now, and wait for it."""
        self.tend(())
        while self._child is not None:
            self.tend(readable([self._child.descriptor], self._child.left))

    # -- the work

    def _begin(self, spec: Spec) -> None:
        now = self._clock.monotonic()
        if not wanted(spec.notify):
            self._at = now + _REST if spec.notify.report_every else None
            return
        known = self._opened(spec).reports.all()
        wall = self._clock.wall()
        times = {one: left(known.get(one), one, wall) for one in spec.notify.report_every}
        self._due = [period for period, seconds in times.items() if seconds <= 0]
        self._at = now + min(times.values())
        if not self._due:
            return
        since = {one: known[one].wall if one in known else wall for one in self._due}

        def work() -> bytes:
            import json

            from reconciler.core.observe import observe
            from reconciler.notify.reports.figures import figures

            host = self._host(spec)
            seen = observe(spec.resources, self._get_kind, host)
            rows = []
            for one in self._due:
                used = one >= _WEEK
                row = figures(spec.resources, seen, host, since[one], self._get_kind, used=used)
                rows.append(row | ({"diagnosis": self._diagnosed(spec)} if one >= _MONTH else {}))
            return json.dumps(rows).encode()

        monthly = sum(period >= _MONTH for period in self._due)
        self._child = Child(work, _GATHERING + _DIAGNOSING * monthly)

    def _collect(self, child: Child) -> None:
        try:
            answer = child.collect()
        except UnknownState as error:
            raise HostError(f"its figures: {error}") from None
        if answer is None:
            return
        import json

        from reconciler.output.period import report

        self._child = None
        assert self._spec is not None
        spec = self._spec
        store = self._opened(spec)
        known = store.reports.all()
        for period, row in zip(self._due, json.loads(answer), strict=True):
            if period in known:  # Else its first period begins now.
                body = report(row, known[period].figures)
                announce(spec, store, Message("report", body), self._clean)
            row.pop("diagnosis", None)  # Nothing is compared with it.
            store.reports.made([period], row)
        self._at = self._clock.monotonic()
        self._queued()
