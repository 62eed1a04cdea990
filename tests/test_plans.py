"""Golden cases: want and have, to changes and actions. One driver for all kinds."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import compiled

from reconciler import kinds
from reconciler.core.attributes import Attributes
from reconciler.core.model import Ailment, Observation, Past
from reconciler.core.plan import make_plan
from reconciler.host.found import File, Packed
from reconciler.host.processes import Identity
from reconciler.kinds.permission import WrongEntry
from reconciler.kinds.retention.due import Due

CASES = sorted((Path(__file__).parent / "plans").glob("*/*.yaml"))


def state(kind: str, have: Any, want: Any) -> Any:
    """The kind's state, from what the story says."""
    if kind == "unit":
        if "masks" in have:
            have["masks"] = tuple(map(tuple, have["masks"]))
        expected = kinds.get(kind).expected(want)
        return replace(expected, **{"text": expected.content, **have})
    if kind == "directory":
        return Attributes(**have)
    if kind == "permission":
        wrongs = (
            WrongEntry(one["path"], Attributes(**one["have"]), Attributes(**one["want"]), False)
            for one in have["paths"]
        )
        return kinds.get(kind).expected(None).__class__(tuple(wrongs))
    if kind == "retention":
        now = 10**18
        files = (
            File(now - age * 10**9, *(path.rpartition("/")[::2]), 1, at, size, 0, 0, size)
            for at, (path, size, age) in enumerate(have.get("files", ()))
        )
        logs = (
            tuple(path.rpartition("/")[::2] for path in have.get(name, ()))
            for name in ("unfinished", "uncompressed")
        )
        return Due(Packed(list(files)), *logs, now, have.get("goal"))
    made = import_module(kinds.get(kind).__class__.__module__)
    if kind == "cron":
        return made.CronState(**{**have, "env": tuple(map(tuple, have.get("env", ())))})
    if kind == "session":
        return made.SessionState(tuple(map(tuple, have["panes"])))
    if kind == "process":
        found = tuple((Identity(*who), digest) for who, digest in have["found"])
        return made.ProcessState(have["running"], have["definition"], found, have.get("stopping"))
    return replace(kinds.get(kind).expected(want), **have)


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_plan(case: Path, tmp_path: Path) -> None:
    story = YAML(typ="safe").load(case)
    kind = case.parent.name
    body = {**story["want"], "state": story.get("state", "present")}
    # JSON is YAML, with every string in quotes.
    text = f"{kinds.get(kind).section}: {{it: {json.dumps(body)}}}"
    spec = compiled(tmp_path, text)
    (resource,) = spec.resources
    have = None if story["have"] == "absent" else state(kind, story["have"], resource.want)
    ailments = tuple(Ailment(**one) for one in story.get("ailments", ()))
    seen = {resource.id: Observation(have, ailments=ailments)}
    lasting = {(resource.id, *key): seconds for *key, seconds in story.get("lasting", ())}
    plan = make_plan(spec, spec.resources, seen, kinds.get, "host", Past(lasting=lasting))
    assert [note.reason for note in plan.notes] == story.get("notes", [])
    if story["verb"] is None:
        assert plan.steps == ()
        return
    (step,) = plan.steps
    assert step.verb == story["verb"]
    assert [[c.field, c.have, c.want] for c in step.changes] == story["changes"]
    assert [action.describe() for action in step.actions] == story["actions"]


def test_every_kind_has_cases() -> None:
    assert {case.parent.name for case in CASES} == set(kinds.names())
