"""The JSON Schema accepts what a spec may say, and knows what it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import compiled

from reconciler import kinds
from reconciler.config.errors import SpecError
from reconciler.config.schema import json_schema

jsonschema = pytest.importorskip("jsonschema", reason="the package jsonschema is not installed")


@pytest.fixture
def check(room: Any) -> Any:
    schema = json_schema(room.kinds())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    def errors(document: Any) -> list[str]:
        return [".".join(map(str, e.absolute_path)) for e in validator.iter_errors(document)]

    return errors


def resource(**fields: Any) -> dict[str, Any]:
    return {"version": 1, "name": "demo", "folders": {"a": fields}}


def worker(**fields: Any) -> dict[str, Any]:
    return {"version": 1, "name": "demo", "workers": {"a": {"command": "x", **fields}}}


@pytest.mark.parametrize(
    "document",
    [
        {"version": 1, "name": "demo", "folders": None, "vars": {"a": [1]}, "include": ["b.yaml"]},
        {"folders": {"a": {"path": "/a"}}},
        resource(path="{{ x }}/a", mode="{{ m }}", recursive="{{ r }}", state="{{ s }}"),
        resource(path="/a", mode="0755", recursive=True, owner=1000, needs=["folder:b"]),
        resource(path="/a", when=False, for_each=[1, "b"], after=["{{ x }}"]),
        resource(path="/a", when="host.systemd", for_each="{{ names }}", state="absent"),
        worker(command=["a", 1], env={"A": 1, "B": "c"}, count=3, every="30s", note=True),
        worker(count="{{ n }}", every="{{ t }}m", match={"cmdline": "("}, parts=[{"label": 1}]),
    ],
)
def test_valid(document: Any, check: Any) -> None:
    assert check(document) == []


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({"version": 2}, "version"),
        ({"name": "A B"}, "name"),
        ({"nope": {}}, ""),
        (resource(pth="/a", path="/b"), "folders.a"),
        (resource(path="/b", born="x"), "folders.a"),
        (resource(mode="0755"), "folders.a"),
        (resource(path="/a", mode=755), "folders.a.mode"),
        (resource(path="/a", mode="0999"), "folders.a.mode"),
        (resource(path="/a", recursive="yes"), "folders.a.recursive"),
        (resource(path="/a", state="gone"), "folders.a.state"),
        (resource(path="/a", needs=["b"]), "folders.a.needs.0"),
        (worker(count=101), "workers.a.count"),
        (worker(every="30"), "workers.a.every"),
        (worker(parts=[{}]), "workers.a.parts.0"),
        (worker(match={"nope": 1}), "workers.a.match"),
    ],
)
def test_invalid(document: Any, where: str, check: Any) -> None:
    assert check(document) == [where]


def test_it_describes_what_editors_show(room: Any) -> None:
    schema = json_schema(room.kinds())
    assert json.loads(json.dumps(schema)) == schema
    fields = schema["properties"]["folders"]["additionalProperties"]
    assert fields["description"] == "A folder."
    assert set(fields["properties"]) == {
        "path", "mode", "owner", "recursive", "state", "needs", "after", "when", "for_each",
    }  # fmt: skip
    assert fields["required"] == ["path"]


def test_every_property_has_a_description_and_the_schema_an_id() -> None:
    schema = json_schema(kinds.all_kinds())
    assert schema["$id"] == "urn:reconcile:spec:1"
    found = []

    def look(place: str, part: Any) -> None:
        if isinstance(part, dict):
            for name, value in part.get("properties", {}).items():
                found.append(f"{place}.{name}")
                known = value.get("description") or value.get("$ref", "").startswith(
                    "#/$defs/resource/"
                )
                assert known, f"{place}.{name}"
            for name, value in part.items():
                look(f"{place}.{name}", value)
        elif isinstance(part, list):
            for value in part:
                look(place, value)

    look("", schema)
    assert len(found) > 150


@pytest.mark.parametrize(
    ("sections", "valid"),
    [
        ({"sessions": {"a": None}}, True),
        ({"sessions": {"a": {}}}, True),
        ({"checks": {"c": {}}}, False),
        ({"checks": {"c": None}}, False),
        ({"checks": {"c": {"command": "x"}}}, True),
        ({"checks": {"c": {"command": "x", "tcp": "a:1"}}}, False),
        ({"directories": {"d": None}}, False),
        ({"notify": {"quiet": "22:00-07:00"}}, True),
    ],
)
def test_it_takes_what_the_spec_takes(
    sections: dict[str, Any], valid: bool, tmp_path: Path, by_schema: Any
) -> None:
    document = {"version": 1, "name": "demo", **sections}
    assert (by_schema(document) == []) == valid
    if "notify" in sections:
        return  # Its targets may stand in another file.
    try:
        ((name, body),) = sections.items()
        compiled(tmp_path, f"{name}: {json.dumps(body)}\n")  # JSON is YAML.
    except SpecError:
        assert not valid
    else:
        assert valid
