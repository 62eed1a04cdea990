"""The everyday words `start`, `stop` and `restart`, and who keeps the worker alive.
Must not start or end a worker itself: that is the reconciler's.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from reconciler.executor import heartbeat
from reconciler.executor.keeper import QUICK, WORKER, Keeper, KeeperBusy, KeeperError, home_of
from reconciler.executor.layout import Layout, resolve_home
from reconciler.executor.text import stamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

_COMES_UP = 30.0  # seconds for the first heartbeat of a worker that was started
_GOES_DOWN = 5.0  # seconds for the last one of a worker that has ended
_PASS_OF_OTHERS = 120.0  # seconds for a pass of cron that is at work already
_STANDS_STILL = ("waits", "given up")


def keeper_of(options: Namespace) -> Keeper:
    """The spec in use, looked at, as its loop means it. Raises KeeperError."""
    keeper = Keeper(options)
    keeper.look()
    keeper.side_with_the_loop()
    return keeper


def start(keeper: Keeper) -> tuple[str, list[str]]:
    """Have the worker seen to again, and wait for its heartbeat.

    Returns how it is, and what else the pass could not do. Raises KeeperError when there is no
    worker in the end.
    """
    if keeper.paused is not None or keeper.state in _STANDS_STILL:
        keeper.resume()
    report = _pass(keeper)
    trouble = _trouble(report)
    why = trouble.pop(WORKER, None)
    end = time.monotonic() + _COMES_UP
    words = "no worker"
    while True:
        keeper.look()
        if not keeper.pids:
            raise KeeperError(f"no worker: {why or keeper.reason or 'it has ended at once'}")
        pid = keeper.pids[0]
        layout = Layout(home_of(pid) or keeper.wanted or resolve_home(None))
        while time.monotonic() < end and os.path.exists(f"/proc/{pid}"):
            alive, words = heartbeat.judge(layout)
            if alive and (heartbeat.read(layout) or {}).get("pid") in keeper.pids:
                others = [f"{ident}: {reason}" for ident, reason in trouble.items()]
                return f"{words}, home {layout.home}", others
            time.sleep(0.05)
        if time.monotonic() >= end:
            raise KeeperError(f"{words}; see {layout.event_log}")


def stop(keeper: Keeper, word: str) -> str:
    """Pause the worker and end it, so that nothing starts it again. Raises KeeperError."""
    home = keeper.home or keeper.wanted or resolve_home(None)
    ran = keeper.pids[0] if keeper.pids else None
    keeper.pause(f"stopped by ai-cmd-executor {word}")
    layout = Layout(home)
    if not _until(lambda: not heartbeat.judge(layout)[0], _GOES_DOWN):
        raise KeeperError(
            f"a worker of {home} still runs that is not the one of {keeper.path}: "
            f"{heartbeat.judge(layout)[1]}"
        )
    return (
        f"no worker was running for {home}" if ran is None else f"worker {ran} of {home} is stopped"
    )


def restart(keeper: Keeper) -> tuple[str, list[str]]:
    """Stop and start. Whatever happens in between, the worker is not left paused."""
    try:
        stop(keeper, "restart")
    except BaseException:
        with contextlib.suppress(KeeperError):
            keeper.resume()
        raise
    keeper.resume()
    keeper.paused = None
    return start(keeper)


def who_keeps(options: Namespace) -> dict[str, Any]:
    """Who keeps the worker alive and whether it is paused, for `status`; soon, whatever hangs."""
    try:
        keeper = Keeper(options)
        keeper.look(QUICK)
    except (KeeperError, KeyError, ValueError) as error:
        return {"unknown": str(error).partition("\n")[0]}
    paused = keeper.paused and {
        "since": stamp(keeper.paused["since"]),
        "until": keeper.paused["until"] and stamp(keeper.paused["until"]),
        "reason": keeper.paused["reason"],
        "by": keeper.paused["by"],
    }
    return {
        "spec": keeper.path,
        "loop": keeper.loop,
        "loop_healthy": keeper.healthy,
        "paused": paused,
        "home": keeper.home or keeper.home_of_loop(),
        "again": keeper.command("start"),
    }


def _pass(keeper: Keeper) -> dict[str, Any]:
    end = time.monotonic() + _PASS_OF_OTHERS
    while True:
        try:
            return keeper.once()
        except KeeperBusy as busy:
            if time.monotonic() >= end:
                raise KeeperError(f"{busy}; try again when it has ended") from None
        time.sleep(0.5)


def _trouble(report: dict[str, Any]) -> dict[str, str]:
    """What the pass could not do, by id."""
    found = {one["id"]: one["reason"] for one in (*report["unknown"], *report["failing"])}
    held = {one["id"]: one["reason"] for one in report["skipped"] if one["id"] == WORKER}
    failed = {
        step["id"]: step["error"] or step["why"]
        for step in report["steps"]
        if step["result"] in ("failed", "skipped")
    }
    return {**held, **found, **failed}


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True
