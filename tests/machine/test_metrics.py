"""What Prometheus is given: by a command, and in the file of the watchdog."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from looping import Looping
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as metrics
from support import Machine, compiled, until, within

from reconciler.cli.commands import metrics as commands
from reconciler.host import Host, probe
from reconciler.output.metrics import Metrics

Samples = dict[tuple[str, ...], float]


def samples(text: str) -> Samples:
    """Each sample by its name and the values of its labels but the spec, in their order."""
    return {
        (
            one.name,
            *(one.labels[label] for label in sorted(one.labels) if label != "spec"),
        ): one.value
        for family in metrics(text)
        for one in family.samples
    }


def asked(machine: Machine, spec: Path) -> Samples:
    done = machine.reconcile("--metrics", spec)
    assert (done.returncode, done.stderr) == (0, "")
    return samples(done.stdout)


def test_states_steps_and_queues_are_counted(machine: Machine) -> None:
    inbox = machine.base / 'in "box'
    spec = machine.spec(
        f"directories: {{d: {{path: '{inbox}'}}}}\n"
        "processes: {p: {command: [sleep, '90871']}}\n"
        f"checks: {{q: {{queue: {{path: '{inbox}', match: ['*.a', '*.b'], max_count: 9}}}}}}\n"
    )
    before = asked(machine, spec)
    assert before["reconcile_resource_ok", "process:p"] == 0.0
    assert before["reconcile_resources", "differs"] == 2.0
    assert not any(key[0] == "reconcile_steps_total" for key in before)
    machine.once(spec)
    for name in ("1.a", "2.b", "3.c"):
        (inbox / name).touch()
    after = asked(machine, spec)
    assert after["reconcile_resource_ok", "process:p"] == 1.0
    assert after["reconcile_processes", "process:p"] == 1.0
    assert after["reconcile_steps_total", "process:p", "done", "start"] == 1.0
    assert after["reconcile_queue_files", str(inbox), "check:q"] == 2.0
    assert after["reconcile_watchdog_up",] == 0.0
    os.kill(machine.only("sleep 90871"), signal.SIGKILL)
    until(lambda: asked(machine, spec)["reconcile_resource_ok", "process:p"] == 0.0)
    machine.once(spec)
    assert asked(machine, spec)["reconcile_steps_total", "process:p", "done", "start"] == 2.0


def test_a_watchdog_writes_its_file_after_every_pass_and_goes_on_counting(
    machine: Machine, looping: Callable[..., Looping]
) -> None:
    file = machine.base / "node/demo.prom"
    spec = machine.spec(
        f"version: 1\nname: demo\nloop: {{every: 1s, metrics: {file}}}\n"
        "processes: {p: {command: [sleep, '90872']}}\n"
    )
    loop = looping(spec).up()
    until(lambda: "cannot write the metrics" in loop.errors.read_text())
    file.parent.mkdir()

    def starts() -> float:
        found = samples(file.read_text()) if file.exists() else {}
        return found.get(("reconcile_steps_total", "process:p", "done", "start"), 0.0)

    until(lambda: starts() == 1.0)
    assert file.stat().st_mode & 0o777 == 0o644
    assert loop.errors.read_text().count("cannot write the metrics") == 1
    found = until(
        lambda: (now := samples(file.read_text())).get(("reconcile_watchdog_passes",)) and now
    )
    assert found["reconcile_watchdog_up",] == 1.0
    assert found["reconcile_last_pass_duration_seconds",] > 0.0
    until(lambda: samples(file.read_text())["reconcile_last_pass_timestamp_seconds",]
          > found["reconcile_last_pass_timestamp_seconds",])  # fmt: skip
    loop.end()
    os.kill(machine.only("sleep 90872"), signal.SIGKILL)
    looping(spec).up()
    until(lambda: starts() == 2.0)
    until(lambda: os.listdir(file.parent) == [file.name])  # Nobody is writing it just then.


def test_another_one_in_the_folder_leads_nowhere_else(
    machine: Machine, looping: Callable[..., Looping]
) -> None:
    file, other = machine.base / "demo.prom", machine.base / "other"
    other.write_text("own")
    file.symlink_to(other)
    spec = machine.spec(
        f"version: 1\nname: demo\nloop: {{every: 1s, metrics: {file}}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}}}\n"
    )
    looping(spec).up()
    until(lambda: not file.is_symlink() and "reconcile_info" in file.read_text())
    assert other.read_text() == "own"


def document(number: int) -> dict[str, object]:
    names = [f'process:"\\\n\udcff{at}' for at in range(number)]
    return {
        "spec": {"name": "demo"}, "loop": {"running": False}, "pass": None, "waiting": {"chat": 3},
        "resources": [{"id": name, "state": "ok", "pids": [1], "since": 2.0} for name in names],
        "counts": [(name, "start", "done", 2) for name in names],
        "queues": {("check:q", "/a\n\"b"): (2, 3.5)}, "executors": {"/hangs": None},
    }  # fmt: skip


def test_names_can_hold_anything_in_both_formats() -> None:
    made = Metrics(document(2))
    found = samples(made.text().decode())
    assert found["reconcile_processes", 'process:"\\\n?0'] == 1.0
    assert found["reconcile_queue_oldest_seconds", '/a\n"b', "check:q"] == 3.5
    again = {one.name: one.value for family in open_metrics(generate_latest(made).decode())
             for one in family.samples}  # fmt: skip
    assert again["reconcile_messages_waiting"] == 3.0
    assert again["reconcile_steps_total"] == 2.0


def test_prometheus_finds_nothing_to_say_of_them(machine: Machine) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: package prometheus")
    text = Metrics(document(3)).text()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_without_the_extra_it_says_what_to_install(machine: Machine) -> None:
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n")
    (machine.base / "prometheus_client.py").write_text("raise ImportError('none here')\n")
    done = machine.run(
        machine.bin / "python3", "-c",
        f"import sys; sys.path.insert(0, {str(machine.base)!r}); sys.argv = "
        f"['reconcile', '--metrics', {str(spec)!r}, '--state-dir', {str(machine.state)!r}]; "
        "from reconciler.cli.main import main; sys.exit(main())",
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "metrics need prometheus-client; install it with: " in done.stderr


def test_a_folder_that_takes_long_is_left_out(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = SimpleNamespace(spec=compiled(
        machine.base, "checks: {q: {queue: {path: /tmp, match: '*', max_count: 9}}}"
    ))  # fmt: skip
    monkeypatch.setattr(commands, "PATIENCE", 0.2)
    monkeypatch.setattr(probe, "waiting", lambda *asked: time.sleep(600))
    with within(1.0):
        assert commands._queues(look, Host("x", str(machine.base)))["queues"] == {}  # type: ignore[arg-type]
