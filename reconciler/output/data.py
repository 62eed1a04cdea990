"""Plans and reports as the JSON documents that the command line promises.

It must not leave out or shorten anything: what is safe to print is up to the JSON encoder,
which escapes everything outside ASCII.
"""

from __future__ import annotations

from typing import Any

from reconciler.core.model import Outcome, Plan, Remark, Report, Step

FORMAT = 1


def headed(about: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A document about a spec: its format, which spec ``about`` says it is, and what ``more``."""
    return {"format": FORMAT, "spec": about, **more}


def plan_document(plan: Plan, about: dict[str, Any]) -> dict[str, Any]:
    """A plan as a JSON value; ``steps`` is empty when the host is as declared.

    ``about`` says which spec it is, and how it was called.
    """
    steps = [_step(step) for step in plan.steps]
    return headed(about, host=plan.host, steps=steps, **_remarks(plan))


def report_document(report: Report, about: dict[str, Any]) -> dict[str, Any]:
    """A report as a JSON value: its plan, each step with what became of it."""
    document = plan_document(report.plan, about)
    document["steps"] = [outcome_document(outcome) for outcome in report.outcomes]
    document["summary"]["skipped"] += sum(one.result == "skipped" for one in report.outcomes)
    return document


def _step(step: Step) -> dict[str, Any]:
    document = {
        "id": step.id,
        "verb": step.verb,
        "changes": [
            {"field": change.field, "have": change.have, "want": change.want}
            for change in step.changes
        ],
        "actions": [action.describe() for action in step.actions],
        "why": step.why,
        "needs": list(step.needs),
    }
    if step.denied is not None:
        document |= {"denied": step.denied, "by_hand": list(step.by_hand)}
    return document if step.final is None else {**document, "cannot_be_undone": step.final}


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """A step as a JSON value, with what became of it."""
    document = {
        **_step(outcome.step),
        "result": outcome.result,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 6),
    }
    return document if outcome.note is None else {**document, "note": outcome.note}


def _remarks(plan: Plan) -> dict[str, Any]:
    def listed(remarks: tuple[Remark, ...]) -> list[dict[str, str]]:
        return [{"id": remark.id, "reason": remark.reason} for remark in remarks]

    return {
        "unknown": listed(plan.unknown),
        "skipped": listed((*plan.skipped, *plan.held)),
        "notes": listed(plan.notes),
        "failing": listed(plan.failing),
        "summary": {
            "resources": plan.resources,
            "changes": len(plan.steps),
            "unknown": len(plan.unknown),
            "skipped": len(plan.skipped) + len(plan.held),
        },
    }


def standing(plan: Plan) -> dict[str, tuple[str, str]]:
    """How each resource stands of which something is to be said, by id: a word, and why."""
    words: dict[str, tuple[str, str]] = {}
    for remark in plan.notes:
        words[remark.id] = ("ok", remark.reason)
    for step in plan.steps:
        words[step.id] = ("differs", step.why)
    for remark in plan.failing:
        words[remark.id] = ("failing", remark.reason)
    for remark in plan.skipped:
        paused = remark.reason.startswith("paused: ")
        words[remark.id] = ("paused" if paused else "skipped", remark.reason)
    for remark in plan.unknown:
        words[remark.id] = ("unknown", remark.reason)
    for remark in plan.held:
        state = "given up" if remark.id in plan.given_up else "waits"
        words[remark.id] = (state, remark.reason)
    return words


def laid_out(value: Any, margin: str = "\n") -> str:
    """As JSON. Only a row without an indent is written by the encoder in C."""
    import json

    within = f"{margin}  "
    if isinstance(value, dict) and value:
        pairs = (f"{json.dumps(key)}: {laid_out(one, within)}" for key, one in value.items())
        return f"{{{within}{f',{within}'.join(pairs)}{margin}}}"
    if isinstance(value, list) and value and not isinstance(value[0], str):
        return f"[{within}{f',{within}'.join(map(json.dumps, value))}{margin}]"
    return json.dumps(value)
