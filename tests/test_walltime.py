"""A clock that was set ahead is not believed at once, where the age of files is what counts."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

from support import compiled

from reconciler import kinds
from reconciler.base.errors import UnknownState
from reconciler.core.observe import observe
from reconciler.host import Host
from reconciler.host.clock import Clock, WallTime

HOUR, DAY, YEAR = 3600.0, 86400.0, 365.25 * 86400


class Turned(Clock):
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.boot = 1000.0
        self.offset = 1_790_000_000.0

    def since_boot(self) -> float:
        return self.boot

    def wall(self) -> float:
        return self.boot + self.offset


def times(folder: Path) -> tuple[Turned, WallTime]:
    clock = Turned()
    return clock, WallTime(str(folder), clock)


def test_ten_years_ahead_are_doubted_for_a_day(tmp_path: Path) -> None:
    clock, time = times(tmp_path)
    assert time.doubt() is None
    time.note()
    clock.offset += 10 * YEAR
    # Whether or not any pass has noticed it before.
    assert "10 years ahead" in str(time.doubt())
    time.note()
    clock.boot += DAY - 60
    assert "the next 1 minutes" in str(time.doubt())
    clock.boot += 61
    assert time.doubt() is None
    time.note()
    assert time.doubt() is None
    assert abs(time.gained - 10 * YEAR) < 1


def test_set_right_again_it_is_believed_at_once(tmp_path: Path) -> None:
    clock, time = times(tmp_path)
    time.note()
    clock.offset += YEAR
    time.note()
    clock.offset -= YEAR
    assert time.doubt() is None
    time.note()
    clock.offset += YEAR
    assert time.doubt() is not None


def test_back_or_a_little_ahead_is_no_matter(tmp_path: Path) -> None:
    clock, time = times(tmp_path)
    time.note()
    for step in (-HOUR, HOUR, -10 * DAY):
        clock.offset += step
        assert time.doubt() is None
        time.note()
    # Back by ten days is what is believed now.
    clock.offset += 10 * DAY
    assert "10 days ahead" in str(time.doubt())


def test_a_steady_clock_is_noted_once(tmp_path: Path) -> None:
    clock, time = times(tmp_path)
    time.note()
    before = (tmp_path / "clock").stat()
    clock.boot += 5 * DAY
    time.note()
    after = (tmp_path / "clock").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_another_boot_and_a_damaged_note_begin_anew(tmp_path: Path) -> None:
    clock, time = times(tmp_path)
    for text in ("another-boot 1 2 3 4\n", "\xff", "", "x y z"):
        (tmp_path / "clock").write_text(text)
        clock.offset += YEAR
        assert time.doubt() is None
        time.note()
        clock.offset += YEAR
        assert time.doubt() is not None


def test_a_clock_that_was_never_set_is_not_noted(tmp_path: Path) -> None:
    clock, time = times(tmp_path)
    clock.offset = 0.0
    time.note()
    clock.offset = 1_790_000_000.0
    assert time.doubt() is None


def test_only_rules_about_age_wait_for_a_doubted_clock(tmp_path: Path) -> None:
    for name in ("1.a", "2.a", "1.b", "2.b"):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (1, 1))
    rules = {"age": ("a", "older_than: 1h"), "number": ("b", "keep_last: 1")}
    text = "".join(
        f"  {name}: {{path: {tmp_path}, match: '*.{end}', {rule}, action: delete}}\n"
        for name, (end, rule) in rules.items()
    )
    spec = compiled(tmp_path, f"retention:\n{text}")
    host = Host("demo", str(tmp_path / "state"))
    host.__dict__["walltime"] = SimpleNamespace(doubt=lambda: UnknownState("it was set ahead"))
    seen = observe(spec.resources, kinds.get, host)
    assert seen["retention:age"].unknown == "it was set ahead"
    assert [one.name for one in seen["retention:number"].state.files] == ["1.b"]
