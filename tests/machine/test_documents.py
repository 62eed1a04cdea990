"""Every document of ``--json`` is as its JSON Schema says, in many states of the host."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from looping import Looping
from support import Machine, until

from reconciler.cli.main import main
from reconciler.cli.options import DOCUMENTS, all_modes


def closed(schema: Any) -> Any:
    """The same schema, by which a key that it does not name is wrong."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    if "properties" in made and "type" in made:
        made.setdefault("additionalProperties", False)
    return made


@functools.cache
def schema(reconcile: Path, mode: str) -> Draft202012Validator:
    """What ``--schema`` prints does not depend on the host."""
    printed = subprocess.run([reconcile, "--schema", mode], capture_output=True, check=True)
    return Draft202012Validator(closed(json.loads(printed.stdout)))


class Documents:
    """What the modes print, each looked at."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def valid(self, mode: str, document: dict[str, Any]) -> dict[str, Any]:
        error = best_match(schema(self.machine.bin / "reconcile", mode).iter_errors(document))
        while error is not None and error.context:
            error = max(error.context, key=lambda one: len(one.absolute_path))
        assert error is None, (mode, error.json_path, error.message[:300])
        assert document["format"] == 1
        return document

    def of(self, mode: str, spec: Path, *options: str) -> dict[str, Any]:
        done = self.machine.reconcile(f"--{mode}", *options, spec, "--json")
        assert done.returncode in (0, 1, 65, 75), done.stderr
        return self.valid(mode, json.loads(done.stdout))

    def look(self, spec: Path) -> None:
        """Those that change nothing."""
        for mode in ("plan", "status", "diagnose", "history", "check"):
            self.of(mode, spec)
        self.of("logs", spec, "*")


@pytest.fixture
def documents(machine: Machine) -> Documents:
    return Documents(machine)


@pytest.fixture
def spec(machine: Machine) -> Path:
    """Something of every kind."""
    base = machine.base
    (base / "rc").write_text("mine\n")
    (base / "log").write_text("2026-01-01 00:00:00 ERROR no such luck\n" * 3)
    machine.write_crontab(b"")
    url = base / "url"
    url.write_text("json://127.0.0.1:9/\n")
    return machine.spec(
        f"""\
version: 1
name: demo
loop: {{every: 1s}}
vars: {{port: 80}}
notify:
  targets: {{a: {{url_file: {url}, on: [failed, changed, report]}}, b: {{url_file: {base}/none}}}}
  report_every: 1d
directories:
  d: {{path: {base}/d, mode: "0755"}}
  below: {{path: {base}/d/below, needs: [directory:d]}}
  off: {{path: {base}/off, when: "false"}}
  gone: {{path: {base}/gone, state: absent}}
permissions:
  p: {{path: "{base}/d/*", mode: "0700"}}
retention:
  r: {{path: {base}/d, match: "*.log", older_than: 1h, action: delete}}
sessions:
  s: {{}}
processes:
  w: {{command: [sh, -c, "sleep 600; :"], session: s}}
  n: {{command: [sleep, "600"], limits: {{memory: 1GiB, for: 1s}}}}
units:
  u.service: {{content: "[Service]\\nExecStart=/bin/true\\n", scope: user, active: true}}
cron:
  c: {{schedule: "@reboot", command: [echo, x]}}
blocks:
  b: {{path: {base}/rc, content: "x\\n"}}
checks:
  c: {{command: [test, -e, {base}/well], every: 1h, on_failure: ["restart process:n", notify]}}
  l: {{log: {{path: {base}/log, match: ERROR, max: 10, within: 1h}}}}
  q: {{queue: {{path: {base}/d, max_age: 1h}}}}
"""
    )


def test_what_was_never_applied_and_what_was(
    machine: Machine, documents: Documents, spec: Path
) -> None:
    documents.look(spec)
    text = spec.read_text()
    bad = "  bad: {command: ['false'], restart: {attempts: 1, retry_every: 1h}}\n"
    spec.write_text(text.replace("units:\n", f"{bad}units:\n"))
    documents.of("once", spec, "--set", "port=81")
    documents.of("once", spec)
    (machine.base / "d/x.log").touch()
    os.utime(machine.base / "d/x.log", (1, 1))
    (machine.base / "d").chmod(0o777)
    documents.of("pause", spec, "process:w", "--for", "2h", "--reason", "new disk")
    documents.of("pause", spec, "process:n")
    documents.look(spec)
    documents.of("plan", spec, "--only", "directory:*")
    documents.of("plan", spec, "--at", "+3d")
    for event in ("process:n dies 12 times", "check:c fails for 3h", "process:w dies"):
        documents.of("plan", spec, "--if", event)
    documents.of("status", spec, "--only", "directory:*")
    documents.of("resume", spec, "process:w")
    spec.write_text(text)
    (machine.base / "well").touch()
    documents.of("repair", spec)
    documents.of("notify-test", spec)
    documents.of("uninstall", spec)


def test_what_is_unknown_contradictory_damaged_or_denied(
    machine: Machine, documents: Documents, spec: Path
) -> None:
    (machine.base / "well").touch()
    documents.of("once", spec)
    machine.fake("crontab", "echo no such luck >&2; exit 1; :")
    (machine.base / "d/below").rmdir()
    (machine.base / "d").rmdir()
    (machine.base / "d").touch()
    documents.look(spec)
    documents.of("repair", spec)
    documents.of("uninstall", spec)
    (machine.state / "demo/store.db").write_bytes(b"no database" * 1000)
    documents.of("status", spec)
    documents.of("diagnose", spec)


def test_beside_a_watchdog(machine: Machine, documents: Documents, spec: Path) -> None:
    (machine.base / "well").touch()
    loop = Looping(machine, spec).up()
    try:
        (machine.base / "d").chmod(0o777)
        documents.of("once", spec)
        documents.look(spec)
        documents.of("repair", spec)
        text = spec.read_text()
        spec.write_text(text + "nonsense: 1\n")
        until(lambda: "invalid" in loop.names())
        spec.write_text(text)
        loop.send(signal.SIGSTOP)
        documents.of("status", spec)
        documents.of("diagnose", spec)
        loop.send(signal.SIGCONT)
        loop.end()
    finally:
        loop.kill()
    for event in loop.events():
        documents.valid("loop", event)
    assert {"begin", "step", "invalid", "end"} <= set(loop.names())


def test_beside_a_pass_that_is_at_work(machine: Machine, documents: Documents, spec: Path) -> None:
    from reconciler.state.folder import locked, make_folder

    folder = str(machine.state / "demo")
    make_folder(folder)
    with locked(folder):
        assert documents.of("once", spec)["busy"]["loop"] is False


def test_an_invalid_spec(machine: Machine, documents: Documents) -> None:
    spec = machine.spec("directories: {d: {path: 1, mod: x}}\n")
    for mode in sorted(
        set(DOCUMENTS) - {"loop", "logs", "import", "adopt", "init", "invalid", "pause", "resume"}
    ):
        assert documents.of(mode, spec)["valid"] is False


def test_what_is_imported(machine: Machine, documents: Documents) -> None:
    table = machine.base / "crontab"
    table.write_text("* * * * * x\n1 2 30 2 * never\n")
    (left,) = documents.of("import", table)["left_out"]
    assert (left["line"], left["text"]) == (2, "1 2 30 2 * never")
    table.write_text("* * * * * x\n1 2\n")
    (error,) = documents.of("import", table)["errors"]
    assert error["line"] == 2


def test_what_is_adopted(machine: Machine, documents: Documents) -> None:
    (machine.base / "d").mkdir()
    words = [f"directory:{machine.base}/d", f"process:{os.getpid()}"]
    done = machine.reconcile("--adopt", *words, "--json")
    assert done.returncode == 0, done.stderr
    found = documents.valid("adopt", json.loads(done.stdout))
    assert f"path: {machine.base}/d\n" in found["spec"]


def test_there_is_one_of_every_mode(capsys: pytest.CaptureFixture[str]) -> None:
    for mode in DOCUMENTS:
        assert main(["--schema", mode]) == 0
        schema = json.loads(capsys.readouterr().out)
        Draft202012Validator.check_schema(schema)
    assert main(["--schema"]) == 0
    assert "directories" in json.loads(capsys.readouterr().out)["properties"]
    assert main(["--schema", "nonsense"]) == 64
    silent = {"metrics", "serve", "schema", "completion", "man"}
    assert {mode.name for mode in all_modes()} - silent <= set(DOCUMENTS)
