"""What people are told: one message for each transition of a resource. Pure.

It must not know who is told, nor look at a clock: what has become of what, and in which words.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from reconciler.base.records import dataclass, replace
from reconciler.base.text import shortened
from reconciler.core.messages import EXITED, RATE, Message, Sent, Trouble, moment
from reconciler.core.model import EVENTS, Outcome, Plan

_MOST = 5
"""Messages of one event in one pass; more are put together into one."""
_LINES = 40
_LONGEST = 2000
"""Characters of one line of a message."""
FLAPPING = "flapping"
"""Stands for the events of a change of health: a thing fails, recovers, or has ended and was
started at once."""
_OF_HEALTH = frozenset(("failed", "recovered"))
_DONE = {
    "create": "created", "update": "updated", "delete": "deleted", "start": "started",
    "restart": "restarted", "stop": "stopped",
}  # fmt: skip
_NO_EFFECT = "no effect: "
_NEXT = ", next in "
_HOLD = re.compile(r"(?:^|; )(\d+ failed starts?,.*|gave up after .*|not started again: .*)")
"""What ``state.restarts`` says of failed starts, behind what is wrong."""
_STARTS = re.compile(r"has \d+ failed starts?|gave up after |not started again")
"""How the reason begins where starts have failed before."""
_START_FAILED = re.compile(rf"(could not be|{EXITED}).*", re.DOTALL)
REMINDER = "reminder"
"""The event of what was told before, and is told again."""


@dataclass(frozen=True, slots=True)
class News:
    """What a pass has brought.

    ``scope``: the ids that it has looked at. ``gone`` are those that nobody wants any more, and
    ``unproven`` those that were started anew and may yet end again.
    """

    plan: Plan
    outcomes: Sequence[Outcome]
    scope: Collection[str]
    gone: Collection[str]
    unproven: Collection[str]


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

    def through(self, event: str, lines: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Of these lines, each about a thing, those that go out by themselves."""
        sort = FLAPPING if event in _OF_HEALTH else event
        for ident, line in lines:
            if event in self._heard and self._counted(sort, ident, line):
                yield line

    def started(self, ident: str, line: str) -> None:
        """It had ended, and was started at once, which is told only where it goes on so."""
        if _OF_HEALTH.intersection(self._heard):
            self._counted(FLAPPING, ident, line)

    def _counted(self, sort: str, ident: str, line: str) -> bool:
        """Count it; does it go out by itself?"""
        self.changed = True
        one = self.sent.get((sort, ident), Sent(0, 0, self._wall))
        if one.flaps:
            self.sent[sort, ident] = replace(one, held=one.held + 1)
            return False
        self.sent[sort, ident] = one = replace(one, count=one.count + 1)
        if one.flaps:
            since = f"since {moment(one.wall)}"
            words = f"{ident} is flapping: {RATE} changes {since}, the last one: {line}"
            if sort != FLAPPING:
                words = f"{line}; {RATE} such messages {since}"
            end = "from now on there is one summary an hour"
            self._begun.append(_flapping(sort, f"{words}; {end}", True))
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
                words = f"{ident} is still flapping: {one.held} more changes {since}; {state}"
                if sort != FLAPPING:
                    words = f"{ident}: {sort} {one.held} more times {since}; {state}"
                yield _flapping(sort, words, True)
                continue
            del self.sent[sort, ident]
            if sort == FLAPPING:
                yield _flapping(sort, f"{ident} stopped flapping; {state}", ident in now)


def _flapping(sort: str, words: str, wrong: bool) -> Message:
    event = ("failed" if wrong else "recovered") if sort == FLAPPING else sort
    return Message(event, shortened(words, _LONGEST))


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
    found: dict[str, list[tuple[str, str]]] = {event: [] for event in EVENTS}
    for outcome in news.outcomes:
        verb = _DONE.get(outcome.step.verb, outcome.step.verb)
        became = {"done": f"was {verb}", "begun": f"is being {verb}"}.get(outcome.result)
        if became is not None:
            words = blot(f"{outcome.step.id} {became}: {outcome.step.why}")
            found["changed"].append((outcome.step.id, words))
    now = dict(known)
    wrong = {
        ident: (event, shortened(blot(reason), _LONGEST), blot(more))
        for ident, (event, reason, more) in _wrong(news)
    }
    for ident, about in wrong.items():
        event, words, now[ident] = _entered(known.get(ident), about, wall)
        if words:
            found[event].append((ident, f"{ident} {words}"))
    for ident in _well(known, news, wrong):
        since = moment(known[ident].wall)
        words = f"{ident} recovered; it was unhealthy since {since}"
        found["recovered"].append((ident, words))
        del now[ident]
    for ident in news.gone:
        if ident in now and ident not in wrong:
            words = f"{ident} is no longer declared"
            found["recovered"].append((ident, words))
            del now[ident]
    for outcome in news.outcomes:
        ident = outcome.step.id
        anew = outcome.step.verb == "start" or outcome.step.demanded
        # What does not stay up is told as wrong.
        told = ident in known or ident in wrong or ident in news.unproven
        if outcome.result == "done" and anew and not told:
            meter.started(ident, blot(f"{ident} was started: {outcome.step.why}"))
    messages = [
        message
        for event, lines in found.items()
        for message in _put_together(event, list(meter.through(event, lines)))
    ]
    messages += meter.summaries(now)
    if remind_every is not None:
        messages += _reminders(now, remind_every)
    return messages, now


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


def _reminders(now: dict[str, Trouble], every: float) -> Iterator[Message]:
    """What was told long ago and is told again, which is noted in ``now``."""
    due = {i: one for i, one in now.items() if one.told is not None and one.told >= every}
    for event in ("gave_up", "failed"):
        lines = [
            f"{ident} is still unhealthy, since {moment(one.wall)}: it {one.reason}"
            for ident, one in due.items()
            if one.event == event
        ]
        for message in _put_together(event, lines):
            yield Message(REMINDER, message.body, event)
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
        words = hold[1] if hold is not None else remark.reason
        starts, next_, time = words.partition(_NEXT)
        if remark.id in plan.given_up:
            last = failed.get(remark.id)
            more = f"{next_}{time}" + (f"; the last one {last}" if last else "")
            yield remark.id, ("gave_up", starts, more)
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


def _put_together(event: str, lines: Sequence[str]) -> Iterator[Message]:
    """A message each, or one for all where there are many."""
    if len(lines) <= _MOST:
        yield from (Message(event, shortened(line, _LONGEST)) for line in lines)
        return
    words = {"changed": "changes", "recovered": "recovered", "progress": "failed again"}
    yield Message(event, listing(f"{len(lines)} {words.get(event, 'are unhealthy')}:", lines))


def listing(first: str, lines: Iterable[str]) -> str:
    """Many lines as one text, with ``first`` above them."""
    every = list(lines)
    shown = [f"- {shortened(line, _LONGEST)}" for line in every[:_LINES]]
    more = [f"- and {len(every) - _LINES} more"] if len(every) > _LINES else []
    return "\n".join([first, *shown, *more])


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
