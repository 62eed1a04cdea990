"""The variables that a pass was given are the spec's, until they are set anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from looping import Looping
from support import Machine

from reconciler.cli.context import Context
from reconciler.cli.options import parsed
from reconciler.diagnose import command_line

SPEC = """\
version: 1
name: kept
vars: {base: BASE, port: 80, state: present, api_token: "", plain: "{{ env.WORD | default('no') }}"}
directories:
  a: {path: "{{ base }}/p{{ port }}", state: "{{ state }}"}
"""


@pytest.fixture
def spec(machine: Machine) -> Path:
    return machine.spec(SPEC.replace("BASE", str(machine.base)))


def variables(machine: Machine, spec: Path) -> dict[str, str]:
    """What a later call goes by."""
    found: dict[str, str] = machine.plan(spec)["spec"].get("variables", {})
    return found


def test_every_later_call_goes_by_what_was_set_and_says_so(machine: Machine, spec: Path) -> None:
    machine.once(spec, "--set", "port=81")
    assert (machine.base / "p81").is_dir()
    for mode in ("--plan", "--status", "--diagnose", "--repair", "--history", "--once", "--check"):
        done = machine.reconcile(mode, spec)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "with port=81" in done.stdout.splitlines()[0], mode
    for mode in ("--plan", "--status", "--diagnose", "--history", "--once", "--check"):
        document = json.loads(machine.reconcile(mode, spec, "--json").stdout)
        assert document["spec"]["variables"] == {"port": "81"}, mode
    assert not (machine.base / "p80").exists()


def test_it_is_set_anew_or_unset(machine: Machine, spec: Path) -> None:
    machine.once(spec, "--set", "port=81", "--set", "plain=yes")
    machine.once(spec, "--set", "port=82")
    assert variables(machine, spec) == {"port": "82", "plain": "yes"}
    # To look at what would be is not to set it.
    assert machine.steps(spec, "--unset", "port") == ["directory:a"]
    assert variables(machine, spec) == {"port": "82", "plain": "yes"}
    machine.once(spec, "--unset", "port")
    assert variables(machine, spec) == {"plain": "yes"}
    assert (machine.base / "p80").is_dir()
    done = machine.reconcile("--plan", spec, "--unset", "nix")
    said = "reconcile: --unset nix: no value is remembered for it\n"
    assert (done.returncode, done.stderr) == (0, said)


def test_what_the_file_says_anyway_is_no_setting(machine: Machine, spec: Path) -> None:
    """So that an edit of the file counts, though cron lines say all that there is to set."""
    machine.once(spec, "--set", "port=80", "--set", "plain=no")
    assert variables(machine, spec) == {}
    spec.write_text(spec.read_text().replace("port: 80", "port: 90"))
    assert machine.steps(spec) == ["directory:a"]
    machine.once(spec, "--set", "port=80")
    assert variables(machine, spec) == {"port": "80"}


def test_no_secret_and_no_state_is_remembered(machine: Machine, spec: Path) -> None:
    (machine.base / "word").write_text("hush-hush-hush\n")
    machine.once(
        spec, "--set", "api_token=abcdefgh", "--set-file", f"plain={machine.base}/word",
        "--set", "state=absent",
    )  # fmt: skip
    assert variables(machine, spec) == {}
    machine.once(spec, "--set", "plain=https://me:sesame@host/")
    assert variables(machine, spec) == {}
    kept = b"".join(path.read_bytes() for path in machine.state.rglob("*") if path.is_file())
    assert not any(word in kept for word in (b"abcdefgh", b"hush-hush", b"sesame"))


def test_only_a_pass_over_all_sets_it(machine: Machine, spec: Path) -> None:
    machine.once(spec)
    for words in (
        ("--plan",), ("--status",), ("--once", "--only", "directory:a"),
        ("--pause", "directory:a"), ("--resume", "directory:a"),
    ):  # fmt: skip
        machine.reconcile(*words, spec, "--set", "port=81")
        assert variables(machine, spec) == {}, words
    machine.reconcile("--repair", spec, "--set", "port=81")
    assert variables(machine, spec) == {"port": "81"}


def test_a_loop_sets_it_and_a_pass_beside_it_does_not(machine: Machine, spec: Path) -> None:
    loop = Looping(machine, spec, "--set", "port=81")
    try:
        loop.up()
        assert (machine.base / "p81").is_dir()
        assert variables(machine, spec) == {"port": "81"}
        machine.reconcile("--once", spec, "--set", "port=82")
        assert variables(machine, spec) == {"port": "81"}
    finally:
        loop.kill()


def test_a_variable_that_the_file_has_no_more_is_forgotten(machine: Machine, spec: Path) -> None:
    machine.once(spec, "--set", "plain=yes")
    spec.write_text(spec.read_text().replace("plain:", "other:"))
    assert variables(machine, spec) == {}
    machine.once(spec)
    spec.write_text(spec.read_text().replace("other:", "plain:"))
    assert variables(machine, spec) == {}
    assert machine.reconcile("--plan", spec, "--set", "gone=1").returncode == 65


def test_another_file_of_that_name_does_not_go_by_them(machine: Machine, spec: Path) -> None:
    machine.once(spec, "--set", "port=81")
    other = machine.spec(spec.read_text(), "other.yaml")
    assert variables(machine, other) == {}
    spec.rename(machine.base / "moved.yaml")
    assert variables(machine, machine.base / "moved.yaml") == {"port": "81"}


def test_a_spec_as_json_has_them_too(machine: Machine) -> None:
    spec = machine.base / "spec.json"
    path = f"{machine.base}/p{{{{ port }}}}"
    document = {"version": 1, "name": "kept", "vars": {"port": 80}}
    spec.write_text(json.dumps({**document, "directories": {"a": {"path": path}}}))
    machine.once(spec, "--set", "port=81")
    assert variables(machine, spec) == {"port": "81"}


def test_a_spec_that_is_being_written_has_them_when_it_is_whole(
    machine: Machine, spec: Path
) -> None:
    """It is waited for, and its name is not there when its variables are looked up."""
    machine.once(spec, "--set", "port=81")
    spec.write_text("")
    context = Context(parsed(["--once", str(spec), "--state-dir", str(machine.state)]))
    assert context.settings() == {"port": "81"}


def test_a_remedy_of_another_mode_unsets_nothing(machine: Machine) -> None:
    """What this pass has unset is not remembered any more, and no other mode takes it."""
    context: Any = Context(parsed(["--once", "web", "--unset", "port", "--set", "a=b"]))
    for mode, tail in (("--diagnose", "--set a=b"), ("--plan", "--set a=b --unset port")):
        assert command_line(context, "/srv/web.yaml", mode).endswith(f"/srv/web.yaml {tail}")
