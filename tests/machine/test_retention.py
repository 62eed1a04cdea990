"""Retention on real files: every action, every brake, and what must be left alone."""

from __future__ import annotations

import ctypes
import gzip
import mmap
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import Machine, compiled, freeze, until

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.core.apply import apply
from reconciler.core.model import Report, Step
from reconciler.core.observe import observe
from reconciler.core.plan import make_plan
from reconciler.host import Host
from reconciler.host.clock import Clock
from reconciler.host.found import File, Packed
from reconciler.host.openfiles import OpenFiles
from reconciler.host.remove import move

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, owners")
DAY = 86400


def aged(path: Path, days: float = 3, text: str = "x") -> Path:
    """A file that was last written so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def names(folder: Path) -> list[str]:
    """All files below a folder, by their path below it, sorted."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(str(path.relative_to(folder)) for path in paths)


class Folder:
    """A folder with a rule for it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.path = machine.base / "files"
        self.path.mkdir()

    def spec(self, rule: str, more: str = "") -> Path:
        return self.machine.spec(f"retention: {{x: {{path: {self.path}, {rule}}}}}\n{more}")

    def once(self, rule: str, more: str = "", status: int = 0) -> dict[str, object]:
        """One pass; after it the plan must be empty, if all went well."""
        spec = self.spec(rule, more)
        report = self.machine.once(spec, status=status)
        if status == 0:
            self.machine.converged(spec)
        return report

    def left(self, rule: str) -> list[str]:
        """What is left after a pass."""
        self.once(rule)
        return names(self.path)


@pytest.fixture
def folder(machine: Machine) -> Folder:
    return Folder(machine)


def nothing() -> None:
    """What happens where nothing is to happen."""


def racing(
    folder: Folder,
    rule: str,
    meanwhile: Callable[[], None] = nothing,
    planned: Callable[[], None] = nothing,
) -> Report:
    """One pass in this process. ``planned`` is called when the plan is made, ``meanwhile`` right
    before the first action."""
    spec = compiled(folder.machine.base, f"retention: {{x: {{path: {folder.path}, {rule}}}}}")
    host = Host("demo", str(folder.machine.state))
    seen = observe(spec.resources, kinds.get, host)
    plan = make_plan(spec, spec.resources, seen, kinds.get, "host")

    def begins(steps: Sequence[Step]) -> dict[str, str]:
        meanwhile()
        return {}

    planned()
    return apply(plan, spec, kinds.get, host, lambda outcome: None, begins=begins)


# ------------------------------------------------------------------------------ what is due


def test_what_is_older_goes_and_the_plan_says_which(folder: Folder) -> None:
    for at, day in enumerate((1, 3, 9, 5, 7)):
        aged(folder.path / f"{at}.log", day, "x" * 600)
    (folder.path / "future").write_text("")
    os.utime(folder.path / "future", (time.time() + DAY, time.time() + DAY))
    spec = folder.spec("older_than: 2d, action: delete")
    (step,) = folder.machine.plan(spec)["steps"]
    assert step["why"] == "4 files (2.3 KiB) are due, oldest 2.log (9 d), 4.log (7 d), 3.log (5 d)"
    assert step["actions"] == [f"delete 4 files from {folder.path}"]
    assert folder.left("older_than: 2d, action: delete") == ["0.log", "future"]


def test_a_file_of_exactly_that_age_is_not_old(folder: Folder) -> None:
    aged(folder.path / "a", 2)
    os.utime(folder.path / "a", (10**9, 10**9))

    class Clock:
        def monotonic(self) -> float:
            return 0.0

        def wall(self) -> float:
            return (folder.path / "a").stat().st_mtime_ns / 1e9 + self.later

        later = 0.0

    spec = compiled(
        folder.machine.base,
        f"retention: {{x: {{path: {folder.path}, older_than: 2d, action: delete}}}}",
    )
    clock = Clock()
    host = Host("demo", "/nowhere", clock)  # type: ignore[arg-type]
    for later, due in ((2 * DAY - 1, 0), (2 * DAY, 0), (2 * DAY + 1, 1)):
        clock.later = later
        (seen,) = observe(spec.resources, kinds.get, host).values()
        assert len(seen.state.files) == due


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("keep_last: 2", ["1", "2"]),
        ("keep_last: 9", ["1", "2", "3", "4", "5"]),
        ("keep_last: 2, older_than: 4d", ["1", "2", "3", "4"]),
        ("keep_last: 4, older_than: 2d", ["1", "2", "3", "4"]),
        ("max_total: 300B", ["1", "2", "3"]),
        ("max_total: 299B", ["1", "2"]),
        ("max_total: 1B, keep_last: 1", ["1"]),
        ("max_total: 400B, older_than: 2d", ["1", "2"]),
        ("max_total: 200B, older_than: 4d", ["1", "2"]),
    ],
)
def test_which_are_kept(folder: Folder, rule: str, left: list[str]) -> None:
    for day in range(1, 6):
        aged(folder.path / str(day), day - 0.01, "x" * 100)
    assert folder.left(f"{rule}, action: delete") == left


def test_match_and_exclude(folder: Folder) -> None:
    for name in ("a.log", "b.txt", "keep.log", "sub/c.log", "sub/d.log", "no/e.log", ".h.log"):
        aged(folder.path / name)
    rest = ["b.txt", "keep.log", "no/e.log", "sub/d.log"]
    flat = "match: '*.log', exclude: 'k*', older_than: 1d, action: delete"
    assert folder.left(flat) == sorted([*rest, "sub/c.log"])
    deep = "match: ['*.log'], exclude: [keep.log, no, sub/d*], recursive: true"
    assert folder.left(f"{deep}, older_than: 1d, action: delete") == rest
    assert folder.left("match: sub/*, recursive: true, older_than: 1d, action: delete") == rest[:3]


@pytest.mark.parametrize("by", ["ctime", "atime", "birth", "newest"])
def test_ages_by_other_times(folder: Folder, by: str) -> None:
    aged(folder.path / "a", 3)
    os.utime(folder.path / "a", (time.time() - 3 * DAY, time.time()))
    left = folder.left(f"age_by: {by}, older_than: 1d, action: delete")
    # Only atime can be set back.
    assert left == ([] if by == "atime" else ["a"])
    if by == "birth":
        until(lambda: time.time() - (folder.path / "a").stat().st_mtime > 0.15)
        os.utime(folder.path / "a", (time.time() + DAY, time.time() + DAY))
        assert folder.left("age_by: mtime, older_than: 100ms, action: delete") == ["a"]
        assert folder.left("age_by: birth, older_than: 100ms, action: delete") == []


# ------------------------------------------------------------------------------ the brakes


def test_only_so_many_in_one_pass(folder: Folder) -> None:
    for day in range(1, 8):
        aged(folder.path / str(day), day)
    spec = folder.spec("older_than: 12h, max_files_per_pass: 3, action: delete")
    report = folder.machine.once(spec)
    assert report["steps"][0]["result"] == "done"
    assert "4 files more due" in report["notes"][0]["reason"]
    assert names(folder.path) == ["1", "2", "3", "4"]
    folder.machine.once(spec)
    folder.machine.once(spec)
    folder.machine.converged(spec)
    assert names(folder.path) == []


def test_a_dry_rule_only_tells(folder: Folder) -> None:
    aged(folder.path / "a")
    report = folder.once("older_than: 1d, dry: true, action: delete")
    assert "dry: 1 file (1 B) is due, oldest a (3 d)" in report["notes"][0]["reason"]
    assert names(folder.path) == ["a"]


def test_what_is_open_is_left_alone(folder: Folder) -> None:
    aged(folder.path / "open")
    aged(folder.path / "closed")
    with open(folder.path / "open"):
        report = folder.once("older_than: 1d, action: delete")
        assert "1 file held open" in report["notes"][0]["reason"]
        assert names(folder.path) == ["open"]
        assert folder.left("older_than: 1d, skip_open: false, action: delete") == []


def test_of_very_many_too_what_is_open_or_mapped_is_left_alone(folder: Folder) -> None:
    for at in range(1002):
        aged(folder.path / f"{at}")
    aged(folder.path / "mapped")
    with open(folder.path / "mapped") as file:
        library = ctypes.CDLL(None)  # The mapping of the mmap module keeps a descriptor.
        library.mmap.restype = ctypes.c_void_p
        start = library.mmap(None, 1, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    aged(folder.path / "open")
    with open(folder.path / "open"):
        report = folder.once("older_than: 1d, action: delete")
        assert names(folder.path) == ["mapped", "open"]
    assert library.munmap(ctypes.c_void_p(start), 1) == 0
    assert "held open" in report["notes"][0]["reason"]
    folder.once("older_than: 1d, action: delete")
    assert names(folder.path) == []


def test_a_time_that_no_clock_shows_keeps_no_other_file(folder: Folder) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:  # Others have no such times.
        folder.path = Path(memory)
        aged(folder.path / "a")
        aged(folder.path / "b")
        os.utime(folder.path / "b", (-62135596800, -62135596800))
        report = folder.once("older_than: 1d, action: delete")
        assert names(folder.path) == ["b"]
        assert "1 file without a believable time" in report["notes"][0]["reason"]


@pytest.mark.parametrize("action", ["delete", "move, to: {to}", "archive, to: {to}.tar.gz"])
def test_what_changes_after_it_was_chosen_is_left_alone(folder: Folder, action: str) -> None:
    for name in ("appended", "replaced", "linked", "opened", "gone", "old"):
        aged(folder.path / name)
    aged(folder.path / "sub/below")
    held = []

    def meanwhile() -> None:
        with open(folder.path / "appended", "a") as file:
            file.write("y")
        (folder.path / "replaced").unlink()
        aged(folder.path / "replaced", 9, "z")
        (folder.path / "linked").unlink()
        (folder.path / "linked").symlink_to("old")
        (folder.path / "gone").unlink()
        # Another process must hold it: our own reading does not count.
        with open(folder.path / "opened") as opened:
            held.append(subprocess.Popen(["sleep", "1000"], stdin=opened))
        (folder.path / "sub").rename(folder.path / "other")
        (folder.path / "sub").symlink_to("other")

    rule = (
        f"older_than: 1d, recursive: true, action: {action.format(to=folder.machine.base / 'to')}"
    )
    report = racing(folder, rule, meanwhile)
    held[0].kill()
    held[0].wait()
    assert [(o.result, o.error) for o in report.outcomes] == [("done", None)]
    assert report.outcomes[0].note == (
        "6 of 7 files left alone, changed, open or gone since the plan"
    )
    assert names(folder.path) == ["appended", "linked", "opened", "other/below", "replaced", "sub"]
    assert (folder.path / "appended").read_text() == "xy"


@pytest.mark.parametrize("action", ["delete", "move, to: {to}", "archive, to: {to}.tar.gz"])
def test_a_folder_that_is_gone_since_the_plan_is_no_failure(folder: Folder, action: str) -> None:
    aged(folder.path / "a")
    to = folder.machine.base / "to"
    rule = f"older_than: 1d, action: {action.format(to=to)}"
    report = racing(folder, rule, lambda: shutil.rmtree(folder.path))
    assert [(o.result, o.error) for o in report.outcomes] == [("dropped", None)]
    assert not to.exists()


def test_what_becomes_due_after_the_plan_is_for_the_next_pass(folder: Folder) -> None:
    aged(folder.path / "a")
    rule = "older_than: 1d, action: delete"
    report = racing(folder, rule, planned=lambda: bool(aged(folder.path / "b", 9)) or None)
    assert [(o.result, o.error) for o in report.outcomes] == [("done", None)]
    assert names(folder.path) == ["b"]


def test_what_was_open_only_while_it_was_to_be_deleted_is_no_failure(folder: Folder) -> None:
    aged(folder.path / "a")
    held: list[subprocess.Popen[bytes]] = []

    def hold() -> None:
        with open(folder.path / "a") as opened:
            held.append(subprocess.Popen(["sleep", "1000"], stdin=opened))

    def let_go() -> None:
        held[0].kill()
        held[0].wait()

    report = racing(folder, "older_than: 1d, action: delete", meanwhile=hold)
    let_go()
    # Nothing was done, so it is not called done.
    assert [(o.result, o.error) for o in report.outcomes] == [("dropped", None)]
    assert report.outcomes[0].note == "1 file left alone, changed, open or gone since the plan"
    assert not report.failed
    assert names(folder.path) == ["a"]


def test_links_sockets_and_folders_are_no_files(folder: Folder) -> None:
    aged(folder.path / "target")
    outside = aged(folder.machine.base / "outside/a")
    (folder.path / "link").symlink_to(outside)
    (folder.path / "into").symlink_to(outside.parent)
    (folder.path / "empty").mkdir()
    os.mkfifo(folder.path / "fifo")
    assert folder.left("keep_last: 1, recursive: true, action: delete") == [
        "fifo", "into", "link", "target",
    ]  # fmt: skip
    assert folder.left("max_total: 1B, older_than: 1d, recursive: true, action: delete") == [
        "fifo", "into", "link",
    ]  # fmt: skip
    assert outside.exists()
    assert (folder.path / "empty").is_dir()


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("sort", ["tmpfs", "bind"])
@pytest.mark.parametrize("action", ["delete", "move, to: {to}", "archive, to: {to}.tar.gz"])
def test_never_across_a_mount_point(folder: Folder, sort: str, action: str) -> None:
    aged(folder.path / "here")
    other = aged(folder.machine.base / "other/a").parent
    (folder.path / "mount").mkdir()
    argv = ["-t", "tmpfs", "none"] if sort == "tmpfs" else ["--bind", str(other)]
    subprocess.run(["mount", *argv, str(folder.path / "mount")], check=True)
    aged(folder.path / "file")
    subprocess.run(["mount", "--bind", str(other / "a"), str(folder.path / "file")], check=True)
    try:
        aged(folder.path / "mount/a")
        rule = "older_than: 1d, recursive: true, skip_open: false, action: "
        folder.machine.once(folder.spec(rule + action.format(to=folder.machine.base / "to")))
        assert names(folder.path) == ["file", "mount/a"]
        assert (folder.path / "file").read_text() == "x"
    finally:
        subprocess.run(["umount", str(folder.path / "mount")], check=True)
        subprocess.run(["umount", str(folder.path / "file")], check=True)


def test_a_hard_link_loses_only_that_name(folder: Folder) -> None:
    other = folder.machine.base / "other"
    os.link(aged(folder.path / "a"), other)
    assert folder.left("older_than: 1d, action: delete") == []
    assert other.read_text() == "x"


ODD = [b"\xff\xfe", b"line\nbreak", b"\x1b[31mred", "ünï".encode(), b"-rf", b" ", b"%Y {{ x }}"]


@pytest.mark.parametrize("action", ["delete", "move, to: {to}", "archive, to: {to}.tar.gz"])
def test_names_that_are_no_text(folder: Folder, action: str) -> None:
    for name in ODD:
        aged(folder.path / os.fsdecode(name), 3, os.fsdecode(name.hex()))
    (folder.path / "sub").mkdir()
    aged(folder.path / "sub" / os.fsdecode(b"\xff"), 3, "ff")
    to = folder.machine.base / "to"
    rule = f"older_than: 1d, recursive: true, action: {action.format(to=to)}"
    shown = folder.machine.reconcile("--plan", folder.spec(rule))
    assert all(line.isprintable() for line in shown.stdout.splitlines())
    folder.once(rule)
    assert names(folder.path) == []
    if "archive" in action:
        with tarfile.open(f"{to}.tar.gz", errors="surrogateescape") as tar:
            tar.extractall(to)
    if action != "delete":
        found = {os.fsencode(name): (to / name).read_text() for name in names(to)}
        assert found == {**{name: name.hex() for name in ODD}, b"sub/\xff": "ff"}


def test_a_folder_that_is_not_there_has_nothing_due(folder: Folder) -> None:
    folder.path.rmdir()
    report = folder.once("older_than: 1d, action: delete")
    assert "is not there" in report["notes"][0]["reason"]
    folder.path.write_text("x")
    report = folder.once("older_than: 1d, action: delete", status=1)
    assert folder.path.read_text() == "x"


# ------------------------------------------------------------------------------ move


def test_moving_keeps_folders_and_overwrites_nothing(folder: Folder) -> None:
    to = folder.machine.base / "to"
    aged(folder.path / "a", 3, "new")
    aged(folder.path / "sub/b", 3, "b")
    (folder.path / "sub").chmod(0o700)
    aged(to / "a", 1, "first")
    aged(to / "a.1", 1, "second")
    folder.once(f"older_than: 1d, recursive: true, action: move, to: {to}")
    assert names(folder.path) == []
    assert {name: (to / name).read_text() for name in names(to)} == {
        "a": "first", "a.1": "second", "a.2": "new", "sub/b": "b",
    }  # fmt: skip
    assert stat.S_IMODE((to / "sub").stat().st_mode) == 0o700


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.root
@ROOT
def test_moving_to_another_file_system_keeps_all(folder: Folder) -> None:
    source = aged(folder.path / "sub/a", 3, "content")
    source.chmod(0o640)
    os.chown(source, 65534, 65534)
    before = source.stat()
    with tmpfs(folder.machine.base / "to", "size=1m") as to:
        (to / "sub").mkdir()
        (to / "sub/a").write_text("other")
        aged(to / "sub/a.1", 3, "content")
        os.utime(to / "sub/a.1", ns=(before.st_atime_ns, before.st_mtime_ns))
        folder.once(f"older_than: 1d, recursive: true, action: move, to: {to}")
        # a.1 is what a killed pass has copied: it is not copied again.
        assert names(to) == ["sub/a", "sub/a.1"]
        source = aged(folder.path / "sub/a", 4, "more")
        os.chown(source, 65534, 65534)
        source.chmod(0o640)
        before = source.stat()
        folder.once(f"older_than: 1d, recursive: true, action: move, to: {to}")
        after = (to / "sub/a.2").stat()
        same = ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_size")
        assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
        assert names(folder.path) == []


# ------------------------------------------------------------------------------ archive


def content(path: Path) -> dict[str, str]:
    """What an archive holds."""
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        return {name: file.read().decode() for name, file in members if file is not None}


def test_an_archive_is_added_to_and_loses_nothing(folder: Folder) -> None:
    goal = folder.machine.base / "old" / f"a_{time.strftime('%Y')}.tar.gz"
    rule = f"older_than: 1d, recursive: true, action: archive, to: {goal.parent}/a_%Y.tar.gz"
    aged(folder.path / "a", 3, "one").chmod(0o640)
    aged(folder.path / "sub/b", 3, "two")
    folder.once(rule)
    assert content(goal) == {"a": "one", "sub/b": "two"}
    assert stat.S_IMODE(goal.stat().st_mode) == 0o640
    aged(folder.path / "a", 4, "three").chmod(0o604)
    folder.once(rule)
    assert content(goal) == {"a": "one", "sub/b": "two", "a.1": "three"}
    assert stat.S_IMODE(goal.stat().st_mode) == 0o600
    assert names(folder.path) == []
    with tarfile.open(goal) as tar:
        assert time.time() - tar.getmember("a.1").mtime == pytest.approx(4 * DAY, abs=100)


def test_what_is_in_the_archive_already_is_only_deleted(folder: Folder) -> None:
    goal = folder.machine.base / "a.tar.gz"
    rule = f"older_than: 1d, action: archive, to: {goal}"
    aged(folder.path / "a", 3, "one")
    status = (folder.path / "a").stat()
    folder.once(rule)
    before = goal.read_bytes()
    (folder.path / "a").write_text("one")
    os.utime(folder.path / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    folder.once(rule)
    assert goal.read_bytes() == before
    assert names(folder.path) == []


def test_an_archive_made_by_others_is_added_to(folder: Folder) -> None:
    goal = folder.machine.base / "a.tar.gz"
    aged(folder.machine.base / "src/deep/x", 1, "theirs")
    (folder.machine.base / "src/link").symlink_to("x")
    folder.machine.run(
        "tar", "czf", goal, "-C", folder.machine.base / "src", "deep", "link", "./deep/x"
    )
    aged(folder.path / "deep/x", 3, "ours")
    folder.once(f"older_than: 1d, recursive: true, action: archive, to: {goal}")
    listed = folder.machine.run("tar", "tzf", goal).stdout.split()
    assert listed == ["deep/", "deep/x", "link", "./deep/x", "deep/x.1"]
    assert content(goal)["deep/x.1"] == "ours"


@pytest.mark.parametrize(
    "name", ["a", "sub/" * 20 + "b", "sub/" * 30 + "b", "ü", "x" * 100, "x" * 101, "\udcff"]
)
@pytest.mark.parametrize("size", [0, 1, 512, 8**11 - 1, 8**11])
@pytest.mark.parametrize("mtime", [0.0, 1700000000.125, 8.0**11, -1.5])
def test_a_header_is_what_tarfile_writes(name: str, size: int, mtime: float) -> None:
    from reconciler.host.tar import header

    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o4755
    info.uid, info.gid = 65534, 8**7 if size == 1 else 100
    ours = header(info)
    assert len(ours) % 512 == 0
    assert ours == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def test_what_is_archived_already_is_not_compressed_again(folder: Folder) -> None:
    goal = folder.machine.base / "a.tar.gz"
    rule = f"older_than: 1d, action: archive, to: {goal}"
    aged(folder.path / "a", 3, "one" * 9999)
    folder.once(rule)
    first = goal.read_bytes()
    ending = gzip.compress(bytes(10240), mtime=0)
    aged(folder.path / "b", 3, "two")
    folder.once(rule)
    kept = len(first) - len(ending)
    assert kept > 100
    assert goal.read_bytes()[:kept] == first[:kept]
    assert content(goal) == {"a": "one" * 9999, "b": "two"}
    assert folder.machine.run("tar", "tzf", goal).stdout.split() == ["a", "b"]


def test_what_reads_back_otherwise_deletes_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reconciler.host import archive

    class Forgetful(archive.Gzip):
        """A disk that does not keep what was written."""

        def write(self, data: bytes) -> int:
            return super().write(data.replace(b"content", b"c0ntent"))

    aged(folder.path / "a", 3, "content")
    monkeypatch.setattr(archive, "Gzip", Forgetful)
    report = racing(folder, f"older_than: 1d, action: archive, to: {folder.machine.base}/a.tar.gz")
    assert [outcome.result for outcome in report.outcomes] == ["failed"]
    assert "reads back as something else" in str(report.outcomes[0].error)
    assert names(folder.path) == ["a"]
    assert not list(folder.machine.base.glob("*.gz*"))


@pytest.mark.parametrize(
    "damage", ["cut", "no archive", "flipped", "garbage behind", "tar inside cut", "a hole inside"]
)
def test_a_damaged_archive_deletes_nothing(folder: Folder, damage: str) -> None:
    goal = folder.machine.base / "a.tar.gz"
    rule = f"older_than: 1d, action: archive, to: {goal}"
    for name in "abc":
        aged(folder.path / name, 3, name * 5000)
    folder.once(rule)
    whole = goal.read_bytes()
    half = len(whole) // 2
    damaged = {
        "cut": whole[:-9],
        "no archive": b"precious",
        "flipped": whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :],
        "garbage behind": whole + b"garbage",
        "a hole inside": gzip.compress(holed(gzip.decompress(whole))),
        "tar inside cut": gzip.compress(gzip.decompress(whole)[:7000]),
    }[damage]
    goal.write_bytes(damaged)
    aged(folder.path / "new")
    report = folder.once(rule, status=1)
    assert "is damaged or no .tar.gz" in report["steps"][0]["error"]
    assert names(folder.path) == ["new"]
    assert goal.read_bytes() == damaged
    assert names(folder.machine.base / "files") == ["new"]


def holed(tar: bytes) -> bytes:
    """A tar in which the second file is overwritten with zeros, which looks like its end."""
    at = tar.index(b"b" * 5000) - 3 * 512
    return tar[:at] + bytes(3 * 512) + tar[at + 3 * 512 :]


def test_archives_in_the_folder_itself_are_no_files_to_archive(folder: Folder) -> None:
    aged(folder.path / "a_2020.tar.gz", 9, "an older archive")
    aged(folder.path / "x", 3)
    assert folder.left(
        f"older_than: 1d, action: archive, to: '{folder.path}/a_%Y.tar.gz'"
    ) == sorted(["a_2020.tar.gz", f"a_{time.strftime('%Y')}.tar.gz"])


@pytest.mark.parametrize("to", ["move, to: {link}/moved", "archive, to: '{link}/%Y/all.tar.gz'"])
def test_where_files_are_put_is_known_by_whatever_name(folder: Folder, to: str) -> None:
    """Through a link as well: else what was put there would be due as well, deeper each time."""
    link = folder.path.parent / "link"
    link.symlink_to(folder.path)
    aged(folder.path / "a/x")
    rule = f"recursive: true, older_than: 1d, action: {to.format(link=link)}"
    folder.once(rule)
    (there,) = names(folder.path)
    os.utime(folder.path / there, (1e9, 1e9))
    folder.once(rule)
    assert names(folder.path) == [there]


def test_nothing_is_moved_to_where_it_is(folder: Folder) -> None:
    """Each file would be taken for one that is there already, and lose its only name."""
    link = folder.path.parent / "link"
    link.symlink_to(folder.path)
    aged(folder.path / "a/x")
    rule = f"recursive: true, older_than: 1d, action: move, to: {link}"
    (unknown,) = folder.machine.plan(folder.spec(rule))["unknown"]
    assert unknown["reason"] == f"{link} leads to {folder.path}, where the files are"
    file = os.stat(folder.path / "a/x")
    seen = Packed([File(0, "a", "x", file.st_dev, file.st_ino, 1, file.st_mtime_ns,
                        file.st_ctime_ns, 0)])  # fmt: skip
    with pytest.raises(HostError, match="leads to where the files are already"):
        move(str(folder.path), seen, str(link), OpenFiles(Clock()))
    assert names(folder.path) == ["a/x"]


@pytest.mark.root
@ROOT
def test_an_archive_belongs_to_whose_files_it_holds(folder: Folder) -> None:
    goal = folder.machine.base / "a.tar.gz"
    rule = f"older_than: 1d, action: archive, to: {goal}"
    os.chown(aged(folder.path / "a"), 65534, 65534)
    folder.once(rule)
    assert (goal.stat().st_uid, goal.stat().st_gid) == (65534, 65534)
    aged(folder.path / "b").chmod(0o644)
    folder.once(rule)
    assert (goal.stat().st_uid, stat.S_IMODE(goal.stat().st_mode)) == (0, 0o600)


# ------------------------------------------------------------------------------ rotate


def text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


@pytest.mark.parametrize("method", ["rename", "copytruncate"])
def test_rotated_logs_are_numbered_and_the_oldest_go(folder: Folder, method: str) -> None:
    rule = f"match: '*.log', max_file: 10B, keep: 3, action: rotate, method: {method}"
    (folder.path / "a.log.2024").write_text("a person's")
    for at in range(5):
        log = folder.path / "a.log"
        log.write_text(f"{at}" * 20)
        log.chmod(0o640)
        folder.once(rule)
        if method == "copytruncate":
            assert log.read_text() == ""
            log.unlink()
    assert names(folder.path) == ["a.log.1.gz", "a.log.2.gz", "a.log.2024", "a.log.3.gz"]
    for number, what in enumerate("432", 1):
        assert text(folder.path / f"a.log.{number}.gz") == what * 20
    assert stat.S_IMODE((folder.path / "a.log.1.gz").stat().st_mode) == 0o640


def test_a_gap_is_filled_before_anything_goes(folder: Folder) -> None:
    for name, what in (("a", "new" * 9), ("a.1", "1"), ("a.3", "3"), ("a.5", "5")):
        (folder.path / name).write_text(what)
    folder.once("max_file: 10B, keep: 3, compress: false, action: rotate")
    assert {name: text(folder.path / name) for name in names(folder.path)} == {
        "a.1": "new" * 9, "a.2": "1", "a.3": "3", "a.5": "5",
    }  # fmt: skip


def test_what_is_still_written_is_compressed_later(folder: Folder) -> None:
    rule = "max_file: 10B, action: rotate"
    with open(folder.path / "a", "w") as log:
        log.write("x" * 20)
        log.flush()
        report = folder.once(rule)
        assert names(folder.path) == ["a.1"]
        log.write("y")
    report = folder.once(rule)
    assert report["steps"][0]["why"] == "a.1 should be compressed"
    assert text(folder.path / "a.1.gz") == "x" * 20 + "y"


@pytest.mark.root
@ROOT
def test_a_log_with_a_second_name_in_a_shared_folder_is_not_cut(folder: Folder) -> None:
    folder.path.chmod(0o777)
    victim = folder.machine.base / "victim"
    victim.write_text("x" * 100)
    os.link(victim, folder.path / "a")
    report = folder.once("max_file: 10B, action: rotate, method: copytruncate", status=1)
    assert "hard links" in report["steps"][0]["error"]
    assert victim.read_text() == "x" * 100


@pytest.mark.parametrize("method", ["rename", "copytruncate"])
def test_a_log_that_has_outgrown_its_limit_again_was_rotated_all_the_same(
    folder: Folder, method: str
) -> None:
    """Its writer is quick: by the look behind the step the log is longer than it was before."""
    log = folder.path / "a.log"
    log.write_text("x" * 2000)
    more = f"[sh, -c, 'head -c 5000 /dev/zero >> {log}']"
    rule = f"match: a.log, max_file: 1KiB, keep: 9, action: rotate, method: {method}, "
    spec = folder.spec(f"{rule}compress: false, run: {more}")
    (step,) = folder.machine.once(spec)["steps"]
    assert (step["result"], step["error"]) == ("done", None)
    assert (folder.path / "a.log.1").read_text() == "x" * 2000
    assert log.read_bytes() == bytes(5000)
    # The next pass rotates that.
    (step,) = folder.machine.once(spec)["steps"]
    assert step["result"] == "done"
    assert (folder.path / "a.log.1").read_bytes() == bytes(5000)
    assert (folder.path / "a.log.2").read_text() == "x" * 2000


WRITER = """
import signal, sys, time
told = []
log = open(sys.argv[1], "a")
if sys.argv[2] == "hup":
    signal.signal(signal.SIGHUP, lambda *_: told.append(1))
end = time.monotonic() + 600
number = 0
while time.monotonic() < end:
    if told:
        told.clear()
        log.close()
        log = open(sys.argv[1], "a")
    log.write(f"{number:08d}\\n")
    log.flush()
    number += 1
    time.sleep(0.0001)
"""


def lines(folder: Path) -> list[str]:
    """All that a log and its rotated ones hold, the oldest first."""
    numbered = sorted(
        (path for path in folder.glob("app.log.*")),
        key=lambda path: -int(path.name.split(".")[2]),
    )
    rest = [folder / "app.log"] if (folder / "app.log").exists() else []
    return "".join(map(text, [*numbered, *rest])).split("\n")[:-1]


@pytest.mark.parametrize("told", ["signal: process:w", "signal: {process: w}", "run"])
def test_no_line_is_lost_or_doubled_by_renaming(folder: Folder, told: str) -> None:
    script = folder.machine.base / "writer.py"
    script.write_text(WRITER)
    log = folder.path / "app.log"
    more = (
        f"processes: {{w: {{command: [{sys.executable}, {script}, {log}, hup], "
        f"log: {folder.machine.base}/out}}}}"
    )
    if told == "run":
        told = f"run: [pkill, -HUP, -f, '{script}']"
    rule = f"match: app.log, max_file: 2KiB, keep: 99, action: rotate, {told}"
    spec = folder.spec(rule, more)
    folder.machine.once(spec, "--only", "process:w")
    for _ in range(4):
        until(lambda: log.exists() and log.stat().st_size > 3000)
        folder.machine.once(spec)
    freeze(folder.machine.only(str(script)))
    numbers = [int(line) for line in lines(folder.path)]
    assert numbers == list(range(len(numbers)))
    assert len(list(folder.path.glob("app.log.*"))) >= 4
    assert not list(folder.path.glob(".*.reconcile"))


def copytruncated(folder: Folder) -> list[int]:
    """Rotates by copying under a writer; the numbers of all lines that were kept."""
    script = folder.machine.base / "writer.py"
    script.write_text(WRITER)
    log = folder.path / "app.log"
    writer = subprocess.Popen([sys.executable, str(script), str(log), "no"])
    rule = "match: app.log, max_file: 16KiB, keep: 99, action: rotate, method: copytruncate"
    spec = folder.spec(rule)
    try:
        for _ in range(4):
            until(lambda: log.exists() and log.stat().st_size > 20000)
            folder.machine.once(spec)
    finally:
        writer.kill()
        writer.wait()
    assert len(list(folder.path.glob("app.log.*"))) == 4
    return [int(line) for line in lines(folder.path)]


def test_no_line_is_lost_or_doubled_where_blocks_can_be_taken_out(folder: Folder) -> None:
    from reconciler.host.rotate import _collapses

    handle = os.open(folder.path, os.O_RDONLY)
    able = _collapses(handle, "probe", os.statvfs(folder.path).f_bsize)
    os.close(handle)
    if not able:
        pytest.skip("the file system of the test folder cannot take blocks out of a file")
    numbers = copytruncated(folder)
    assert numbers == list(range(len(numbers)))


@pytest.mark.root
@ROOT
def test_no_line_is_doubled_where_the_log_must_be_cut(folder: Folder) -> None:
    def few_are_lost() -> bool:
        with tmpfs(folder.path, "size=9m"):
            numbers = copytruncated(folder)
        assert len(set(numbers)) == len(numbers)
        assert numbers == sorted(numbers)
        return numbers[-1] + 1 - len(numbers) <= 8

    # At most what was written in the moment between the last look and the cut, each time:
    # that is long where another program has the processor in that very moment.
    until(few_are_lost)


def test_a_signal_that_cannot_be_sent_is_sent_by_the_next_pass(folder: Folder) -> None:
    (folder.path / "a").write_text("x" * 20)
    done = folder.machine.base / "done"
    rule = f"match: a, max_file: 10B, action: rotate, run: 'test -e {done}'"
    report = folder.once(rule, status=1)
    assert "the logs are rotated, but run test -e" in report["steps"][0]["error"]
    assert (folder.path / "a.1").exists()
    done.write_text("")
    report = folder.once(rule)
    assert names(folder.path) == ["a.1.gz"]


# ------------------------------------------------------------------------------ the spec


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("action: delete", "says nothing of when"),
        ("action: rotate", "give it max_file or older_than"),
        ("older_than: 1d, action: move", "needs 'to'"),
        ("older_than: 1d, action: archive, to: /x.zip", "ends in .tar.gz"),
        ("older_than: 1d, action: delete, to: /x", "does not go with action: delete"),
        ("older_than: 1d, action: delete, keep: 3", "does not go with action: delete"),
        ("older_than: 1d, action: delete, max_file: 1B", "does not go with action: delete"),
        ("older_than: 1d, action: rotate, keep_last: 3", "does not go with action: rotate"),
        ("max_file: 1B, action: rotate, skip_open: false", "does not go with action: rotate"),
        ("max_file: 1B, action: rotate, age_by: ctime", "has no effect without older_than"),
        ("older_than: 1d, match: a/b, action: delete", "without recursive: true"),
        ("max_file: 1B, action: rotate, signal: nobody", "there is no process 'nobody'"),
        ("max_file: 1B, action: rotate, signal: HOP p", "there is no signal 'HOP'"),
        ("max_file: 1B, action: rotate, signal: p, run: x", "either signal or run"),
        ("max_file: 1B, action: rotate, signal: {name: p}", "has no field 'name'"),
        ("max_file: 1B, action: rotate, run: [a/b]", "not absolute"),
        ("keep: 3, action: rotate", "says nothing of when"),
        ("every: year, action: rotate", "none of day, week, month"),
        ("every: day, action: rotate, keep: {daily: 3}", "is a number where logs are rotated"),
        ("every: day, action: rotate, keep: {dayly: 3}", "did you mean 'daily'"),
        ("keep: {daily: 3}, keep_last: 1, action: delete", "write it there"),
        ("every: day, action: delete", "does not go with action: delete"),
        ("every: day, action: rotate, name: x", "needs fields of the date"),
        ("every: day, action: rotate, name: '%Y/%m'", "holds no /"),
        ("every: day, action: rotate, name: '%y%m'", "has no field %y"),
        ("every: day, action: rotate, name: '%Y%Y'", "has a field twice"),
        ("every: day, action: rotate, create: {mod: '0640'}", "did you mean 'mode'"),
        ("every: day, action: rotate, create: {}, method: copytruncate", "does not go with method"),
        ("every: day, action: rotate, delay_compress: true, compress: false", "compress: false"),
        ("every: day, action: rotate, run: [bash, -c, 'x {}']", "could be taken for a part of it"),
        ("older_than: 1d, action: delete, remove_empty: true", "without recursive: true"),
        ("every: day, action: rotate, recursive: true, remove_empty: true", "action: rotate"),
        ("older_than: 1d, action: move, to: /srv/x", "is where the files are already"),
    ],
)
def test_rules_that_make_no_sense(refused: Callable[[str], str], rule: str, complaint: str) -> None:
    processes = "processes: {p: {command: x}}"
    assert complaint in refused(f"retention: {{x: {{path: /srv/x, {rule}}}}}\n{processes}")


@pytest.mark.parametrize("path", ["/", "/etc", "/usr", "/home", "/proc", "/proc/1/fd"])
def test_folders_of_the_system_are_refused(refused: Callable[[str], str], path: str) -> None:
    rule = f"path: {path}, recursive: true, older_than: 1d, action: delete"
    assert "error: " in refused(f"retention: {{x: {{{rule}}}}}")


def test_one_folder_may_have_several_rules_for_different_files(machine: Machine) -> None:
    one = "{{path: /srv/x, match: {0}, older_than: {1}, action: delete}}"
    text = "retention:\n  a: {}\n  b: {}\n"
    good = machine.spec(text.format(one.format("a", "1d"), one.format("b", "1d")))
    assert machine.reconcile("--check", good).returncode == 0
    bad = machine.spec(text.format(one.format("a", "1d"), one.format("[a]", "2d")))
    done = machine.reconcile("--check", bad)
    assert done.returncode == 65
    assert "both manage the files '/srv/x/a'" in done.stderr
