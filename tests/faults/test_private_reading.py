"""What somebody gives a watched name to, though he may not read it: root does not show it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import Machine

from reconciler.base.errors import HostError
from reconciler.base.values import Verdict
from reconciler.cli.main import main
from reconciler.diagnose import sections
from reconciler.host.clock import Clock, WallTime
from reconciler.host.daemon_log import last_lines
from reconciler.host.outputs import LogOutput
from reconciler.host.probe import queue
from reconciler.host.probe_log import log
from reconciler.host.reading import PRIVATE

SOMEBODY, SOMEBODY_ELSE, TEAM = 64331, 64332, 64333
PRIVATELY = "the-inner-word"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user"),
]


@pytest.fixture
def his(tmp_path: Path) -> Path:
    """A folder of somebody's."""
    made = tmp_path / "his"
    made.mkdir()
    os.chown(made, SOMEBODY, SOMEBODY)
    return made


def file(path: Path, mode: int, uid: int = 0, gid: int = 0) -> Path:
    path.write_text(f"ERROR {PRIVATELY}\n")
    path.chmod(mode)
    os.chown(path, uid, gid)
    return path


def shown(path: Path, uid: int = -1) -> list[bool]:
    """Does each of those who read logs for people show what stands in it?"""
    said = log(str(path), "ERROR", 0, 60.0)
    assert not said.ok and said.words.startswith("1 line matches 'ERROR'"), "it is counted anyway"
    (looked,) = sections.logs([("check:it", str(path))], [])
    last = last_lines(str(path), 4096, None, uid).decode()
    try:
        printed = "".join(LogOutput(str(path)).last(30, None))
    except HostError as error:
        printed = str(error)
    return [PRIVATELY in words for words in (said.words, repr(looked), last, printed)]


def test_a_private_file_of_roots_that_he_renamed(his: Path) -> None:
    path = file(his / "app.log", 0o600)
    assert shown(path) == [False] * 4
    assert PRIVATE in log(str(path), "ERROR", 0, 60.0).words
    path.chmod(0o640)
    os.chown(path, 0, SOMEBODY_ELSE)
    assert shown(path) == [False] * 4


def test_the_rotated_log_that_is_read_on(his: Path) -> None:
    file(his / "app.log.1", 0o600)
    (his / "app.log").touch()
    assert PRIVATELY not in log(str(his / "app.log"), "ERROR", 0, 60.0).words
    output = LogOutput(str(his / "app.log"))
    with pytest.raises(HostError, match="not shown"):
        output.last(30, None)
    # Nor what takes the place of the log while it is followed.
    (his / "app.log.1").unlink()
    assert output.last(30, None) == []
    os.rename(file(his / "private", 0o600), his / "app.log")
    with pytest.raises(HostError, match="not shown"):
        output.more()


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_closed_folder_of_roots_that_he_renamed(his: Path, mode: int) -> None:
    (his / "logs").mkdir(mode=0o700)
    path = file(his / "logs/app.log", mode)
    assert shown(path) == [False] * 4
    assert sections.logs([], [("retention:it", f"{his}/logs/*.log")]) == [], "nor its name"


def test_what_he_may_read_anyway_and_what_is_his(his: Path) -> None:
    assert shown(file(his / "all.log", 0o644)) == [True] * 4
    assert shown(file(his / "his.log", 0o600, SOMEBODY)) == [True] * 4
    (his / "open").mkdir(mode=0o755)
    assert shown(file(his / "open/all.log", 0o644)) == [True] * 4


def test_what_is_another_accounts(his: Path) -> None:
    path = file(his / "app.log", 0o600, SOMEBODY_ELSE)
    assert shown(path) == [False] * 4
    assert last_lines(str(path), 4096, None, SOMEBODY_ELSE) != b"", "its declared user"


def test_what_a_team_shares(tmp_path: Path) -> None:
    team = tmp_path / "team"
    team.mkdir()
    os.chown(team, 0, TEAM)
    team.chmod(0o2770)
    mine = file(team / "mine.log", 0o600, SOMEBODY, TEAM)
    assert shown(mine)[:2] == [False] * 2
    mine.chmod(0o640)
    assert shown(mine)[:2] == [True] * 2


def test_a_sticky_folder_and_a_hard_link_in_it(tmp_path: Path) -> None:
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    assert shown(file(sticky / "his.log", 0o600, SOMEBODY))[:2] == [True] * 2
    ours = file(sticky / "ours.log", 0o600)
    assert shown(ours)[:2] == [True] * 2, "who cannot rename it has not put it there"
    os.link(ours, sticky / "again.log")
    assert shown(ours)[:2] == [False] * 2


def test_names_in_a_closed_folder_that_he_renamed(his: Path, tmp_path: Path) -> None:
    folder = his / "queue"
    folder.mkdir(mode=0o700)
    file(folder / f"{PRIVATELY}.json", 0o644)
    os.utime(folder / f"{PRIVATELY}.json", (time.time() - 600,) * 2)
    walltime = WallTime(str(tmp_path), Clock())

    def said() -> tuple[Verdict, list[dict[str, Any]]]:
        verdict = queue(str(folder), ["*.json"], 60.0, None, walltime)
        return verdict, sections.folders([("check:it", str(folder), "*.json")])

    verdict, looked = said()
    assert not verdict.ok and looked[0]["files"] == 1
    assert PRIVATELY not in verdict.words and PRIVATELY not in repr(looked)
    folder.chmod(0o755)
    verdict, looked = said()
    assert PRIVATELY in verdict.words and PRIVATELY in repr(looked)


def test_what_a_process_said_since_its_log_was_opened_is_shown(his: Path) -> None:
    path = file(his / "app.log", 0o640)
    before = SimpleNamespace(**{
        name: getattr(os.stat(path), name) for name in ("st_dev", "st_ino", "st_size")
    })  # fmt: skip
    with path.open("a") as end:
        end.write("no port\n")
    before_it: Any = before
    assert last_lines(str(path), 4096, before_it, -1) == b"no port\n"
    path.rename(his / "old")
    file(his / "app.log", 0o640).write_text(f"{'x' * 50}\n{PRIVATELY}\n")
    assert last_lines(str(path), 4096, before_it, -1) == b"", "another file has the name now"


def test_an_ordinary_user_reads_with_his_own_rights(
    his: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(his / "app.log", 0o600, SOMEBODY_ELSE)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY_ELSE)
    assert PRIVATELY in log(str(path), "ERROR", 0, 60.0).words


@pytest.mark.parametrize("where", ["", "/sub", "/sub/*", "/*/*"])
def test_a_permission_names_nothing_in_a_closed_folder_of_roots(
    machine: Machine, his: Path, where: str
) -> None:
    closed = his / "sub"
    closed.mkdir(mode=0o700)
    (closed / f"{PRIVATELY}-folder").mkdir()
    file(closed / f"{PRIVATELY}-folder/{PRIVATELY}", 0o640)
    file(closed / PRIVATELY, 0o644)
    file(his / "open", 0o644, SOMEBODY)
    spec = machine.spec(
        f"permissions: {{p: {{path: '{his}{where}', recursive: true, file_mode: '0600'}}}}"
    )
    for mode in ("--plan", "--once", "--status", "--diagnose"):
        done = machine.reconcile(mode, spec)
        assert PRIVATELY not in done.stdout + done.stderr, mode
        assert f"{his}/sub" in done.stdout + done.stderr
    assert os.stat(closed / PRIVATELY).st_mode & 0o777 == 0o644
    if where == "":
        assert os.stat(his / "open").st_mode & 0o777 == 0o600
    closed.chmod(0o755)  # Everybody may read the names now.
    assert PRIVATELY in machine.reconcile("--plan", spec).stdout


def test_what_is_adopted_is_not_copied_into_a_spec(
    his: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--state-dir", str(tmp_path / "state"), "--adopt", f"file:{file(his / 'f', 0o600)}"]
    assert main(argv) == 1
    said = capsys.readouterr()
    assert "not shown, since others could have given its name" in said.err
    os.chown(his / "f", SOMEBODY, SOMEBODY)
    assert main(argv) == 0
    assert said.out == "" and PRIVATELY in capsys.readouterr().out
