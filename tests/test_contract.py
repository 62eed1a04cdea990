"""Every kind, by one driver, on the real machine: observing writes nothing, plan -> apply ->
plan is empty, twice is once, and a plan survives JSON."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from support import CHECKOUT, Machine

from reconciler import kinds
from reconciler.core.kind import Modifying

SAMPLES = {
    "block": "blocks: {{x: {{path: {base}/tree/rc, content: 'alias a=b'}}}}",
    "cron": "cron: {{x: {{schedule: '*/5 * * * *', command: [/bin/true, 'a%b'], env: {{A: b}}}}}}",
    "file": "files: {{x: {{path: {base}/tree/file, content: 'a', on_change: ['run true']}}}}",
    "link": "links: {{x: {{path: {base}/tree/link, target: below}}}}",
    "directory": "directories: {{x: {{path: {base}/made/deep, mode: '0751'}}}}",
    "permission": "permissions: {{x: {{path: {base}/tree, recursive: true, mode: '0711'}}}}",
    "retention": "retention: {{x: {{path: {base}/old, keep_last: 1, action: delete}}}}",
    "session": "sessions: {{x: {{windows: [{{name: a, panes: [{{command: sleep 999}}]}}]}}}}",
    "process": "processes: {{x: {{command: sleep 999}}}}",
    # A file alone is all there is to a unit, with and without a systemd that runs.
    "unit": 'units: {{x: {{unit: x.timer, scope: user, content: "[Timer]\\nOnBootSec=1h"}}}}',
}
ONLY_LOOKS = {"check"}
"""Kinds by which nothing on the host is made as declared."""
_CHANGING = re.compile(
    r"^\d+ +(mkdir|mkdirat|rmdir|unlink|unlinkat|rename|renameat|renameat2|link|linkat|symlink|"
    r"symlinkat|chmod|fchmod|fchmodat|chown|fchown|lchown|fchownat|truncate|ftruncate|"
    r"fallocate|setxattr|lsetxattr|fsetxattr|removexattr|utime|utimes|utimensat|futimesat|"
    r"mknod|mknodat|mount|umount2|kill|tkill|tgkill|pidfd_send_signal|fsync|fdatasync|bind)\("
)


def changing_calls(trace: str) -> list[str]:
    """The lines of a strace that changed something, or tried to; opening to write is one."""
    found = []
    for line in trace.splitlines():
        if _CHANGING.match(line) or (
            re.match(r"\d+ +open(at|at2)?\(", line)
            and re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", line)
            and not re.search(r'"/dev/(null|tty|pts/\d+)"', line)
        ):
            found.append(line)
    return found


@pytest.fixture(params=sorted(SAMPLES))
def sample(request: pytest.FixtureRequest, machine: Machine) -> Path:
    (machine.base / "tree/below").mkdir(parents=True)
    (machine.base / "old").mkdir()
    for name in ("a", "b"):
        (machine.base / "old" / name).write_text(name)
    return machine.spec(SAMPLES[request.param].format(base=machine.base))


def test_every_kind_has_a_sample() -> None:
    assert set(SAMPLES) | ONLY_LOOKS == set(kinds.names())


def test_observing_writes_nothing(machine: Machine, sample: Path) -> None:
    trace = machine.traced("all", *machine.argv("--plan", sample, "--detailed-exitcode"))
    assert "+++ exited with 2 +++" in trace
    assert changing_calls(trace) == []
    assert not machine.state.exists()


def test_plan_apply_plan_is_empty_and_twice_is_once(machine: Machine, sample: Path) -> None:
    planned = machine.plan(sample)
    report = machine.once(sample)
    assert [step["id"] for step in report["steps"]] == [step["id"] for step in planned["steps"]]
    assert [step["actions"] for step in report["steps"]] == [
        step["actions"] for step in planned["steps"]
    ]
    assert {step["result"] for step in report["steps"]} == {"done"}
    machine.converged(sample)
    trace = machine.traced("all", *machine.argv("--once", sample, "--detailed-exitcode"))
    assert "+++ exited with 0 +++" in trace
    assert changing_calls(trace) == []


def test_the_second_pass_of_the_executor_changes_nothing(machine: Machine, executor: Path) -> None:
    machine.once(executor)
    trace = machine.traced("all", *machine.argv("--once", executor, "--detailed-exitcode"))
    assert "+++ exited with 0 +++" in trace
    assert len(trace.splitlines()) > 100
    assert changing_calls(trace) == []


def test_the_plan_survives_json(machine: Machine, sample: Path) -> None:
    plan = machine.plan(sample)
    assert json.loads(json.dumps(plan)) == plan
    assert set(plan) >= {"format", "spec", "host", "steps", "unknown", "skipped", "summary"}
    for step in plan["steps"]:
        keys = set(step) - {"cannot_be_undone"}
        assert keys == {"id", "verb", "changes", "actions", "why", "needs"}


def test_one_that_is_absent_already_needs_nothing(machine: Machine, sample: Path) -> None:
    text = sample.read_text().replace("{x: {", "{x: {state: absent, ")
    modifying = [one.section for one in kinds.all_kinds() if isinstance(one, Modifying)]
    if any(f"\n{section}: " in text for section in modifying):
        done = machine.reconcile("--check", machine.spec(text))
        assert done.returncode == 65
        assert "makes nothing that could be absent" in done.stderr
    else:
        machine.converged(machine.spec(text))


@pytest.mark.parametrize("name", kinds.names())
def test_what_a_user_may_write_is_plain_frozen_data(name: str) -> None:
    resource = kinds.get(name).resource
    assert is_dataclass(resource)
    assert fields(resource)
    assert resource.__dataclass_params__.frozen
    assert "__slots__" in vars(resource)
    assert os.path.basename(kinds.__file__) == "__init__.py"


def test_the_schema_that_the_shipped_spec_names_is_there_and_current(machine: Machine) -> None:
    specs = CHECKOUT / "specs"
    first = (specs / "executor.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=spec.schema.json"
    printed = machine.reconcile("--schema").stdout
    # Mend it with: reconcile --schema > specs/spec.schema.json
    assert (specs / "spec.schema.json").read_text() == printed


def test_the_shipped_spec_is_valid_by_its_schema() -> None:
    import jsonschema
    from ruamel.yaml import YAML

    schema = json.loads((CHECKOUT / "specs/spec.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    document = YAML(typ="safe").load(CHECKOUT / "specs/executor.yaml")
    assert list(validator.iter_errors(document)) == []
    document["directories"]["pending"]["mod"] = "0755"
    assert len(list(validator.iter_errors(document))) == 1
