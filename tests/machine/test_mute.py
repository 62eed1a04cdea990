"""A file system that does not answer is unknown in every mode, and all else is done in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import LONG, Machine, until, within

from reconciler.host import bounded, filesystems
from reconciler.host.bounded import SILENCE

pytestmark = pytest.mark.root
Mute = Callable[..., Path]
MOST = SILENCE + 15.0
"""Seconds for a mode that meets one that hangs: one wait, and the work twice, under load."""


def spec_of(folder: Path, there: Path) -> Path:
    """What lies there is about every sort of request; what lies near comes behind it."""
    folder.mkdir(exist_ok=True)
    spec = folder / "spec.yaml"
    spec.write_text(
        f"""
version: 1
name: demo
directories:
  there: {{path: {there}/data}}
  near: {{path: {folder}/near, after: ['directory:there']}}
retention:
  there: {{path: {there}/data, match: '*.log', max_total: 1MiB, action: delete}}
blocks:
  there: {{path: {there}/data/a.log, content: x}}
  near: {{path: {folder}/text, content: x, after: ['block:there', 'retention:there']}}
"""
    )
    return spec


def ran(machine: Machine, *argv: str | Path) -> subprocess.CompletedProcess[str]:
    with within(MOST):
        return machine.reconcile(*argv)


def begun(machine: Machine, mode: str, folder: Path, there: Path) -> subprocess.Popen[str]:
    argv = machine.argv(mode, spec_of(folder, there), "--json")
    return subprocess.Popen(
        [*map(str, argv), "--state-dir", str(folder / "state")],
        env=machine.environ, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_single_pass_does_all_that_lies_elsewhere(machine: Machine, mute: Mute) -> None:
    requests = ("statfs", "lookup", "getattr", "open", "read", "readdir")
    mounts = {request: mute(request) for request in requests}
    with within(2 * MOST):
        passes = {
            request: begun(machine, "--once", machine.base / request, there)
            for request, there in mounts.items()
        }
        for request, one in passes.items():
            # All that it has written, to the end of the pipe, which one that hangs does not hold.
            output, errors = one.communicate(timeout=LONG)
            assert one.returncode == 1, f"{request}: {output}{errors}"
            report: dict[str, Any] = json.loads(output)
            unknown = {found["id"]: found["reason"] for found in report["unknown"]}
            assert "block:there" in unknown, request
            where = str(mounts[request])
            assert all(ident.endswith(":there") and where in why for ident, why in unknown.items())
            assert (machine.base / request / "near").is_dir()
            assert "x" in (machine.base / request / "text").read_text()
    # What still waits there holds no lock.
    again = ran(
        machine, "--once", machine.base / "read" / "spec.yaml",
        "--state-dir", machine.base / "read" / "state",
    )  # fmt: skip
    assert (again.returncode, "another pass" in again.stderr) == (1, False)


def test_every_mode_names_it_and_knows_the_rest(machine: Machine, mute: Mute) -> None:
    there = mute("read")
    modes = {"--plan": "unknown", "--status": "resources", "--diagnose": "wrong",
             "--repair": "wrong"}  # fmt: skip
    with within(3 * MOST):
        running = {mode: begun(machine, mode, machine.base / mode, there) for mode in modes}
        for mode, one in running.items():
            output, errors = one.communicate(timeout=LONG)
            assert one.returncode == 1, f"{mode}: {errors}"
            found = [json.dumps(what) for what in json.loads(output)[modes[mode]]]
            assert any("block:there" in what and str(there) in what for what in found), mode
            assert not any("block:near" in what and str(there) in what for what in found), mode
        assert "x" in (machine.base / "--repair" / "text").read_text()


@pytest.mark.parametrize("mode", ["--check", "--plan", "--once"])
def test_a_spec_that_lies_there_is_no_reason_to_hang(
    machine: Machine, mute: Mute, mode: str
) -> None:
    there = mute("read")
    done = ran(machine, mode, there / "data" / "a.log")
    assert done.returncode == 65
    assert str(there) in done.stderr


def test_what_was_done_before_it_hung_is_told(machine: Machine, mute: Mute) -> None:
    """It hangs in the midst of acting: at the target of an archive, which no look had read."""
    there = mute("make")
    (machine.base / "old.log").write_text("x")
    os.utime(machine.base / "old.log", (1, 1))
    spec = machine.spec(
        f"""
directories:
  first: {{path: {machine.base}/first}}
  last: {{path: {machine.base}/last, after: ['retention:r']}}
retention:
  r: {{path: {machine.base}, match: old.log, older_than: 1h, action: archive,
       to: {there}/data/a.tar.gz, after: ['directory:first']}}
"""
    )
    done = ran(machine, "--once", spec, "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    steps = {one["id"]: one["result"] for one in report["steps"]}
    assert steps["directory:first"] == "done"
    assert (machine.base / "first").is_dir()
    assert (machine.base / "last").is_dir()
    assert (machine.base / "old.log").exists()


def test_a_pass_beside_a_loop_ends_neither(machine: Machine, mute: Mute, looping: Any) -> None:
    there = mute("read")
    spec = spec_of(machine.base / "loop", there)
    loop = looping(spec)
    until((machine.base / "loop" / "near").exists)
    loop.up()
    done = ran(machine, "--once", spec)
    assert done.returncode == 1
    assert f"pid {loop.pid}) keeps it as declared, except:\n  ? unknown " in done.stdout
    assert loop.process.poll() is None
    passes = loop.passes()
    loop.full_pass()
    assert loop.passes() > passes
    assert loop.end() == 0


def test_a_step_that_has_very_much_to_say_is_told(machine: Machine, mute: Mute) -> None:
    """More than a message of a socket holds: the pass that acts beside such a mount tells all."""
    mute("read")
    folder = machine.base / "many"
    folder.mkdir()
    for number in range(3000):
        (folder / f"{number:0200}").touch(0o600)
    spec = machine.spec(
        f"permissions: {{p: {{path: {folder}, recursive: true, file_mode: '0640'}}}}"
    )
    (step,) = machine.once(spec)["steps"]
    assert (step["result"], len(step["actions"])) == ("done", 3000)
    machine.converged(spec)


def test_a_pattern_that_leads_through_it_leaves_only_that_out(machine: Machine, mute: Mute) -> None:
    there = mute("all")
    near = machine.base / "near"
    (machine.base / "some").mkdir()
    (machine.base / "some" / "log").touch(mode=0o600)
    spec = machine.base / "spec.yaml"
    spec.write_text(
        f"""
version: 1
name: demo
permissions:
  logs: {{path: "{machine.base}/*/log", mode: "0640"}}
directories:
  near: {{path: {near}}}
"""
    )
    done = ran(machine, "--once", spec)
    assert (done.returncode, str(there) in done.stdout) == (0, True), done.stdout + done.stderr
    assert near.is_dir()
    assert (machine.base / "some" / "log").stat().st_mode & 0o777 == 0o640


def test_whose_server_is_slow_in_small_pieces_is_left_after_a_total(
    machine: Machine, mute: Mute
) -> None:
    """Each single wait is short enough, and there may be any number of them."""
    by_root, by_somebody = mute("slow=0.02"), mute("slow=0.3", "names=500", "user=65534")
    code = "import sys; from reconciler.host import bounded; bounded._MOST = 1.5; "
    code += "from reconciler.cli.main import main; sys.exit(main())"
    running = {}
    for mode in ("--plan", "--once", "--status"):
        folder = machine.base / mode.strip("-")
        folder.mkdir()
        spec = machine.spec(
            f"""
permissions:
  hers: {{path: {by_somebody}/data, recursive: true, file_mode: "0600"}}
  ours: {{path: {by_root}/data, mode: "0755"}}
directories:
  near: {{path: {folder}/near, after: ['permission:hers']}}
""",
            f"{mode.strip('-')}.yaml",
        )
        argv = [sys.executable, "-c", code, mode, spec, "--json", "--state-dir", folder / "state"]
        running[mode] = subprocess.Popen(
            list(map(str, argv)), env=machine.environ, text=True, stdout=subprocess.PIPE
        )
    with within(15):
        for mode, one in running.items():
            output, _ = one.communicate(timeout=LONG)
            assert one.returncode == 1, mode
            report = json.loads(output)
            if mode == "--status":
                (hers,) = (one for one in report["resources"] if one["id"] == "permission:hers")
                assert hers["state"] == "unknown" and str(by_somebody) in hers["reason"]
                continue
            (unknown,) = report["unknown"]
            assert unknown["id"] == "permission:hers"
            assert str(by_somebody) in unknown["reason"]
    assert (machine.base / "once" / "near").is_dir()


def test_nor_does_it_help_him_to_be_looked_into_again_and_again(
    machine: Machine, mute: Mute
) -> None:
    """Each look tells where it is, and is over before anybody asks whether it hangs."""
    there = mute("slow=0.008", "names=200", "user=65534")
    text = "".join(f"  b{at}: {{path: {there}/data/{at}.log, content: x}}\n" for at in range(200))
    code = "import sys; from reconciler.host import bounded; bounded._MOST = 1.0; "
    code += "from reconciler.cli.main import main; sys.exit(main())"
    spec = machine.spec(f"blocks:\n{text}")
    done = machine.run(sys.executable, "-c", code, *machine.argv("--plan", spec, "--json")[1:])
    report = json.loads(done.stdout)
    assert (len(report["unknown"]), report["steps"]) == (200, []), done.stderr


@pytest.mark.parametrize(("user", "hung"), [(65534, True), (0, False)])
def test_only_waits_for_the_server_of_another_user_are_counted(
    mute: Mute, user: int, hung: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = mute("slow=0.2", f"user={user}")
    monkeypatch.setattr(bounded, "_MOST", 0.4)
    monkeypatch.setattr(bounded, "_GLANCE", 0.05)
    monkeypatch.setattr(filesystems, "_served", (-9.0, frozenset()))
    code = "import os, sys, time\nprint(flush=True)\n"
    code += "while True: os.path.exists(sys.argv[1]) or time.sleep(0.2)"
    for path, waits in ((f"{there}/data", True), (str(there.parent / "gone"), False)):
        argv = [sys.executable, "-c", code, path]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as other:
            assert other.stdout and other.stdout.readline()
            stillness = bounded.StallDetector(other.pid)
            if hung and waits:
                until(lambda one=stillness: one.is_hung(str(there)))
            end = time.monotonic() + 0.8
            while time.monotonic() < end and not stillness.is_hung(str(there)):
                time.sleep(0.05)
            found = stillness.is_hung(str(there)), stillness.is_hung(None)
            other.kill()
        assert found == (hung and waits, False)
