"""A period in words, for people: as a message, and as lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.base.text import amount, count_of, shortened
from reconciler.core.messages import moment
from reconciler.output.status import span

Figures = Mapping[str, Any]
_LONGEST = 300
_ROWS = 12
_SET = 60.0
"""Seconds by which the clock may have been set since the start of what is still the same."""


def report(figures: Figures, before: Figures) -> str:
    """The message; ``before`` are the figures with which the period began."""
    lines = [_first(figures)]
    needs = list(_needs(figures))
    lines += ["needs attention:", *_few(needs)] if needs else ["nothing needs attention"]
    lines += lines_of(figures, before)
    usage = list(_usage(figures, before))
    lines += ["used since then, or since it was started:", *_few(usage)] if usage else []
    lines += figures.get("diagnosis", ())
    return "\n".join(lines)


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


def _usage(figures: Figures, before: Figures) -> Iterator[str]:
    """The processor and memory of each process: over the period, where it was there all along."""
    known = {one["id"]: one for one in before.get("processes", ())}
    for one in figures["processes"]:
        if not one.get("usage"):
            continue
        was = known.get(one["id"], {})
        same = was.get("usage") and was["pids"] == one["pids"]
        same = same and abs(was["since"] - one["since"]) < _SET
        (cpu, memory, peak), begin, words = _sums(one["usage"]), one["since"], ""
        if same:
            old, held, _ = _sums(was["usage"])
            cpu, begin, words = cpu - old, before["to"], f", {_change(int(memory - held))}"
        percent = 100 * max(0.0, cpu) / max(1.0, figures["to"] - begin)
        most = amount(int(max(memory, peak)))
        used = f"{percent:.1f} % of a processor, {amount(int(memory))}{words}; at most {most}"
        yield f"{one['id']}: {used}"


def _sums(usage: Sequence[Figures]) -> tuple[float, float, float]:
    cpu, memory, peak = (sum(one[what] for one in usage) for what in ("cpu", "memory", "peak"))
    return cpu, memory, peak


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
