"""Units where no systemd runs: the file can be had, the rest is not known."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import Machine

RUNS = os.path.isdir("/run/systemd/system")
TEXT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=default.target\n"


def unit(machine: Machine, **fields: Any) -> Path:
    body = {"scope": "user", "content": TEXT, **fields}
    return machine.spec(f"units: {{x.service: {json.dumps(body)}}}")


@pytest.fixture
def bare(machine: Machine) -> Machine:
    if RUNS:
        pytest.skip("systemd runs here; this is about hosts where it does not")
    return machine


def test_the_file_is_made_and_the_rest_is_unknown(bare: Machine) -> None:
    spec = unit(bare, enabled=True, active=True)
    plan = bare.plan(spec)
    assert [step["verb"] for step in plan["steps"]] == ["create"]
    (unknown,) = plan["unknown"]
    assert unknown["reason"] == (
        "systemd is not running here, so it is not known whether it is enabled and whether it runs"
    )
    file = bare.home / ".config/systemd/user/x.service"
    bare.reconcile("--once", spec)
    assert file.read_text().endswith(TEXT)
    assert bare.plan(spec)["steps"] == []
    # What nobody can be told is not tried: only the file differs, and can be had.
    changed = unit(bare, enabled=True, active=True, content=TEXT.replace("true", "false"))
    (step,) = bare.plan(changed)["steps"]
    assert step["actions"] == [f"write {file} (mode 0644)"]
    report = json.loads(bare.reconcile("--once", "--json", changed).stdout)
    assert [each["result"] for each in report["steps"]] == ["done"]
    drop_in = unit(bare, active=True, drop_in="10-x", content="[Service]\nNice=5\n")
    report = json.loads(bare.reconcile("--once", "--json", drop_in).stdout)
    assert [each["result"] for each in report["steps"]] == ["done"]
    bare.once(bare.spec("units: {x.service: {scope: user, when: host.systemd, active: true}}"))


def test_a_change_is_shown_as_a_difference(bare: Machine) -> None:
    bare.once(unit(bare))
    file = bare.home / ".config/systemd/user/x.service"
    file.write_text(file.read_text().replace("true", "false"))
    file.chmod(0o600)
    spec = unit(bare)
    shown = bare.reconcile("--plan", spec).stdout
    assert "content differs (1 line); mode is 0600, should be 0644" in shown
    assert "        -ExecStart=/bin/false\n        +ExecStart=/bin/true\n" in shown
    bare.once(spec)
    bare.converged(spec)
    file.write_text("[Unit]\n# mine\n")
    assert "is left alone" in bare.plan(spec)["unknown"][0]["reason"]
    bare.once(spec, status=1)
    bare.once(unit(bare, state="absent"))
    assert file.read_text() == "[Unit]\n# mine\n"
    file.unlink()
    bare.once(unit(bare))
    bare.once(unit(bare, state="absent"))
    assert not file.exists()
    file.symlink_to("/etc/passwd")
    assert "is a symlink to /etc/passwd" in bare.plan(unit(bare))["unknown"][0]["reason"]


def test_a_value_of_the_environment_is_not_shown(bare: Machine) -> None:
    word = "tea-and-biscuits"
    bare.environ["THE_TOKEN"] = word
    spec = unit(bare, content=TEXT + "# {{ env.THE_TOKEN }}\n")
    for done in (bare.reconcile("--plan", spec, "--json"), bare.reconcile("--once", spec, "-v")):
        assert done.returncode == 0
        assert "it holds a secret outside of Environment=" in done.stdout
        assert word not in done.stdout + done.stderr
    file = bare.home / ".config/systemd/user/x.service"
    assert word in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    bare.converged(spec)
    kept = [path.read_bytes() for path in bare.state.rglob("*") if path.is_file()]
    assert not any(word.encode() in data for data in kept)


def test_a_changed_template_is_another_spec(bare: Machine) -> None:
    (bare.base / "templates").mkdir()
    template = bare.base / "templates" / "t"
    template.write_text(TEXT)
    body = {"scope": "user", "template": "t"}
    spec = bare.spec(f"units: {{x.service: {json.dumps(body)}}}")
    bare.once(spec)
    bare.converged(spec)
    template.write_text(TEXT + "# more\n")
    assert bare.steps(spec) == ["unit:x.service"]
    bare.once(spec)
    # One nearer by is another one, too.
    (bare.base / "t").write_text(TEXT)
    assert bare.steps(spec) == ["unit:x.service"]
    bare.once(spec)
    if os.geteuid() == 0:
        (bare.base / "t").chmod(0o666)
        done = bare.reconcile("--plan", spec)
        assert done.returncode == 65
        assert "everybody may write to" in done.stderr
    (bare.base / "t").unlink()
    template.unlink()
    assert "there is no template 't'" in bare.reconcile("--plan", spec).stderr


def test_a_pass_without_change_loads_no_jinja2(bare: Machine) -> None:
    spec = unit(bare)
    bare.once(spec)
    code = (
        "import sys; from reconciler.cli.main import main; status = main(sys.argv[1:]); "
        "sys.exit(status or 3 * any(name in sys.modules for name in ('jinja2', 'pydantic')))"
    )
    done = bare.run(bare.bin / "python", "-c", code, "--once", spec, "--state-dir", bare.state)
    assert done.returncode == 0, done.stdout + done.stderr


def test_secrets_of_the_environment_go_into_a_file_of_their_own(bare: Machine) -> None:
    word = 'tea "and" $biscuits'
    bare.environ["THE_TOKEN"] = word
    lines = "[Service]\nExecStart=/bin/true\nEnvironment=HERE=%h\nEnvironment=A=b TOKEN={}\n"
    spec = unit(bare, content=lines.format("{{ env.THE_TOKEN }}"))
    bare.once(spec)
    bare.converged(spec)
    file = bare.home / ".config/systemd/user/x.service"
    own = bare.home / ".config/reconcile/env/x.service"
    assert "biscuits" not in file.read_text()
    assert "EnvironmentFile=%E/reconcile/env/x.service\nEnvironment=HERE=%h\n" in file.read_text()
    assert 'A="b"\nTOKEN="tea \\"and\\" \\$biscuits"\n' in own.read_text()
    assert own.stat().st_mode & 0o777 == 0o600

    # What is opened to others, or changed, is put right; nothing of it is shown.
    own.chmod(0o644)
    done = bare.reconcile("--once", spec, "-v")
    assert own.stat().st_mode & 0o777 == 0o600
    bare.environ["THE_TOKEN"] = "other-biscuits"
    done = bare.reconcile("--once", spec, "-v")
    assert "its EnvironmentFile differs" in done.stdout
    assert "biscuits" not in done.stdout + done.stderr
    assert 'TOKEN="other-biscuits"' in own.read_text()
    bare.converged(spec)

    # It goes with the last secret, and with the unit; one of somebody else stays.
    bare.once(unit(bare, content=lines.format("plain")))
    assert not own.exists()
    text = lines.format("{{ env.THE_TOKEN }}")
    bare.once(unit(bare, content=text))
    assert own.exists()
    bare.once(unit(bare, content=text, state="absent"))
    assert not own.exists() and not file.exists()
    own.write_text("MINE=1\n")
    assert (
        "was not made by this spec" in bare.plan(unit(bare, content=text))["unknown"][0]["reason"]
    )
    bare.once(unit(bare, content=TEXT))
    assert own.read_text() == "MINE=1\n"
