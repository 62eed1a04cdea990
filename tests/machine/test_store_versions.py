"""A store that another version of the program has made: older is added to, newer is left alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support import Machine, until

from reconciler.host.clock import Clock
from reconciler.pulse import pulse
from reconciler.state import Newer
from reconciler.store import Store, base

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


def test_a_running_loop_that_meets_a_newer_store_starts_what_is_installed_now(
    machine: Machine,
) -> None:
    """The program was replaced below the loop, and the new one has used the store."""
    program, new = machine.base / "reconcile", machine.base / "new"
    program.write_text("import sys\nfrom reconciler.cli import main\nsys.exit(main())\n")
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
        said, _ = loop.communicate(timeout=20)
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
def test_one_that_has_it_open_notices(folder: Path, how: str) -> None:
    """Between two looks of one process a newer one adds to the file."""
    for writes in (True, False):
        store = Store(str(folder), Clock(), writes)
        Store(str(folder), Clock(), True).pauses.pause("a", "", None, "me")
        assert set(store.pauses.all()) == {"a"}
        saved = (folder / "store.db").read_bytes()
        change(folder / "store.db", *NEWER[how])
        changed = (folder / "store.db").read_bytes()
        with pytest.raises(Newer):
            store.base.refuse_newer()
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
    tables["history"] = tables["history"].removesuffix(", freed INTEGER")
    del tables["reports"]
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
    assert store.history.since(0.0) == []
    assert path.read_bytes() == before
    store.pauses.pause("b", "", None, "me")
    assert set(store.pauses.all()) == {"a", "b"}
    assert store.damage() is None
    store.close()
    with sqlite3.connect(path) as made:
        assert made.execute("SELECT version FROM schema").fetchall() == [(1,)]
    made.close()


def test_only_what_sqlite_calls_damaged_is_set_aside(folder: Path) -> None:
    store = Store(str(folder), Clock(), True)
    store.pauses.pause("a", "", None, "me")
    with pytest.raises(Exception, match="cannot use the store"):
        store.base.read("SELECT ?", ())  # A mistake of ours is none of the file's.
    assert store.damage() is None
    assert set(store.pauses.all()) == {"a"}
    store.close()
    (folder / "store.db").write_bytes(b"not a database at all" * 100)
    assert store.pauses.all() == {}
    assert "was set aside" in (store.damage() or "")
    store.close()
