"""Edits of a spec at the worst moments: none is missed, and no half of one is acted on."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import LONG, Machine, until

from reconciler.base.errors import BeingWritten, HostError
from reconciler.config import settled as settled_module
from reconciler.config.errors import SpecError
from reconciler.config.isolated import Invalid
from reconciler.config.settled import settled
from reconciler.core.model import Spec
from reconciler.host import openfiles
from reconciler.output.log import Log
from reconciler.watchdog.reload import SpecReload

WHOLE = "first half, second half"


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(WHOLE)
    return path


@pytest.fixture
def writing(file: Path) -> Iterator[Any]:
    """Somebody who has the file open, and has written its first half."""
    with open(file, "w") as opened:
        opened.write(WHOLE[:10])
        opened.flush()
        yield opened


def reading(path: Path, after: Callable[[], None] = lambda: None) -> Callable[[], Any]:
    """A build: the file's text, and its digest; ``after`` it was read something happens."""

    def build() -> Any:
        data = path.read_bytes()
        after()
        return data.decode(), {str(path): digest(data)}

    return build


def made(build: Callable[[], Any], patience: float = 0.0) -> str:
    return str(settled(build, patience))


def test_a_file_that_is_open_for_writing_is_known(file: Path) -> None:
    with open(file) as handle:
        assert openfiles.has_writer(handle.fileno()) is False
        with open(file, "a"):
            assert openfiles.has_writer(handle.fileno()) is True
            assert openfiles.visible_writer(handle.fileno()) == os.getpid()
        assert openfiles.has_writer(handle.fileno()) is False
        assert openfiles.visible_writer(handle.fileno()) is None  # We only read it.
        # Nobody is kept from writing by our look.
        os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))


def test_who_writes_is_looked_for_without_asking_for_other_files(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be on a file system that does not answer."""
    if "ino:" not in Path("/proc/self/fdinfo/0").read_text():
        pytest.skip("wants Linux 5.14 or later")
    asked: list[str] = []
    real = os.stat
    with open(file) as handle, open(file.with_name("other"), "w") as other:
        monkeypatch.setattr(os, "stat", lambda path, **how: (asked.append(path), real(path))[1])
        with open(file, "a"):
            assert openfiles.visible_writer(handle.fileno()) == os.getpid()
        assert openfiles.visible_writer(handle.fileno()) is None
        monkeypatch.undo()
        assert f"/proc/{os.getpid()}/fd/{other.fileno()}" not in asked


def test_half_a_file_is_not_taken(file: Path, writing: Any) -> None:
    with pytest.raises(BeingWritten, match=f"process {os.getpid()} has|somebody has"):
        made(reading(file))


def test_it_is_waited_for_until_it_is_whole(
    file: Path, writing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        writing.write(WHOLE[10:])
        writing.close()

    monkeypatch.setattr(settled_module.time, "sleep", sleep)
    assert made(reading(file), 60.0) == WHOLE


def test_half_a_file_that_is_not_valid_is_waited_for_too(
    file: Path, writing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        writing.write(WHOLE[10:])
        writing.close()

    def build() -> Any:
        data = file.read_bytes()
        if data != WHOLE.encode():
            raise SpecError((), {str(file): digest(data)})
        return data.decode(), {str(file): digest(data)}

    monkeypatch.setattr(settled_module.time, "sleep", sleep)
    assert made(build, 60.0) == WHOLE
    file.write_text("whole, and not valid")
    with pytest.raises(SpecError):
        made(build, 60.0)


@pytest.mark.parametrize("how", ["written", "replaced", "truncated"])
def test_what_is_saved_after_it_was_read_is_read_again(how: str, file: Path) -> None:
    texts = ["another text", "x"]

    def save() -> None:
        if not texts:
            return
        text = texts.pop(0)
        if how == "replaced":
            (file.parent / "new").write_text(text)
            (file.parent / "new").rename(file)
        else:
            file.write_text(text)

    if how == "truncated":
        texts = ["", "the last"]
    last = texts[-1]
    assert made(reading(file, save), 60.0) == last


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS: no leases, and who writes is on another host."""
    monkeypatch.setattr(settled_module, "has_writer", lambda handle: None)
    monkeypatch.setattr(settled_module, "visible_writer", lambda handle: None)


def test_where_writers_cannot_be_known_a_second_counts(
    file: Path, unknown: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        saved = file.stat().st_mtime
        patch.setattr(settled_module.time, "time", lambda: saved + 0.9)
        with pytest.raises(BeingWritten, match="less than 1 s ago"):
            made(reading(file))
    # The clock of its server is ahead: what counts is how long it has been as it is.
    ahead = time.time() + 3600
    os.utime(file, (ahead, ahead))
    now = [1000.0]
    monkeypatch.setattr(settled_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(settled_module.time, "sleep", lambda seconds: now.append(now.pop() + 0.3))
    assert made(reading(file), 5.0) == WHOLE
    assert now[0] >= 1001.0
    os.utime(file, (1e9, 1e9))
    assert made(reading(file)) == WHOLE


def test_one_who_writes_is_seen_where_there_is_no_lease(
    file: Path, writing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settled_module, "has_writer", lambda handle: None)
    os.utime(file, (1e9, 1e9))
    with pytest.raises(BeingWritten, match=f"process {os.getpid()} has {file} open for writing"):
        made(reading(file))


def test_once_does_nothing_while_somebody_writes(machine: Machine) -> None:
    folder = machine.base / "data"
    folder.mkdir()
    for name in ("precious", "old"):
        (folder / name).write_text("x")
        os.utime(folder / name, (1e9, 1e9))
    spec = machine.base / "spec.yaml"
    head = "version: 1\nname: demo\nretention:\n  r:\n"
    half = f"{head}    path: {folder}\n    action: delete\n    older_than: 1d\n"
    with open(spec, "w") as writing:
        writing.write(half)
        writing.flush()
        for mode in ("--once", "--repair", "--loop"):
            done = machine.reconcile(mode, spec)
            assert done.returncode == 75, done.stdout + done.stderr
            assert f"{spec} open for writing; nothing was done" in done.stderr
        # Who only looks is not kept waiting.
        assert machine.reconcile("--plan", spec).returncode == 0
        assert sorted(os.listdir(folder)) == ["old", "precious"]
        writing.write("    exclude: [precious]\n")
    machine.once(spec)
    assert os.listdir(folder) == ["precious"]


class Bench:
    """A loop's spec with a clock of its own: ``reads`` happen, and something between them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 100.0
        self.files = (str(path),)
        self.events: list[str] = []
        self.during: Callable[[], None] = lambda: None
        self.loads = 0
        self.error: Exception | None = None
        session: Any = SimpleNamespace(
            facts=lambda: "facts", load_isolated=self.begun, report=lambda *words: None,
            known=lambda spec: spec,
        )  # fmt: skip
        log: Any = SimpleNamespace(event=lambda name, *words, **more: self.events.append(name))
        quiet: Any = SimpleNamespace(reloading=lambda: None, ready=lambda words: None)
        clock: Any = SimpleNamespace(monotonic=lambda: self.now)
        self.watched: tuple[str, ...] = ()
        self.kept = SpecReload(
            session, self.spec(path.read_text()), log, quiet, clock, lambda spec: None, self.watch
        )

    def watch(self, files: Any) -> None:
        self.watched = tuple(files)

    def spec(self, text: str) -> Spec:
        return Spec("demo", str(self.path), (text,), files=self.files)  # type: ignore[arg-type]

    def begun(self, patience: float) -> Any:
        # Once it has ended, its number may be another process's.
        child = SimpleNamespace(descriptor=7, left=1.0, pid=os.getpid())
        return SimpleNamespace(child=child, collect=self.load)

    def load(self) -> Spec:
        self.loads += 1
        text = self.path.read_text()
        during, self.during = self.during, lambda: None
        during()
        if self.error is not None:
            raise self.error
        return self.spec(text)

    def passed(self, seconds: float = 1.0) -> str:
        """A pass, and what it went by; nothing when it was held back."""
        wait = self.kept.reload(False)
        if self.kept.descriptors():
            assert wait.held
            assert self.kept.tend({7})
            wait = self.kept.reload(False)
        self.now += seconds
        return "" if wait.held else str(self.kept.spec.resources[0])


@pytest.fixture
def bench(file: Path) -> Bench:
    return Bench(file)


def test_an_edit_before_the_first_pass_is_taken(bench: Bench) -> None:
    # While a new loop waited for the lock.
    bench.path.write_text("second")
    assert bench.passed() == "second"
    assert bench.passed() == "second"
    assert bench.loads == 1


def test_an_edit_after_a_reading_that_failed_is_taken(bench: Bench) -> None:
    bench.passed()
    bench.path.write_text("second")
    bench.error = HostError("its name has become 'other'")
    assert [bench.passed(), bench.passed()] == ["", WHOLE]
    bench.path.write_text("third!")
    bench.error = None
    assert [bench.passed(), bench.passed()] == ["", "third!"]


def test_an_edit_while_it_is_read_is_taken(bench: Bench) -> None:
    bench.passed()
    bench.path.write_text("second")
    assert bench.passed() == ""
    bench.during = lambda: bool(bench.path.write_text("third!")) and None
    assert bench.passed() == "second"
    assert bench.passed() == ""
    assert bench.passed() == "third!"
    loads = bench.loads
    assert bench.passed() == "third!"
    assert bench.loads == loads


def test_an_edit_while_the_first_pass_reads_is_taken(bench: Bench) -> None:
    bench.during = lambda: bool(bench.path.write_text("second")) and None
    assert bench.passed() == WHOLE
    bench.passed()
    assert bench.passed() == "second"


def test_an_edit_of_the_same_length_that_keeps_its_time_is_taken(bench: Bench) -> None:
    bench.passed()
    before = bench.path.stat()
    until(lambda: bench.path.write_text(WHOLE.upper()) and _ctime(bench.path) != before.st_ctime_ns)
    os.utime(bench.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    bench.passed()
    assert bench.passed() == WHOLE.upper()


def _ctime(path: Path) -> int:
    return path.stat().st_ctime_ns


def test_it_is_read_when_it_has_not_changed_for_a_second(bench: Bench) -> None:
    bench.passed()
    for part in ("s", "se", "sec"):
        bench.path.write_text(part)
        assert bench.passed(0.6) == ""
    assert bench.passed(0.5) == ""
    assert bench.passed() == "sec"
    assert bench.loads == 2


def test_passes_are_held_back_for_some_seconds_at_most(bench: Bench) -> None:
    bench.passed()
    seen = []
    for number in range(20):
        bench.path.write_text("x" * (number + 1))
        seen.append(bench.passed(0.5))
    assert seen[:10] == [""] * 10
    assert seen[10:] == [WHOLE] * 10
    bench.passed()
    assert bench.passed() == "x" * 20


def test_who_keeps_it_open_holds_passes_back_for_some_seconds(bench: Bench) -> None:
    bench.passed()
    bench.path.write_text("half")
    bench.error = BeingWritten("somebody has it open")
    seen = [bench.passed() for _ in range(10)]
    assert seen == [""] * 5 + [WHOLE] * 5
    assert bench.events == ["invalid"]
    bench.error = None
    assert bench.passed() == "half"


def test_what_is_wrong_is_logged_on_lines_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    lines: list[tuple[str, str]] = []
    terminal: Any = SimpleNamespace(write=lines.extend)
    bench.kept._log = Log(terminal, False, False)
    bench.passed()
    bench.path.write_text("wrong")
    bench.error = Invalid("a.yaml:1:1: error: no\x1b\n    1 | wrong\n", [], (str(bench.path),))
    bench.passed()
    bench.passed()
    (first, _), *below = lines
    assert first.endswith("the changed spec is not valid, so the last good one is kept:")
    assert [text for text, _ in below] == ["a.yaml:1:1: error: no\\x1b", "    1 | wrong"]


def test_what_mends_an_include_that_is_new_is_noticed(bench: Bench, tmp_path: Path) -> None:
    bench.passed()
    new = tmp_path / "new.yaml"
    new.write_text("wrong")
    bench.path.write_text("with include")
    bench.error = Invalid("wrong", [], (str(bench.path), str(new)))
    bench.passed()
    bench.passed()
    assert bench.watched == (str(bench.path), str(new))
    bench.passed()
    bench.passed()
    loads = bench.loads
    bench.passed()
    assert bench.loads == loads  # It is not read again and again.
    assert bench.events == ["invalid"]
    new.write_text("right")
    bench.files = (str(bench.path), str(new))
    bench.error = None
    bench.passed()
    assert bench.passed() == "with include"


def test_a_file_that_is_new_is_looked_at_before_it_is_read(bench: Bench, tmp_path: Path) -> None:
    bench.passed()
    new = tmp_path / "new.yaml"
    new.write_text("one")
    bench.path.write_text("with include")
    bench.files = (str(bench.path), str(new))
    bench.passed()
    # Saved between the reading and the first look at it.
    bench.during = lambda: bool(new.write_text("two")) and None
    bench.passed()
    loads = bench.loads
    for _ in range(4):
        bench.passed()
    assert bench.loads == loads + 1  # It is read once more, and not again and again.


def test_the_loop_takes_what_was_saved_in_two_steps(machine: Machine, looping: Any) -> None:
    head = "version: 1\nname: demo\nloop: {every: 200ms}\n"
    text = f"{head}directories: {{a: {{path: {machine.base}/a}}}}\n"
    spec = machine.spec(text)
    loop = looping(spec)
    until((machine.base / "a").is_dir)
    with open(spec, "w") as writing:
        writing.write(text.replace("/a}", "/half}"))
        writing.flush()
        # It goes on by the last good one before long, and says so.
        until(lambda: "invalid" in loop.names())
        (machine.base / "a").rmdir()
        until((machine.base / "a").is_dir)
        assert not (machine.base / "half").exists()
        writing.write(f"permissions: {{p: {{path: {machine.base}/a, mode: '0700'}}}}\n")
    until((machine.base / "half").is_dir)
    assert loop.names().count("reloaded") == 1


def test_a_change_of_the_way_to_an_include_is_noticed_at_once(
    machine: Machine, looping: Any
) -> None:
    """A folder that comes later, a link to a folder that is switched, and a folder that another
    one takes the name of."""
    base = machine.base
    for name in ("one", "two"):
        (base / name).mkdir()
        (base / name / "x.yaml").write_text(
            f"directories: {{x: {{path: {base}/from-{name}}}}}\n", encoding="utf-8"
        )
    spec = machine.spec("loop: {every: 1h}\ninclude: [later/x.yaml]\n")
    spec.write_text(spec.read_text().replace("include: [later/x.yaml]\n", ""))
    loop = looping(spec).up()
    with open(spec, "a") as file:
        file.write("include: [later/x.yaml]\n")
    until(lambda: "invalid" in loop.names())
    (base / "later").symlink_to("one")
    until((base / "from-one").is_dir)
    (base / "new").symlink_to("two")
    (base / "new").rename(base / "later")
    until((base / "from-two").is_dir)
    (base / "later").unlink()
    until(lambda: loop.names().count("invalid") >= 2)
    (base / "later").mkdir()
    (base / "later/x.yaml").write_text(f"directories: {{x: {{path: {base}/from-three}}}}\n")
    until((base / "from-three").is_dir)
    (base / "from-two").rmdir()
    (base / "later").rename(base / "before")
    (base / "two").rename(base / "later")
    until((base / "from-two").is_dir)
    (base / "later/x.yaml").write_text(f"directories: {{x: {{path: {base}/from-four}}}}\n")
    until((base / "from-four").is_dir)


@pytest.mark.parametrize("half", ["prec", "prec[]"])
def test_half_a_file_with_the_value_of_a_variable_is_not_taken(machine: Machine, half: str) -> None:
    """Whether the spec is valid with it or not."""
    folder = machine.base / "data"
    folder.mkdir()
    for name in ("precious", "old"):
        (folder / name).write_text("x")
        os.utime(folder / name, (1e9, 1e9))
    spec = machine.spec(
        "vars: {keep: none}\n"
        f"retention: {{r: {{path: {folder}, action: delete, older_than: 1d,"
        " exclude: ['{{ keep if \"[\" not in keep else 1 / 0 }}']}}\n"
    )
    value = machine.base / "value"
    given = ("--set-file", f"keep={value}", spec)
    with open(value, "w") as writing:
        writing.write(half)
        writing.flush()
        for mode in ("--once", "--loop"):
            done = machine.reconcile(mode, *given)
            assert done.returncode == 75, done.stdout + done.stderr
            assert f"{value} open for writing; nothing was done" in done.stderr
        assert sorted(os.listdir(folder)) == ["old", "precious"]
        once = subprocess.Popen([*map(str, machine.argv("--once", *given))], env=machine.environ)
        time.sleep(0.5)
        writing.seek(0)
        writing.write("precious")
    assert once.wait(LONG) == 0
    assert os.listdir(folder) == ["precious"]
    # What is kept of it is found by the whole value.
    assert machine.reconcile("--once", *given).returncode == 0


@pytest.mark.parametrize(
    ("error", "said"), [(errno.EAGAIN, True), (errno.EACCES, None), (errno.EINVAL, None)]
)
def test_what_can_have_no_lease_is_not_taken_for_open(
    file: Path, monkeypatch: pytest.MonkeyPatch, error: int, said: bool | None
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(openfiles.fcntl, "fcntl", refuse)
    with open(file) as handle:
        assert openfiles.has_writer(handle.fileno()) is said


LEASED = """
import fcntl, os, subprocess, sys
from reconciler.host.openfiles import has_writer

real = fcntl.fcntl

def slow(handle, what, value=0):
    if what == fcntl.F_SETLEASE and value == fcntl.F_UNLCK:
        # Whoever opens it now has the kernel signal the one with the lease.
        code = "import os, sys; os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)"
        done = subprocess.run([sys.executable, "-c", code, sys.argv[1]], capture_output=True)
        assert b"BlockingIOError" in done.stderr
    return real(handle, what, value)

fcntl.fcntl = slow
print(has_writer(os.open(sys.argv[1], os.O_RDONLY)))
"""


def test_one_who_opens_it_while_it_is_looked_at_ends_nobody(machine: Machine, file: Path) -> None:
    done = machine.run(sys.executable, "-c", LEASED, file)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
