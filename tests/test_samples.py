"""The samples of the last hour, and the charts that are drawn of them."""

from __future__ import annotations

import re
from math import isnan, nan
from typing import Any

from reconciler.web.chart import chart
from reconciler.web.samples import EVERY, MOST, Samples


def used(cpu: float, pid: int = 7) -> dict[str, Any]:
    return {"process:p": {"who": [[pid, 1]] if pid else [], "cpu": cpu, "memory": 1000}}


def test_an_hour_is_kept_and_no_more() -> None:
    samples = Samples()
    for number in range(MOST * 2):
        assert samples.take(used(number * EVERY / 2), number * EVERY)
        # Between two samples only what is shown as now changes.
        assert not samples.take(used(number * EVERY / 2 + 3), number * EVERY + 10)
    series = samples.series["process:p"]
    assert len(series.at) == len(series.cpu) == len(series.memory) == MOST
    assert all(value == 50.0 for value in series.cpu)
    assert series.now == (30.0, 1000)
    samples.take({}, MOST * 3 * EVERY)
    assert samples.series == {}


def test_a_restart_and_a_death_are_gaps() -> None:
    samples = Samples()
    for number, (cpu, pid) in enumerate(((9.0, 7), (12.0, 7), (0.5, 8), (3.5, 8), (0.0, 0))):
        samples.take(used(cpu, pid), number * EVERY)
    series = samples.series["process:p"]
    assert [None if isnan(one) else one for one in series.cpu] == [None, 10.0, None, 10.0, None]
    assert isnan(series.memory[-1]) and isnan(series.now[1])
    lines = re.search(r'class="line" d="([^"]*)"', chart(series.at, series.cpu, 1.0, "x"))
    assert lines is not None and lines[1].count("M") == 2


def test_a_chart_ends_at_its_right_edge_and_its_label_is_text() -> None:
    drawn = chart([0.0, 1800.0, 3600.0], [0.0, 5.0, 10.0], 1.0, '"><script>')
    assert 'd="M0 38.0L120 20.0L240 2.0"' in drawn
    assert "<script>" not in drawn and "&#34;&gt;&lt;script&gt;" in drawn
    assert 'd=""' in chart([1.0], [nan], 1.0, "") and 'd=""' in chart([], [], 1.0, "")
