"""A period in words, for people: as a message, and as lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.base.text import amount, count_of, shortened
from reconciler.core.messages import moment
from reconciler.output.status import span

Figures = Mapping[str, Any]
_LONGEST = 300
_ROWS = 12


def report(figures: Figures, before: Figures) -> str:
    """The message; ``before`` are the figures with which the period began."""
    lines = [_first(figures)]
    needs = list(_needs(figures))
    lines += ["needs attention:", *_few(needs)] if needs else ["nothing needs attention"]
    rest = lines_of(figures, before)
    return "\n".join([*lines, *rest])


def lines_of(figures: Figures, before: Figures) -> list[str]:
    """What ran, was done, came in and was used."""
    starts = {one["id"]: one for one in figures["starts"]}
    runs = [_process(one, starts.pop(one["id"], None), figures) for one in figures["processes"]]
    runs += [f"{ident}: {_started(one)}" for ident, one in starts.items()]
    lines = ["runs:", *_few(runs)] if runs else []
    steps = figures["steps"]
    failed = f", {steps['failed']} failed" if steps["failed"] else ""
    lines.append(f"done: {count_of(steps['done'], 'step')}{failed}")
    new = [
        f"{one['id'].partition(':')[2]} {'' if one['complete'] else 'more than '}{one['new']:,}"
        for one in figures["folders"]
        if one["new"] or not one["complete"]
    ]
    if figures["folders"]:
        lines.append(f"new files: {', '.join(new[:_ROWS]) if new else 'none'}")
    lines += [f"disk {line}" for line in _disks(figures, before)]
    lines += list(_grown(figures, before))
    lines.append(f"retention freed {amount(figures['freed'])}")
    return lines


def _first(figures: Figures) -> str:
    length = span(figures["to"] - figures["from"])
    return f"report of {length}, {moment(figures['from'])} to {moment(figures['to'])}"


def _needs(figures: Figures) -> Iterator[str]:
    for one in figures["troubles"]:
        words = f"{one['id']} {one['reason']}"
        yield f"{shortened(words, _LONGEST)} (since {moment(one['since'])})"
    for one in figures["pauses"]:
        until = "" if one["until"] is None else f" until {moment(one['until'])}"
        reason = one["reason"] or "no reason given"
        since = moment(one["since"])
        yield f"{one['id']} is paused since {since}{until}: {reason} (by {one['by']})"


def _few(lines: list[str]) -> Iterator[str]:
    yield from (f"- {line}" for line in lines[:_ROWS])
    if len(lines) > _ROWS:
        yield f"- and {len(lines) - _ROWS} more"


def _process(one: Figures, starts: Figures | None, figures: Figures) -> str:
    words = f"{one['id']} does not run"
    if one["since"] is not None:
        pids = ", ".join(map(str, one["pids"][:4]))
        more = f" and {len(one['pids']) - 4} more" if len(one["pids"]) > 4 else ""
        words = f"{one['id']} for {span(figures['to'] - one['since'])} (pid {pids}{more})"
    return f"{words}; {_started(starts)}" if starts is not None else words


def _started(one: Figures) -> str:
    counts = [f"started {_times(one['done'])}"] if one["done"] else []
    counts += [count_of(one["failed"], "failed start")] if one["failed"] else []
    words = ", ".join(counts)
    causes = [
        (f"{_times(cause['count'])} " if len(one["causes"]) > 1 else "")
        + shortened(cause["why"], _LONGEST)
        for cause in one["causes"]
    ]
    return f"{words} ({'; '.join(causes)})" if causes else words


def _disks(figures: Figures, before: Figures) -> Iterator[str]:
    known = {one["mount"]: one for one in before.get("disks", ())}
    for one in figures["disks"][:_ROWS]:
        words = f"{one['mount']}: {amount(one['used'])} of {amount(one['total'])} used"
        if one["mount"] in known:
            words += f", {_change(one['used'] - known[one['mount']]['used'])}"
        yield words


def _grown(figures: Figures, before: Figures) -> Iterator[str]:
    """The folders that have grown most."""
    known = {one["path"]: one["bytes"] for one in before.get("folders", ())}
    grown = [
        (one["bytes"] - known[one["path"]], one["id"])
        for one in figures["folders"]
        if one["path"] in known and one["complete"]
    ]
    most = [
        f"{ident.partition(':')[2]} {amount(by)}" for by, ident in sorted(grown)[::-1] if by > 0
    ]
    if most:
        yield f"grown most: {', '.join(most[:3])}"


def _change(by: int) -> str:
    if not by:
        return "as much as before"
    return f"{amount(abs(by))} {'more' if by > 0 else 'less'} than before"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
