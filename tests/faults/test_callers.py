"""What a caller hands down that is somebody else's: home, folders of PATH, locale, sockets."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Machine, until

from reconciler.base.errors import UnknownState
from reconciler.host import environment, tmux
from reconciler.host.environment import clean, runtime_folder, search_path
from reconciler.host.tmux import Tmux

NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def notes() -> Iterator[list[str]]:
    """What was said, from now on."""
    environment._noted.clear()
    said: list[str] = []
    environment.on_note(said.append)
    yield said
    environment._listeners.clear()
    environment._noted.clear()


def somebodys(path: Path) -> Path:
    """A folder of another account; for an ordinary caller, one that everybody may write to."""
    path.mkdir()
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:
        path.chmod(0o777)
    return path


@pytest.mark.parametrize("name", ["HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"])
def test_a_home_of_somebody_else_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str], name: str
) -> None:
    below = tmp_path / "made-later"
    theirs = somebodys(tmp_path / "theirs")
    for folder in (str(theirs), str(theirs / "made-later")):
        monkeypatch.setenv(name, folder)
        clean()
        assert os.environ.get(name) != folder
        assert folder in notes[-1]
    notes.clear()
    for folder in (str(tmp_path), str(below)):
        monkeypatch.setenv(name, folder)
        clean()
        assert os.environ[name] == folder
    assert notes == []


def test_a_home_below_everybodys_folder_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: list[str]
) -> None:
    """In a sticky folder our own home is ours, and one that is still to be made is anybody's."""
    shared = tmp_path / "shared"
    (shared / "own").mkdir(parents=True)
    shared.chmod(0o1777)
    for folder, ours in {shared: False, shared / "own": True, shared / "made-later": False}.items():
        monkeypatch.setenv("HOME", str(folder))
        clean()
        assert (os.environ["HOME"] == str(folder)) is ours, folder


def test_only_a_runtime_folder_of_our_own_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    clean()
    assert runtime_folder() == str(folder)
    theirs = somebodys(tmp_path / "theirs")
    for other in (str(theirs), str(tmp_path / "missing"), "."):
        monkeypatch.setenv("XDG_RUNTIME_DIR", other)
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={other}/bus")
        assert runtime_folder() in (None, f"/run/user/{os.geteuid()}")
        clean()
        assert not {"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"} & set(os.environ)


@pytest.mark.parametrize("relative", [False, True])
def test_programs_of_a_folder_that_others_may_fill_are_not_run(
    machine: Machine, relative: bool
) -> None:
    """Somebody's tmux and crontab stand in front in PATH."""
    theirs = machine.base / "theirs"
    (theirs.mkdir if relative else lambda: somebodys(theirs))()
    ran = machine.base / "ran"
    for name in ("tmux", "crontab"):
        (theirs / name).write_text(f"#!/bin/sh\necho {name} >> {ran}\nexec {name}.real\n")
        (theirs / name).chmod(0o755)
    spec = machine.spec(
        "sessions: {s: {}}\ncron: {c: {schedule: '1 1 1 1 1', command: [echo, hi]}}\n"
    )
    path = f"{'theirs' if relative else theirs}:{machine.environ['PATH']}"
    done = machine.reconcile("--once", spec, environ={"PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert not ran.exists()
    for name in ("tmux", "crontab"):
        assert f"/{name} is skipped: " in done.stdout
    assert machine.tmux("list-sessions", "-F", "#{session_name}") == "s\n"
    assert b"echo hi" in (machine.crontab_text() or b"")
    # Which spec it is about stands before all notes, and once.
    assert done.stdout.count(str(spec)) == 1
    assert str(spec) in done.stdout.splitlines()[0]
    quiet = machine.reconcile("--once", "-q", spec, environ={"PATH": path})
    assert quiet.stdout == ""


def test_a_path_of_the_spec_is_cleaned_as_well(machine: Machine) -> None:
    theirs = somebodys(machine.base / "theirs")
    ran = machine.base / "ran"
    (theirs / "tool").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (theirs / "tool").chmod(0o755)
    machine.fake("tool", "exec sleep 1066 #")
    path = f"{theirs}:theirs:{machine.base}/fakes:/usr/bin:/bin"
    spec = machine.spec(
        f"processes: {{p: {{command: [sh, -c, 'echo $PATH; exec tool'], log: {machine.base}/log, "
        f"env: {{PATH: '{path}'}}}}}}"
    )
    done = machine.reconcile("--once", spec)
    assert done.returncode == 0, done.stdout
    machine.only("sleep 1066")
    assert (machine.base / "log").read_text() == f"{machine.base}/fakes:/usr/bin:/bin\n"
    assert f"PATH: the folder {theirs} is skipped" in done.stdout
    assert "PATH: the folder 'theirs' is skipped" in done.stdout
    assert not ran.exists()


@pytest.mark.root
@ROOT
def test_the_own_folder_of_a_processs_user_stays_in_its_path(
    tmp_path: Path, notes: list[str]
) -> None:
    theirs = somebodys(tmp_path / "theirs")
    assert search_path(f"{theirs}:/usr/bin", NOBODY) == f"{theirs}:/usr/bin"
    assert search_path(f"{theirs}:/usr/bin", NOBODY - 1) == "/usr/bin"
    assert len(notes) == 1


LOCALES = {"ja_JP.EUC-JP": ("ja_JP", "EUC-JP"), "de_DE.ISO-8859-1": ("de_DE", "ISO-8859-1")}


@pytest.mark.parametrize("locale", ["POSIX", *LOCALES])
def test_names_do_not_follow_the_locale(machine: Machine, locale: str) -> None:
    folder = machine.base / "locales"
    folder.mkdir()
    environ = {"LC_ALL": locale, "LOCPATH": str(folder)}
    if locale in LOCALES:
        if shutil.which("localedef") is None:
            pytest.skip("localedef is missing; install it with: apt-get install libc-bin")
        language, charset = LOCALES[locale]
        made = machine.run("localedef", "-i", language, "-f", charset, folder / locale)
        if not (folder / locale).exists():
            pytest.skip(f"localedef does not know {locale}: {made.stderr}")
    else:
        # Python would have switched to UTF-8 by itself.
        environ |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    names = machine.base / "names"
    names.mkdir()
    odd = os.fsencode(names) + b"/latin-\xe9"
    os.mkdir(odd)
    spec = machine.spec(
        "vars: {name: x}\n"
        f"directories: {{d: {{path: '{names}/日本'}}, e: {{path: '{names}/{{{{ name }}}}'}}}}\n"
        f"permissions: {{p: {{path: '{names}', recursive: true, dir_mode: '0750'}}}}\n",
        "Größe.yaml",
    )
    done = machine.reconcile("--once", spec, "--set", "name=Straße", environ=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    made_here = [name.encode() for name in ("Straße", "日本")]
    assert sorted(os.listdir(os.fsencode(names))) == [made_here[0], b"latin-\xe9", made_here[1]]
    assert stat.S_IMODE(os.stat(odd).st_mode) == 0o750
    machine.converged(spec, "--set", "name=Straße")


class Server:
    """A tmux server with one session of the test's own."""

    def __init__(self, folder: Path, session: str) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True)
        self.socket = folder / "default"
        argv = ["tmux", "-f", "/dev/null", "-S", str(self.socket)]
        environ = {k: v for k, v in os.environ.items() if k != "TMUX"}
        subprocess.run(
            [*argv, "new-session", "-d", "-s", session, "sleep 1067"], env=environ, check=True
        )
        said = subprocess.run(
            [*argv, "display-message", "-p", "#{pid}"], env=environ, capture_output=True
        )
        self.pid = int(said.stdout)

    def end(self) -> None:
        os.kill(self.pid, 9)


@pytest.fixture
def two(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Server]]:
    """Our server, and a false one of somebody else. Both listen on a socket ``default``."""
    monkeypatch.setenv("TMUX_TMPDIR", str(machine.sockets))
    ours = Server(machine.sockets / f"tmux-{os.geteuid()}", "true")
    theirs = Server(machine.sockets / "false", "false")
    yield ours, theirs
    ours.end()
    theirs.end()


def test_the_folder_of_the_socket_is_exchanged_after_it_was_looked_at(
    two: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stands under its name by then, the client talks to the server that was checked."""
    ours, theirs = two
    aside = ours.folder.with_name("aside")
    begin, run = tmux.begin, tmux.run

    def exchange() -> None:
        ours.folder.rename(aside)
        ours.folder.symlink_to(theirs.folder)

    def put_back() -> None:
        ours.folder.unlink()
        aside.rename(ours.folder)

    def begun(*given: Any, **named: Any) -> Any:
        exchange()
        return begin(*given, **named)

    def done(*given: Any, **named: Any) -> Any:
        exchange()
        try:
            return run(*given, **named)
        finally:
            put_back()

    monkeypatch.setattr(tmux, "begin", begun)
    monkeypatch.setattr(tmux, "run", done)
    asked = Tmux("", False)
    seen = {pane.session for pane in asked.panes(None)}
    put_back()
    assert seen == {"true"}
    asked.command(None, [["rename-session", "-t", "=true:", "renamed"]])
    assert asked.screen(None, "=renamed:", 5) is not None
    monkeypatch.setattr(tmux, "begin", begin)
    asked.forget()
    assert {pane.session for pane in asked.panes(None)} == {"renamed"}


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("wrong", ["owner", "mode", "read", "above", "link"])
def test_roots_new_server_lives_in_run(machine: Machine, wrong: str) -> None:
    """The usual folder of sockets is somebody else's, or can be exchanged by somebody else."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    base = machine.sockets
    folder = base / "tmux-0"
    if wrong == "link":
        theirs = somebodys(base / "theirs")
        (theirs / "tmux-0").mkdir(mode=0o700)
        folder.symlink_to(theirs / "tmux-0")
    else:
        folder.mkdir()
        folder.chmod({"mode": 0o777, "read": 0o755}.get(wrong, 0o700))
        os.mknod(folder / "default", 0o140600)
        if wrong == "owner":
            os.chown(folder, NOBODY, NOBODY)
    if wrong == "above":
        base.chmod(0o777)
    spec = machine.spec("sessions: {s: {windows: [{panes: [{command: [sleep, '1068']}]}]}}")
    script = f"""{machine.bin}/reconcile --once {spec} --state-dir {machine.state}
        {machine.bin}/reconcile --once --detailed-exitcode {spec} --state-dir {machine.state}
        echo second=$?
        tmux -S /run/tmux-0/default list-sessions -F 'found #{{session_name}}'
        rm -rf {folder} {base}/theirs; chmod 700 {base}
        tmux -S /run/tmux-0/default kill-server"""
    done = machine.run(
        "unshare", "-m", "sh", "-c",
        'mount --make-rprivate / && mount -t tmpfs tmpfs /run && exec sh -c "$0"', script,
    )  # fmt: skip
    assert (
        "tmux runs in /run/tmux-0; attach with: tmux -S /run/tmux-0/default attach" in done.stdout
    )
    assert "no tmux server there is believed" in done.stdout
    assert "second=0" in done.stdout, done.stdout + done.stderr
    assert "found s" in done.stdout
    until(lambda: not machine.ours())


@pytest.mark.skipif(os.geteuid() == 0, reason="root has /run")
def test_an_ordinary_users_server_is_not_where_others_may_exchange_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMUX_TMPDIR", str(machine.sockets))
    monkeypatch.setattr("reconciler.host.tmux_socket.runtime_folder", lambda: None)
    (machine.sockets / f"tmux-{os.geteuid()}").mkdir(mode=0o700)
    machine.sockets.chmod(0o777)
    with pytest.raises(UnknownState, match="no tmux server there is believed"):
        Tmux("", False).panes(None)
    machine.sockets.chmod(0o700)
    assert Tmux("", False).panes(None) == ()
