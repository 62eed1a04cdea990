"""What keeps messages from being delivered is told once, however long it lasts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from reconciler.base.errors import HostError
from reconciler.base.values import Notify
from reconciler.host.clock import Clock
from reconciler.notify.sender import Sender
from reconciler.state.folder import STORE


def test_a_store_that_cannot_be_used_is_told_once_until_it_can(tmp_path: Path) -> None:
    (tmp_path / STORE).touch()
    told: list[tuple[str, bool]] = []
    trouble: list[HostError] = [HostError("the disk is full")]

    def opened() -> Any:
        if trouble:
            raise trouble[0]
        return SimpleNamespace(outbox=SimpleNamespace(only=lambda targets: None))

    post = Sender(str(tmp_path), opened, Clock(), lambda words, bad: told.append((words, bad)))

    def passes(number: int) -> None:
        for _ in range(number):
            post.adopt(Notify())
            post.woken()

    passes(3)
    assert told == [("the disk is full; messages wait", True)]
    trouble[0] = HostError("it is locked")
    passes(2)
    assert told[1:] == [("it is locked; messages wait", True)]
    (again,) = trouble
    trouble.clear()
    passes(1)
    trouble.append(again)
    passes(2)
    assert told[2:] == [("it is locked; messages wait", True)]
