"""Plans, reports and tables as lines for people.

It must not print: it yields lines, each with a style, in which everything is safe to show. Where
somebody watches, rich draws the tables; elsewhere each row is one uncut line, made here, since rich
takes seconds for ten thousand rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.base.records import dataclass
from reconciler.base.text import count_of, printable

if TYPE_CHECKING:
    from reconciler.core.model import Outcome, Plan, Remark, Report, Step

Line = tuple[str, str]
"""The text of a line, and what it tells: ``good``, ``change``, ``bad``, ``quiet`` or nothing.

``long``: nothing, and a terminal may cut it.
"""

MARGIN = 2
"""Blanks before each row, and between two columns."""

Row = tuple[Sequence[str], str]
"""The cells, already safe to show, and the style of the row."""


@dataclass(frozen=True, slots=True)
class Table:
    """``rows`` have a cell for each word of ``head``; ``right`` are the columns of numbers."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    right: frozenset[int] = frozenset()


Block = Line | Table
"""What views yield, and a terminal writes."""

_SIGNS = {"create": "+", "start": "+", "delete": "-", "stop": "-"}
_MOST_ACTIONS = 10
_MOST_LINES = 60


def lines_of(blocks: Iterable[Block]) -> Iterator[Line]:
    """All as lines; the columns of a table are filled up with blanks."""
    for block in blocks:
        if not isinstance(block, Table):
            yield block
            continue
        rows = ((block.head, "quiet"), *block.rows) if block.rows else ()
        widths = [max(map(len, column)) for column in zip(*(row for row, _ in rows), strict=True)]
        for row, style in rows:
            cells = [
                cell.rjust(width) if at in block.right else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            yield f"{' ' * MARGIN}{(' ' * MARGIN).join(cells)}".rstrip(), style


def heading(name: str, path: str, host: str, given: str = "") -> Line:
    """Which spec, on which host, and what is ``given`` besides."""
    return f"{name} ({printable(path)}) on {printable(host)}{given}", ""


def given(about: Mapping[str, Any]) -> str:
    """The end of a mode's first line: variables that were set, and whom ``--trust`` names."""
    values = [f"{name}={value}" for name, value in about.get("variables", {}).items()]
    words = f", with {' '.join(printable(value) for value in values)}" if values else ""
    return words + "".join(f", trusts user {uid}" for uid in about.get("trusts", ()))


def plan_lines(plan: Plan, verbose: bool) -> Iterator[Line]:
    """The plan: every step with why and what would be done, then all that is not planned."""
    for step in plan.steps:
        sign = _SIGNS.get(step.verb, "~")
        yield f"  {sign} {step.verb} {printable(step.id)}: {printable(step.why)}", "change"
        yield from _differences(step)
        yield from _actions(step)
        if step.denied is not None:
            yield f"      denied: {printable(step.denied)}", "bad"
        if step.final is not None:
            yield f"      cannot be undone: {printable(step.final)}", "quiet"
        yield from by_hand_lines(step)
    yield from remark_lines(plan, verbose)
    yield from _plan_summary(plan)


def outcome_lines(outcome: Outcome) -> Iterator[Line]:
    """One step as it ended."""
    step = outcome.step
    style = {"done": "good", "failed": "bad"}.get(outcome.result, "change")
    text = f"  {outcome.result} {step.verb} {printable(step.id)}: {printable(step.why)}"
    yield f"{text} [{outcome.seconds:.3f} s]", style
    if outcome.result in ("done", "failed"):
        yield from _actions(step)
    if outcome.error is not None:
        yield f"      {outcome.result}: {printable(outcome.error, 4000)}", style
        if outcome.result == "failed":
            yield from by_hand_lines(step)
    elif outcome.result == "dropped" and outcome.note is None:
        yield "      dropped: already as declared", style
    if outcome.note is not None:
        yield f"      {printable(outcome.note)}", style


def remark_lines(plan: Plan, verbose: bool) -> Iterator[Line]:
    """What is unknown, skipped or worth a note. What ``when`` switched off is shown as well."""
    yield from trouble_lines(plan)
    yield from _remarks(". skipped", plan.skipped, "quiet")
    if verbose:
        yield from _remarks(". note", plan.notes, "quiet")
    else:
        yield from _remarks(". note", plan.notes[:5], "quiet")


def trouble_lines(plan: Plan) -> Iterator[Line]:
    """What is unknown, waits after failed starts, or is wrong: for which a pass ends with 1."""
    yield from _remarks("? unknown", plan.unknown, "bad")
    yield from _remarks("! waits", plan.held, "bad")
    yield from failing_lines(plan)


def paused_lines(plan: Plan) -> Iterator[Line]:
    """What is paused."""
    yield from _remarks(". skipped", _paused(plan), "change")


def failing_lines(plan: Plan) -> Iterator[Line]:
    """What is wrong that no step can fix."""
    yield from _remarks("! failing", plan.failing, "bad")


def report_summary(report: Report) -> Iterator[Line]:
    """The last line of a pass."""
    plan = report.plan
    counts = {
        result: sum(outcome.result == result for outcome in report.outcomes)
        for result in ("done", "failed", "skipped", "dropped")
    }
    if not report.outcomes:
        yield from _nothing(plan)
        return
    words = [f"{counts['done']} done", f"{counts['failed']} failed"]
    words += [f"{counts['dropped']} dropped"] if counts["dropped"] else []
    words += _others(plan, counts["skipped"])
    bad = report.failed or plan.trouble
    yield f"{', '.join(words)}; {count_of(plan.resources, 'resource')}.", "bad" if bad else "good"


def _plan_summary(plan: Plan) -> Iterator[Line]:
    if not plan.steps:
        yield from _nothing(plan)
        return
    words = [f"{len(plan.steps)} to change", *_others(plan)]
    yield (
        f"{', '.join(words)}; {count_of(plan.resources, 'resource')}.",
        "bad" if plan.trouble else "change",
    )


def _nothing(plan: Plan) -> Iterator[Line]:
    others = _others(plan)
    if plan.trouble:
        yield (
            f"Nothing to do now: {', '.join(others)}; {count_of(plan.resources, 'resource')}.",
            "bad",
        )
        return
    skipped = f", {', '.join(others)}" if others else ""
    number = plan.resources - len(plan.skipped)
    yield f"Nothing to do: {count_of(number, 'resource')} as declared{skipped}.", "good"


def _others(plan: Plan, skipped: int = 0) -> list[str]:
    """What is not as declared; ``skipped`` are the steps that were skipped, besides."""
    paused = _paused(plan)
    counts = (
        (len(plan.unknown), "unknown"),
        (len(plan.held), "waiting"),
        (len(plan.failing), "failing"),
        (len(paused), "paused"),
        (len(plan.skipped) - len(paused) + skipped, "skipped"),
    )
    return [f"{number} {word}" for number, word in counts if number]


def _paused(plan: Plan) -> tuple[Remark, ...]:
    return tuple(one for one in plan.skipped if one.reason.startswith("paused: "))


def _actions(step: Step) -> Iterator[Line]:
    for action in step.actions[:_MOST_ACTIONS]:
        yield f"      {printable(action.describe())}", "long"
    more = len(step.actions) - _MOST_ACTIONS
    if more > 0:
        yield f"      and {more} more like it (--json shows all)", "quiet"


def _differences(step: Step) -> Iterator[Line]:
    """What changes in texts of several lines, as diff -u shows it."""
    for change in step.changes:
        have, want = change.have or "", change.want or ""
        if not (isinstance(have, str) and isinstance(want, str) and "\n" in have + want):
            continue
        from reconciler.core.text_difference import differing

        lines, number = differing(have, want, _MOST_LINES)
        yield f"      {change.field}:", ""
        for line in lines:
            style = {"+": "good", "-": "bad"}.get(line[:1], "quiet")
            yield f"        {printable(line)}".rstrip(), style
        more = number - _MOST_LINES
        if more > 0:
            yield f"        and {more} more lines (--json shows all)", "quiet"


def by_hand_lines(step: Step) -> Iterator[Line]:
    """The commands for somebody with the rights, whole, so that they can be copied."""
    if step.by_hand:
        yield "      commands for somebody who may run them:", ""
        for command in step.by_hand:
            yield f"        {printable(command, 100_000)}", ""


def _remarks(word: str, remarks: tuple[Remark, ...], style: str) -> Iterator[Line]:
    for remark in remarks:
        # A reason may hold a command to copy, but for an expression.
        cut = "long" if remark.reason.startswith("when: ") else style
        yield f"  {word} {printable(remark.id)}: {printable(remark.reason, 100_000)}", cut
