"""What each mode does where it is asked to believe what somebody else could have written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import LONG, Machine

from reconciler import host
from reconciler.host import command, trust
from reconciler.host.users import Users

NOBODY = 65534
root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away"),
]
MODES = ["--once", "--plan", "--status", "--history", "--diagnose"]


def both(test: Any) -> Any:
    for mark in root:
        test = mark(test)
    return test


@pytest.fixture
def spec(machine: Machine) -> Path:
    return machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}")


def refused(machine: Machine, *argv: str | Path, status: int = 1) -> str:
    done = machine.reconcile(*argv)
    assert done.returncode == status, done.stderr + done.stdout
    assert not (machine.base / "d").exists()
    return done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_a_state_folder_that_everybody_may_write_to(
    mode: str, machine: Machine, spec: Path
) -> None:
    machine.state.mkdir()
    machine.state.chmod(0o777)
    assert f"everybody may write to {machine.state}" in refused(machine, mode, spec)
    # Whether the spec is right does not hang on it.
    assert machine.reconcile("--check", spec).returncode == 0
    assert list(machine.state.iterdir()) == []


@both
@pytest.mark.parametrize("whose", ["itself", "above", "link"])
def test_a_state_folder_of_somebody_else(whose: str, machine: Machine, spec: Path) -> None:
    machine.state.mkdir()
    state = machine.state / "below"
    if whose == "link":
        (machine.base / "real").mkdir()
        state.symlink_to(machine.base / "real")
        os.lchown(state, NOBODY, NOBODY)
    else:
        (state / "demo").mkdir(parents=True, mode=0o700)
        os.chown(state / "demo" if whose == "itself" else state, NOBODY, NOBODY)
    done = machine.run(machine.bin / "reconcile", "--once", spec, "--state-dir", state)
    assert done.returncode == 1
    assert f"belongs to user {NOBODY}" in done.stderr
    assert not (machine.base / "d").exists()
    assert whose != "itself" or list((state / "demo").iterdir()) == []
    assert whose == "itself" or not any(path.is_file() for path in machine.base.rglob("*.bin"))


@pytest.mark.parametrize("name", ["store.db", "store.db-journal", "lock", "loop", "clock"])
def test_a_fifo_in_place_of_a_file_of_our_state_hangs_nobody(
    name: str, machine: Machine, spec: Path
) -> None:
    machine.once(spec)
    (machine.base / "d").rmdir()
    assert machine.reconcile("--pause", "directory:d", spec).returncode == 0
    folder = machine.state / "demo"
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    for mode in MODES:
        done = machine.reconcile(mode, spec)  # Its time has an end, or this raises.
        assert "Traceback" not in done.stderr
        if name.startswith("store.db") and mode not in ("--plan", "--diagnose"):
            words = f"{folder}/{name}: not a regular file; move it away"
            assert words in done.stderr + done.stdout
        if name == "lock" and mode == "--once":
            assert done.returncode == 1
            assert f"{folder}/lock is not a regular file of ours" in done.stderr


@both
def test_a_compiled_spec_in_a_folder_of_somebody_else_is_not_used(
    machine: Machine, spec: Path
) -> None:
    machine.once(spec)
    (compiled,) = (machine.state / ".compiled").glob("*.bin")
    before = compiled.stat().st_mtime_ns
    os.chown(machine.state / ".compiled", NOBODY, NOBODY)
    # With it, a spec that has become invalid for another reason would still be valid.
    from reconciler.config import cache

    assert cache._content(str(compiled)) is None
    assert machine.reconcile("--check", spec).returncode == 0
    assert compiled.stat().st_mtime_ns == before
    os.chown(machine.state / ".compiled", 0, 0)
    assert cache._content(str(compiled)) is not None


def test_a_spec_that_everybody_may_write_to_is_refused_for_all(
    machine: Machine, spec: Path
) -> None:
    spec.chmod(0o666)
    said = refused(machine, "--once", spec, status=65)
    assert f"everybody may write to {spec}" in said
    assert f"= chmod o-w {spec}" in said


@both
@pytest.mark.parametrize("mode", [*MODES, "--check", "--repair", "--loop"])
def test_a_spec_that_was_found_must_be_ours(mode: str, machine: Machine) -> None:
    here = machine.base / "his"
    (here / "specs").mkdir(parents=True)
    found = here / "specs" / "executor.yaml"
    found.write_text(f"version: 1\nname: demo\ndirectories: {{d: {{path: {machine.base}/d}}}}\n")
    os.chown(here, NOBODY, NOBODY)
    done = machine.reconcile(mode, cwd=here)
    assert done.returncode == 65, done.stdout
    assert f"the directory {here} belongs to user {NOBODY}" in done.stderr
    assert not (machine.base / "d").exists()


@both
def test_the_executor_starts_nothing_from_a_spec_of_somebody_else(machine: Machine) -> None:
    here = machine.base / "his"
    (here / "specs").mkdir(parents=True)
    (here / "specs" / "executor.yaml").write_text(
        f"version: 1\nname: demo\nprocesses: {{worker: {{command: 'touch {machine.base}/d'}}}}\n"
    )
    os.chown(here / "specs", NOBODY, NOBODY)
    for verb in ("start", "restart", "stop", "status"):
        done = machine.run(
            machine.bin / "ai-cmd-executor", verb, "--state-dir", machine.state, cwd=here
        )
        assert done.returncode != 0
        assert not (machine.base / "d").exists()
        if verb != "status":
            assert f"belongs to user {NOBODY}" in done.stderr


CHILD = """
import os, sys
from reconciler.cli.options import parsed
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage
from reconciler.output.terminal import Terminal
context = Context(parsed(["--plan"]))
context.users.account(None)
import reconciler.host.spec_files, reconciler.host.writers
os.chdir(sys.argv[1])
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
try:
    print("found", context.spec_path())
except InvalidUsage as error:
    print(error)
"""


@both
def test_a_user_in_the_folder_of_another_names_his_spec(machine: Machine) -> None:
    for folder in (machine.base, *machine.base.parents):
        if str(folder).count("/") > 1:
            folder.chmod(folder.stat().st_mode | 0o011)
    here = machine.base / "his"
    (here / "specs").mkdir(parents=True)
    (here / "specs" / "executor.yaml").write_text("version: 1\nname: demo\n")
    os.chown(here / "specs", NOBODY, NOBODY)
    os.chown(here / "specs" / "executor.yaml", NOBODY, NOBODY)

    def said() -> str:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, here], capture_output=True, text=True, timeout=LONG
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    os.chown(here, NOBODY, NOBODY)
    assert said() == "found specs/executor.yaml"
    os.chown(here, 64321, 64321)
    assert said().startswith(f"found {here}/specs/executor.yaml, which nobody has named, but")
    assert said().endswith("name the spec that you mean")


@both
def test_trust_names_one_more_owner(machine: Machine, spec: Path) -> None:
    os.chown(spec, NOBODY, NOBODY)
    refused(machine, "--once", spec, status=65)
    for mode in ("--check", "--plan", "--status", "--history", "--once", "--diagnose"):
        done = machine.reconcile(mode, spec, "--trust", str(NOBODY))
        assert done.returncode == 0, done.stderr
        assert f"trusts user {NOBODY}" in done.stdout.splitlines()[0]
    assert (machine.base / "d").is_dir()
    assert (
        "is not the number of an account"
        in machine.reconcile("--plan", spec, "--trust", "nobody").stderr
    )


@both
def test_trust_is_handed_on_to_what_lasts(machine: Machine) -> None:
    spec = machine.spec(
        f"blocks: {{b: {{path: {machine.base}/file, "
        "content: \"{{ host.trust | join(' ') }}\"}}"
    )
    os.chown(spec, NOBODY, NOBODY)
    done = machine.reconcile("--once", spec, "--trust", str(NOBODY))
    assert done.returncode == 0, done.stderr
    assert f"\n--trust {NOBODY}\n" in (machine.base / "file").read_text()


CRON = "cron: {c: {schedule: '@daily', command: [reconcile, --once, x.yaml]}}"


@both
def test_a_program_of_somebody_else_does_not_get_into_what_lasts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine.base / "venv" / "bin"
    here.mkdir(parents=True)
    (here / "reconcile").write_text("")
    monkeypatch.setattr(command, "program_folder", lambda: str(here))
    seen = host.facts(Users(), "/s")
    assert (seen.bin, seen.bin_refused) == (str(here), "")
    os.chown(here, NOBODY, NOBODY)
    seen = host.facts(Users(), "/s")
    assert f"the directory {here} belongs to user {NOBODY}" in seen.bin_refused
    from reconciler import kinds
    from reconciler.config import load
    from reconciler.config.errors import SpecError

    def compiled(text: str) -> int:
        spec = load(
            str(machine.spec(text)), all_kinds=kinds.all_kinds, facts=seen,
            settings=dict, environ={}, state_dir=None, write_cache=False,
        )  # fmt: skip
        return len(spec.resources)

    with pytest.raises(SpecError, match=f"root would go on to run what is in {here}"):
        compiled(CRON)
    with pytest.raises(SpecError, match=f"root would go on to run what is in {here}"):
        compiled("blocks: {b: {path: /etc/profile, content: '{{ host.bin }}/reconcile --once x'}}")
    assert compiled(CRON.replace("'@daily'", "'@daily', state: absent")) == 1
    assert compiled(CRON.replace("reconcile,", "/usr/bin/reconcile,")) == 1
    trust.trust_owner(NOBODY)
    try:
        assert host.facts(Users(), "/s").bin_refused == ""
    finally:
        trust._more_owners.clear()


def test_a_url_is_not_read_where_somebody_else_could_put_it(machine: Machine) -> None:
    from reconciler.base.values import Target
    from reconciler.notify.delivery import Off, address, off

    folder = machine.base / "conf"
    folder.mkdir()
    (folder / "url").write_text("json://127.0.0.1\n")
    (folder / "url").chmod(0o600)
    target = Target("t", url_file=str(folder / "url"))
    assert address(target) == "json://127.0.0.1"
    folder.chmod(0o777)
    assert f"everybody may write to {folder}" in (off(target) or "")
    with pytest.raises(Off, match="may write"):
        address(target)
