"""How often the host is looked at for a status page, however many ask for it."""

from __future__ import annotations

import asyncio
import marshal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support import Machine

from reconciler.web.looks import Allowance, Looks

SEEN = {"usage": None, "at": 0.0, "sources": None, "status": {"time": 0.0, "resources": []}}


def looked(folder: Path, seconds: float, ask: Callable[[Looks], Awaitable[Any]]) -> int:
    """How many looks there are while somebody asks, each of which takes a processor so long."""

    def look(spec: Any) -> bytes:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        return marshal.dumps(SEEN)

    async def run() -> int:
        spec: Any = SimpleNamespace(name="demo")
        unused: Any = None
        looks = Looks(spec, look, unused, unused, str(folder))
        running = asyncio.create_task(looks.run())
        await ask(looks)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert looks.error == ""
        return looks.number

    return asyncio.run(run())


def test_one_look_serves_all_who_ask_at_once(machine: Machine) -> None:
    async def at_once(looks: Looks) -> None:
        await asyncio.gather(*(looks.fresh(60.0, 60.0) for _ in range(100)))

    assert looked(machine.base, 0.01, at_once) == 1


def test_who_asks_while_it_is_looked_at_gets_that_look(machine: Machine) -> None:
    async def later(looks: Looks) -> None:
        first = asyncio.create_task(looks.fresh(60.0, 60.0))
        while looks._began <= looks._over:
            await asyncio.sleep(0)
        await asyncio.gather(first, *(looks.fresh(60.0, 60.0) for _ in range(100)))
        await looks.next(1, 1.0)  # None comes after it.

    assert looked(machine.base, 0.05, later) == 1


def test_who_asks_again_and_again_gets_no_more_than_a_share(machine: Machine) -> None:
    async def polling(looks: Looks) -> None:
        for _ in range(30):
            await looks.fresh(0.0, 60.0)

    # A second of them beforehand, and after that one in 50 seconds; nobody waits for it.
    assert 2 <= looked(machine.base, 0.3, polling) <= 6


def test_an_allowance_grows_as_time_passes_and_not_without_end() -> None:
    one = Allowance(1000.0, 2.0)
    assert one.wait(1.9) < 0 < one.wait(2.1)
    one.take(1e9)
    assert one.wait(0.0) > 0
    other = Allowance(1e9, 2.0)
    other.take(5.0)
    time.sleep(0.01)
    assert other.wait(1.9) < 0 < other.wait(2.1)
