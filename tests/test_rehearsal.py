"""What is rehearsed, and that it is what the code that acts says, driven by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support import compiled

from reconciler import kinds
from reconciler.base.records import replace
from reconciler.cli.invocation import InvalidUsage
from reconciler.cli.options import parsed
from reconciler.cli.rehearsal.asked import Event, seconds_until
from reconciler.cli.rehearsal.context import RehearsedContext
from reconciler.cli.rehearsal.loop import Rehearsal
from reconciler.core.model import Outcome, Plan, Remark, Resource, Spec, Step
from reconciler.core.plan import chosen
from reconciler.host.clock import RehearsedClock
from reconciler.output.rehearsal import Entry
from reconciler.state.restarts import RestartTracker
from reconciler.state.store.rehearsed import rehearsed

# -- what may be asked


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


NOW = 1_790_000_000.0
"""2026-09-21 16:13:20 in Berlin."""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("+3d", 3 * 86400.0),
        ("+90m", 5400.0),
        ("2026-09-21 16:14", 40.0),
        # The minute of now is now.
        ("2026-09-21 16:13", 0.0),
        # Winter time by then: a day has 25 hours.
        ("2026-10-25 16:13", 34 * 86400 + 3600 - 20.0),
        # That hour comes twice: the first one is meant.
        ("2026-10-25 02:30", 1_792_888_200 - NOW),
    ],
)
def test_a_time_of_this_place(berlin: None, text: str, seconds: float) -> None:
    assert seconds_until(text, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2027-03-28 02:30", "there is no 2027-03-28 02:30 here: the clock is set ahead then"),
        ("2026-09-21 16:11", "is past, and how this host was then is not known"),
        ("tomorrow", "--at takes '2026-12-24 03:00' or +3d, not 'tomorrow'"),
        ("2026-02-30 00:00", "--at takes"),
        ("+3", "is not a duration"),
        ("+36601d", "of the next hundred years"),
        ("9999-12-31 23:59", "of the next hundred years"),
        ("+0s", "longer than zero"),
        ("3d", "--at takes"),
        ("", "--at takes"),
    ],
)
def test_another_time_is_refused(berlin: None, text: str, words: str) -> None:
    with pytest.raises(InvalidUsage, match=words.replace("+", r"\+")):
        seconds_until(text, NOW)


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("process:w dies", Event("process:w", 1, None)),
        (" process:w[a b]  dies 12  times ", Event("process:w[a b]", 12, None)),
        ("process:w dies 1 time in 10m", Event("process:w", 1, 600.0)),
        ("process:w dies in 10m", Event("process:w", 1, 600.0)),
        ("check:c fails", Event("check:c", 0, None)),
        ("check:c fails for 2h", Event("check:c", 0, 7200.0)),
        ("check:c dies fails", Event("check:c dies", 0, None)),
    ],
)
def test_an_event(text: str, event: Event) -> None:
    assert Event.read(text) == event


@pytest.mark.parametrize(
    "text",
    ["", "dies", "process:w", "process:w dies twice", "process:w dies 0 times", "check:c fails 3",
     "process:w dies 1001 times", "process:w dies in 3x", "check:c fails for", "w DIES",
     "process:w dies 12 times in", "check:c fails in 3m", "x\ndies\nagain"],
)  # fmt: skip
def test_another_event_is_refused(text: str) -> None:
    with pytest.raises(InvalidUsage, match="--if takes"):
        Event.read(text)


# -- what follows is what the code that acts says

ID = "process:w"


def spec_of(folder: Path, restart: str, more: str = "") -> Spec:
    process = f"{{command: [sleep, '9'], restart: {restart}}}"
    return compiled(folder, f"processes: {{w: {process}}}\n{more}")


def timeline(folder: Path, spec: Spec, event: str, ahead: float = 0.0) -> list[Entry]:
    options = parsed(["--plan", str(folder / "spec.yaml"), "--state-dir", str(folder / "state")])
    context = RehearsedContext(options, RehearsedClock(ahead))
    told = Event.read(event)
    (resource,) = (one for one in spec.resources if one.id == told.id)
    spec = replace(spec, resources=chosen(spec, [told.id]))
    return list(Rehearsal(context, spec, told, resource).run())


def driven(folder: Path, resource: Resource[object], deaths: int) -> tuple[list[float], Any]:
    """When each start is made, and when it is given up, with the tracker by hand."""
    clock = RehearsedClock(0.0)
    store = rehearsed(str(folder / "state/demo"), clock)
    begun, starts = clock.monotonic(), list[float]()
    given_up = None
    tracker = RestartTracker({ID: resource}, kinds.get, store.attempts, set(), {}, clock.monotonic)
    step = Step(ID, "start", (), (), "not running", ())
    while len(starts) < deaths:
        hold = tracker.holds().get(ID)
        if hold is not None:
            if hold.final and given_up is None:
                given_up = clock.monotonic() - begun
            held = Plan("", "", "", 1, held=(Remark(ID, hold.words),))
            clock.skip(tracker.due(held) or 0.0)
            continue
        starts.append(clock.monotonic() - begun)
        tracker.begins(step)
        tracker.ended(Outcome(step, "failed", "gone" if len(starts) < deaths else None))
        with store.base.change():
            tracker.write()
        tracker.written()
        tracker.read()
    return starts, given_up


@settings(
    max_examples=6,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    attempts=st.integers(1, 6),
    initial=st.integers(100, 20_000),
    factor=st.sampled_from(["1", "1.5", "2", "3"]),
    most=st.integers(1, 10),
    retry=st.integers(1, 7200),
    deaths=st.integers(1, 9),
    ahead=st.sampled_from([0.0, 12345.678, 3.1e9]),
)
def test_any_policy(
    tmp_path: Path,
    attempts: int,
    initial: int,
    factor: str,
    most: int,
    retry: int,
    deaths: int,
    ahead: float,
) -> None:
    spec = spec_of(
        tmp_path,
        f"{{attempts: {attempts}, backoff: {{initial: {initial}ms, factor: {factor}, "
        f"max: {initial * most}ms}}, retry_every: {retry}s, healthy_after: 7h}}",
    )
    found = timeline(tmp_path, spec, f"{ID} dies {deaths} times", ahead)
    starts, given_up = driven(tmp_path, spec.resources[0], deaths)
    rehearsed_ = [one.after for one in found if one.what == "start"]
    assert len(rehearsed_) == len(starts) == deaths
    # A loop rests a twentieth of a second between two passes.
    for at, (one, other) in enumerate(zip(rehearsed_, starts, strict=True)):
        assert abs(one - other) <= 0.06 * (at + 1)
    gives = [one.after for one in found if one.what == "gives up"]
    assert bool(gives) is (given_up is not None)
    if given_up is not None:
        assert abs(gives[0] - given_up) <= 0.06 * (attempts + 1) + 0.1


def test_spread_over_a_time(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "{healthy_after: 30s}")
    found = timeline(tmp_path, spec, f"{ID} dies 4 times in 8m")
    assert [(one.after, one.what) for one in found if one.what in ("dies", "start")] == [
        (120.0 * at, what) for at in range(4) for what in ("dies", "start")
    ]


def test_a_time_far_ahead(tmp_path: Path) -> None:
    """A clock of many years has no small fractions of a second."""
    for more, event in (("", f"{ID} dies 37 times in 100s"), (CHECK.format(""), "check:c fails")):
        spec = spec_of(tmp_path, "{}", more)
        now, later = (timeline(tmp_path, spec, event, ahead) for ahead in (0.0, 3.1e9))
        assert [one.what for one in now] == [one.what for one in later]
        assert all(abs(a.after - b.after) < 0.5 for a, b in zip(now, later, strict=True))


def test_what_is_paused_is_left_until_that_is_over(tmp_path: Path) -> None:
    from reconciler.host.clock import Clock
    from reconciler.state.store import Store

    spec = spec_of(tmp_path, "{}")
    store = Store(str(tmp_path / "state/demo"), Clock(), True)
    store.pauses.pause(ID, "new disk", Clock().wall() + 400, "me")
    store.close()
    before = (tmp_path / "state/demo/store.db").read_bytes()
    dies, left, start = timeline(tmp_path, spec, f"{ID} dies")
    assert (dies.what, left.what, start.what) == ("dies", "left alone", "start")
    assert "paused: new disk (by me)" in left.words
    assert 400 <= start.after < 400 + spec.loop_every + 1
    assert (tmp_path / "state/demo/store.db").read_bytes() == before


CHECK = (
    "checks: {{c: {{command: 'false', every: 10s, failures: 3, on_failure: ['restart process:w'{}]"
    "}}}}\n"
)


def test_a_check_that_fails(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "{}", CHECK.format(", run /bin/true"))
    found = timeline(tmp_path, spec, "check:c fails for 70s")
    assert [(one.after, one.what, one.id) for one in found][:4] == [
        (0.0, "fails", "check:c"), (20.0, "fails", "check:c"), (20.0, "restart", "process:w"),
        (20.0, "run", "check:c"),
    ]  # fmt: skip
    assert sum(one.what == "restart" for one in found) == 2
    assert (found[-1].what, found[-1].after) == ("well", 70.0)


def test_messages_wait_for_the_end_of_the_night(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = tmp_path / "url"
    url.write_text("json://127.0.0.1:9/\n")
    url.chmod(0o600)
    hour = time.localtime().tm_hour
    quiet = f"{hour:02}:00-{(hour + 2) % 24:02}:00"
    notify = f"notify: {{targets: {{ops: {{url_file: {url}}}}}, quiet: '{quiet}'}}\n"
    spec = spec_of(tmp_path, "{attempts: 2, retry_every: 10m, healthy_after: 60s}", notify)
    found = timeline(tmp_path, spec, f"{ID} dies 3 times")
    held = [one for one in found if one.what == "held"]
    assert "process:w had ended; started again" in held[0].words
    assert "exited right after start" in held[1].words
    assert f"held for ops until {(hour + 2) % 24:02}:00" in held[0].words
    # What was given up is told at any hour.
    told = [one.words for one in found if one.what == "told"]
    assert "gave up after 2 failed starts" in told[0]
    assert told[-1].startswith("told ops: 3 messages since ")


def test_what_stays_wrong_is_not_told_for_ever(tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text("json://127.0.0.1:9/\n")
    url.chmod(0o600)
    notify = f"notify: {{targets: {{ops: {{url_file: {url}}}}}, remind_every: 1h}}\n"
    spec = spec_of(tmp_path, "{when: never}", notify)
    found = timeline(tmp_path, spec, f"{ID} dies")
    assert [one.what for one in found] == ["dies", "fails", "told", "told", "told", "and so on"]
    assert not any(one.what == "start" for one in found)


def test_what_flaps_is_summed_up_and_then_over(tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text("json://127.0.0.1:9/\n")
    url.chmod(0o600)
    notify = f"notify: {{targets: {{ops: {{url_file: {url}, on: [changed]}}}}}}\n"
    check = "checks: {c: {command: 'false', every: 5m, on_failure: [run /bin/true]}}\n"
    found = timeline(tmp_path, spec_of(tmp_path, "{}", check + notify), "check:c fails for 110m")
    assert sum(one.what == "run" for one in found) == 22
    told = [one for one in found if one.what == "told"]
    assert "from now on there is one summary an hour" in told[5].words
    assert "changed 7 more times" in told[6].words and told[6].after >= 3600
    # Nothing else happens by then.
    assert found[-1].what == "told" and 7200 <= found[-1].after <= 7200 + 30


def test_only_a_part(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "{}")
    both = replace(spec, resources=(*spec.resources, replace(spec.resources[0], id="process:v")))
    found = timeline(tmp_path, both, "process:v dies 2 times")
    assert {one.id for one in found} == {"process:v"}
