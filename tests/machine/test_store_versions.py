"""A store that another version of the program has made: older is added to, newer is left alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from looping import Looping
from support import LONG, Machine, until

from reconciler.host.clock import Clock
from reconciler.state.folder import Newer
from reconciler.state.heartbeat import pulse
from reconciler.state.store import Store, base

NEWER = {
    "table": ["CREATE TABLE later (x TEXT)"],
    "column": ["ALTER TABLE pauses ADD COLUMN later TEXT"],
    "version": ["CREATE TABLE IF NOT EXISTS schema (version INTEGER)", "DELETE FROM schema",
                "INSERT INTO schema VALUES (99)"],
}  # fmt: skip
SPEC = "processes: {p: {command: [sleep, '1071']}}"


def change(store: Path, *statements: str) -> None:
    with sqlite3.connect(store) as made:
        for statement in statements:
            made.execute(statement)
    made.close()


@pytest.mark.parametrize("how", NEWER)
def test_a_newer_store_is_refused_and_left_as_it_is(machine: Machine, how: str) -> None:
    spec = machine.spec(SPEC)
    assert machine.reconcile("--pause", "process:p", spec).returncode == 0
    machine.once(spec)
    store = machine.state / "demo/store.db"
    change(store, *NEWER[how])
    before = store.read_bytes()
    for mode in (
        ["--once"], ["--plan"], ["--status"], ["--history"], ["--loop"], ["--repair"],
        ["--resume", "process:p"], ["--pause", "process:p"],
    ):  # fmt: skip
        done = machine.reconcile(*mode, spec)
        assert done.returncode == 1, mode
        assert "newer version of this program" in done.stdout + done.stderr, mode
    assert machine.running("sleep 1071") == []
    assert store.read_bytes() == before
    assert list(store.parent.glob("store.db.*")) == []


def header(store: Path, at: int, value: int) -> None:
    with store.open("r+b") as file:
        file.seek(at)
        file.write(bytes([value]))


def replaced(store: Path, make: Callable[[Path], Any]) -> None:
    store.rename(store.with_name("kept"))
    make(store)


UNREADABLE: dict[str, Callable[[Path], Any]] = {
    "emptied": lambda store: os.truncate(store, 0),
    "folder": lambda store: replaced(store, Path.mkdir),
    "fifo": lambda store: replaced(store, os.mkfifo),
    "socket": lambda store: replaced(store, lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)),
    "symlink": lambda store: replaced(store, lambda path: path.symlink_to("kept")),
    "dangling symlink": lambda store: replaced(store, lambda path: path.symlink_to("nothing")),
    "format of the file": lambda store: header(store, 19, 3),
    "format of the schema": lambda store: header(store, 47, 5),
}  # fmt: skip


@pytest.mark.parametrize("how", UNREADABLE)
def test_nothing_acts_while_it_cannot_be_known_what_is_paused(machine: Machine, how: str) -> None:
    spec = machine.spec(
        f"directories: {{d: {{path: {machine.base}/d}}, e: {{path: {machine.base}/e}}}}"
    )
    assert machine.reconcile("--pause", "directory:d", spec).returncode == 0
    machine.once(spec)
    assert (machine.base / "e").exists()
    store = machine.state / "demo/store.db"
    (machine.base / "e").rmdir()
    UNREADABLE[how](store)
    before = os.lstat(store)
    for mode in (
        ["--once"], ["--plan"], ["--status"], ["--loop"], ["--repair"], ["--once", "--json"],
        ["--resume", "directory:d"], ["--pause", "directory:e"],
    ):  # fmt: skip
        done = machine.reconcile(*mode, spec)
        said = done.stdout + done.stderr
        assert done.returncode == 1, (mode, said)
        assert str(store) in said, mode
        assert "known what is paused" in said or "newer version" in said, (mode, said)
    assert not (machine.base / "e").exists()
    assert (os.lstat(store).st_ino, os.lstat(store).st_size) == (before.st_ino, before.st_size)
    assert list(store.parent.glob("store.db.damaged*")) == []
    diagnosed = machine.reconcile("--diagnose", spec)
    assert str(store) in diagnosed.stdout
    assert "Traceback" not in diagnosed.stderr
    # A person who removes it begins anew.
    store.rmdir() if how == "folder" else store.unlink()
    machine.once(spec)
    assert (machine.base / "d").exists()
    assert machine.reconcile("--pause", "directory:d", spec).returncode == 0


def test_nothing_acts_by_a_store_that_the_disk_does_not_give(machine: Machine) -> None:
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}")
    assert machine.reconcile("--pause", "directory:d", spec).returncode == 0
    store = machine.state / "demo/store.db"
    trace = machine.base / "trace"
    done = machine.run(
        "strace", "-f", "-o", trace, "-P", store, "-e", "inject=read,pread64:error=EIO",
        *machine.argv("--once", spec),
    )  # fmt: skip
    assert done.returncode == 1
    assert "disk I/O error; until that is fixed it is not known what is paused" in done.stderr
    assert not (machine.base / "d").exists()
    machine.once(spec)
    assert not (machine.base / "d").exists()


@pytest.mark.parametrize("how", ["emptied", "folder"])
def test_a_running_loop_waits_until_the_store_can_be_read(
    machine: Machine, looping: Callable[..., Looping], how: str
) -> None:
    spec = machine.spec(
        "loop: {every: 1s}\n"
        f"directories: {{d: {{path: {machine.base}/d}}, e: {{path: {machine.base}/e}}}}"
    )
    machine.once(spec)
    (machine.base / "d").rmdir()
    assert machine.reconcile("--pause", "directory:d", spec).returncode == 0
    loop = looping(spec).up()
    loop.full_pass()
    store = machine.state / "demo/store.db"
    saved = store.read_bytes()
    UNREADABLE[how](store)
    (machine.base / "e").rmdir()
    until(lambda: "error" in loop.names())
    assert not (machine.base / "d").exists()
    store.rmdir() if how == "folder" else store.unlink()
    store.write_bytes(saved)
    store.chmod(0o600)
    until((machine.base / "e").exists)
    assert not (machine.base / "d").exists()


def test_what_a_killed_one_had_begun_to_write_keeps_nobody(machine: Machine) -> None:
    """It is undone by whoever acts, and said by who only looks."""
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}")
    assert machine.reconcile("--pause", "directory:d", spec).returncode == 0
    store = machine.state / "demo/store.db"

    def kill() -> None:
        killed = machine.run(
            "strace", "-f", "-o", "/dev/null", "-P", store, "-e", "inject=pwrite64:signal=SIGKILL",
            *machine.argv("--pause", "directory:d", "--reason", "again", spec),
        )  # fmt: skip
        assert killed.returncode != 0
        assert (store.parent / "store.db-journal").exists()

    for mode in (["--once"], ["--pause", "directory:d"], ["--resume", "directory:d"]):
        kill()
        planned = machine.reconcile("--plan", spec)
        assert planned.returncode == 1
        assert "which the next pass (--once) undoes" in planned.stderr
        assert machine.reconcile(*mode, spec).returncode == 0, mode
        assert not (machine.base / "d").exists()


def test_a_store_that_was_never_written_is_begun(machine: Machine) -> None:
    """One who was killed in his first writing leaves it empty; nobody has emptied it."""
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}")
    machine.once(spec)
    store = machine.state / "demo/store.db"
    store.unlink()
    killed = machine.run(
        "strace", "-f", "-o", "/dev/null", "-P", store, "-e", "inject=pwrite64:signal=SIGKILL",
        *machine.argv("--pause", "directory:d", spec),
    )  # fmt: skip
    assert killed.returncode != 0
    assert store.stat().st_size == 0
    (machine.base / "d").rmdir()
    machine.once(spec)
    assert (machine.base / "d").exists()


def test_a_running_loop_that_meets_a_newer_store_starts_what_is_installed_now(
    machine: Machine,
) -> None:
    """The program was replaced below the loop, and the new one has used the store."""
    program, new = machine.base / "reconcile", machine.base / "new"
    program.write_text("import sys\nfrom reconciler.cli.main import main\nsys.exit(main())\n")
    spec = machine.spec(SPEC)
    argv = [sys.executable, str(program), "--loop", str(spec), "--state-dir", str(machine.state)]
    loop = subprocess.Popen(
        argv, env={**machine.environ, "NOTIFY_SOCKET": "@none"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until(lambda: machine.running("sleep 1071"))
        store = machine.state / "demo/store.db"
        until(store.exists)
        program.write_text(
            "import os, sys\n"
            f"open({str(new)!r}, 'w').write('\\n'.join([str(os.getpid()), "
            "os.environ['NOTIFY_SOCKET'], *sys.argv[1:]]))\n"
        )
        until(lambda: (seen := pulse(str(store.parent), Clock())) is not None and seen.done)
        change(store, *NEWER["table"], "PRAGMA user_version = 1")
        before = store.read_bytes()
        os.kill(loop.pid, signal.SIGUSR1)
        said, _ = loop.communicate(timeout=LONG)
    finally:
        loop.kill()
        loop.wait()
    assert new.exists(), said
    assert new.read_text().split("\n") == [str(loop.pid), "@none", *argv[2:]]
    assert "the program that is installed now takes over" in said
    assert store.read_bytes() == before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.mark.parametrize("how", NEWER)
@pytest.mark.parametrize("tick", [True, False])
def test_one_that_has_it_open_notices(folder: Path, how: str, tick: bool) -> None:
    """Between two looks of one process a newer one adds to the file, maybe within one tick."""
    for writes in (True, False):
        store = Store(str(folder), Clock(), writes)
        Store(str(folder), Clock(), True).pauses.pause("a", "", None, "me")
        assert set(store.pauses.all()) == {"a"}
        saved = (folder / "store.db").read_bytes()
        status = (folder / "store.db").stat()
        change(folder / "store.db", *NEWER[how])
        if tick:
            os.utime(folder / "store.db", ns=(status.st_atime_ns, status.st_mtime_ns))
        changed = (folder / "store.db").read_bytes()
        with pytest.raises(Newer):
            store.base.refuse_unreadable()
        with pytest.raises(Newer):
            store.pauses.pause("b", "", None, "me")
        assert (folder / "store.db").read_bytes() == changed
        store.close()
        (folder / "store.db").write_bytes(saved)


def test_columns_of_a_newer_version_do_not_disturb_a_change_in_hand(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each INSERT names its columns; here the look at the version comes too early to help."""
    monkeypatch.setattr(base, "_cookie", lambda _: ())
    store = Store(str(folder), Clock(), True)
    store.pauses.pause("a", "", None, "me")
    path = folder / "store.db"
    change(path, *(f"ALTER TABLE {name} ADD COLUMN later TEXT" for name in base._TABLES))
    store.pauses.pause("b", "", None, "me")
    store.conditions.note([("a", "b", "c")], [])
    store.reports.made([1.0], {"x": 1})
    assert set(store.pauses.all()) == {"a", "b"}


@pytest.mark.parametrize("writes", [True, False])
def test_an_older_store_is_added_to(folder: Path, writes: bool) -> None:
    path = folder / "store.db"
    tables = dict(base._TABLES)
    tables["pauses"] = "id TEXT PRIMARY KEY, reason TEXT, wall REAL, until REAL"
    tables["history"] = tables["history"].removesuffix(", freed INTEGER, pass INTEGER")
    assert "freed" not in tables["history"]
    for name in ("reports", "passes", "journal", "definitions"):
        del tables[name]
    change(
        path,
        *(f"CREATE TABLE {name} ({columns})" for name, columns in tables.items()),
        "INSERT INTO pauses VALUES ('a', 'why', 5.0, NULL)",
        "PRAGMA user_version = 1",
    )
    path.chmod(0o600)
    before = path.read_bytes()
    store = Store(str(folder), Clock(), writes)
    (pause,) = store.pauses.all().values()
    assert (pause.reason, pause.by) == ("why", None)
    assert (store.journal.passes(), store.journal.definition("a")) == ({}, None)
    assert store.history.since(0.0) == []
    assert path.read_bytes() == before
    store.pauses.pause("b", "", None, "me")
    assert set(store.pauses.all()) == {"a", "b"}
    assert store.base.damaged is None
    store.close()
    with sqlite3.connect(path) as made:
        assert made.execute("SELECT version FROM schema").fetchall() == [(1,)]
    made.close()


def test_one_that_another_has_added_to_first_is_taken_as_it_is_then(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find the same table missing, and one of them waits for the other."""
    Store(str(folder), Clock(), True).pauses.pause("a", "", None, "me")
    path = folder / "store.db"
    change(path, "DROP TABLE reports", "ALTER TABLE history DROP COLUMN freed")
    look, looks = base.Base._tables, []

    def overtaken(self: Any, opened: sqlite3.Connection) -> Any:
        there = look(self, opened)
        looks.append(1)
        if len(looks) == 1:
            Store(str(folder), Clock(), True).pauses.pause("b", "", None, "them")
        return there

    monkeypatch.setattr(base.Base, "_tables", overtaken)
    store = Store(str(folder), Clock(), True)
    store.pauses.pause("c", "", None, "me")
    assert set(store.pauses.all()) == {"a", "b", "c"}
    assert store.base.damaged is None
    store.close()


@pytest.mark.parametrize("writes", [True, False])
def test_one_that_has_it_open_sees_what_has_taken_its_place(folder: Path, writes: bool) -> None:
    """Somebody has put a copy back, as by mv: the open file has no name any more."""
    Store(str(folder), Clock(), True).pauses.pause("a", "", None, "me")
    path = folder / "store.db"
    status = path.stat()
    store = Store(str(folder), Clock(), writes)
    assert set(store.pauses.all()) == {"a"}
    other = folder / "copy.db"
    other.write_bytes(path.read_bytes())
    with sqlite3.connect(other) as made:
        made.execute("UPDATE pauses SET id = 'b'")
    made.close()
    other.chmod(0o600)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))  # As cp -p has it.
    other.rename(path)
    assert set(store.pauses.all()) == {"b"}
    store.close()


def test_only_what_sqlite_calls_damaged_is_set_aside(folder: Path) -> None:
    store = Store(str(folder), Clock(), True)
    store.pauses.pause("a", "", None, "me")
    with pytest.raises(Exception, match="cannot use the store"):
        store.base.read("SELECT ?", ())  # A mistake of ours is none of the file's.
    assert store.base.damaged is None
    assert set(store.pauses.all()) == {"a"}
    store.close()
    (folder / "store.db").write_bytes(b"not a database at all" * 100)
    assert store.pauses.all() == {}
    assert "was set aside" in (store.base.damaged or "")
    store.close()
    store.journal.add(store.journal.begin("me"), {"notes": {"a": {}}}, {"a": {}})
    assert store.journal.notes(1) == {"a": {}}
