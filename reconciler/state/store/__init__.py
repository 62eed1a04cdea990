"""What must outlive a pass, in one SQLite file: attempts, conditions, what checks said, open
troubles, messages on their way, pauses, reports and history.

It must hold nothing that a pass needs in order to be right: losing it loses backoff and history.
A pass with nothing to remember does not even load SQLite; see ``state.quiet``.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from reconciler.host.clock import Clock
from reconciler.state.store.base import Base
from reconciler.state.store.tables import (
    Attempts,
    CheckTable,
    Conditions,
    History,
    Pauses,
    ReportTable,
    SentMessages,
    Troubles,
)

if TYPE_CHECKING:
    from reconciler.state.store.outbox import Outbox


class Store:
    """The store of one spec, table by table.

    ``writes``: the caller holds the lock, and may set a damaged file aside. Pauses may be
    changed without it.
    """

    def __init__(self, folder: str, clock: Clock, writes: bool) -> None:
        self.base = Base(folder, clock, writes)
        self.attempts = Attempts(self.base)
        self.checks = CheckTable(self.base)
        self.conditions = Conditions(self.base)
        self.history = History(self.base)
        self.pauses = Pauses(self.base)
        self.reports = ReportTable(self.base)
        self.sent = SentMessages(self.base)
        self.troubles = Troubles(self.base)

    @cached_property
    def outbox(self) -> Outbox:
        """Messages on their way, which most passes have none of."""
        from reconciler.state.store.outbox import Outbox

        return Outbox(self.base)

    def close(self) -> None:
        """Let go of the file."""
        self.base.close()
