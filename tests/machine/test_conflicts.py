"""``--check`` warns of what somebody else on this host manages as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Machine

from reconciler.cli.main import main
from reconciler.diagnose import conflicts


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of tmpfiles.d and logrotate that are the test's own."""
    made = tmp_path / "etc"
    made.mkdir()
    monkeypatch.setattr(conflicts, "_TMPFILES", (str(made / "tmpfiles.d"),))
    monkeypatch.setattr(conflicts, "_LOGROTATE", (str(made / "logrotate.d"),))
    for name in ("tmpfiles.d", "logrotate.d"):
        (made / name).mkdir()
    return made


def test_others_of_the_host_and_other_specs(
    machine: Machine, etc: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = machine.base
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)
    shared = f"directories: {{d: {{path: {base}/d, mode: '0750'}}}}\n"
    other = machine.spec(f"version: 1\nname: other\n{shared}".replace("0750", "0755"), "other.yaml")
    machine.once(other)
    spec = machine.spec(
        f"version: 1\nname: demo\n{shared}"
        f"processes: {{p: {{command: [sleep, '90441'], log: {base}/app.log}}}}\n"
        f"retention: {{r: {{path: {base}, match: old.log, older_than: 1d, action: delete}}}}\n"
    )

    def checked(*options: str) -> str:
        assert main(["--check", str(spec), "--state-dir", str(machine.state), *options]) == 0
        return capsys.readouterr().out

    def warnings() -> set[str]:
        return {line for line in checked().splitlines() if line.startswith("  ! warning: ")}

    of_spec = (
        f"  ! warning: directory:d ({base}/d): {other} directory:d of the spec other manages it "
        "as well, and asks for another mode"
    )
    assert warnings() == {of_spec}
    tmpfiles, logrotate = etc / "tmpfiles.d/x.conf", etc / "logrotate.d/app"
    tmpfiles.write_text(f"# d {base}/app.log\nd {base}/d 0700 root root 10d\n")
    logrotate.write_text(f"{base}/*.log {{\n  daily\n}}\n")
    assert warnings() == {
        of_spec,
        f"  ! warning: directory:d ({base}/d): {tmpfiles} manages {base}/d as well, and cleans it "
        "after 10d",
        f"  ! warning: process:p ({base}/app.log): {logrotate} rotates it as well ({base}/*.log)",
    }
    document = json.loads(checked("--json"))
    assert document["valid"] is True and document["errors"] == []
    assert {row["id"] for row in document["warnings"]} == {"directory:d", "process:p"}
    assert checked("-q") == ""
    # What is not wanted any more is nobody's conflict.
    spec.write_text(f"version: 1\nname: demo\n{shared}".replace("path:", "state: absent, path:"))
    assert warnings() == set()
