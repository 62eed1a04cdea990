"""What a loop prints over many passes: each thing once, until it is another one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.core.model import Plan, Remark
from reconciler.core.restart_policy import Policy
from reconciler.output.log import Log
from reconciler.state.restarts import Attempt, RestartTracker

WORKER = "process:worker"


def held(count: int, ago: float) -> tuple[Plan, str]:
    """The plan while the next start waits, in the words of those who make it wait."""
    policy = Policy(3, 1.0, 2.0, 60.0, 60.0, 900.0)
    tracker: Any = SimpleNamespace(_counted=lambda: [(WORKER, Attempt("v", count, ago), policy)])
    hold = RestartTracker.holds(tracker)[WORKER]
    remark = Remark(WORKER, f"not running; {hold.words}")
    return Plan("s", "/s", "h", 1, held=(remark,), given_up=(WORKER,) * hold.final), hold.words


def test_a_wait_is_told_once_and_not_as_it_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    lines: list[tuple[str, str]] = []
    terminal: Any = SimpleNamespace(write=lines.extend)
    log = Log(terminal, False, False)
    for ago in (10.0, 40.0, 300.0):
        plan, words = held(3, ago)
        assert "gave up after 3 failed starts, next in " in words
        log.remarks(plan, {WORKER})
    log.remarks(held(2, 0.5)[0], {WORKER})
    told = [text.partition("held ")[2] or text.partition("gave up ")[2] for text, _ in lines]
    assert told == [
        f"{WORKER}: not running; {held(3, 10.0)[1]}", f"{WORKER}: not running; {held(2, 0.5)[1]}"
    ]  # fmt: skip
