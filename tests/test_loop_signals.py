"""A signal is never lost, at whatever moment it comes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection

import pytest

from reconciler.host.clock import Clock
from reconciler.loop import Loop


class Late(float):
    """Seconds until the next pass; a signal comes when somebody looks at how many they are."""

    number = signal.SIGUSR1
    sent = False

    def __gt__(self, other: float) -> bool:
        return self._looked_at(float(self) > other)

    def __lt__(self, other: float) -> bool:
        return self._looked_at(float(self) < other)

    def _looked_at(self, answer: bool) -> bool:
        if not self.sent:
            self.sent = True
            signal.raise_signal(self.number)
        return answer


class Passes:
    """Counts passes; each but the last asks for another one in an hour."""

    longest_sleep = 0.01

    def __init__(self, number: signal.Signals) -> None:
        self.first = Late(3600.0)
        self.first.number = number
        self.reread: list[bool] = []
        self.woken = 0

    def full_pass(self, stopping: Callable[[], bool], reread: bool) -> float:
        self.reread.append(reread)
        if len(self.reread) == 1:
            return self.first
        signal.raise_signal(signal.SIGTERM)
        return 3600.0

    def partial_pass(self, ids: Collection[str], stopping: Callable[[], bool]) -> float | None:
        return None

    def moved(self) -> None:
        self.woken += 1
        if self.woken > 100:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_that_comes_as_a_pass_ends_asks_for_another(number: signal.Signals) -> None:
    work = Passes(number)
    Loop(work, Clock()).run()
    assert work.first.sent
    assert work.reread == [False, number == signal.SIGHUP]
