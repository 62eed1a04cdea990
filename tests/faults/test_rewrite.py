"""People save a file while a block is put into it; nothing that they save is lost.

They save at the worst moment, which is a hook between two system calls.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import LONG, Machine, until

from reconciler.base.errors import HostError
from reconciler.host import kernel, replaced, rewrite

BLOCK = b"block\n"
LIMIT = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "of-people"
    folder.mkdir()
    (folder / "rc").write_bytes(b"one\n")
    (folder / "rc").chmod(0o640)
    return folder / "rc"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def with_block(text: bytes | None) -> bytes:
    return (text or b"").replace(BLOCK, b"") + BLOCK


def write(file: Path, state: Path, edit: rewrite.Edit = with_block) -> None:
    rewrite.rewrite(str(file), edit, LIMIT, str(state))


def hook(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, *acts: Callable[[], None]
) -> list[int]:
    """Before the first call of that function the first of ``acts`` is done, and so on."""
    real = getattr(where, name)
    calls: list[int] = []

    def hooked(*arguments: Any, **options: Any) -> Any:
        calls.append(len(calls))
        if len(calls) <= len(acts):
            acts[len(calls) - 1]()
        return real(*arguments, **options)

    monkeypatch.setattr(where, name, hooked)
    return calls


def saved(file: Path, text: bytes) -> Callable[[], None]:
    """As most editors save: a new file, renamed."""

    def save() -> None:
        new = file.with_name("new")
        new.write_bytes(text)
        new.chmod(0o640)
        new.rename(file)

    return save


def appended(file: Path, text: bytes) -> Callable[[], None]:
    def save() -> None:
        with open(file, "ab") as there:
            there.write(text)

    return save


def beside(file: Path) -> list[str]:
    return sorted(set(os.listdir(file.parent)) - {file.name})


def kept(file: Path) -> list[bytes]:
    """What lies aside."""
    folders = [file.parent / name for name in beside(file)]
    return [one.read_bytes() for folder in folders for one in folder.iterdir()]


@pytest.mark.parametrize("way", [saved, appended])
@pytest.mark.parametrize("exchanges", [True, False])
def test_what_is_saved_right_before_the_exchange_stays(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch, way: Any, exchanges: bool
) -> None:
    save = way(file, b"one\ntwo\n" if way is saved else b"two\n")
    if exchanges:
        calls = hook(monkeypatch, kernel, "exchange", save)
    else:
        without_exchange(monkeypatch)
        calls = hook(monkeypatch, os, "link", lambda: None, save)
    write(file, state)
    assert file.read_bytes() == b"one\ntwo\nblock\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert len(calls) > 2
    assert beside(file) == []
    assert replaced.settle(str(state)) == []


def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "invalid argument")

    monkeypatch.setattr(kernel, "exchange", refuse)


def test_a_mode_that_is_set_right_before_the_exchange_stays(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(monkeypatch, kernel, "exchange", lambda: file.chmod(0o600))
    write(file, state)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == b"one\nblock\n"


def test_a_file_that_appears_is_not_replaced_by_one_that_was_missing(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.unlink()
    hook(monkeypatch, os, "link", saved(file, b"two\n"))
    write(file, state)
    assert file.read_bytes() == b"two\nblock\n"


def test_a_file_that_is_saved_right_before_it_is_removed_stays(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(BLOCK)
    hook(monkeypatch, kernel, "rename_new", saved(file, b"two\n" + BLOCK))
    write(file, state, lambda text: (text or b"").replace(BLOCK, b"") or None)
    assert file.read_bytes() == b"two\n"
    assert beside(file) == []


def test_what_is_saved_twice_is_all_there(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the exchange, and once more before that is taken back."""
    twice = saved(file, b"first\n"), saved(file, b"second\n")
    calls = hook(monkeypatch, kernel, "exchange", *twice)
    write(file, state)
    assert len(calls) == 4  # There, back, the newest back, and there again.
    assert file.read_bytes() == b"second\nblock\n"
    assert kept(file) == [b"first\n"]
    (said,) = replaced.settle(str(state))
    assert str(file.parent / ".rc.reconcile.d") in said


def test_what_is_written_to_ours_before_it_is_taken_back_is_kept_and_named(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its place for a moment only; whoever appends to it then has not seen the other."""
    hook(monkeypatch, kernel, "exchange", saved(file, b"first\n"), appended(file, b"late\n"))
    write(file, state)
    assert file.read_bytes() == b"first\nblock\n"
    assert kept(file) == [b"one\nblock\nlate\n"]
    (said,) = replaced.settle(str(state))
    assert str(file.parent / ".rc.reconcile.d") in said


def test_ours_is_kept_while_it_is_being_written_to(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    acts = saved(file, b"first\n"), lambda: opened.append(file.open("ab"))
    hook(monkeypatch, kernel, "exchange", *acts)
    write(file, state)
    assert file.read_bytes() == b"first\nblock\n"
    opened[0].write(b"late\n")
    opened[0].close()
    assert kept(file) == [b"one\nblock\nlate\n"]
    assert len(replaced.settle(str(state))) == 1


def test_one_who_saves_all_the_time_ends_it_without_harm(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = [saved(file, b"%d\n" % number) for number in range(1000)]
    calls = hook(monkeypatch, kernel, "exchange", *saves)
    with pytest.raises(HostError, match="saved by others all the time"):
        write(file, state)
    last = b"%d\n" % calls[-1]
    assert last in [file.read_bytes(), *kept(file)]


def test_an_editor_that_has_opened_it_right_before_the_exchange_is_waited_for(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def end() -> None:
        opened[0].write(b"two\n")
        opened[0].close()

    hook(monkeypatch, kernel, "exchange", lambda: opened.append(file.open("ab")), end)
    write(file, state)
    assert file.read_bytes() == b"one\ntwo\nblock\n"
    assert beside(file) == []


def test_group_acl_and_attributes_stay(file: Path, state: Path) -> None:
    groups = [group for group in (12345, *os.getgroups()) if group != os.getegid()]
    for group in groups:
        with suppress(PermissionError):
            os.chown(file, -1, group)
            break
    anyone = 0xFFFFFFFF
    entries = (
        (1, 6, anyone), (2, 4, 65534), (4, 0, anyone), (16, 4, anyone), (32, 0, anyone)
    )  # fmt: skip
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(file, "user.of", b"people")
        os.setxattr(file, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("no attributes here")
    before = file.stat()
    attributes = {name: os.getxattr(file, name) for name in os.listxattr(file)}
    write(file, state)
    now = file.stat()
    assert now.st_ino != before.st_ino
    assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert {name: os.getxattr(file, name) for name in os.listxattr(file)} == attributes


def test_what_is_written_to_what_came_out_is_kept_and_named(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "_PATIENCE", 0.0)
    with open(file, "ab") as editor:
        write(file, state)
        assert file.read_bytes() == b"one\nblock\n"
        assert kept(file) == [b"one\n"]
        assert replaced.settle(str(state)) == []  # It has it open, and has written nothing.
        assert kept(file) == [b"one\n"]
        editor.write(b"late\n")
    for _ in range(2):
        (said,) = replaced.settle(str(state))
        assert str(file.parent / ".rc.reconcile.d") in said
    assert kept(file) == [b"one\nlate\n"]


def test_what_came_out_goes_when_nobody_has_it_open_any_more(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "_PATIENCE", 0.0)
    with open(file, "ab"):
        write(file, state)
        assert kept(file) == [b"one\n"]
    assert replaced.settle(str(state)) == []
    assert beside(file) == []
    assert not (state / "replaced").exists()


def test_an_editor_that_truncates_is_waited_for(file: Path, state: Path) -> None:
    editor = open(file, "wb")  # noqa: SIM115 - the file is empty from now on.
    writes = threading.Thread(target=write, args=(file, state))
    writes.start()
    editor.write(b"edited\n")
    editor.close()
    writes.join(20)
    assert file.read_bytes() == b"edited\nblock\n"
    assert beside(file) == []


def test_killed_between_the_exchange_and_the_look_nothing_is_lost(
    file: Path, state: Path, free: None
) -> None:
    code = """
import os, sys
from reconciler.host import kernel, rewrite
file, state = sys.argv[1:]
real = kernel.exchange
def exchange(*arguments):
    with open(file + "~", "w") as new: new.write("of a person\\n")
    os.rename(file + "~", file)
    real(*arguments)
    os._exit(9)
kernel.exchange = exchange
rewrite.rewrite(file, lambda text: text + b"block\\n", 1 << 20, state)
"""
    done = subprocess.run([sys.executable, "-c", code, file, state], timeout=LONG)
    assert done.returncode == 9
    assert kept(file) == [b"of a person\n"]
    (said,) = replaced.settle(str(state))
    assert str(file.parent / ".rc.reconcile.d") in said
    assert kept(file) == [b"of a person\n"]


def test_a_pass_names_what_was_written_to_a_file_that_it_replaced(machine: Machine) -> None:
    file = machine.base / "of-people/rc"
    file.parent.mkdir()
    file.write_bytes(b"one\n")
    spec = machine.spec(f"blocks: {{x: {{path: {file}, content: hello}}}}")
    editor = subprocess.Popen(
        ["sh", "-c", f"exec 3>>{file}; read go; echo late >&3; read end"], stdin=subprocess.PIPE
    )
    assert editor.stdin is not None
    try:
        until(lambda: os.path.exists(f"/proc/{editor.pid}/fd/3"))
        machine.once(spec)
        assert "hello" in file.read_text()
        editor.stdin.write(b"\n")
        editor.stdin.flush()
        until(lambda: kept(file) == [b"one\nlate\n"])
    finally:
        editor.kill()
        editor.communicate()
    done = machine.reconcile("--once", spec)
    assert done.returncode == 0
    assert f"{file.parent}/.rc.reconcile.d" in done.stdout + done.stderr
    machine.converged(spec)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_whose_owner_cannot_be_kept_is_left(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(file, 1, 60)
    file.chmod(0o4775)
    before = file.stat()

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(HostError, match="belongs to user 1 and group 60"):
        write(file, state)
    now = file.stat()
    assert (now.st_ino, now.st_mode, now.st_uid) == (before.st_ino, before.st_mode, 1)


@pytest.mark.parametrize("way", [saved, appended])
def test_what_is_saved_right_before_it_is_written_in_place_stays(
    file: Path, state: Path, monkeypatch: pytest.MonkeyPatch, way: Any
) -> None:
    """As for a file that is a mount point, of which the kernel says that it is busy."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EBUSY, "device or resource busy")

    monkeypatch.setattr(kernel, "exchange", refuse)
    inode = file.stat().st_ino
    hook(monkeypatch, kernel, "exchange", way(file, b"one\ntwo\n" if way is saved else b"two\n"))
    write(file, state)
    assert file.read_bytes() == b"one\ntwo\nblock\n"
    assert way is saved or file.stat().st_ino == inode
    assert beside(file) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_file_that_is_a_mount_point_is_written_in_place(machine: Machine) -> None:
    source, hosts = machine.base / "source", machine.base / "hosts"
    source.write_text("one\n")
    source.chmod(0o640)
    hosts.touch()
    spec = machine.spec(f"blocks: {{x: {{path: {hosts}, content: hello}}}}")
    absent = machine.spec(
        f"blocks: {{x: {{path: {hosts}, content: hello, state: absent}}}}", "absent.yaml"
    )
    once, again = (
        " ".join(map(str, machine.argv("--once", "-q", "--take-over", one)))
        for one in (spec, absent)
    )
    done = machine.run(
        "unshare", "-m", "sh", "-ec",
        f"mount --make-rprivate /; mount --bind {source} {hosts}; {once}; cat {hosts}; {again}",
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip("no mounts here")
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    assert source.read_text() == "one\n"
    assert source.stat().st_mode & 0o777 == 0o640
    trace = machine.base / "trace"
    if shutil.which("strace") is None:
        return
    done = machine.run(
        "unshare", "-m", "sh", "-ec",
        f"mount --make-rprivate /; mount --bind {source} {hosts}; "
        f"strace -f -y -e trace=ftruncate,fsync -o {trace} {once}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (cut,) = (line for line in trace.read_text().splitlines(True) if " ftruncate(" in line)
    file = cut.partition("(")[2].partition(",")[0]
    assert f" fsync({file})" in trace.read_text().partition(cut)[2]
