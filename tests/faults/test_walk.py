"""Trees that others have a hand in: deep, moved, swapped, mounted, and with entries of root's."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Machine, compiled

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.core.apply import apply
from reconciler.core.observe import observe
from reconciler.core.plan import make_plan, to_look_at_again
from reconciler.host import Host
from reconciler.host import tree as crossing
from reconciler.host.archive import archive
from reconciler.host.below import Below
from reconciler.host.choose import Rule
from reconciler.host.clock import Clock
from reconciler.host.files import Files
from reconciler.host.openfiles import OpenFiles
from reconciler.host.refusals import KnownEntries
from reconciler.host.remove import delete, move
from reconciler.host.rotate import RotationWay, rotate
from reconciler.host.rotated import Names
from reconciler.host.scan import Wanted, scan
from reconciler.host.tree import Cursor, Tree

NOBODY = 65534
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, other users")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def nothing(path: str) -> bool:
    return False


def deep(top: Path, depth: int) -> None:
    """Folders in one another, each with an old file, beyond what a path may have."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.close(os.open("old", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
        os.utime("old", (10**9, 10**9), dir_fd=here)
        os.mkdir("d", dir_fd=here)
        there = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)


def gone(top: Path) -> None:
    """Faster than by names, and without a limit on depth."""
    os.system(f"rm -rf '{top}'")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], int]:
    """How many descriptors something opens."""
    count = 0
    real = os.open

    def counted(*args: Any, **named: Any) -> int:
        nonlocal count
        count += 1
        return real(*args, **named)

    def of(act: Callable[[], Any]) -> int:
        nonlocal count
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", counted)
            count = 0
            act()
            return count

    return of


@pytest.fixture(autouse=True)
def nothing_deep_is_left(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """What a test that failed has left could be removed by no tool that recurses."""
    yield
    if "machine" in request.fixturenames or "free" in request.fixturenames:
        for path in tmp_path.iterdir():
            gone(path)


WAYS = ("permission", "scan", "delete", "move")


@pytest.mark.parametrize("way", WAYS)
def test_ten_times_the_depth_costs_ten_times_the_work(
    tmp_path: Path, calls: Callable[[Callable[[], Any]], int], way: str, free: None
) -> None:
    costs = []
    for depth in (60, 600):
        top = tmp_path / str(depth)
        top.mkdir()
        deep(top, depth)
        wanted = Wanted(str(top), Rule(None, 10**18 + 1, None, 10_000), recursive=True)
        files = scan(wanted).chosen.files
        assert len(files) == depth
        held = OpenFiles(Host("demo", str(tmp_path / "state")).clock, ())
        act = {
            "permission": lambda top=top: list(Below(str(top), KnownEntries(), nothing)),
            "scan": lambda wanted=wanted: scan(wanted),
            "delete": lambda top=top, files=files, held=held: delete(str(top), files, held),
            "move": lambda top=top, files=files, held=held: move(
                str(top), files, str(tmp_path / f"to{top.name}"), held
            ),
        }[way]
        costs.append(calls(act))
    assert costs[1] < 11 * costs[0]


def test_an_entry_deep_down_is_changed_all_the_same(machine: Machine) -> None:
    top = machine.base / "t"
    top.mkdir()
    deep(top, 2500)
    spec = machine.spec(f"permissions: {{p: {{path: {top}, recursive: true, file_mode: '0640'}}}}")
    report = machine.once(spec)
    assert [step["result"] for step in report["steps"]] == ["done"]
    machine.converged(spec)
    seen = [
        status for path, status in Below(str(top), KnownEntries(), nothing) if path.endswith("old")
    ]
    assert len(seen) == 2500
    assert {stat.S_IMODE(status.st_mode) for status in seen} == {0o640}
    gone(top)


def test_what_is_nested_beyond_all_measure_is_left_out_and_named(machine: Machine) -> None:
    top = machine.base / "t"
    top.mkdir()
    deep(top, crossing.LONGEST // 2 + 20)
    spec = machine.spec(f"permissions: {{p: {{path: {top}, recursive: true, file_mode: '0600'}}}}")
    plan = machine.plan(spec)
    assert plan["unknown"] == []
    (note,) = plan["notes"]
    assert "nested too deeply" in note["reason"]
    assert len(note["reason"]) < 4000
    gone(top)


def test_a_folder_that_is_moved_away_leads_nowhere_else(tmp_path: Path) -> None:
    """Up goes the cursor by "..", which somebody may have made another folder."""
    top, outside = tmp_path / "top", tmp_path / "outside"
    deep_down = "/".join(f"d{at}" for at in range(40))
    (top / deep_down).mkdir(parents=True)
    beside = "/".join([*(f"d{at}" for at in range(20)), "beside"])
    (top / beside).mkdir()
    (outside / "beside").mkdir(parents=True)
    cursor = Cursor(os.open(top, os.O_RDONLY))
    try:
        cursor.go(deep_down)
        (top / "/".join(f"d{at}" for at in range(21))).rename(outside / "d20")
        there = os.fstat(cursor.go(beside))
    finally:
        cursor.close()
    assert os.path.samestat(there, (top / beside).stat())


def test_what_goes_while_it_is_looked_through_is_left_out(machine: Machine) -> None:
    top = machine.base / "t"
    for name in ("a", "b", "c"):
        (top / name).mkdir(parents=True)
        (top / name / "file").touch()
    below = Below(str(top), KnownEntries(), nothing)
    found = []
    for path, _ in below:
        found.append(os.path.relpath(path, top))
        # It was listed already.
        shutil.rmtree(top / "b", ignore_errors=True)
    assert found == ["a", "a/file", "c", "c/file"]
    assert below.left_out() == ["b: no such file or directory"]


def test_files_that_come_all_the_time_do_not_keep_a_step_from_being_done(tmp_path: Path) -> None:
    top = tmp_path / "t"
    top.mkdir()
    (top / "old").touch(0o600)
    text = f"permissions: {{p: {{path: {top}, recursive: true, file_mode: '0640'}}}}"
    spec = compiled(tmp_path, text)
    host = Host("demo", str(tmp_path / "state"))

    def planned() -> Any:
        seen = observe(spec.resources, kinds.get, host)
        return make_plan(spec, spec.resources, seen, kinds.get, "host")

    plan = planned()
    (top / "new").touch(0o600)
    report = apply(plan, spec, kinds.get, host, lambda outcome: None)
    assert [outcome.result for outcome in report.outcomes] == ["dropped"]
    seen = {resource.id for resource in spec.resources}
    assert to_look_at_again(seen, spec.resources, report, kinds.get) == ["permission:p"]
    plan = planned()
    (top / "newer").touch(0o600)
    (top / "old").unlink()
    report = apply(plan, spec, kinds.get, host, lambda outcome: None, again=True)
    assert [(one.result, one.error) for one in report.outcomes] == [("done", None)]
    assert (mode(top / "new"), mode(top / "newer")) == (0o640, 0o600)


def test_what_is_swapped_after_the_look_is_not_changed(tmp_path: Path) -> None:
    top = tmp_path / "t"
    top.mkdir()
    (top / "file").touch(0o600)
    was = (top / "file").stat()
    (top / "another").touch(0o600)
    (top / "another").rename(top / "file")
    Files().set_below(str(top), f"{top}/file", 0o666, -1, -1, False, (was.st_dev, was.st_ino))
    assert mode(top / "file") == 0o600


def test_one_odd_entry_does_not_keep_a_glob_from_the_others(machine: Machine) -> None:
    top = machine.base / "t"
    for name in ("a", "b"):
        (top / name / "conf").mkdir(parents=True)
        (top / name / "conf").chmod(0o700)
    (top / "file").touch()
    (top / "link").symlink_to("/nowhere")
    spec = machine.spec(f"permissions: {{p: {{path: '{top}/*/conf', mode: '0711'}}}}")
    plan = machine.plan(spec)
    assert plan["unknown"] == []
    (note,) = plan["notes"]
    assert f"cannot look at {top}/file/conf: not a directory" in note["reason"]
    machine.once(spec)
    assert (mode(top / "a/conf"), mode(top / "b/conf")) == (0o711, 0o711)
    machine.converged(spec)


def test_one_folder_that_cannot_be_opened_does_not_keep_a_glob_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / "t" / name).mkdir(parents=True)
        (tmp_path / "t" / name / "file").touch(0o600)
    real = Tree.__init__

    def made(tree: Tree, path: str, wary: bool = False) -> None:
        if path.endswith("/a"):
            raise OSError(5, "Input/output error")
        real(tree, path, wary)

    monkeypatch.setattr(Tree, "__init__", made)
    text = f"permissions: {{p: {{path: '{tmp_path}/t/*', recursive: true, file_mode: '0640'}}}}"
    spec = compiled(tmp_path, text)
    host = Host("demo", str(tmp_path / "state"))
    seen = observe(spec.resources, kinds.get, host)["permission:p"]
    assert seen.unknown is None
    assert [wrong.path for wrong in seen.state.paths] == [f"{tmp_path}/t/b/file"]
    assert "input/output error" in (seen.note or "")


@pytest.mark.namespaces
@pytest.mark.root
@ROOT
class TestMounts:
    """A recursion ends at them, bind mounts too."""

    def test_what_is_mounted_below_is_left(self, machine: Machine) -> None:
        top, host = machine.base / "t", machine.base / "host"
        (top / "etc").mkdir(parents=True)
        (top / "mine").touch(0o600)
        (top / "file").touch(0o600)
        host.mkdir(mode=0o750)
        (host / "shadow").touch(0o600)
        (machine.base / "secret").touch(0o600)
        spec = machine.spec(
            f"permissions: {{p: {{path: {top}, recursive: true, file_mode: '0644'}}}}"
        )
        script = (
            "mount --make-rprivate / && mount --bind $1/host $1/t/etc && "
            'mount --bind $1/secret $1/t/file && shift && exec "$@"'
        )
        argv = machine.argv("--once", spec, "--json")
        done = machine.run("unshare", "-m", "sh", "-c", script, "sh", machine.base, *argv)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "etc: it is a mount point" in done.stdout
        assert mode(top / "mine") == 0o644
        assert (mode(host), mode(host / "shadow")) == (0o750, 0o600)
        assert mode(machine.base / "secret") == 0o600

    def test_what_is_mounted_after_the_look_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen through the number of the mount, which is not asked of a swapped name."""
        (tmp_path / "t").mkdir()
        (tmp_path / "t/file").touch(0o600)
        was = (tmp_path / "t/file").stat()
        with Tree(str(tmp_path / "t")) as tree:
            monkeypatch.setattr(tree, "_mount", "another")
            assert not tree.is_here(tree.top)
        monkeypatch.setattr(Tree, "is_here", lambda tree, handle: False)
        Files().set_below(
            str(tmp_path / "t"), f"{tmp_path}/t/file", 0o644, -1, -1, False,
            (was.st_dev, was.st_ino),
        )  # fmt: skip
        assert mode(tmp_path / "t/file") == 0o600


def by_acl(folder: Path) -> None:
    """Give nobody the right to write there by an ACL, acl(5)."""
    entries = ((1, 7, -1), (2, 7, NOBODY), (4, 0, -1), (16, 7, -1), (32, 0, -1))
    data = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, rights, number & 0xFFFFFFFF) for tag, rights, number in entries
    )
    os.setxattr(folder, "system.posix_acl_access", data)


@pytest.fixture(params=["owner", "everybody", "acl", "sticky"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that somebody else may write to."""
    made = tmp_path / "theirs"
    made.mkdir(mode=0o755)
    if request.param == "owner":
        os.chown(made, NOBODY, NOBODY)
    elif request.param == "acl":
        by_acl(made)
    else:
        made.chmod(0o1777 if request.param == "sticky" else 0o777)
    return made


@pytest.mark.root
@ROOT
class TestTransitions:
    """What somebody has put under a declared name is not given to him, nor opened."""

    def test_a_folder_of_roots_is_not_given_away(self, machine: Machine, folder: Path) -> None:
        (folder / "data").mkdir(mode=0o700)
        spec = machine.spec(
            f"directories: {{d: {{path: {folder}/data, owner: nobody, mode: '0755'}}}}"
        )
        (step,) = machine.plan(spec)["steps"]
        assert step["by_hand"] == [f"chown nobody {folder}/data"]
        report = machine.once(spec, status=1)
        assert [one["result"] for one in report["steps"]] == ["failed"]
        assert "belongs to root, not to nobody" in report["steps"][0]["error"]
        status = (folder / "data").stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o700)
        # The remedy is one.
        machine.run("sh", "-c", step["by_hand"][0])
        machine.once(spec)
        machine.converged(spec)

    def test_swapped_after_the_plan_it_is_not_given_away(self, folder: Path) -> None:
        (folder / "data").mkdir(mode=0o700)
        with pytest.raises(HostError, match="fix it with: chown nobody"):
            Files().set_attributes(f"{folder}/data", 0o755, NOBODY, -1, True)
        with pytest.raises(HostError, match="fix it with: chown nobody"):
            Files().make_directory(f"{folder}/data", 0o755, NOBODY, -1)
        was = (folder / "data").stat()
        with pytest.raises(HostError, match=r"gets no other owner"):
            Files().set_below(
                str(folder), f"{folder}/data", 0o700, NOBODY, -1, True, (was.st_dev, was.st_ino)
            )
        assert ((folder / "data").stat().st_uid, mode(folder / "data")) == (0, 0o700)

    def test_what_a_pass_gives_away_is_given_with_all_that_was_in_it(
        self, machine: Machine
    ) -> None:
        """What was root's where nobody else could put it is still known once its folder is his."""
        top = machine.base / "app"
        (top / "a/b").mkdir(parents=True)
        for name in ("f", "a/f", "a/b/f"):
            (top / name).touch()
        spec = machine.spec(
            f"directories: {{p: {{path: {top}, owner: nobody}},\n"
            f"  q: {{path: {top}/a, owner: nobody}}}}\n"
            f"permissions: {{f: {{path: {top}/f, owner: nobody}},\n"
            f"  r: {{path: {top}/a, recursive: true, owner: nobody, mode: '0750'}}}}"
        )
        machine.once(spec)
        machine.converged(spec)
        assert {path.stat().st_uid for path in [top, *top.rglob("*")]} == {NOBODY}

    def test_what_he_puts_there_as_soon_as_it_is_his_is_not(self, tmp_path: Path) -> None:
        top, files = tmp_path / "app", Files()
        (top / "data").mkdir(parents=True)
        for name in ("roots", "seen", "data/roots", "data/seen"):
            (top / name).touch(0o600)

        def refused(path: str) -> bool:
            status = os.lstat(path)
            return files.refused(path, status, None, NOBODY, -1) is not None

        assert not refused(f"{top}/seen")
        below = files.tree(f"{top}/data", nothing)
        for path, status in below:
            assert path.endswith("roots") or not below.refused(path, status, None, NOBODY, -1)
        # The step before gives both folders away, and he exchanges what is in them.
        os.chown(top, NOBODY, -1)
        os.chown(top / "data", NOBODY, -1)
        files.forget()
        assert not refused(f"{top}/seen")
        for folder in (top, top / "data"):
            (folder / "seen").rename(folder / "moved")
            (folder / "roots").rename(folder / "seen")
        files.forget()
        assert refused(f"{top}/seen")
        below = files.tree(f"{top}/data", nothing)
        for path, status in below:
            assert below.refused(path, status, None, NOBODY, -1) is not None
        was = (top / "data/seen").stat()
        with pytest.raises(HostError, match="gets no other owner"):
            files.set_below(
                f"{top}/data", f"{top}/data/seen", None, NOBODY, -1, False,
                (was.st_dev, was.st_ino),
            )  # fmt: skip
        assert (top / "data/seen").stat().st_uid == 0

    def test_what_this_step_makes_is_as_declared(self, machine: Machine, folder: Path) -> None:
        spec = machine.spec(
            f"directories: {{d: {{path: {folder}/new, owner: nobody, mode: '0755'}},\n"
            f"  e: {{path: {folder}/plain}}, f: {{path: {folder}/given, owner: nobody}}}}"
        )
        machine.once(spec)
        assert (folder / "new").stat().st_uid == (folder / "given").stat().st_uid == NOBODY
        machine.converged(spec)

    def test_a_file_of_roots_is_not_opened_to_others(self, machine: Machine, folder: Path) -> None:
        (folder / "key").touch(0o600)
        for path in (f"{folder}/key", f"{folder}/*"):
            spec = machine.spec(f"permissions: {{p: {{path: '{path}', mode: '0644'}}}}")
            report = machine.once(spec, status=1)
            assert "its mode is not made wider" in report["steps"][0]["error"]
            assert mode(folder / "key") == 0o600
        # Narrower is nobody's gain.
        machine.once(machine.spec(f"permissions: {{p: {{path: {folder}/key, mode: '0400'}}}}"))
        assert mode(folder / "key") == 0o400

    def test_nothing_gets_a_set_id_bit(self, machine: Machine, folder: Path) -> None:
        tool = folder / "tool"
        tool.touch(0o755)
        os.chown(tool, NOBODY, NOBODY)
        tool.chmod(0o4755)
        for what in (f"path: {folder}, recursive: true", f"path: '{folder}/*'"):
            spec = machine.spec(f"permissions: {{p: {{{what}, owner: root, file_mode: '4755'}}}}")
            machine.once(spec, status=1)
            assert not (tool.stat().st_uid == 0 and mode(tool) & 0o6000)

    def test_his_own_file_gets_no_set_id_bit_from_us(self, machine: Machine, folder: Path) -> None:
        tool = folder / "tool"
        tool.touch(0o755)
        os.chown(tool, NOBODY, NOBODY)
        tool.chmod(0o755)
        spec = machine.spec(f"permissions: {{p: {{path: '{folder}/*', mode: '2755'}}}}")
        report = machine.once(spec, status=1)
        assert "gets no set-user-ID or set-group-ID bit" in report["steps"][0]["error"]
        assert mode(tool) == 0o755

    def test_a_folder_that_becomes_ours_on_the_way_opens_nothing(self, machine: Machine) -> None:
        home = machine.base / "theirs"
        home.mkdir(mode=0o755)
        os.chown(home, NOBODY, NOBODY)
        (home / "key").touch(0o600)
        spec = machine.spec(
            f"permissions: {{p: {{path: {home}, recursive: true, group: root, dir_mode: '0755', "
            "file_mode: '0644'}}"
        )
        home.chmod(0o777)
        os.chown(home, 0, NOBODY)
        machine.once(spec, status=1)
        assert (mode(home), mode(home / "key")) == (0o755, 0o600)

    def test_what_somebody_made_before_us_is_not_as_declared(self, machine: Machine) -> None:
        shared = machine.base / "tmp"
        shared.mkdir()
        shared.chmod(0o1777)
        (shared / "app").mkdir(mode=0o755)
        os.chown(shared / "app", NOBODY, NOBODY)
        for text in (
            f"directories: {{d: {{path: {shared}/app, mode: '0755'}}}}",
            f"permissions: {{d: {{path: {shared}/app, mode: '0755'}}}}",
            f"directories: {{d: {{path: {shared}/app}}}}",
        ):
            spec = machine.spec(text)
            (step,) = machine.plan(spec)["steps"]
            assert step["changes"] == [{"field": "owner", "have": "nobody", "want": "root"}]
            assert step["by_hand"] == [f"chown root {shared}/app"]
            machine.once(spec, status=1)

    def test_of_a_tree_all_that_may_be_done_is_done(self, machine: Machine) -> None:
        home = machine.base / "theirs"
        for name in ("a", "z"):
            (home / name).mkdir(parents=True)
            (home / name / "file").touch(0o600)
        (home / "m").mkdir(mode=0o700)
        (home / "m" / "secret").touch(0o600)
        for path in (home, *home.glob("[az]"), *home.glob("[az]/*")):
            os.chown(path, NOBODY, NOBODY)
        spec = machine.spec(
            f"permissions: {{p: {{path: {home}, recursive: true, owner: nobody, "
            "file_mode: '0644', dir_mode: '0755'}}"
        )
        plan = machine.plan(spec)
        assert "1 of 3 are refused" in plan["notes"][0]["reason"]
        assert "secret" not in str(plan)
        (step,) = machine.once(spec, status=1)["steps"]
        assert step["result"] == "failed"
        assert f"chown nobody {home}/m" in step["error"]
        assert (mode(home / "a/file"), mode(home / "z/file")) == (0o644, 0o644)
        # What is in a folder that he can exchange is no less root's.
        for path in (home / "m", home / "m/secret"):
            assert path.stat().st_uid == 0
            assert mode(path) & 0o077 == 0

    def test_a_new_owner_costs_a_set_id_bit_and_the_plan_says_so(self, machine: Machine) -> None:
        tool = machine.base / "tool"
        tool.touch()
        tool.chmod(0o4755)
        spec = machine.spec(f"permissions: {{p: {{path: {tool}, owner: nobody}}}}")
        (step,) = machine.plan(spec)["steps"]
        assert {"field": "mode", "have": "4755", "want": "0755"} in step["changes"]
        machine.once(spec)
        assert (tool.stat().st_uid, mode(tool)) == (NOBODY, 0o755)
        machine.converged(spec)


ACTIONS = {
    "delete": "older_than: 1d",
    "move": "older_than: 1d, to: {0}/out",
    "archive": "older_than: 1d, to: {0}/x.tar.gz",
    "rotate": "max_file: 1KiB, keep: 2",
}


def old(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "a.log").write_bytes(b"x" * 3000)
    os.utime(folder / "a.log", (10**9, 10**9))
    return folder


@pytest.fixture
def his(tmp_path: Path) -> Path:
    made = tmp_path / "theirs"
    made.mkdir(mode=0o755)
    os.chown(made, NOBODY, NOBODY)
    return made


@ROOT
def test_a_sticky_folder_keeps_what_is_roots_in_its_place(machine: Machine, folder: Path) -> None:
    logs = old(folder / "logs")
    spec = machine.spec(f"retention: {{r: {{path: {logs}, action: delete, older_than: 1d}}}}")
    if not folder.stat().st_mode & stat.S_ISVTX:
        assert "is root's own" in machine.once(spec, status=1)["unknown"][0]["reason"]
        assert os.listdir(logs) == ["a.log"]
        folder.chmod(0o1777)
        os.chown(folder, 0, 0)
    machine.once(spec)
    assert os.listdir(logs) == []


@ROOT
@pytest.mark.parametrize("action", ACTIONS)
class TestRetentionOfRoots:
    """Nothing goes of what root keeps in a folder to which somebody has given the declared name."""

    def rule(self, machine: Machine, action: str, path: Path, more: str = "") -> Path:
        what = ACTIONS[action].format(machine.base)
        return machine.spec(
            f"retention: {{r: {{path: {path}, match: '*.log', action: {action}, {what}{more}}}}}"
        )

    def test_his_name_for_roots_folder(self, machine: Machine, his: Path, action: str) -> None:
        old(his / "logs").chmod(0o700)
        (machine.base / "link").symlink_to(his / "logs")
        for path in (his / "logs", machine.base / "link"):
            spec = self.rule(machine, action, path)
            (unknown,) = machine.once(spec, status=1)["unknown"]
            assert f"{his}/logs is root's own in a folder that somebody" in unknown["reason"]
            assert unknown["reason"].endswith(f"fix it with: chown nobody {his}/logs"), unknown
            assert os.listdir(his / "logs") == ["a.log"]
        # The remedy is one.
        os.chown(his / "logs", NOBODY, -1)
        machine.once(spec)
        machine.converged(spec)
        assert os.listdir(his / "logs") != ["a.log"]

    def test_a_folder_in_roots_folder(self, machine: Machine, his: Path, action: str) -> None:
        (his / "roots").mkdir(mode=0o700)
        os.chown(old(his / "roots/logs"), NOBODY, NOBODY)
        machine.once(self.rule(machine, action, his / "roots/logs"), status=1)
        assert os.listdir(his / "roots/logs") == ["a.log"]

    def test_below_a_recursion(self, machine: Machine, his: Path, action: str) -> None:
        old(his / "roots").chmod(0o700)
        os.chown(old(his / "logs"), NOBODY, NOBODY)
        spec = self.rule(machine, action, his, ", recursive: true")
        (note,) = machine.plan(spec)["notes"]
        assert "1 folder left out: roots is root's own in a folder that" in note["reason"]
        machine.once(spec)
        machine.converged(spec)
        assert os.listdir(his / "roots") == ["a.log"]
        assert os.listdir(his / "logs") != ["a.log"]

    def test_named_so_after_the_look(
        self, machine: Machine, his: Path, action: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (his / "roots").mkdir(mode=0o700)
        os.chown(old(his / "roots/logs"), NOBODY, NOBODY)
        wanted = Wanted(f"{his}/roots/logs", Rule(None, 10**18 + 1, None, 10))
        with monkeypatch.context() as patched:
            patched.setattr(crossing.Emptied, "_refuse_moved", lambda self: None)
            files = scan(wanted).chosen.files
        held = OpenFiles(Clock(), asked=False)
        with pytest.raises(HostError, match="fix it with: chown nobody"):
            if action == "delete":
                delete(wanted.path, files, held)
            elif action == "move":
                move(wanted.path, files, f"{machine.base}/out", held)
            elif action == "archive":
                archive(wanted.path, files, f"{machine.base}/x.tar.gz", held)
            else:
                rotate(wanted.path, files, (), RotationWay(Names(2)), Clock())
        assert os.listdir(wanted.path) == ["a.log"]

    @pytest.mark.parametrize("way", ["in his own", "of his group", "a group of services"])
    def test_roots_log_in_a_folder_that_is_as_usual(
        self, machine: Machine, action: str, way: str
    ) -> None:
        top = machine.base / "shared"
        top.mkdir()
        logs = old(top / "app")
        if way == "in his own":  # His folder for logs, and root's daemon that logs there.
            os.chown(logs, NOBODY, NOBODY)
        elif way == "of his group":
            for path in (top, logs):
                os.chown(path, 0, NOBODY)
                path.chmod(0o2775)
        else:  # As /var/log has it on Ubuntu.
            os.chown(top, 0, pwd.getpwnam("daemon").pw_gid)
            top.chmod(0o775)
        spec = self.rule(machine, action, logs)
        machine.once(spec)
        machine.converged(spec)
        assert os.listdir(logs) != ["a.log"]
