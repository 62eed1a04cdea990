"""``--init``: a shipped spec to edit, and what this host needs to keep it."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from machine.disposable import CronHost
from support import CHECKOUT

from reconciler.cli.commands.init import _variables
from reconciler.host.spec_files import shipped_specs

pytestmark = pytest.mark.root
SHIPPED = CHECKOUT / "specs/executor.yaml"


def init(host: CronHost, *words: str, user: str = "root", status: int = 0) -> str:
    done = host.run(host.bin / "reconcile", "--init", *words, user=user, check=False, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return str(done.stdout + done.stderr)


def setup(host: CronHost, mode: str, spec: str) -> dict[str, Any]:
    """What keeps the spec, by its name, as a mode's document has it."""
    words = (host.bin / "reconcile", mode, spec, "--json")
    document = json.loads(host.run(*words, check=False, timeout=60).stdout)
    rows = document["reboot"]["setup"] if mode == "--diagnose" else document["setup"]
    return {row["what"]: row for row in rows}


def test_a_shipped_spec_is_copied_once_and_what_is_missing_has_its_command(
    cron_host: CronHost,
) -> None:
    host, path = cron_host, "/etc/reconcile/executor.yaml"
    told = init(host)
    assert host.read(path) == SHIPPED.read_text()
    assert f"{path}: a copy of the shipped spec executor" in told
    missing = setup(host, "--init", "executor")
    assert {one["state"] for name, one in missing.items() if ":" in name} == {"missing"}
    assert missing["cron daemon"]["state"] == "set up"
    assert setup(host, "--diagnose", path) == missing
    # What it says to run sets it up, and then it is said to be.
    host.run("sh", "-c", missing["cron:boot"]["remedy"], timeout=90)
    assert {one["state"] for one in setup(host, "--diagnose", path).values()} == {"set up"}
    # A file that is there is a person's.
    host.write(path, SHIPPED.read_text() + "# mine\n")
    assert "was left as it is" in init(host)
    assert host.read(path).endswith("# mine\n")
    document = json.loads(init(host, "executor", "--json"))
    schema = json.loads(host.run(host.bin / "reconcile", "--schema", "init").stdout)
    Draft202012Validator(schema).validate(document)
    assert not document["copied"]
    # By the bare name it is still the shipped one, which is said.
    done = host.run(host.bin / "reconcile", "--check", "executor", check=False)
    assert f"{path} is used when it is named" in done.stdout
    done = host.run(host.bin / "reconcile", "--check", path)
    assert "is used when" not in done.stdout


def test_a_user_gets_it_into_his_own_folder(cron_host: CronHost) -> None:
    host = cron_host
    uid = host.add_user("ann")
    host.run("chmod", "o+x", "/root")
    told = init(host, "workspace", user="ann")
    path = host.path("/home/ann/.config/reconcile/workspace.yaml")
    assert path.stat().st_uid == uid
    assert "--once /home/ann/.config/reconcile/workspace.yaml" in told
    words = init(host, "worksapce", user="ann", status=64)
    assert "there are container, executor, webservice, workspace" in words


def test_no_name_is_put_where_others_may_change_it(cron_host: CronHost) -> None:
    host = cron_host
    host.run("mkdir", "-m", "777", "/etc/reconcile")
    assert "everybody may write to /etc/reconcile" in init(host, status=1)
    assert os.listdir(host.path("/etc/reconcile")) == []


def test_the_variables_that_are_there_to_be_edited_are_named() -> None:
    """Not those that follow from others."""
    shown = {name: _variables(str(SHIPPED.parent / f"{name}.yaml")) for name in shipped_specs()}
    assert shown["workspace"] == ["project", "editor", "server"]
    assert shown["webservice"] == ["account", "port", "home", "logs", "backups"]
    assert shown["executor"][:5] == ["home", "state", "watchdog", "user_unit", "login_hook"]
    assert not {"commands", "logs", "watchdog_log", "given"} & set(shown["executor"])
