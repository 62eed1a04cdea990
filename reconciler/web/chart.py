"""A small chart of the last hour as SVG. What it shows is in its label too. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan

from markupsafe import Markup

from reconciler.web.samples import HOUR

_WIDTH, _HEIGHT = 240, 40


def chart(at: Sequence[float], values: Sequence[float], least: float, label: str) -> Markup:
    """The values at these times, the last of which is at the right edge, as lines with gaps.

    The top is the highest of them, or ``least``.
    """
    top = max((one for one in values if not isnan(one)), default=0.0)
    top = max(top, least)
    lines, areas = "", ""
    for run in _runs(at, values):
        points = [
            f"{_WIDTH * (1 - (at[-1] - when) / HOUR):.0f} {_HEIGHT - 2 - 36 * value / top:.1f}"
            for when, value in run
        ]
        lines += f"M{'L'.join(points)}" + ("h.1" if len(points) == 1 else "")
        left, right = points[0].split()[0], points[-1].split()[0]
        areas += f"M{left} {_HEIGHT}L{'L'.join(points)}L{right} {_HEIGHT}Z"
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
        'aria-label="{}"><path class="area" d="{}"/><path class="line" d="{}"/></svg>'
    ).format(_WIDTH, _HEIGHT, label, areas, lines)


def _runs(at: Sequence[float], values: Sequence[float]) -> Iterator[list[tuple[float, float]]]:
    """What follows one another without a gap."""
    run: list[tuple[float, float]] = []
    for when, value in zip(at, values, strict=True):
        if isnan(value) or (at[-1] - when) > HOUR:
            if run:
                yield run
            run = []
        else:
            run.append((when, value))
    if run:
        yield run
