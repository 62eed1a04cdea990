"""What may be written about the health of processes, and what is refused, at its place."""

from __future__ import annotations

import marshal
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from support import compiled

from reconciler import kinds
from reconciler.base.records import Packer, unpacked
from reconciler.config.errors import SpecError
from reconciler.config.schema import json_schema
from reconciler.core.claims import Key
from reconciler.kinds.process import Process

HEAD = "processes:\n  p:\n    command: x\n"


def process(folder: Path, text: str) -> Process:
    (resource,) = compiled(folder, HEAD + text).resources
    want: Process = resource.want
    return want


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("limits: {for: 60s}", "6:13", "needs at least one of memory, cpu, open_files"),
        ("limits: {}", "6:13", "needs at least one of"),
        ("limits: {cpu: 0.9}", "6:19", "write 90% for 0.9 of a core"),
        ("limits: {cpu: 0.5%}", "6:19", "0.5% is less than 1%"),
        ("limits: {cpu: 0}", "6:19", "0 is less than 1%"),
        ("limits: {cpu: much}", "6:19", "'much' is not a share of a core; write a percentage"),
        ("limits: {memory: 200}", "6:22", "'200' is not a size"),
        ("limits: {open_files: 0}", "6:26", "0 is outside 1 to"),
        ("limits: {age: 60}", "6:19", "not a duration"),
        ("limits: {age: 1h, for: 60}", "6:28", "limits.for: '60' is not a duration"),
        ("limits: {age: 1h, lasting: 1s}", "6:23", "no field 'lasting'"),
        ("limits: {memry: 1GiB}", "6:14", "did you mean 'memory'?"),
        ("limits: 1GiB", "6:13", "needs fields"),
        ("heartbeat: {file: /x}", "6:16", "needs 'max_age'"),
        ("heartbeat: {file: x, max_age: 1s}", "6:23", "'x' is not absolute"),
        ("heartbeat: /x", "6:16", "needs fields"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, place: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        process(tmp_path, f"    {text}\n")
    assert f"spec.yaml:{place}: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(("written", "share"), [("80%", 80), ("250", 250), ("12.5 %", 12.5)])
def test_a_share_is_in_percent_of_one_core(tmp_path: Path, written: str, share: float) -> None:
    limits = process(tmp_path, f"    limits: {{cpu: {written}}}\n").limits
    assert limits is not None
    assert (limits.cpu, limits.lasting) == (share, 60.0)


def test_all_of_it_survives_being_kept_and_changes_no_process(tmp_path: Path) -> None:
    text = (
        "    limits: {memory: 1GiB, threads: 9, for: 5m}\n"
        "    heartbeat: {file: ~/beat/it, max_age: 1m}\n"
        "    restart: {attempts: 3}\n"
        "    stop: {signal: INT}\n"
    )
    spec = compiled(tmp_path, HEAD + text)
    want: Process = spec.resources[0].want
    assert want.limits is not None and want.limits.lasting == 300
    assert unpacked(marshal.loads(marshal.dumps(Packer().packed(spec)))) == spec
    bare = replace(want, limits=None, heartbeat=None)
    assert want.digest() == bare.digest() == process(tmp_path, "").digest()
    assert list(kinds.get("process").uses(want)) == [Key("path", f"{tmp_path}/beat")]


def test_editors_know_it() -> None:
    schema = json_schema([kinds.get("process")])
    fine = {"command": "x", "limits": {"cpu": "80%", "for": "1m"}}
    for field, value, errors in (
        ("limits", fine["limits"], 0),
        ("limits", {"cpu": 80}, 0),
        ("limits", {"cpu": 0.5}, 1),
        ("limits", {"lasting": "1m"}, 1),
        ("heartbeat", {"file": "/x"}, 1),
    ):
        document = {"processes": {"p": {"command": "x", field: value}}}
        found = list(jsonschema.Draft202012Validator(schema).iter_errors(document))
        assert len(found) == errors, (field, value, found)
