"""What many hosts have said: one table, what is wrong first, and what they have in common.

It must not ask a host, nor print.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler import __version__
from reconciler.base.records import dataclass
from reconciler.base.text import count_of, printable
from reconciler.core.model import Change, Plan, Remark, Step
from reconciler.fleet.run import HostResult
from reconciler.output.data import FORMAT
from reconciler.output.status import counted
from reconciler.output.text import Block, Line, Table, plan_lines

_ORDER = {"failed": "bad", "unreachable": "bad", "differs": "change", "changed": "change",
          "ok": "good"}  # fmt: skip
"""The words for a host, in the order in which they are shown, with the style of each."""
_PLURAL = {"differs": "differ"}
_MOST_NAMES = 8
_LONGEST = 600
_LONGEST_VERB = 20


def fleet_document(mode: str, results: Sequence[HostResult]) -> dict[str, Any]:
    """All that the hosts have said, as a JSON value."""
    hosts = [_host(mode, one) for one in results]
    hosts.sort(key=lambda one: (list(_ORDER).index(one["state"]), _natural(one["host"])))
    states = [one["state"] for one in hosts]
    counts = {state: states.count(state) for state in _ORDER}
    return {"format": FORMAT, "mode": mode, "hosts": hosts,
            "summary": {"hosts": len(hosts), **counts}}  # fmt: skip


def _host(mode: str, one: HostResult) -> dict[str, Any]:
    answer = one.answer or {}
    report, why = answer.get("report"), one.why
    try:
        json.dumps(report, allow_nan=False)
        if not why and ("resources" if mode == "status" else "steps") not in (report or ()):
            raise KeyError
        list(_group(mode, [{"host": "", "report": report}], True) if _steps(report) else ())
        _words({"version": "", "reason": "", "report": report})
    except (TypeError, KeyError, AttributeError, ValueError, RecursionError):
        # Whoever rules that host says what he likes; that is the trouble of this host alone.
        report, why = None, why or "its answer is not one of this program"
    if mode == "status" and why.endswith("the spec does not exist"):
        why += "; --once with --hosts puts it there"
    state = "ok"
    if why:
        state = "failed" if one.reached else "unreachable"
    elif answer.get("changed"):
        state = "differs" if mode == "plan" else "changed"
    return {
        "host": one.name,
        "state": state,
        "changes": len(_steps(report)),
        "reason": why,
        "version": str(answer.get("version", "")),
        "report": report,
    }


def _steps(report: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The steps that would be done, or were."""
    steps: list[dict[str, Any]] = (report or {}).get("steps", [])
    return [step for step in steps if step.get("result", "done") == "done"]


def fleet_blocks(document: Mapping[str, Any], about: str, verbose: bool) -> Iterator[Block]:
    """The table, and the steps of hosts that have the same together; ``about`` comes first."""
    hosts = document["hosts"]
    yield f"{about} on {count_of(len(hosts), 'host')}", ""
    rows = tuple(
        ((printable(one["host"]), one["state"], str(one["changes"] or ""), _words(one)),
         _ORDER[one["state"]])
        for one in hosts
    )  # fmt: skip
    yield Table(("host", "state", "changes", "details"), rows, frozenset({2}))
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in hosts:
        if _steps(one["report"]):
            groups.setdefault(_same(one["report"]), []).append(one)
    for group in groups.values():
        yield from _group(document["mode"], group, verbose)
    yield _summary(document["summary"])


def trouble_rows(document: Mapping[str, Any]) -> Iterator[Block]:
    """Only the hosts on which something went wrong."""
    hosts = [one for one in document["hosts"] if _ORDER[one["state"]] == "bad"]
    rows = tuple(((printable(one["host"]), one["state"], _words(one)), "bad") for one in hosts)
    if rows:
        yield Table(("host", "state", "details"), rows)


def _words(one: Mapping[str, Any]) -> str:
    words = []
    if one["version"] not in ("", __version__):
        words.append(f"runs version {one['version']}, and this is {__version__}")
    if one["reason"]:
        words.append(one["reason"])
    elif "resources" in (one["report"] or {}):
        resources = one["report"]["resources"]
        others = [each["id"] for each in resources if each["state"] not in ("ok", "skipped")]
        words.append(counted(resources) + (f" ({_listed(others)})" if others else ""))
    return printable("; ".join(words), _LONGEST)


def _same(report: Mapping[str, Any]) -> str:
    """The same for hosts on which the same would be done, whatever it took."""
    names = ("id", "verb", "changes", "actions", "why")
    return json.dumps([[step[name] for name in names] for step in _steps(report)])


def _group(mode: str, group: Sequence[Mapping[str, Any]], verbose: bool) -> Iterator[Line]:
    names = _listed([one["host"] for one in group])
    number = f" ({count_of(len(group), 'host')})" if len(group) > 1 else ""
    verb = "would change" if mode == "plan" else "changed"
    yield f"{verb} on {names}{number}:", ""
    report = group[0]["report"]
    steps = tuple(_step(step) for step in _steps(report))
    notes = tuple(Remark(one["id"], one["reason"]) for one in report["notes"])
    plan = Plan("", "", "", report["summary"]["resources"], steps, notes=notes if verbose else ())
    *lines, _ = plan_lines(plan, verbose)
    yield from lines


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _step(step: Mapping[str, Any]) -> Step:
    """The step of a JSON value, to be shown."""
    changes = tuple(Change(one["field"], one["have"], one["want"]) for one in step["changes"])
    actions: list[Any] = [_RemoteAction(words) for words in step["actions"]]
    verb = printable(step["verb"], _LONGEST_VERB)  # All else is escaped where it is shown.
    return Step(
        step["id"], verb, changes, actions, step["why"], (), step.get("denied"),
        tuple(step.get("by_hand", ())),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _RemoteAction:
    words: str

    def describe(self) -> str:
        return self.words


def _summary(summary: Mapping[str, int]) -> Line:
    words = [
        f"{summary[state]} {state if summary[state] == 1 else _PLURAL.get(state, state)}"
        for state in _ORDER
        if summary[state]
    ]
    bad = summary["failed"] + summary["unreachable"]
    style = "bad" if bad else "change" if summary["ok"] < summary["hosts"] else "good"
    return f"{count_of(summary['hosts'], 'host')}: {', '.join(words)}.", style


def _natural(name: str) -> list[tuple[int, str]]:
    """By which web2 comes before web10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part) if part.isdigit() else 0, part) for part in parts]
