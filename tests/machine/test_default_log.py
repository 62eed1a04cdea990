"""The log of a daemon that says nothing about it: it has a bound, and no line of it is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Machine, until

from reconciler.host import kernel, rotate
from reconciler.host.daemon_log import MOST

WRITER = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(int(sys.argv[2])):
    os.write(log, b"%07d %s\\n" % (number, b"x" * 91))
    if number == 3000:
        print(flush=True)
        sys.stdin.readline()
"""
LINE = 100


@pytest.fixture
def log(machine: Machine) -> Path:
    return machine.base / "a.log"


def pieces(log: Path) -> list[Path]:
    """The log with what was taken out of it, the oldest first."""
    found = log.parent.glob(f"{log.name}.*")
    return [*sorted(found, key=lambda path: -int(path.name.rpartition(".")[2])), log]


def written(log: Path) -> list[int]:
    text = b"".join(path.read_bytes() for path in pieces(log))
    assert len(text) % LINE == 0
    return [int(text[at : at + 7]) for at in range(0, len(text), LINE)]


@pytest.fixture
def writer(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", WRITER, str(log), "20000"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_nothing_is_lost_of_a_writer_that_goes_on(
    log: Path, writer: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    collapse = kernel.collapse
    looks = []

    def writes_before(handle: int, size: int) -> bool:
        """At the worst moment, between the copy and the cut, the writer goes on to its end."""
        if os.fstat(handle).st_ino == log.stat().st_ino and not looks:
            looks.append(size)
            assert writer.stdin is not None
            writer.stdin.write(b"\n")
            writer.stdin.close()
            writer.wait()
        return collapse(handle, size)

    monkeypatch.setattr(kernel, "collapse", writes_before)
    rotate.bound(str(log), 200_000, 15)
    if not looks:
        pytest.skip("this file system takes no blocks out of a file")
    assert written(log) == list(range(20_000))
    assert all(path.stat().st_size <= 200_000 for path in pieces(log))
    assert {path.stat().st_mode for path in pieces(log)} == {log.stat().st_mode}


@pytest.mark.parametrize("collapses", [True, False])
def test_only_the_last_stay(log: Path, monkeypatch: pytest.MonkeyPatch, collapses: bool) -> None:
    if not collapses:
        monkeypatch.setattr(rotate, "_collapses", lambda *_: False)
    lines = [b"%07d %s\n" % (number, b"x" * 91) for number in range(30_000)]
    log.write_bytes(b"".join(lines))
    rotate.bound(str(log), 500 * LINE, 3)
    found = b"".join(path.read_bytes() for path in pieces(log))
    assert b"".join(lines).endswith(found)
    assert 2 * 500 * LINE <= len(found) <= 4 * 500 * LINE
    assert [path.name for path in pieces(log)] == ["a.log.3", "a.log.2", "a.log.1", "a.log"]
    assert sorted(os.listdir(log.parent)) >= ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    rotate.bound(str(log), 500 * LINE, 3)
    assert found == b"".join(path.read_bytes() for path in pieces(log))


def test_a_pass_that_was_killed_in_between_doubles_nothing(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_bytes(b"".join(b"%07d %s\n" % (number, b"x" * 91) for number in range(9_000)))
    collapse = kernel.collapse

    def killed(handle: int, size: int) -> bool:
        if os.fstat(handle).st_ino == log.stat().st_ino:
            raise KeyboardInterrupt
        return collapse(handle, size)

    monkeypatch.setattr(kernel, "collapse", killed)
    with pytest.raises(KeyboardInterrupt):
        rotate.bound(str(log), 200_000, 9)
    monkeypatch.setattr(kernel, "collapse", collapse)
    rotate.bound(str(log), 200_000, 9)
    assert written(log) == list(range(9_000))
    assert not list(log.parent.glob(".a.log*"))


def test_on_a_full_disk_room_is_made(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write_bytes(b"x" * 1_000_000)
    monkeypatch.setattr(rotate, "_free", lambda handle: 1000)
    rotate.bound(str(log), 200_000, 9)
    assert log.stat().st_size <= 200_000
    assert pieces(log) == [log]


@pytest.mark.parametrize("rule", ["", "retention: {r: {path: LOGS, match: 'p.*', max_file: 90MiB, "
                                  "action: rotate, method: copytruncate}}\n"])  # fmt: skip
def test_a_daemon_s_own_log(machine: Machine, rule: str) -> None:
    folder = machine.state / "demo/log"
    text = f"head -c {MOST + 10_000_000} /dev/zero; exec sleep 4761"
    spec = machine.spec(
        f"processes: {{p: {{command: [sh, -c, '{text}']}}}}\n" + rule.replace("LOGS", str(folder))
    )
    machine.once(spec)
    # The shell, whose words hold that too, has written all of it by then.
    until(lambda: "sleep 4761" in machine.ours().values())
    pid = machine.only("sleep 4761")
    machine.plan(spec)
    assert os.listdir(folder) == ["p.log"], "a plan changes nothing"
    machine.once(spec)
    if rule:
        assert os.listdir(folder) == ["p.log"], "that is the rule's"
        return
    assert sorted(os.listdir(folder)) == ["p.log", "p.log.1"]
    assert (folder / "p.log").stat().st_size < MOST
    assert sum(path.stat().st_size for path in folder.iterdir()) == MOST + 10_000_000
    # It writes to the same file as before.
    assert os.path.samefile(f"/proc/{pid}/fd/1", folder / "p.log")
