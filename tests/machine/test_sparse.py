"""Files with holes: what counts is what is allocated, and the holes stay."""

from __future__ import annotations

import errno
import gzip
import os
import tarfile
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Machine, compiled

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.core.observe import observe
from reconciler.host import Host, archive, compress, kernel, remove, work
from reconciler.host.choose import Rule
from reconciler.host.clock import Clock
from reconciler.host.gzipped import Gunzip
from reconciler.host.openfiles import OpenFiles
from reconciler.host.progress import working
from reconciler.host.rotated import Names
from reconciler.host.scan import Wanted, scan

GIB = 2**30


@pytest.fixture
def logs(machine: Machine) -> Path:
    made = machine.base / "logs"
    made.mkdir()
    return made


def holed(path: Path, length: int = 300 * GIB, data: bytes = b"x" * 5000) -> Path:
    """A file of that length with ``data`` at its beginning and somewhere in the middle."""
    with open(path, "wb") as file:
        file.write(data)
        file.seek(length // 2)
        file.write(data)
        file.truncate(length)
    return path


def test_sizes_are_what_is_allocated(machine: Machine, logs: Path) -> None:
    for number in range(4):
        (logs / f"{number}.log").write_bytes(b"x" * 10_000)
        os.utime(logs / f"{number}.log", (1000 + number,) * 2)
    holed(logs / "hole.log")
    head = f"retention: {{r: {{path: {logs}, match: '*.log', "
    machine.converged(machine.spec(head + "max_total: 1MiB, action: delete}}\n"))
    machine.converged(machine.spec(head + "max_file: 1MiB, action: rotate}}\n"))
    machine.once(machine.spec(head + "max_total: 60KB, action: delete}}\n"))
    machine.once(machine.spec(head + "max_total: 50KB, action: delete}}\n"))
    assert sorted(os.listdir(logs)) == ["1.log", "2.log", "3.log", "hole.log"]


@pytest.mark.parametrize("folders", [1, 2])
def test_a_file_with_several_names_counts_once(machine: Machine, logs: Path, folders: int) -> None:
    for number in range(4):
        file = logs / f"{number}.log"
        file.write_bytes(b"x" * 100_000)
        os.utime(file, (1000 + number,) * 2)
    # As snapshots share what has not changed.
    for number in range(folders):
        (logs / f"s{number}").mkdir()
        for name in "ab":
            for old in ("0", "3"):
                (logs / f"s{number}/{old}{name}.log").hardlink_to(logs / f"{old}.log")
    head = f"retention: {{r: {{path: {logs}, recursive: true, match: '*.log', action: delete, "
    machine.converged(machine.spec(head + "max_total: 420KB}}\n"))
    # The oldest goes with all its names, and then there is room enough.
    machine.once(machine.spec(head + "max_total: 320KB}}\n"))
    left = {path.name for path in logs.rglob("*.log")}
    assert left == {"1.log", "2.log", "3.log", "3a.log", "3b.log"}
    machine.converged(machine.spec(head + "max_total: 320KB}}\n"))


def extents(path: Path) -> tuple[int, bytes, bytes]:
    """Its length, its first bytes, and those in the middle; it must take next to no room."""
    status = path.stat()
    assert status.st_blocks * 512 < 10 * 2**20
    with open(path, "rb") as file:
        first = file.read(6000)
        file.seek(status.st_size // 2)
        return status.st_size, first, file.read(6000)


def test_a_hole_stays_one_on_another_file_system(
    machine: Machine, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = extents(holed(logs / "a"))
    os.utime(logs / "a", (1000, 1000))

    rename = kernel.rename_new

    def elsewhere(source: int, name: str, folder: int, to: str) -> None:
        if name == "a":
            raise OSError(errno.EXDEV, "another file system")
        rename(source, name, folder, to)

    monkeypatch.setattr(kernel, "rename_new", elsewhere)
    (file,) = scan(Wanted(str(logs), Rule(None, 10**18, None, 10))).chosen.files
    assert remove.move(str(logs), [file], str(machine.base / "to"), OpenFiles(Clock())) == []
    assert extents(machine.base / "to/a") == before
    assert not (logs / "a").exists()


def test_small_pieces_among_holes_take_no_more_room_in_a_copy(logs: Path, tmp_path: Path) -> None:
    with open(logs / "a", "wb") as file:
        for number in range(64):
            file.seek(number * 2**20 + 40_000)
            file.write(b"data" * 500)
    taken = (logs / "a").stat().st_blocks * 512
    with (
        open(logs / "a", "rb") as source,
        open(tmp_path / "b", "w+b") as goal,
        working("copy", None) as progress,
    ):
        remove.pour(source.fileno(), goal.fileno(), progress, 64 * 2**20)
    assert (tmp_path / "b").read_bytes() == (logs / "a").read_bytes()
    assert (tmp_path / "b").stat().st_blocks * 512 <= 2 * taken


def test_a_log_of_holes_is_rotated_and_not_compressed(machine: Machine, logs: Path) -> None:
    before = extents(holed(logs / "a"))
    rule = "max_file: 1KB, action: rotate, method: copytruncate"
    spec = machine.spec(f"retention: {{r: {{path: {logs}, {rule}}}}}")
    machine.once(spec)
    assert machine.plan(spec)["notes"] == []
    machine.converged(spec)
    assert extents(logs / "a.1")[1:2] == before[1:2]
    assert (logs / "a").stat().st_size <= 4096
    assert sorted(os.listdir(logs)) == ["a", "a.1"]


def test_a_file_of_holes_is_not_archived_and_holds_up_no_other(
    machine: Machine, logs: Path
) -> None:
    for path in (holed(logs / "a"), logs / "b"):
        path.touch()
        os.utime(path, (1000, 1000))
    rule = f"older_than: 1d, action: archive, to: {machine.base}/x.tar.gz"
    spec = machine.spec(f"retention: {{r: {{path: {logs}, {rule}}}}}")
    report = machine.once(spec)
    assert "1 file of holes, too long to be archived (a)" in str(report["notes"])
    assert os.listdir(logs) == ["a"]
    machine.converged(spec)


@pytest.mark.parametrize("bound", ["work", "room"])
def test_what_a_pass_reads_has_a_bound_and_the_rest_is_said(
    machine: Machine, logs: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    for number in range(5):
        (logs / str(number)).write_bytes(b"x" * 1000)
        os.utime(logs / str(number), (1000 + number,) * 2)
    if bound == "work":
        monkeypatch.setattr(work, "MOST", 2500)
    else:
        monkeypatch.setattr(work, "room", lambda path: (0, 2500))
    rule = f"older_than: 1d, action: archive, to: {machine.base}/x.tar.gz"
    spec = compiled(machine.base, f"retention: {{r: {{path: {logs}, {rule}}}}}")
    host = Host("demo", str(machine.state))
    notes = []
    for left in (3, 1, 0):
        (seen,) = observe(spec.resources, kinds.get, host).values()
        notes.append(seen.note or "")
        (resource,) = spec.resources
        for action in kinds.get("retention").actions(resource, seen.state, ()):
            action.run(host)
        assert len(os.listdir(logs)) == left
    why = "one reads 2.4 KiB" if bound == "work" else "there is room for 2.4 KiB"
    assert notes[0].endswith(f"3 files more due, for the next passes ({why})")
    assert notes[2] == ""
    with tarfile.open(machine.base / "x.tar.gz") as tar:
        assert sorted(tar.getnames()) == ["0", "1", "2", "3", "4"]


def test_compressing_has_a_bound(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (logs / f"{number}.log.1").write_bytes(b"x" * 1000)
    monkeypatch.setattr(compress, "MOST", 2500)
    todo = [("", f"{number}.log.1") for number in range(4)]
    left = compress.finish(str(logs), (), todo, (), Names(99), OpenFiles(Clock()))
    assert left == todo[2:]
    assert sorted(os.listdir(logs)) == ["0.log.1.gz", "1.log.1.gz", "2.log.1", "3.log.1"]
    # The first is taken, however long it is.
    (logs / "2.log.1").write_bytes(b"x" * 9000)
    assert compress.finish(str(logs), (), left, (), Names(99), OpenFiles(Clock())) == todo[3:]


def test_an_archive_that_holds_too_much_is_left_and_another_begun(
    machine: Machine, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = machine.base / "x.tar.gz"
    trap = gzip.compress(bytes(2**22))
    goal.write_bytes(trap)
    monkeypatch.setattr(archive, "_INFLATED", 2**16)
    read = []
    whole = Gunzip.read

    def counted(self: Gunzip, size: int) -> bytes:
        data = whole(self, size)
        read.append(len(data))
        return data

    monkeypatch.setattr(Gunzip, "read", counted)
    for name in ("a", "b"):
        (logs / name).write_text(name)
        os.utime(logs / name, (1000, 1000))
        (file,) = scan(Wanted(str(logs), Rule(None, 10**18, None, 10))).chosen.files
        archive.archive(str(logs), [file], str(goal), OpenFiles(Clock()))
    assert goal.read_bytes() == trap
    with tarfile.open(machine.base / "x.part2.tar.gz") as tar:
        assert tar.getnames() == ["a", "b"]
    assert archive.size(str(goal)) > len(trap)
    assert sum(read) < 2**21, "it was read to its end"
    # Neither is a file that the rule is about.
    rule = f"path: {machine.base}, older_than: 1d, action: archive, to: {goal}"
    for path in machine.base.glob("x.*"):
        os.utime(path, (1000, 1000))
    machine.converged(machine.spec(f"retention: {{r: {{{rule}, match: '*.gz'}}}}"))


def test_what_has_the_name_of_a_compressed_log_is_not_read_beyond_its_length(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (logs / "a.1").write_text("x")
    (logs / "a.1.gz").write_bytes(gzip.compress(bytes(2**26)))
    sizes = []
    whole = Gunzip.read
    monkeypatch.setattr(
        Gunzip, "read", lambda self, size: sizes.append(self.size) or whole(self, size)
    )
    with pytest.raises(HostError, match="are both there, and differ"):
        compress.finish(str(logs), (), [("", "a.1")], (), Names(99), OpenFiles(Clock()))
    assert max(sizes) < 2**21


PIECES = st.lists(
    st.tuples(st.integers(0, 3 * 2**20), st.sampled_from([b"x", bytes(5000), b"y" * 70_000])),
    max_size=4,
)


@given(st.integers(0, 3 * 2**20), PIECES, st.integers(0, 4 * 2**20))
@settings(database=None, deadline=None, max_examples=40)
def test_a_copy_has_the_same_bytes_and_the_same_digest(
    length: int, pieces: list[tuple[int, bytes]], most: int
) -> None:
    with (
        TemporaryFile(dir="/dev/shm") as source,
        TemporaryFile(dir="/dev/shm") as goal,
        working("x", 1) as progress,
    ):
        source.truncate(length)
        for at, data in pieces:
            source.seek(at)
            source.write(data)
        source.flush()
        source.seek(0)
        text = source.read()
        os.lseek(source.fileno(), 0, os.SEEK_SET)
        digest = remove.pour(source.fileno(), goal.fileno(), progress, most)
        goal.seek(0)
        assert goal.read() == text[:most]
        # Written out whole it is the same.
        with TemporaryFile(dir="/dev/shm") as dense:
            dense.write(text)
            dense.flush()
            os.lseek(dense.fileno(), 0, os.SEEK_SET)
            assert remove.pour(dense.fileno(), None, progress, most) == digest
            if text[:most]:
                last = len(text[:most]) - 1
                os.pwrite(dense.fileno(), bytes([text[last] ^ 1]), last)
                os.lseek(dense.fileno(), 0, os.SEEK_SET)
                assert remove.pour(dense.fileno(), None, progress, most) != digest
