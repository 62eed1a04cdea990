"""Which messages a pass brings, in which words; what is held back at night, and what is kept.

Nothing here sends anything: deliveries are stand-ins that answer what they are told to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import replace
from reconciler.base.values import Notify, Secret, Target
from reconciler.core.messages import Message, Trouble, in_parts, moment
from reconciler.core.model import Outcome, Plan, Remark, Spec, Step
from reconciler.host.clock import Clock
from reconciler.notify.delivery import off
from reconciler.notify.outbox import tell
from reconciler.notify.sender import Sender
from reconciler.notify.transitions import News, judge, quiet_left
from reconciler.state.folder import quiet
from reconciler.state.store import Store, outbox
from reconciler.state.store.outbox import QueuedMessage, pause

ALL = ("changed", "failed", "gave_up", "recovered", "progress", "report")
WORKER = "process:worker"
SEE = "see: reconcile --diagnose"
NEXT = f"tried again by the next pass; {SEE}"
NONE = "none is needed"
STARTED = ("changed", "Status: process:worker: not running\nAction: started")


def step(ident: str = WORKER, verb: str = "start", why: str = "not running") -> Step:
    return Step(ident, verb, (), (), why, ())


def failed(error: str, ident: str = WORKER) -> Outcome:
    return Outcome(step(ident), "failed", error)


def news(
    outcomes: Sequence[Outcome] = (),
    scope: Sequence[str] = (WORKER,),
    gone: Sequence[str] = (),
    unproven: Sequence[str] = (),
    **plan: Any,
) -> News:
    plan = {key: value if key == "given_up" else tuple(Remark(*pair) for pair in value)
            for key, value in plan.items()}  # fmt: skip
    steps = tuple(one.step for one in outcomes)
    return News(Plan("demo", "/spec", "host", 1, steps, **plan), outcomes, scope, gone, unproven)


def held(words: str) -> tuple[tuple[str, str], ...]:
    return ((WORKER, f"not running; {words}"),)


def play(*passes: News, remind: float | None = None) -> list[list[tuple[str, str]]]:
    """What each pass brings, as (event, body); the first is at 12:00 UTC, one a minute."""
    known: Mapping[str, Trouble] = {}
    told = []
    for number, one in enumerate(passes):
        messages, known = judge(known, one, 43200.0 + 60 * number, remind)
        told.append([(message.event, message.body) for message in messages])
    return told


def test_from_the_first_death_to_the_mended_one() -> None:
    since = moment(43260.0)
    twice = "2 failed starts, next in "
    gave_up = "gave up after 10 failed starts, next in 15 min"
    last = "the last one could not be started: it ended with status 1"
    assert play(
        news([Outcome(step(), "done")]),
        news([failed("it ended with status 1")], unproven=[WORKER]),
        news(held=held(twice + "4 s")),
        news(held=held(twice + "3 s")),
        news([Outcome(step(), "done")], unproven=[WORKER]),
        news([failed("it ended with status 1")], unproven=[WORKER]),
        news(held=held(gave_up), given_up=(WORKER,)),
        news(held=held(gave_up), given_up=(WORKER,)),
        news([failed("it ended with status 1")], held=held(gave_up), given_up=(WORKER,)),
        news([Outcome(step(), "done")], unproven=[WORKER]),
        news(unproven=[WORKER]),
        news(scope=[]),
        news(),
        news(),
    ) == [
        [STARTED],
        [("failed", in_parts(f"{WORKER} could not be started: it ended with status 1", NEXT))],
        [("progress", in_parts(f"{WORKER} has 2 failed starts (not running)",
          "starting it again in 4 s", last))],
        [],
        [STARTED],
        [],
        [("gave_up", in_parts(f"{WORKER} gave up after 10 failed starts",
          "starting it again in 15 min", last))],
        [],
        [],
        [STARTED],
        [],
        [],
        [("recovered", in_parts(f"{WORKER} recovered", NONE, f"it was unhealthy since {since}"))],
        [],
    ]  # fmt: skip


def test_every_sort_of_trouble_is_told_once() -> None:
    ids = ("check:disk", "directory:d", "directory:e")
    wrong = news(
        [failed("read-only file system, 17 of 30", "directory:e")],
        scope=ids,
        unknown=[("directory:d", "it hangs")],
        failing=[("check:disk", "4 % free")],
    )
    again = news(
        [failed("read-only file system, 18 of 30", "directory:e")],
        scope=ids,
        unknown=[("directory:d", "it hangs")],
        failing=[("check:disk", "3 % free")],
    )
    first, second, third = play(wrong, again, news(scope=ids[:1]))
    assert first == [
        ("failed", in_parts("directory:d cannot be looked at: it hangs",
         f"left alone until it can be looked at; {SEE}")),
        ("failed", in_parts("check:disk is failing: 4 % free",
         f"asked again from time to time; {SEE}")),
        ("failed", in_parts(
         "directory:e could not be started: read-only file system, 17 of 30", NEXT)),
    ]  # fmt: skip
    assert second == []
    since = f"it was unhealthy since {moment(43200)}"
    assert third == [("recovered", in_parts("check:disk recovered", NONE, since))]


def test_what_is_behind_the_cause_is_the_evidence() -> None:
    ended = failed("exited right after start: killed by SIGKILL; no port; no port")
    waits = {WORKER: "1 failed start, next in 200 ms"}
    (((event, body),),) = play(replace(news([ended]), waits=waits))
    assert (event, body.splitlines()) == ("failed", [
        "Status: process:worker exited right after start: killed by SIGKILL",
        "Action: starting it again in 200 ms",
        "no port",
        "no port",
    ])  # fmt: skip


def test_what_a_check_has_asked_for_is_its_action() -> None:
    anew = replace(step(verb="restart", why="check:c: late"), demanded=("check:c",))
    failing = news([Outcome(anew, "done")], ("check:c", WORKER), failing=[("check:c", "late")])
    bodies = [body for event, body in play(failing)[0] if event == "failed"]
    assert bodies == [in_parts("check:c is failing: late", f"restarted {WORKER}; {SEE}")]


def test_what_had_ended_and_was_started_at_once_is_told_as_failed() -> None:
    """To those who take failed, and to those who take changed, but to nobody twice."""
    started = replace(news([Outcome(step(), "done")]), ran={WORKER: 43140.0})
    messages, now = judge({}, started, 43200.0)
    (message,) = messages
    assert now == {}, "it is healthy"
    assert message.body == in_parts(
        f"{WORKER} had ended", "started again", f"it was started last {moment(43140)}"
    )
    assert (message.event, message.about) == ("failed", ("failed", "changed"))
    two = news([Outcome(step(why="running is 2, should be 3"), "done")])
    ((message,), _) = judge({}, replace(two, ran={WORKER: 43140.0}), 43200.0)
    assert message.body.startswith(f"Status: {WORKER}: running is 2, should be 3\nAction: started ")
    ids = [f"process:p{number}" for number in range(7)]
    many = news([Outcome(step(ident), "done") for ident in ids], scope=ids)
    ((event, body),) = play(replace(many, ran=dict.fromkeys(ids, 43140.0)))[0]
    assert event == "failed"
    assert body.startswith("Status: 7 had ended\nAction: started again\n- process:p0 had ")
    # Such as the first start of all, the one after a reboot, and the one after a pause.
    assert play(news([Outcome(step(), "done")]))[0] == [STARTED]


@pytest.mark.parametrize(
    "later",
    [
        news(skipped=[(WORKER, "paused: x")]),
        news(skipped=[(WORKER, "needs directory:d")]),
        news([Outcome(step(), "skipped")]),
        news([Outcome(step(), "dropped", "the host has moved")]),
        news(scope=["directory:d"]),
    ],
)
def test_what_is_not_known_to_be_well_has_not_recovered(later: News) -> None:
    assert play(news(unknown=[(WORKER, "x")]), later)[1] == []


def test_what_nobody_wants_any_more() -> None:
    assert play(news(unknown=[(WORKER, "x")]), news(gone=[WORKER]), news())[1:] == [
        [("recovered", in_parts("process:worker is no longer declared", NONE))],
        [],
    ]


def test_a_restart_that_begins_with_a_stop() -> None:
    big = Outcome(step(verb="restart", why="uses 312 MiB, more than 256 MiB"), "begun")
    assert play(news([big]), news([Outcome(step(), "done")])) == [
        [("changed", in_parts(f"{WORKER}: {big.step.why}", "is being restarted"))],
        [STARTED],
    ]


def test_many_at_once_are_one_message() -> None:
    ids = [f"directory:d{number:02}" for number in range(50)]
    ((event, body),) = play(news(scope=ids, unknown=[(ident, "x") for ident in ids]))[0]
    lines = body.splitlines()
    action = f"left alone until it can be looked at; {SEE}"
    assert (event, *lines[:3]) == (
        "failed", "Status: 50 are unhealthy", f"Action: {action}",
        f"- directory:d00 cannot be looked at: x; {action}",
    )  # fmt: skip
    assert (len(lines), lines[-1]) == (43, "- and 10 more")


def test_reminders() -> None:
    known = {
        "a:a": Trouble("failed", "is failing: x", 43200.0, 3599.0),
        "b:b": Trouble("gave_up", "gave up after 3 failed starts", 43200.0, 3600.0),
        "c:c": Trouble("failed", "is failing: y", 43200.0, None),
    }
    messages, now = judge(known, news(scope=[]), 50000.0, 3600.0)
    assert messages == [
        Message("reminder", in_parts(f"b:b is still unhealthy, since {moment(43200)}", NEXT,
                "it gave up after 3 failed starts"), ("gave_up",))
    ]  # fmt: skip
    assert now == {**known, "b:b": Trouble("gave_up", "gave up after 3 failed starts", 43200.0)}
    assert judge(known, news(scope=[]), 50000.0)[0] == []


NIGHT = (22 * 60, 7 * 60)


@pytest.mark.parametrize(
    ("clock", "quiet", "left"),
    [
        ("21:59:59.9", NIGHT, None),
        ("22:00:00", NIGHT, 9 * 3600),
        ("23:59:59", NIGHT, 7 * 3600 + 1),
        ("00:00:00", NIGHT, 7 * 3600),
        ("06:59:59.5", NIGHT, 0.5),
        ("07:00:00", NIGHT, None),
        ("12:00:00", (12 * 60, 13 * 60), 3600),
        ("11:59:59", (12 * 60, 13 * 60), None),
        ("13:00:00", (12 * 60, 13 * 60), None),
        ("12:00:00", None, None),
    ],
)
def test_quiet_hours(clock: str, quiet: tuple[int, int] | None, left: float | None) -> None:
    assert quiet_left(quiet, at(clock)) == (None if left is None else pytest.approx(left))


def at(clock: str) -> float:
    """That time of a day, of this place."""
    whole, _, rest = clock.partition(".")
    day = time.strptime(f"2026-11-22 {whole}", "%Y-%m-%d %H:%M:%S")
    return time.mktime(day) + float(f"0.{rest or 0}")


# -- from the store to the targets


class Stub(Clock):
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.time = at("12:00:00")

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.time

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.time += seconds


ONE = b"1"
"""The answer of a delivery whose time is over behind its first message."""


class Sent:
    """A delivery that ends as ``answers`` says for its target."""

    def __init__(self, office: Office, target: str, bodies: Sequence[str]) -> None:
        self.office = office
        self.target = target
        self.bodies = bodies
        self.said = b""
        self.descriptor = -1
        self.begun = office.clock.now

    @property
    def left(self) -> float:
        return max(0.0, self.begun + 15 - self.office.clock.now)

    def collect(self) -> bytes | None:
        answer = self.office.answers.get(self.target, b"")
        if answer is None:
            return None
        taken = {b"": len(self.bodies), ONE: 1}.get(answer, 0)
        self.office.got += [(self.target, body) for body in self.bodies[:taken]]
        self.said = b"\n" * taken or answer + b"\n"
        return self.said

    def kill(self) -> None:
        pass


class Office:
    """A store, a sender over it, and what has arrived."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = str(folder / "demo")
        self.clock = Stub()
        self.answers: dict[str, bytes | None] = {}
        self.got: list[tuple[str, str]] = []
        self.children = 0
        self.told: list[str] = []
        self.store = Store(self.folder, self.clock, True)
        self.notify = Notify((Target("a", ALL, Secret.of("json://a")),))
        monkeypatch.setattr("reconciler.notify.sender.work", lambda *about: about)
        self.post = self.opened()

    def opened(self) -> Sender:
        """A sender as another process would make it."""

        def start(about: Any, timeout: float, lock: int) -> Any:
            target, letters, _ = about
            self.children += 1
            return Sent(self, target.name, [body for _, body, _ in letters])

        made = Sender(
            self.folder, lambda: self.store, self.clock, lambda text, _: self.told.append(text),
            start,
        )  # fmt: skip
        made.adopt(self.notify)
        made.woken()
        return made

    def take(self, **options: Any) -> None:
        """Other targets, or other times."""
        self.notify = Notify(**{"targets": self.notify.targets, **options})
        self.post.adopt(self.notify)
        self.post.woken()

    def queue(self, *bodies: str, event: str = "failed") -> None:
        """Messages for all targets."""
        letters = [(t.name, Message(event, body)) for t in self.notify.targets for body in bodies]
        with self.store.base.change() as base:
            self.store.outbox.add(base, "title", letters)
        self.post.woken()

    def run(self) -> list[tuple[str, str]]:
        """All that can be delivered now; what has arrived."""
        for _ in range(2500):
            self.post.tend([-1])
            if not self.post._busy or None in self.answers.values():
                break
        got, self.got = self.got, []
        return got


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    made = Office(tmp_path, monkeypatch)
    yield made
    made.store.close()


def rows(office: Office) -> list[QueuedMessage]:
    return [one for letters in office.store.outbox.waiting().values() for one in letters]


def test_a_target_that_fails_holds_up_only_itself(office: Office) -> None:
    office.take(targets=(*office.notify.targets, Target("b", ALL, Secret.of("json://b"))))
    office.answers["b"] = b"HTTP 500"
    office.queue("one", "two")
    assert office.run() == [("a", "one"), ("a", "two")]
    assert office.told == ["target b did not take a message: HTTP 500; retrying"]
    office.queue("three")
    assert office.run() == [("a", "three")]
    office.answers.clear()
    office.clock.later(9.9)
    assert office.run() == []
    assert office.post.due() == pytest.approx(0.1)
    office.clock.later(0.2)
    assert office.run() == [("b", "one"), ("b", "two"), ("b", "three")]
    assert office.told[1:] == ["target b takes messages again"]
    assert office.post.due() is None


def test_it_is_tried_less_and_less_often(office: Office) -> None:
    assert [pause(tries) for tries in (1, 2, 3, 4, 5, 6, 7, 5000)] == [
        10, 20, 40, 80, 160, 300, 300, 300,
    ]  # fmt: skip
    office.answers["a"] = b"no"
    office.queue("one")
    tried = []
    for _ in range(9000):
        before = rows(office)[0].tries
        office.run()
        if rows(office)[0].tries > before:
            tried.append(office.clock.now - 1000)
        if len(tried) == 4:
            break
        office.clock.later(1.0)
    assert tried == [0, 10, 30, 70]


def test_another_process_and_another_boot(office: Office) -> None:
    office.answers["a"] = b"no"
    office.queue("one", "two")
    office.run()
    office.answers.clear()
    office.post = office.opened()
    assert office.run() == [], "it waits for the rest of its time in another process too"
    office.store.base.boot = "another"
    office.clock.now = 3.0
    office.post = office.opened()
    assert office.run() == [("a", "one"), ("a", "two")]


def test_one_that_hangs_is_given_up_after_its_time(office: Office) -> None:
    office.answers["a"] = None
    office.queue("one")
    office.run()
    assert office.post.due() == pytest.approx(15.0)
    office.clock.later(15.0)
    office.answers["a"] = b"x"
    office.run()
    assert rows(office)[0].tries == 1


def test_one_that_hangs_holds_up_only_itself(office: Office) -> None:
    office.take(targets=(Target("slow", ALL, Secret.of("json://b")), *office.notify.targets))
    office.answers["slow"] = None
    office.queue("one", "two")
    for _ in range(3):
        office.post.tend([-1])
    assert office.got == [("a", "one"), ("a", "two")]


def test_the_night(office: Office) -> None:
    office.take(quiet=NIGHT)
    office.clock.time = at("21:59:50")
    office.answers["a"] = b"no"
    office.queue("before")
    office.run()
    office.answers.clear()
    office.clock.later(20.0)
    office.queue("one", "two")
    office.queue("three", event="gave_up")
    assert office.run() == [("a", "three")], "only what was given up passes"
    assert 0 < (office.post.due() or 0) <= 60
    office.clock.time = at("07:00:00") + 86400
    office.clock.now += 9 * 3600
    office.queue("four")
    found = office.run()
    day = moment(at("21:59:50"))
    lines = "- 21:59 before\n- 22:00 one\n- 22:00 two\n- 07:00 four"
    assert found == [("a", f"4 messages since {day}:\n{lines}")]


def test_a_single_message_of_the_night_is_no_digest(office: Office) -> None:
    office.take(quiet=NIGHT)
    office.clock.time = at("23:00:00")
    office.queue("one")
    assert office.run() == []
    office.clock.later(8 * 3600)
    assert office.run() == [("a", f"one ({moment(at('23:00:00'))})")]


def test_few_messages_are_one_child_s_work_and_many_are_one_message(office: Office) -> None:
    office.queue("1", "2", "3", "4", "5")
    assert office.run() == [("a", str(number)) for number in range(1, 6)]
    assert office.children == 1
    office.queue("1", "2", "3", "4", "5", "6")
    since = moment(office.clock.time)
    lines = "".join(f"\n- {since[-5:]} {number}" for number in range(1, 7))
    assert office.run() == [("a", f"6 messages since {since}:{lines}")]
    assert office.children == 2
    # The next one is not for people who are just reading that, but for this.
    office.queue("7")
    office.queue("8", event="gave_up")
    assert office.run() == [("a", "8")]
    assert office.post.due() == pytest.approx(10.0)
    office.clock.later(10.0)
    assert office.run() == [("a", f"7 ({since})")]
    assert office.post.due() is None


def test_what_was_overtaken_says_when_it_was_in_whichever_delivery(office: Office) -> None:
    then = moment(office.clock.time)
    office.queue("one", "two")
    office.queue("three", event="gave_up")
    office.queue("four")
    office.answers["a"] = ONE
    found = [body for _, body in office.run()]
    assert found == ["three", f"one ({then})", f"two ({then})", "four"]
    assert office.children == 4


def test_what_was_given_up_stays_behind_what_is_on_its_way(office: Office) -> None:
    office.answers["a"] = None
    office.queue("one")
    office.run()
    office.queue("two", event="gave_up")
    office.answers.clear()
    assert office.run() == [("a", "one"), ("a", "two")]


def test_a_storm_fills_no_queue_and_drops_nothing_that_was_given_up(office: Office) -> None:
    office.answers["a"] = b"no"
    since = moment(office.clock.time)
    for number in range(1000):
        office.clock.later(0.1)
        office.queue(f"m{number}", event="failed" if number % 2 else "recovered")
        if number % 400 == 0:
            office.queue(f"g{number}", event="gave_up")
        if number % 50 == 0:
            office.run()
        assert len(rows(office)) <= 2 * outbox.MOST
    office.answers.clear()
    office.children = 0
    office.clock.later(300.0)
    late = f" ({moment(office.clock.time - 400)})"
    found = [body for _, body in office.run()]
    assert office.children == 1
    assert [body.removesuffix(late)[:4] for body in found] == ["g0 (", "g400", "g800", "1000"]
    first, *lines = found[3].split("\n")
    assert first == f"1000 messages since {since}; the last 40:"
    assert [line.split()[2] for line in lines] == [f"m{number}" for number in range(960, 1000)]
    assert rows(office) == []


def test_what_may_be_on_its_way_is_not_told_again_in_a_digest(office: Office) -> None:
    """A child delivers the oldest, while a pass puts together what waits."""
    office.answers["a"] = None
    office.queue(*(f"m{number}" for number in range(5)))
    office.post.tend([-1])
    assert office.children == 1
    for number in range(5, 25):
        office.queue(f"m{number}")
    bodies = [one.body for one in rows(office)]
    assert bodies[:10] == [f"m{number}" for number in range(10)]
    assert bodies[10].startswith("11 messages since ")
    office.answers.clear()
    found = [body for _, body in office.run()]
    office.clock.later(10.0)
    text = "\n".join([*found, *(body for _, body in office.run())])
    assert [text.count(f"m{number}\n") for number in range(24)] == [1] * 24


def test_very_much_that_was_given_up_is_one_message_too(office: Office) -> None:
    office.answers["a"] = b"no"
    office.queue(*(f"g{number}" for number in range(outbox.MOST + 5)), event="gave_up")
    office.answers.clear()
    ((_, body),) = office.run()
    assert body.startswith("25 messages since ")
    assert body.endswith(" g24")


def test_much_that_was_given_up_is_told_by_more_than_one_child(office: Office) -> None:
    """Each has its time for some of it."""
    office.queue(*(f"g{number}" for number in range(15)), event="gave_up")
    assert [body for _, body in office.run()] == [f"g{number}" for number in range(15)]
    assert office.children == 2


def test_many_that_come_while_a_target_rests_do_not_wake_it(office: Office) -> None:
    office.answers["a"] = b"no"
    office.queue("0")
    office.run()
    office.answers.clear()
    office.queue(*(f"{number}" for number in range(1, outbox.MOST + 5)))
    assert office.run() == []
    office.clock.later(10.0)
    ((_, body),) = office.run()
    assert body.startswith("25 messages since ")


def test_what_is_overtaken_says_when_it_was_written(office: Office) -> None:
    """Or people would take what was over before for the end of it."""
    office.queue("recovered", event="recovered")
    office.queue("given up", event="gave_up")
    when = moment(office.clock.time)
    assert office.run() == [("a", "given up"), ("a", f"recovered ({when})")]


def test_a_digest_that_is_overtaken_says_the_times_of_its_lines_alone(office: Office) -> None:
    office.answers["a"] = b"no"
    office.queue("1", "2", "3", "4", "5", "6")
    office.run()
    office.queue("given up", event="gave_up")
    office.answers.clear()
    office.clock.later(10.0)
    urgent, (_, digest) = office.run()
    assert urgent == ("a", "given up")
    assert digest.startswith("6 messages since ")
    assert digest.endswith(" 6")


def test_a_delivery_that_ends_in_the_midst_of_it_tells_the_rest_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(sent: Sent) -> bytes | None:
        office.got += [(sent.target, body) for body in sent.bodies[:2]]
        sent.said = b"\n\n"
        raise UnknownState("a child ended without an answer (status -9)")

    with monkeypatch.context() as patch:
        patch.setattr(Sent, "collect", collect)
        office.queue("1", "2", "3", "4")
        assert office.run() == [("a", "1"), ("a", "2")]
    assert [one.body for one in rows(office)] == ["3", "4"]
    assert office.told == ["target a did not take a message: its delivery came to no end; retrying"]
    office.clock.later(10.0)
    assert office.run() == [("a", "3"), ("a", "4")]


def test_a_refusal_that_comes_before_the_end_of_its_child(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def collect(sent: Sent) -> bytes | None:
        nonlocal looks
        looks += 1
        sent.said = b"\nHTTP 500\n"
        return sent.said if looks > 1 else None

    monkeypatch.setattr(Sent, "collect", collect)
    office.queue("1", "2")
    for _ in range(9):
        office.post.tend([-1])
    assert looks == 2, "it is tried again after a pause only"
    assert [(one.body, one.left) for one in rows(office)] == [("2", 10.0)]


def test_what_has_arrived_is_known_before_the_rest_has(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a loop that is killed meanwhile tells only little of it twice."""

    def collect(sent: Sent) -> bytes | None:
        sent.said = b"\n"
        return None

    monkeypatch.setattr(Sent, "collect", collect)
    office.queue("1", "2")
    for _ in range(3):
        office.post.tend([-1])
    assert [one.body for one in rows(office)] == ["2"]


def test_what_has_arrived_is_not_sent_again_where_that_cannot_be_noted(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk is full."""

    def full(letters: Sequence[QueuedMessage]) -> None:
        raise HostError("the disk is full")

    office.queue("1", "2")
    with monkeypatch.context() as patch:
        patch.setattr(office.store.outbox, "taken", full)
        assert office.run() == [("a", "1"), ("a", "2")]
        office.clock.later(60.0)
        assert office.run() == []
    office.clock.later(60.0)
    assert office.run() == [] == rows(office)
    assert office.told == ["the disk is full; messages wait"]


def test_what_is_too_old_is_dropped_but_not_when_the_clock_jumps(office: Office) -> None:
    office.answers["a"] = b"no"
    office.queue("one")
    office.clock.time += 10 * 365 * 86400
    office.run()
    assert rows(office)[0].event == "failed"
    office.queue("two")
    with office.store.base.change() as base:
        base.execute("UPDATE outbox SET tries = 499, due = 0 WHERE tries > 0")
    office.post.woken()
    office.run()
    assert rows(office)[0].event == "dropped"
    office.answers.clear()
    office.clock.later(300.0)
    assert [body[:10] for _, body in office.run()] == ["1 message ", "two"]


def test_all_that_was_ever_dropped_is_counted_in_one_message(office: Office) -> None:
    office.answers["a"] = b"no"
    for body in ("one", "two", "three"):
        office.queue(body)
        office.run()
        office.clock.time += 10 * 365 * 86400
        with office.store.base.change() as base:
            base.execute("UPDATE outbox SET tries = 499, due = 0")
        office.post.woken()
        office.run()
    (said,) = rows(office)
    assert said.body.startswith("3 messages from ")


def test_a_target_that_is_gone_gets_nothing_any_more(office: Office) -> None:
    office.answers["a"] = b"no"
    office.queue("one")
    office.run()
    office.take(targets=(Target("b", ALL, Secret.of("json://b")),))
    assert rows(office) == []


def test_who_is_told_of_what(office: Office, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    spec = Spec("demo", "/spec", (), notify=Notify((
        Target("a", ("failed", "report"), Secret.of("json://a")),
        Target("b", ("recovered",), Secret.of("json://b")),
        Target("c", ("failed",), url_file=str(hook)),
    )))  # fmt: skip

    def queued(news: News, *reports: str) -> list[tuple[str, str, str]]:
        tell(spec, office.store, news, reports, lambda text: text.replace("hunter2", "***"))
        found = office.store.base.read("SELECT target, event, body FROM outbox ORDER BY seq")
        with office.store.base.change() as base:
            base.execute("DELETE FROM outbox")
        return found

    wrong = news(unknown=[(WORKER, "hunter2 hangs")])
    assert queued(wrong, "the spec is wrong") == [
        ("a", "report", "the spec is wrong"),
        ("a", "failed", in_parts("process:worker cannot be looked at: *** hangs",
         f"left alone until it can be looked at; {SEE}")),
    ]  # fmt: skip
    assert queued(wrong) == []
    hook.write_text("json://c")
    assert [(target, event) for target, event, _ in queued(news())] == [("b", "recovered")]
    assert [target for target, _, _ in queued(wrong)] == ["a", "c"]
    nobody = Spec("demo", "/spec", (), notify=Notify((Target("c", url_file="/nowhere"),)))
    tell(nobody, office.store, wrong, (), str)
    assert office.store.troubles.all() == {}, "nobody was told"


def test_two_passes_that_see_the_same_tell_it_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them writes it down while the other one is still thinking about it."""
    spec = Spec("demo", "/spec", (), notify=office.notify)
    wrong = news(failing=[("check:c", "x")], scope=("check:c",))
    other = Store(office.folder, office.clock, True)

    def slow(*about: Any) -> Any:
        monkeypatch.setattr("reconciler.notify.outbox.judge", judge)
        tell(spec, other, wrong, (), str)
        return judge(*about)

    monkeypatch.setattr("reconciler.notify.outbox.judge", slow)
    tell(spec, office.store, wrong, (), str)
    other.close()
    assert [one.body.split("\n")[0] for one in rows(office)] == ["Status: check:c is failing: x"]


class Hours:
    """What passes queue over hours, each as another process: what counts is in the store."""

    def __init__(self, office: Office, *on: str) -> None:
        self.office = office
        notify = Notify((Target("a", on, Secret.of("json://a")),))
        self.spec = Spec("demo", "/spec", (), notify=notify)

    def queued(self, news: News) -> list[tuple[str, str]]:
        store = Store(self.office.folder, self.office.clock, True)
        tell(self.spec, store, news, (), str)
        found = store.base.read("SELECT event, body FROM outbox ORDER BY seq")
        with store.base.change() as base:
            base.execute("DELETE FROM outbox")
        store.close()
        return found

    def turns(self, ident: str, number: int) -> list[tuple[str, str]]:
        """It fails and recovers by turns, once in ten seconds."""
        found = []
        for at in range(number):
            self.office.clock.later(10.0)
            wrong = news(failing=[(ident, f"x: try {at}")], scope=(ident,))
            found += self.queued(news(scope=(ident,)) if at % 2 else wrong)
        return found


def test_what_flaps_is_told_so_then_each_hour_and_at_its_end(office: Office) -> None:
    hours = Hours(office, "failed", "recovered")
    got = hours.turns("check:c", 30)
    assert [event for event, _ in got] == ["failed", "recovered"] * 2 + ["failed", "failed"]
    status, action, last = got[5][1].split("\n")
    assert status.startswith("Status: check:c is flapping: 6 changes since 2026-11-22 12:00")
    assert action == "Action: from now on there is one summary an hour"
    assert last.startswith("the last one: check:c recovered; ")
    # Somebody else's trouble is told all the same.
    ((event, words),) = hours.queued(news(failing=[("check:o", "y")], scope=("check:o",)))
    assert (event, words.split("\n")[0]) == ("failed", "Status: check:o is failing: y")
    assert not quiet(office.folder), "a quiet pass would never tell the rest"
    office.clock.later(3290.0)
    assert [event for event, _ in hours.queued(news(scope=("check:o",)))] == ["recovered"]
    office.clock.later(310.0)
    ((event, words),) = hours.queued(news(scope=()))
    assert event == "failed"
    assert words.startswith("Status: check:c is still flapping: 24 more changes since 2026-11-22 ")
    assert words.endswith("\nhealthy now")
    # It goes on, and stays wrong: nothing before the next hour is over.
    assert hours.turns("check:c", 5) == []
    office.clock.later(3590.0)
    ((_, words),) = hours.queued(news(scope=()))
    assert "5 more changes" in words and words.endswith("\nunhealthy now: it is failing: x: try 4")
    office.clock.later(3600.0)
    assert hours.queued(news(scope=())) == [
        ("failed", in_parts("check:c stopped flapping", "each change is told again",
         "unhealthy now: it is failing: x: try 4"))
    ]  # fmt: skip
    assert [event for event, _ in hours.queued(news(scope=("check:c",)))] == ["recovered"]
    assert hours.queued(news(scope=())) == []
    assert quiet(office.folder)


def test_five_turns_an_hour_are_told_one_by_one_for_ever(office: Office) -> None:
    hours = Hours(office, "failed", "recovered")
    for _ in range(3):
        got = hours.turns("check:c", 4)
        assert [event for event, _ in got] == ["failed", "recovered"] * 2
        office.clock.later(3600.0)


def test_what_crashes_after_it_was_well_again_and_again_flaps(office: Office) -> None:
    """Each time it is started at once: five messages, and then one that says so."""
    hours = Hours(office, "failed", "recovered")
    started = replace(news([Outcome(step(), "done")]), ran={WORKER: 0.0})
    got = []
    for _ in range(20):
        office.clock.later(61.0)
        got += hours.queued(started)
    assert [event for event, _ in got] == ["failed"] * 6
    assert got[4][1].startswith("Status: process:worker had ended\n")
    assert got[5][1].startswith("Status: process:worker is flapping: 6 changes since ")
    assert "process:worker had ended; started again" in got[5][1]
    # A restart that was asked for because of a change is none.
    changed = Outcome(step("process:other", "restart", "definition is older"), "done")
    for _ in range(20):
        office.clock.later(10.0)
        got += hours.queued(news([changed], scope=("process:other",)))
    assert len(got) == 6
    office.clock.later(3600.0)
    assert "still flapping: 14 more changes" in hours.queued(news())[0][1]
    office.clock.later(3600.0)
    assert hours.queued(news()) == [
        ("recovered", in_parts(f"{WORKER} stopped flapping", "each change is told again",
         "healthy now"))
    ]  # fmt: skip


def test_what_is_given_up_is_told_of_what_flaps_too(office: Office) -> None:
    hours = Hours(office, "failed", "gave_up", "recovered")
    hours.turns(WORKER, 10)
    words = "gave up after 3 failed starts, next in 5 min"
    ((event, body),) = hours.queued(news(held=held(words), given_up=(WORKER,)))
    assert event == "gave_up"
    assert body.startswith(f"Status: {WORKER} gave up after 3 failed starts\nAction: starting it ")


def test_other_messages_of_one_thing_have_a_bound_too(office: Office) -> None:
    hours = Hours(office, "changed")
    done = Outcome(step("directory:d", "create"), "done")
    got = []
    for _ in range(20):
        office.clock.later(10.0)
        got += hours.queued(news([done], scope=("directory:d",)))
    assert [event for event, _ in got] == ["changed"] * 6
    assert got[5][1].startswith("Status: directory:d: 6 messages about changed since")
    assert got[5][1].endswith("\ndirectory:d: not running; created")
    office.clock.later(3600.0)
    ((event, words),) = hours.queued(news(scope=()))
    assert event == "changed"
    assert words.startswith("Status: directory:d: changed 14 more times since ")
    office.clock.later(3600.0)
    assert hours.queued(news(scope=())) == []
    assert quiet(office.folder)


def test_when_a_target_is_off(tmp_path: Path, office: Office) -> None:
    hook = tmp_path / "hook"
    target = Target("a", ALL, url_file=str(hook))

    def why() -> str | None:
        return off(target)

    assert why() == f"{hook} is not there; write its URL into it to switch it on"
    hook.mkdir()
    assert why() == f"{hook} is not a regular file"
    hook.rmdir()
    os.mkfifo(hook)
    assert why() == f"{hook} is not a regular file"
    hook.unlink()
    hook.write_text("json://x")
    hook.chmod(0o602)
    assert "could be written to by others" in (why() or "")
    hook.chmod(0o600)
    assert why() is None
    assert off(Target("a", ALL, Secret.of(""))) == "its url is empty"
    hook.unlink()
    office.take(targets=(target,))
    office.post.woken()
    hook.write_text("json://x")
    office.post.woken()
    assert office.told == [
        f"target a is off: {hook} is not there; write its URL into it to switch it on",
        "target a is on",
    ]
