"""Plans and reports as the JSON documents that the command line promises.

It must not leave out or shorten anything: what is safe to print is up to the JSON encoder,
which escapes everything outside ASCII.
"""

from __future__ import annotations

from typing import Any

from reconciler.model import Outcome, Plan, Remark, Report, Step

FORMAT = 1


def plan_document(plan: Plan) -> dict[str, Any]:
    """A plan as a JSON value; ``steps`` is empty when the host is as declared."""
    return {
        "format": FORMAT,
        "spec": {"name": plan.spec_name, "path": plan.spec_path},
        "host": plan.host,
        "steps": [_step(step) for step in plan.steps],
        **_remarks(plan),
    }


def report_document(report: Report) -> dict[str, Any]:
    """A report as a JSON value: its plan, each step with what became of it."""
    document = plan_document(report.plan)
    document["steps"] = [outcome_document(outcome) for outcome in report.outcomes]
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
    return document


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """A step as a JSON value, with what became of it."""
    return {
        **_step(outcome.step),
        "result": outcome.result,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 6),
    }


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
