"""The schemas for pydantic's engine are those that pydantic itself would have made."""

from __future__ import annotations

import sys
from types import MethodType
from typing import Any

import pytest
from pydantic import TypeAdapter
from support import compiled

from reconciler import kinds
from reconciler.base.records import dataclass, field, options
from reconciler.config.documents import LoopFields
from reconciler.config.errors import SpecError
from reconciler.config.field_schemas import of_record
from reconciler.config.notify import NotifyFields
from reconciler.core.policy import PlanPolicy

READ = [*(kind.resource for kind in kinds.all_kinds()), LoopFields, NotifyFields, PlanPolicy]
# What serializing, JSON Schema and shared definitions need, and what is so by default.
UNUSED = {"collect_init_only", "computed_fields", "frozen", "init", "kw_only", "metadata",
          "post_init", "ref", "serialization_alias", "title"}  # fmt: skip


def plain(value: Any, shared: dict[str, Any]) -> Any:
    """What validates, of a schema: without references, and with functions that can be compared."""
    if isinstance(value, dict):
        if value.get("type") == "definitions":
            shared = {**shared, **{one["ref"]: one for one in value["definitions"]}}
            return plain(value["schema"], shared)
        if value.get("type") == "definition-ref":
            return plain(shared[value["schema_ref"]], shared)
        found = {key: plain(one, shared) for key, one in value.items() if key not in UNUSED}
        if value.get("type") == "dataclass-args":
            found["fields"] = dict(zip(
                (one["name"] for one in value["fields"]), found["fields"], strict=True,
            ))  # fmt: skip
        elif value.get("type") == "dataclass":
            assert not value.get("post_init"), "nobody would call it"
            for name, said in options(value["cls"]).items():
                if not said.get("metadata", {}).get("written", True):
                    found["schema"]["fields"][name]["schema"]["schema"] = "nobody may write it"
        return found
    if isinstance(value, list):
        return [plain(one, shared) for one in value]
    if isinstance(value, MethodType):
        owner = value.__self__
        names = getattr(type(owner), "__slots__", None) or vars(owner)
        held = {name: getattr(owner, name) for name in names}
        return value.__func__, {
            name: one.__qualname__ if callable(one) else one for name, one in held.items()
        }
    return value


@pytest.mark.parametrize("cls", READ, ids=lambda cls: cls.__name__)
def test_pydantic_would_make_the_same(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cls, "__pydantic_config__", {"extra": "forbid"}, raising=False)
    theirs = plain(TypeAdapter(cls).core_schema, {})
    assert plain(of_record(cls), {}) == theirs


def test_a_field_of_our_own_cannot_be_written_however_deep(tmp_path: Any) -> None:
    for text, key in (
        ("checks: {own: {state: {max: 1MiB, path: /x}}}", "path"),
        ("directories: {d: {path: /x, emptied: [a]}}", "emptied"),
    ):
        with pytest.raises(SpecError, match=f"has no field '{key}'"):
            compiled(tmp_path, text + "\n")


def test_an_annotation_that_is_not_understood_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Odd:
        one: set[str] = field(default_factory=set)

    with pytest.raises(TypeError, match=r"no field of a spec is set\[str\]"):
        of_record(Odd)


def test_reading_a_spec_does_not_load_pydantic_itself(free: None) -> None:
    import subprocess

    code = "import sys, reconciler.config.build; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
