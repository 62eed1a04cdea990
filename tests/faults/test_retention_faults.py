"""Retention under fire: killed at every change, a full disk, and neighbours that swap folders."""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Machine, compiled

from reconciler import kinds
from reconciler.core.apply import apply
from reconciler.core.observe import observe
from reconciler.core.plan import make_plan
from reconciler.host import Host
from reconciler.host.choose import Rule
from reconciler.host.private_folder import passing_name, private_name
from reconciler.host.scan import Wanted, scan

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, other users")
NOBODY = 65534
CALLS = (
    "mkdir,mkdirat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,write,fsync,ftruncate,"
    "fallocate,fchmod,fchown,utimensat,pidfd_send_signal,vfork,clone,clone3"
)


def old(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    then = time.time() - 9 * 86400
    os.utime(path, (then, then))


def plain(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def visible(folder: Path) -> dict[str, bytes]:
    """All files but those that are being written, by name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if not path.name.endswith(".reconcile")
    }


class Archive:
    """Files of some days ago, and an archive that has some already."""

    rule = "older_than: 1d, recursive: true, action: archive, to: {base}/a.tar.gz"

    def __init__(self, base: Path) -> None:
        self.base = base
        self.files = base / "files"
        self.first = {
            "a": b"one" * 99,
            "sub/b": b"two" * 99,
            "big": random.Random(1).randbytes(4**9),
        }

    def make(self) -> None:
        shutil.rmtree(self.files, ignore_errors=True)
        for name, content in self.first.items():
            old(self.files / name, content)
        with tarfile.open(self.base / "a.tar.gz", "w:gz") as tar:
            info = tarfile.TarInfo("a")
            info.size = 5
            old(self.base / "src", b"first")
            with open(self.base / "src", "rb") as source:
                tar.addfile(info, source)

    def held(self) -> list[tuple[str, bytes]]:
        """What the archive holds; it is whole at any moment."""
        with tarfile.open(self.base / "a.tar.gz") as tar:
            return [(m.name, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]

    def whole(self) -> None:
        held = self.held()
        assert ("a", b"first") in held
        there = visible(self.files)
        for name, content in self.first.items():
            assert there.get(name, content) == content
            assert name in there or content in [one for _, one in held]

    def ended(self) -> None:
        rest = [("a.1", self.first["a"]), *((n, c) for n, c in self.first.items() if n != "a")]
        assert sorted(self.held()) == sorted([("a", b"first"), *rest])
        assert visible(self.files) == {}


class Rotation:
    """A log, and one that has been rotated before."""

    def __init__(self, base: Path, method: str, size: str, create: bool = False) -> None:
        self.base = base
        self.create = create
        self.files = base / "files"
        self.rule = (
            f"match: a.log, max_file: {size}, keep: 9, action: rotate, method: {method}, "
            + ('create: {{mode: "0604"}}' if create else "run: [touch, {base}/told]")
        )
        self.lines = b"".join(b"%07d\n" % number for number in range(3000))

    def make(self) -> None:
        shutil.rmtree(self.files, ignore_errors=True)
        (self.base / "told").unlink(missing_ok=True)
        self.files.mkdir()
        with gzip.open(self.files / "a.log.1.gz", "wb") as first:
            first.write(b"before\n")
        (self.files / "a.log").write_bytes(self.lines)

    def whole(self) -> None:
        there = {name: plain(self.files / name) for name in visible(self.files)}
        assert b"before\n" in there.values()
        if self.lines in there.values():
            return
        # Some of it has been taken out of the log, which stands in what was rotated, whole.
        log = there.get("a.log", b"")
        others = [content for name, content in there.items() if name != "a.log"]
        assert any(content + log == self.lines for content in others)

    def ended(self) -> None:
        names = sorted(visible(self.files), reverse=True)
        assert [name for name in names if name != "a.log"] == ["a.log.2.gz", "a.log.1.gz"]
        order = [
            *(name for name in names if name != "a.log"),
            *(["a.log"] if "a.log" in names else []),
        ]
        assert b"".join(plain(self.files / name) for name in order) == b"before\n" + self.lines
        assert not list(self.files.glob(".*"))
        assert (self.base / "told").exists() or self.create
        if self.create:
            assert (self.files / "a.log").stat().st_mode & 0o777 == 0o604


def killed_everywhere(machine: Machine, story: Archive | Rotation, step: int) -> int:
    """Kills a pass at every ``step``-th change, and looks each time; returns how often."""
    spec = machine.spec(
        f"retention: {{x: {{path: {story.files}, {story.rule.format(base=machine.base)}}}}}"
    )
    machine.once(spec)  # The compiled spec is there from now on.

    def traced(*options: str) -> tuple[int, str]:
        trace = machine.base / "trace"
        done = machine.run(
            "strace", "-qq", "-e", f"trace={CALLS}", *options, "-o", trace,
            *machine.argv("--once", spec),
        )  # fmt: skip
        return done.returncode, trace.read_text(errors="replace")

    story.make()
    status, trace = traced()
    assert status == 0
    story.ended()
    names = [match[1] for line in trace.splitlines() if (match := re.match(r"(\w+)\(", line))]
    killed = 0
    for at in range(0, len(names), step):
        story.make()
        number = names[: at + 1].count(names[at])
        status, _ = traced("-e", f"inject={names[at]}:signal=KILL:when={number}")
        killed += status != 0
        story.whole()
        machine.once(spec)
        story.ended()
        machine.converged(spec)
    return killed


def stories(machine: Machine, which: str) -> Archive | Rotation:
    if which == "archive":
        return Archive(machine.base)
    if which == "create":
        return Rotation(machine.base, "rename", "8KiB", create=True)
    # Of a log that must be smaller than a block, no blocks are taken out: it is cut.
    method, size = {"cut": ("copytruncate", "1KiB")}.get(which, (which, "8KiB"))
    return Rotation(machine.base, method, size)


WHICH = ["archive", "rename", "create", "copytruncate", "cut"]


@pytest.mark.parametrize("which", WHICH)
def test_killed_at_some_changes(machine: Machine, one_process: None, which: str) -> None:
    assert killed_everywhere(machine, stories(machine, which), 7) > 2


@pytest.mark.slow
@pytest.mark.parametrize("which", WHICH)
def test_killed_at_every_change(machine: Machine, one_process: None, which: str) -> None:
    assert killed_everywhere(machine, stories(machine, which), 1) > 8


@pytest.mark.root
@ROOT
def test_a_full_disk_in_the_middle_of_an_archive(machine: Machine) -> None:
    disk = machine.base / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], check=True)
    try:
        first = {str(at): random.Random(at).randbytes(300_000) for at in range(3)}
        for name, content in first.items():
            old(disk / "files" / name, content)
        (disk / "ballast").write_bytes(bytes(1_000_000))
        spec = machine.spec(
            f"retention: {{x: {{path: {disk}/files, older_than: 1d, action: archive, "
            f"to: {disk}/a.tar.gz}}}}"
        )
        (step,) = machine.once(spec, status=1)["steps"]
        assert step["error"].startswith(f"cannot write {disk}/a.tar.gz; all files were kept: no sp")
        assert visible(disk / "files") == first
        assert sorted(os.listdir(disk)) == ["ballast", "files"]
        (disk / "ballast").unlink()
        machine.once(spec)
        machine.converged(spec)
        with tarfile.open(disk / "a.tar.gz") as tar:
            assert {m.name: tar.extractfile(m).read() for m in tar} == first  # type: ignore[union-attr]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


SWAPPER = """
import ctypes, os, sys
base = os.fsencode(sys.argv[1])
os.setuid(int(sys.argv[2]))
os.symlink(sys.argv[3], base + b"/y")
exchange = ctypes.CDLL(None, use_errno=True).renameat2
number = missed = 0
while missed < 100:
    if exchange(-100, base + b"/x", -100, base + b"/y", 2) != 0:
        missed += 1
        print("swap", os.strerror(ctypes.get_errno()), file=sys.stderr, flush=True)
        continue
    number += 1
    if number in (1, 10000):
        print(number, flush=True)
"""


def looked(path: Path) -> list[tuple[str, int, bytes]]:
    return [(one.name, one.stat().st_mtime_ns, one.read_bytes()) for one in sorted(path.iterdir())]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user gets into; every new pytest closes its own ones to others."""
    base = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base)


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("action", ["delete", "move, to: {to}", "archive, to: {to}.tar.gz"])
def test_a_folder_swapped_for_a_link_never_leads_outside(
    open_folder: Path, free: None, action: str
) -> None:
    shared, outside = open_folder / "shared", open_folder / "outside"
    for name in ("secret", "other"):
        old(outside / name, b"canary")
        old(shared / "x" / name, b"prey")
    for path in (shared, shared / "x"):
        os.chown(path, NOBODY, NOBODY)
    inside = os.open(shared / "x", os.O_RDONLY)
    before = looked(outside)
    rule = f"recursive: true, older_than: 1d, action: {action.format(to=open_folder / 'to')}"
    spec = compiled(open_folder, f"retention: {{x: {{path: {shared}, {rule}}}}}")
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(shared), str(NOBODY), str(outside)],
        stdout=subprocess.PIPE,
    )
    assert swapper.stdout is not None
    worked = missed = passes = 0
    results: set[str] = set()
    try:
        assert swapper.stdout.readline() == b"1\n"
        # An archive that is added to each time grows, and takes its time.
        most = 80 if "archive" in action else 300
        # On a busy machine it may take more of them until the race has gone both ways.
        while passes < most or (passes < 10 * most and not (worked and missed)):
            passes += 1
            host = Host("demo", str(open_folder / "state"))
            seen = observe(spec.resources, kinds.get, host)
            plan = make_plan(spec, spec.resources, seen, kinds.get, "host")
            report = apply(plan, spec, kinds.get, host, lambda outcome: None)
            results |= {outcome.result for outcome in report.outcomes}
            assert looked(outside) == before
            left = len(os.listdir(inside))
            worked += left < 2
            missed += left > 0
            for name in ("secret", "other"):
                handle = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=inside)
                os.write(handle, b"prey")
                os.close(handle)
                os.utime(name, (passes, passes), dir_fd=inside)
        assert swapper.stdout.readline() == b"10000\n"
        assert swapper.poll() is None
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()
        os.close(inside)
    # Both have happened, or the race was none.
    assert worked > 0
    assert missed > 0
    assert results <= {"done", "dropped"}
    assert_no_canary(open_folder)


@pytest.mark.root
@ROOT
def test_the_new_log_of_another_gets_no_set_id_bit_along_with_a_group(machine: Machine) -> None:
    log = machine.base / "his/a.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * 2000)
    os.chown(log.parent, NOBODY, NOBODY)
    os.chown(log, NOBODY, NOBODY)
    log.chmod(0o2755)
    machine.base.chmod(0o755)
    spec = machine.spec(
        f"retention: {{r: {{path: {log.parent}, match: ['*.log'], action: rotate, "
        "max_file: 1KiB, create: {group: root}}}"
    )
    machine.once(spec)
    now = log.stat()
    assert (now.st_size, now.st_gid, now.st_mode & 0o7777) == (0, 0, 0o755)


def assert_no_canary(base: Path) -> None:
    """What was moved or archived is the prey, and nothing else."""
    for path in (base / "to").rglob("*") if (base / "to").exists() else ():
        assert path.is_dir() or path.read_bytes() == b"prey"
    if (base / "to.tar.gz").exists():
        with tarfile.open(base / "to.tar.gz") as tar:
            assert {tar.extractfile(m).read() for m in tar} == {b"prey"}  # type: ignore[union-attr]


@ROOT
def test_root_runs_no_command_with_a_name_that_another_may_exchange(machine: Machine) -> None:
    logs, ran = machine.base / "logs", machine.base / "ran"
    old(logs / "a.log", b"x" * 2000)
    os.chown(logs, 65534, 65534)
    os.chown(logs / "a.log", 65534, 65534)
    rule = f"path: {logs}, match: '*.log', action: rotate, max_file: 1KB, keep: 3, compress: false"
    spec = machine.spec(f"retention: {{x: {{{rule}, run: [cp, '{{}}', {ran}]}}}}")
    (step,) = machine.once(spec, status=1)["steps"]
    assert "root runs no command with a name in" in step["error"]
    assert (logs / "a.log.1").exists() and not ran.exists()
    spec.write_text(spec.read_text().replace("run: [", "run: [setpriv, --reuid=0, "))
    (logs / "a.log").write_bytes(b"y" * 2000)
    machine.once(spec)
    assert ran.read_bytes() == b"y" * 2000


@pytest.mark.parametrize("name", ["a.log", "a\nb.log", ".a\n"])
def test_what_we_are_making_is_left_alone_whatever_it_is_for(tmp_path: Path, name: str) -> None:
    old(tmp_path / passing_name(name), b"")
    (tmp_path / private_name(name)).mkdir()
    old(tmp_path / private_name(name) / "inside", b"")
    now = time.time_ns()
    wanted = Wanted(str(tmp_path), Rule(None, now, None, 9), recursive=True)
    assert list(scan(wanted).chosen.files) == []
