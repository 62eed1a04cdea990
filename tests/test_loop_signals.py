"""A signal is never lost, at whatever moment it comes."""

from __future__ import annotations

import signal
from collections.abc import Collection

import pytest

from reconciler.host.clock import Clock
from reconciler.watchdog.events import Loop


class Late(float):
    """Seconds until the next pass; a signal comes when somebody looks at how many they are."""

    number = signal.SIGUSR1
    sent = False

    def __le__(self, other: float) -> bool:
        return self._looked_at(float(self) <= other)

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

    def left(self) -> float | None:
        return self.first if self.reread else 0.0

    def full_pass(self, reread: bool) -> None:
        self.reread.append(reread)
        if len(self.reread) > 1:
            signal.raise_signal(signal.SIGTERM)

    def partial_pass(self, ids: Collection[str]) -> None:
        raise AssertionError(ids)

    def moved(self) -> None:
        self.woken += 1
        if self.woken > 100:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_that_comes_as_a_pass_ends_asks_for_another(number: signal.Signals) -> None:
    work = Passes(number)
    Loop(work, Clock()).run(lambda: None)
    assert work.first.sent
    assert work.reread == [False, number == signal.SIGHUP]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_is_told_that_it_runs_may_end_it_at_once(number: signal.Signals) -> None:
    work = Passes(signal.SIGUSR1)
    loop = Loop(work, Clock())
    before = signal.getsignal(number)
    # Where it did not listen yet, this would end us.
    loop.run(lambda: signal.raise_signal(number))
    assert loop.stopping and work.reread == [] and signal.getsignal(number) == before


class Broken:
    """A part of which one method fails, until it is mended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tended = 0
        self.mended = False

    def _fails(self, name: str) -> None:
        if name == self.name and not self.mended:
            raise OSError(5, "Input/output error")

    def descriptors(self) -> Collection[int]:
        self._fails("descriptors")
        return ()

    def due(self) -> float | None:
        self._fails("due")
        return 0.005

    def tend(self, ready: Collection[int]) -> Collection[str]:
        self._fails("tend")
        self.tended += 1
        return ()

    def close(self) -> None:
        self._fails("close")


class Long(Passes):
    """One pass; ends once the broken part has been mended and tended again."""

    def __init__(self, broken: Broken, well: Broken) -> None:
        super().__init__(signal.SIGUSR1)
        self.first = Late(3600.0)
        self.first.sent = True
        self.broken, self.well = broken, well
        self.failed: list[str] = []

    def part_failed(self, part: object, error: Exception) -> None:
        assert part is self.broken
        self.failed.append(str(error))

    def moved(self) -> None:
        self.woken += 1
        assert self.woken < 10_000
        if self.well.tended >= 20:
            self.broken.mended = True
        if self.broken.mended and self.broken.tended:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("name", ["descriptors", "due", "tend", "close"])
def test_a_part_that_fails_ends_neither_the_loop_nor_the_others(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.watchdog.events._REST", 0.2)
    broken, well = Broken(name), Broken("nothing")
    work = Long(broken, well)
    Loop(work, Clock(), (broken, well)).run(lambda: None)
    assert well.tended >= 20 and broken.tended
    # It is left alone for a while, each time.
    assert set(work.failed) <= {"[Errno 5] Input/output error"} and len(work.failed) < 20
    assert bool(work.failed) == (name != "close")
    assert work.reread == [False]
