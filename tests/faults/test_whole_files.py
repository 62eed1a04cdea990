"""Whole files of root's in folders of somebody else, and who talks to the one who waits."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from support import Machine

from reconciler.host import waiter
from reconciler.host.whole_file import shown_file
from reconciler.host.written import WrittenFiles

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root works in folders of other users")
NOBODY = 65534


@pytest.fixture
def his(machine: Machine) -> Path:
    """A folder that is nobody's."""
    folder = machine.base / "his"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    machine.base.chmod(0o755)
    return folder


@pytest.mark.root
@ROOT
def test_what_checks_a_new_file_gets_none_that_was_put_in_its_place(
    machine: Machine, his: Path
) -> None:
    victim = machine.base / "victim"
    victim.write_text("secret of root\n")
    victim.chmod(0o600)
    private = his / ".file.reconcile.d"
    swap = machine.base / "swap"
    swap.write_text(
        f"mv {private} {his}/moved; mkdir {private}; ln -s {victim} {private}/reconcile.new\n"
        'cat "$1" >&2; exit 1\n'
    )
    spec = machine.spec(
        f"files: {{x: {{path: {his}/file, content: ours, validate: [sh, {swap}, '{{}}']}}}}"
    )
    done = machine.reconcile("--once", spec)
    assert done.returncode == 1
    assert "failed: ours" in done.stdout
    assert "secret of root" not in done.stdout + done.stderr


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("fields", ["group: root", "group: root, mode: '2755'", "mode: '2755'"])
def test_his_file_keeps_and_gets_no_set_id_bit_by_being_replaced(
    machine: Machine, his: Path, fields: str
) -> None:
    file = his / "file"
    file.write_text("his")
    os.chown(file, NOBODY, 0 if fields.startswith("mode") else NOBODY)
    file.chmod(0o755 if "mode" in fields else 0o2755)
    spec = machine.spec(f"files: {{x: {{path: {file}, content: ours, {fields}}}}}")
    machine.once(spec, status=1 if "mode" in fields else 0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o755
    assert file.read_text() == ("his" if "mode" in fields else "ours")


def test_a_copy_is_opened_to_nobody_who_may_not_read_its_source(machine: Machine) -> None:
    source, file = machine.base / "source", machine.base / "etc/file"
    source.write_text("x")
    spec = machine.spec(f"files: {{x: {{path: {file}, source: source}}}}")
    for mode in (0o600, 0o755):
        source.chmod(mode)
        machine.once(spec)
        assert stat.S_IMODE(file.stat().st_mode) == mode & 0o644
        machine.converged(spec)
        file.unlink()


def test_nothing_is_shown_of_a_file_whose_way_was_exchanged_since(machine: Machine) -> None:
    (machine.base / "x").write_text("secret of root\n")
    (machine.base / "his").mkdir()
    (machine.base / "his/x").write_text("his\n")
    with open(machine.base / "x", "rb") as file:
        assert shown_file(str(machine.base / "x"), file.fileno()) == "secret of root\n"
        assert "secret" not in shown_file(str(machine.base / "his/x"), file.fileno())


def test_holes_that_cost_nothing_to_make_are_not_read(machine: Machine) -> None:
    changed, absent = machine.base / "changed", machine.base / "absent"
    form = "files: {{x: {{path: {}, content: ours}}, y: {{path: {}, content: ours{}}}}}"
    machine.once(machine.spec(form.format(changed, absent, "")))
    for file in (changed, absent):
        os.truncate(file, 10 << 40)
    spec = machine.spec(form.format(changed, absent, ", state: absent"))
    plan = machine.plan(spec)
    assert [one["id"] for one in plan["unknown"]] == ["file:y"]
    machine.once(spec, status=1)
    assert changed.read_text() == "ours"
    assert absent.stat().st_size == 10 << 40


def test_who_talks_without_end_does_not_hide_that_a_process_has_ended(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiter, "_is_of", lambda sender, pid: sender == os.getpid())
    waits = waiter.Waiter("x", str(machine.base / "record"), os.geteuid())
    listener = waits.listen()
    said = 0
    with (
        subprocess.Popen(["true"]) as child,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to,
    ):

        def talk() -> None:
            nonlocal said
            said += 1
            with suppress(BrokenPipeError):
                if said < 1000:
                    to.sendto(b"READY=1", f"\0{waits.address[1:]}")

        # Its end is seen, and what it has said before is heard.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        talk()
        waiter._hear(listener, os.geteuid(), child.pid, talk)
    assert said == 2


@pytest.mark.namespaces
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_mount_point_is_narrowed_before_what_not_all_may_read_is_written_in_place(
    machine: Machine,
) -> None:
    source, hosts = machine.base / "source", machine.base / "hosts"
    source.write_text("for all\n")
    source.chmod(0o644)
    hosts.touch()
    spec = machine.spec(f"files: {{x: {{path: {hosts}, content: for root, mode: '0600'}}}}")
    once = " ".join(map(str, machine.argv("--once", "--json", "--take-over", spec)))
    trace = machine.base / "trace"
    done = machine.run(
        "unshare", "-m", "sh", "-ec",
        f"mount --make-rprivate /; mount --bind {source} {hosts}; "
        f"strace -f -y -e trace=fchmod,write -o {trace} {once}; {once}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (source.read_text(), source.stat().st_mode & 0o777) == ("for root", 0o600)
    assert json.loads(done.stdout.partition("\n}\n")[2])["steps"] == []
    inode = [line for line in trace.read_text().splitlines() if f"<{hosts}>" in line]
    assert "fchmod" in inode[0] and "0600" in inode[0]
    assert any("write" in line and "for root" in line for line in inode[1:])


def test_a_note_behind_one_that_was_cut_off_by_a_kill_is_read(tmp_path: Path) -> None:
    notes = WrittenFiles(str(tmp_path))
    notes.note("/a", "1", "begun")
    notes.note("/b", "2", "begun")
    os.truncate(tmp_path / "files", (tmp_path / "files").stat().st_size - 4)
    notes.note("/c", "3", "done")
    found = notes.read()
    assert (found["/a"].digests, found["/c"].digests) == (("1",), ("3",))
    assert "/b" not in found
