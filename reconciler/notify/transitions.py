"""What people are told: one message for each transition of a resource. Pure.

It must not know who is told, nor look at a clock: what has become of what, and in which words.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache

from reconciler.base.records import dataclass, field, replace
from reconciler.base.text import shortened
from reconciler.core.messages import EVENTS, EXITED, RATE, Message, Sent, Trouble, in_parts, moment
from reconciler.core.model import Outcome, Plan
from reconciler.core.restart_policy import NEXT

_MOST = 5
"""Messages of one event in one pass; more are put together into one."""
_LINES = 40
_LONGEST = 2000
"""Characters of one line of a message."""
FLAPPING = "flapping"
"""Stands for the events of a change of health: a thing fails, recovers, or has ended and was
started at once."""
_OF_HEALTH = frozenset(("failed", "recovered", "restarted"))
_DONE = {
    "create": "created", "update": "updated", "delete": "deleted", "start": "started",
    "restart": "restarted", "stop": "stopped",
}  # fmt: skip
_NO_EFFECT = "no effect: "
_HOLD = re.compile(r"(?:^|; )(\d+ failed starts?,.*|gave up after .*|not started again: .*)")
"""What ``state.restarts`` says of failed starts, behind what is wrong."""
_STARTS = re.compile(r"has \d+ failed starts?|gave up after |not started again")
"""How the reason begins where starts have failed before."""
_START_FAILED = re.compile(rf"(could not be|{EXITED}).*", re.DOTALL)
_NOTHING = "none is needed"
_STILL = "is still unhealthy"
_MANY = {"changed": "changes", "recovered": "recovered", "progress": "failed again"}
RESTARTED = "restarted"
"""Stands for what had ended and was started at once: told to those of _OF_RESTARTS, as failed."""
_OF_RESTARTS = ("failed", "changed")
REMINDER = "reminder"
"""The event of what was told before, and is told again."""


@dataclass(frozen=True, slots=True)
class News:
    """What a pass has brought.

    ``scope``: the ids that it has looked at. ``gone`` are those that nobody wants any more, and
    ``unproven`` those that were started anew and may yet end again. ``waits`` has, by id, the words
    about failed starts as of now, and ``ran`` since when those ran that had ended and were started,
    in seconds since the epoch. ``look`` gives the command that shows more.
    """

    plan: Plan
    outcomes: Sequence[Outcome]
    scope: Collection[str]
    gone: Collection[str]
    unproven: Collection[str]
    waits: Mapping[str, str] = field(default_factory=dict)
    ran: Mapping[str, float] = field(default_factory=dict)
    look: Callable[[], str] = lambda: "reconcile --diagnose"


@dataclass(frozen=True, slots=True)
class Line:
    """What is told of one thing: what is so, what is done about it, and what shows it."""

    id: str
    status: str
    action: str
    evidence: str = ""

    @property
    def body(self) -> str:
        """As a message of its own."""
        return in_parts(*(shortened(one, _LONGEST) for one in self._parts))

    @property
    def text(self) -> str:
        """As one line among others."""
        return shortened("; ".join(filter(None, self._parts)), _LONGEST)

    @property
    def _parts(self) -> tuple[str, str, str]:
        return self.status, self.action, self.evidence


class Meter:
    """Finds what flaps: of that, people are told so, then how often in each hour, and its end.

    Somebody else may be able to make a thing fail and recover as often as he likes. ``sent`` is
    by event, or FLAPPING, and id; ``heard`` are the events that anybody wants. ``sent`` and
    ``changed`` say afterwards what is to be remembered, and whether that is something else.
    """

    def __init__(
        self, sent: Mapping[tuple[str, str], Sent], wall: float, heard: Collection[str]
    ) -> None:
        self.sent = {key: one for key, one in sent.items() if one.flaps or not one.over}
        self.changed = len(self.sent) < len(sent)
        self._wall = wall
        self._heard = heard
        self._begun: list[Message] = []

    def through(self, event: str, lines: Iterable[Line]) -> Iterator[Line]:
        """Of these lines, those that go out by themselves."""
        sort = FLAPPING if event in _OF_HEALTH else event
        events = _OF_RESTARTS if event == RESTARTED else (event,)
        if any(one in self._heard for one in events):
            yield from (line for line in lines if self._counted(sort, line))

    def _counted(self, sort: str, line: Line) -> bool:
        """Count it; does it go out by itself?"""
        self.changed = True
        one = self.sent.get((sort, line.id), Sent(0, 0, self._wall))
        if one.flaps:
            self.sent[sort, line.id] = replace(one, held=one.held + 1)
            return False
        self.sent[sort, line.id] = one = replace(one, count=one.count + 1)
        if one.flaps:
            since = f"since {moment(one.wall)}"
            status, last = f"{line.id} is flapping: {RATE} changes {since}", "the last one: "
            if sort != FLAPPING:
                status, last = f"{line.id}: {RATE} messages about {sort} {since}", ""
            end = "from now on there is one summary an hour"
            self._begun.append(_flapping(sort, status, end, f"{last}{line.text}", True))
        return not one.flaps

    def summaries(self, now: Mapping[str, Trouble]) -> Iterator[Message]:
        """What flaps from now on, how often in the hour that is over, and its end.

        ``now`` is what is wrong now.
        """
        yield from self._begun
        for (sort, ident), one in list(self.sent.items()):
            if not one.flaps or not one.over:
                continue
            self.changed = True
            state = f"unhealthy now: it {now[ident].reason}" if ident in now else "healthy now"
            since = f"since {moment(one.wall)}"
            if one.held:
                self.sent[sort, ident] = Sent(one.count, 0, self._wall)
                words = f"{ident} is still flapping: {one.held} more changes {since}"
                if sort != FLAPPING:
                    words = f"{ident}: {sort} {one.held} more times {since}"
                yield _flapping(sort, words, "there is one summary an hour", state, True)
                continue
            del self.sent[sort, ident]
            if sort == FLAPPING:
                words = f"{ident} stopped flapping"
                yield _flapping(sort, words, "each change is told again", state, ident in now)


def _flapping(sort: str, status: str, action: str, evidence: str, wrong: bool) -> Message:
    event = ("failed" if wrong else "recovered") if sort == FLAPPING else sort
    return Message(event, in_parts(status, action, shortened(evidence, _LONGEST)))


def judge(
    known: Mapping[str, Trouble],
    news: News,
    wall: float,
    remind_every: float | None = None,
    blot: Callable[[str], str] = str,
    meter: Meter | None = None,
) -> tuple[list[Message], dict[str, Trouble]]:
    """The messages that are due, and all that is in trouble now.

    ``wall`` is the time now, in seconds since the epoch, and ``remind_every`` in seconds;
    ``blot`` takes out what nobody may see, and ``meter`` what is too much.
    """
    meter = meter or Meter({}, wall, EVENTS)
    found: dict[str, list[Line]] = {event: [] for event in (*EVENTS, RESTARTED)}
    turns: list[Line] = []
    now = dict(known)
    action_of = _actions(news)
    wrong = {
        ident: (event, shortened(blot(reason), _LONGEST), blot(more))
        for ident, (event, reason, more) in _wrong(news)
    }
    for outcome in news.outcomes:
        step = outcome.step
        verb = _DONE.get(step.verb, step.verb)
        action = {"done": verb, "begun": f"is being {verb}"}.get(outcome.result)
        if action is None:
            continue
        line = Line(step.id, blot(f"{step.id}: {step.why}"), action)
        # What does not stay up is told as wrong.
        well = outcome.result == "done" and step.id not in known.keys() | wrong.keys()
        if well and step.verb == "start" and step.id in news.ran:
            since = f"it was started last {moment(news.ran[step.id])}"
            # One of several may have ended.
            ended = " had ended" if step.why == "not running" else f": {step.why}"
            line = Line(step.id, blot(f"{step.id}{ended}"), "started again", since)
            found[RESTARTED].append(line)
            continue
        found["changed"].append(line)
        if well and step.id not in news.unproven and (step.verb == "start" or step.demanded):
            turns.append(line)
    for ident, about in wrong.items():
        event, words, now[ident] = _entered(known.get(ident), about, wall)
        if words:
            found[event].append(_line(ident, words, action_of(ident)))
    for ident in _well(known, news, wrong):
        since = f"it was unhealthy since {moment(known[ident].wall)}"
        found["recovered"].append(Line(ident, f"{ident} recovered", _NOTHING, since))
        del now[ident]
    for ident in news.gone:
        if ident in now and ident not in wrong:
            found["recovered"].append(Line(ident, f"{ident} is no longer declared", _NOTHING))
            del now[ident]
    messages = [
        message
        for event, lines in found.items()
        for message in _put_together(event, list(meter.through(event, lines)))
    ]
    # Counted, and told only where it goes on so.
    list(meter.through(RESTARTED, turns))
    messages += meter.summaries(now)
    if remind_every is not None:
        messages += _reminders(now, remind_every, action_of)
    return messages, now


def _line(ident: str, words: str, action: str, said: str = "") -> Line:
    """What is wrong with something: how, what is done about it, and the rest of the words.

    ``said`` goes before them, where that was told before.
    """
    head, *rest = words.split("; ")
    if said:
        head, rest = said, [f"it {head}", *rest]
    return Line(ident, f"{ident} {head}", action, "\n".join(rest))


def _actions(news: News) -> Callable[[str], str]:
    """Gives, for an id, what happens next to that which is wrong."""
    waits = {remark.id: remark.reason for remark in news.plan.held} | dict(news.waits)
    others = {remark.id: "asked again from time to time" for remark in news.plan.failing}
    others |= {remark.id: "left alone until it can be looked at" for remark in news.plan.unknown}
    for outcome in news.outcomes:
        step = outcome.step
        if outcome.result in ("done", "begun"):
            # What a check has asked for.
            others |= dict.fromkeys(step.demanded, f"{_DONE.get(step.verb, step.verb)} {step.id}")
    look = cache(news.look)

    def action_of(ident: str) -> str:
        starts, next_, wait = waits.get(ident, "").partition(NEXT)
        if next_:
            return f"starting it again in {wait}"
        does = "not started again" if starts else others.get(ident, "tried again by the next pass")
        return f"{does}; see: {look()}"

    return action_of


def _entered(
    before: Trouble | None, about: tuple[str, str, str], wall: float
) -> tuple[str, str, Trouble]:
    """What something that is wrong now calls for: an event, words or none, and what is known."""
    event, reason, more = about
    # How many starts have failed says less than how the last one did.
    found = _START_FAILED.search(before.reason) if before is not None else None
    last = found[0] if found is not None else ""
    kept = reason
    if last and _STARTS.match(reason):
        kept += f"; the last one {last}"
        more = more if "; the last one " in more else f"{more}; the last one {last}"
    if before is None:
        return event, f"{reason}{more}", Trouble(event, kept, wall)
    if event == "gave_up" and before.event != "gave_up":
        return event, f"{reason}{more}", Trouble(event, kept, before.wall)
    if kept == before.reason or _figureless(kept) == _figureless(last):
        return "", "", before
    new = _figureless(kept) != _figureless(before.reason) or reason.startswith("has ")
    words = f"{reason}{more}" if new else ""
    return "progress", words, Trouble(before.event, kept, before.wall, before.told)


def _reminders(
    now: dict[str, Trouble], every: float, action_of: Callable[[str], str]
) -> Iterator[Message]:
    """What was told long ago and is told again, which is noted in ``now``."""
    due = {i: one for i, one in now.items() if one.told is not None and one.told >= every}
    for event in ("gave_up", "failed"):
        lines = [
            _line(
                ident, one.reason, action_of(ident), f"is still unhealthy, since {moment(one.wall)}"
            )
            for ident, one in due.items()
            if one.event == event
        ]
        for message in _put_together(event, lines):
            yield Message(REMINDER, message.body, (event,))
    now.update((ident, Trouble(one.event, one.reason, one.wall)) for ident, one in due.items())


def _failure(outcome: Outcome) -> str:
    """Why a step has failed."""
    why = (outcome.error or outcome.step.why).removeprefix(_NO_EFFECT)
    if why.startswith(EXITED):
        return why
    return f"could not be {_DONE.get(outcome.step.verb, outcome.step.verb)}: {why}"


def _wrong(news: News) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """By id: what is wrong now, as event, words that go on after the id, and more of them.

    Only what differs from one pass to the next in the same trouble stands in the last.
    """
    plan = news.plan
    for remark in plan.unknown:
        yield remark.id, ("failed", f"cannot be looked at: {remark.reason}", "")
    for remark in plan.failing:
        yield remark.id, ("failed", f"is failing: {remark.reason}", "")
    failed = {one.step.id: _failure(one) for one in news.outcomes if one.result == "failed"}
    for ident, words in failed.items():
        yield ident, ("failed", words, "")
    for remark in plan.held:
        hold = _HOLD.search(remark.reason)
        why = remark.reason[: hold.start()] if hold is not None else ""
        starts = (hold[1] if hold is not None else remark.reason).partition(NEXT)[0]
        if remark.id in plan.given_up:
            last = failed.get(remark.id)
            yield remark.id, ("gave_up", starts, f"; the last one {last}" if last else "")
        elif remark.id not in failed:  # Why says more than how often.
            yield remark.id, ("failed", f"has {starts}", f" ({why})" if why else "")


def _well(known: Mapping[str, Trouble], news: News, wrong: Collection[str]) -> Iterator[str]:
    """What was in trouble, was looked at, and is as it should be, for good."""
    done = {one.step.id for one in news.outcomes if one.result == "done"}
    open_ = {step.id for step in news.plan.steps} - done
    open_ |= {remark.id for remark in news.plan.skipped}
    open_ |= {*wrong, *news.unproven, *news.gone}
    yield from (ident for ident in known if ident in news.scope and ident not in open_)


def _figureless(reason: str) -> str:
    """What goes on being wrong in the same way often has other figures in it, each time."""
    if not (reason.startswith("could not be ") or _STARTS.match(reason)):
        return reason.partition(":")[0]
    return re.sub(r"\d+", "0", reason)


def _put_together(event: str, lines: Sequence[Line]) -> Iterator[Message]:
    """A message each, or one for all where there are many."""
    about = _OF_RESTARTS if event == RESTARTED else ()
    event = "failed" if event == RESTARTED else event
    if len(lines) <= _MOST:
        yield from (Message(event, line.body, about) for line in lines)
        return
    words = "had ended" if about else _MANY.get(event, "are unhealthy")
    actions = {line.action for line in lines}
    action = actions.pop() if len(actions) == 1 else "as each line says"
    shown = [f"- {line.text}" for line in lines[:_LINES]]
    more = [f"- and {len(lines) - _LINES} more"] if len(lines) > _LINES else []
    body = in_parts(f"{len(lines)} {words}", action, "\n".join([*shown, *more]))
    yield Message(event, body, about)


def quiet_left(quiet: tuple[int, int] | None, wall: float) -> float | None:
    """Seconds until the quiet hours end, or None outside of them.

    ``quiet`` holds two times of the local day in minutes; they may go over midnight. The first
    minute is quiet, the last is not.
    """
    if quiet is None:
        return None
    begin, end = quiet
    local = time.localtime(wall)
    seconds = local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec + wall % 1
    length = (end - begin) % 1440 * 60
    if (seconds - begin * 60) % 86400 >= length:
        return None
    return float((end * 60 - seconds) % 86400)
