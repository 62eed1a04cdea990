"""When a report is due, and in which words it sums up a period."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.messages import moment
from reconciler.host.clock import Clock
from reconciler.notify.reports import left
from reconciler.output.period import report
from reconciler.state.store import Store
from reconciler.state.store.outbox import Reported
from reconciler.state.store.tables import Deed

DAY = 86400.0
NOON = 1_800_000_000.0
GIB = 2**30


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, 0.0),
        (Reported(NOON, 100.0, {}), DAY - 100.0),
        (Reported(NOON - 9 * DAY, 9 * DAY, {}), 0.0),
        # Before this boot, by the wall clock; set back, the period goes on from there.
        (Reported(NOON - 600.0, None, {}), DAY - 600.0),
        (Reported(NOON - 9 * DAY, None, {}), 0.0),
        (Reported(NOON + 9 * DAY, None, {}), DAY),
    ],
)
def test_when_it_is_due(last: Reported | None, expected: float) -> None:
    assert left(last, DAY, NOON) == expected


def figures(**more: Any) -> dict[str, Any]:
    return {
        "from": NOON, "to": NOON + DAY, "processes": [], "starts": [],
        "steps": {"done": 0, "failed": 0}, "folders": [], "disks": [], "freed": 0,
        "troubles": [], "pauses": [], **more,
    }  # fmt: skip


def test_the_words_of_a_quiet_day() -> None:
    assert report(figures(), {}).splitlines() == [
        f"report of 24 h, {moment(NOON)} to {moment(NOON + DAY)}",
        "nothing needs attention",
        "done: 0 steps",
        "retention freed 0 B",
    ]


def test_the_words_of_a_day_with_everything() -> None:
    now = figures(
        processes=[
            {"id": "process:worker", "pids": [117], "since": NOON + DAY - 7200},
            {"id": "process:web", "pids": [], "since": None},
        ],
        starts=[
            {"id": "process:worker", "done": 3, "failed": 0, "causes": [
                {"why": "not running", "count": 2}, {"why": "check:execution: late", "count": 1}]},
            {"id": "process:web", "done": 0, "failed": 5, "causes": [
                {"why": "not running", "count": 5}]},
            {"id": "process:gone", "done": 1, "failed": 0, "causes": []},
        ],
        steps={"done": 14, "failed": 5},
        folders=[
            {"id": "directory:completed", "path": "/c", "files": 50, "new": 41, "bytes": 5000,
             "complete": True},
            {"id": "directory:failed", "path": "/f", "files": 2, "new": 2, "bytes": 20,
             "complete": True},
            {"id": "directory:old", "path": "/o", "files": 9, "new": 0, "bytes": 9,
             "complete": True},
        ],
        disks=[
            {"mount": "/", "total": 100 * GIB, "used": 45 * GIB, "free": 55 * GIB},
            {"mount": "/srv", "total": GIB, "used": 0, "free": GIB},
        ],
        freed=230 * 2**20,
        troubles=[{"id": "process:web", "event": "gave_up", "since": NOON,
                   "reason": "gave up after 5 failed starts"}],
        pauses=[{"id": "cron:c", "reason": "", "since": NOON, "until": NOON + 2 * DAY,
                 "by": "ann"}],
    )  # fmt: skip
    before = {
        "disks": [{"mount": "/", "used": 44 * GIB}],
        "folders": [{"path": "/c", "bytes": 3976}, {"path": "/o", "bytes": 90}],
    }
    assert report(now, before).splitlines()[1:] == [
        "needs attention:",
        f"- process:web gave up after 5 failed starts (since {moment(NOON)})",
        f"- cron:c is paused since {moment(NOON)} until {moment(NOON + 2 * DAY)}: no reason given "
        "(by ann)",
        "runs:",
        "- process:worker for 2 h (pid 117); started 3 times (2 times not running; once "
        "check:execution: late)",
        "- process:web does not run; 5 failed starts (not running)",
        "- process:gone: started once",
        "done: 14 steps, 5 failed",
        "new files: completed 41, failed 2",
        "disk /: 45 GiB of 100 GiB used, 1.0 GiB more than before",
        "disk /srv: 0 B of 1.0 GiB used",
        "grown most: completed 1.0 KiB",
        "retention freed 230 MiB",
    ]


def test_a_store_of_before_is_read_and_taken_on(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir(mode=0o700)
    with sqlite3.connect(folder / "store.db") as base:
        base.execute(
            "CREATE TABLE history (seq INTEGER PRIMARY KEY AUTOINCREMENT, wall REAL, by TEXT, "
            "id TEXT, verb TEXT, result TEXT, why TEXT, error TEXT, seconds REAL)"
        )
        base.execute(
            "INSERT INTO history VALUES (1, 5.0, 'loop', 'a:b', 'start', 'done', '', NULL, 1.0)"
        )
    base.close()
    (folder / "store.db").chmod(0o600)
    old = Deed(5.0, "loop", "a:b", "start", "done", "", None, 1.0)
    reading = Store(str(folder), Clock(), False)
    assert reading.history.since(0.0) == [old]
    assert reading.reports.all() == {}
    writing = Store(str(folder), Clock(), True)
    new = Deed(time.time(), "cron", "r:t", "update", "done", "", None, 1.0, 77)
    writing.history.add([new])
    assert writing.base.damaged is None
    assert writing.history.since(0.0) == reading.history.since(0.0) == [old, new]
    writing.reports.made([DAY], {"x": 1})
    assert writing.reports.all()[DAY].figures == {"x": 1}
    for store in (reading, writing):
        store.close()


def test_the_words_of_a_week_and_of_a_month() -> None:
    """What was there all the time has used so much in the period; what was not, since its start."""
    old = {"pid": 117, "cpu": 100.0, "memory": 30 * 2**20, "peak": 40 * 2**20}
    used = {"pid": 117, "cpu": 964.0, "memory": 33 * 2**20, "peak": 50 * 2**20}
    new = {"pid": 118, "cpu": 360.0, "memory": 2**20, "peak": 0}
    began = NOON - DAY
    before = {
        "to": NOON,
        "processes": [
            {"id": "process:worker", "pids": [117], "since": began, "usage": [old]},
            {"id": "process:web", "pids": [90], "since": began, "usage": [old]},
        ],
    }
    now = figures(
        processes=[
            {"id": "process:worker", "pids": [117], "since": began, "usage": [used]},
            {"id": "process:web", "pids": [118], "since": NOON + DAY - 3600, "usage": [new]},
            {"id": "process:down", "pids": [], "since": None, "usage": []},
        ],
        diagnosis=["program: version 1 runs, and is the one that is installed", "host:"],
    )
    assert report(now, before).splitlines()[-5:] == [
        "used since then, or since it was started:",
        "- process:worker: 1.0 % of a processor, 33 MiB, 3.0 MiB more than before; at most 50 MiB",
        "- process:web: 10.0 % of a processor, 1.0 MiB; at most 1.0 MiB",
        "program: version 1 runs, and is the one that is installed",
        "host:",
    ]
