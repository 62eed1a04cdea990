"""What people are told: one message for each transition of a resource. Pure.

It must not know who is told, nor look at a clock: what has become of what, and in which words.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from reconciler.model import EVENTS, Outcome, Plan
from reconciler.records import dataclass, replace
from reconciler.redaction import shortened

_MOST = 5
"""Messages of one event in one pass; more are put together into one."""
_LINES = 40
_LONGEST = 2000
"""Characters of one line of a message."""
_RATE = 5
"""Messages of one event about one thing in an hour; more are held back."""
_HOUR = 3600.0
_DONE = {
    "create": "created", "update": "updated", "delete": "deleted", "start": "started",
    "restart": "restarted", "stop": "stopped",
}  # fmt: skip
_STILL = "still wrong after it was done: "
_TIMES = (" and is tried again in ", "; the next in ")


REMINDER = "reminder"
"""The event of what was told before, and is told again."""


@dataclass(frozen=True, slots=True)
class Message:
    """``event`` is one of model.EVENTS, or REMINDER: told to those who are told of ``about``."""

    event: str
    body: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that people were told is wrong: ``event`` is ``failed`` or ``gave_up``.

    ``wall`` is since when, in seconds since the epoch; ``told`` the seconds since they were told
    last, None when that was before this boot.
    """

    event: str
    reason: str
    wall: float
    told: float | None = 0.0


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


@dataclass(frozen=True, slots=True)
class Sent:
    """What went out of one event about one thing since ``wall``, and what was held back.

    ``wall`` is in seconds since the epoch, ``age`` the seconds since then, None: before this boot.
    """

    count: int
    held: int
    wall: float
    age: float | None = 0.0

    @property
    def over(self) -> bool:
        """Has its hour ended?"""
        return self.age is None or self.age >= _HOUR


class Meter:
    """Lets so many messages of one event about one thing through in an hour, and no more.

    Somebody else may be able to make a thing fail and recover as often as he likes. ``sent`` is
    by event and id; ``heard`` are the events that anybody wants. ``sent`` and ``changed`` say
    afterwards what is to be remembered, and whether that is something else.
    """

    def __init__(
        self, sent: Mapping[tuple[str, str], Sent], wall: float, heard: Collection[str]
    ) -> None:
        self.sent = {key: one for key, one in sent.items() if one.held or not one.over}
        self.changed = len(self.sent) < len(sent)
        self._wall = wall
        self._heard = heard

    def through(self, event: str, lines: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Of these lines, each about a thing, those that go out now."""
        for ident, line in lines:
            if event not in self._heard:
                continue
            self.changed = True
            one = self.sent.get((event, ident), Sent(0, 0, self._wall))
            if one.count >= _RATE:
                self.sent[event, ident] = replace(one, held=one.held + 1)
                continue
            self.sent[event, ident] = one = replace(one, count=one.count + 1)
            end = f" ({_RATE} of these since {moment(one.wall)}; more are held back for an hour)"
            yield line + end if one.count == _RATE else line

    def summaries(self, now: Mapping[str, Trouble]) -> Iterator[Message]:
        """What was held back and whose hour is over; ``now`` is what is wrong now."""
        held: dict[str, list[str]] = {}
        for (event, ident), one in self.sent.items():
            if one.held:
                held.setdefault(ident, []).append(event)
        for ident, events in held.items():
            those = [self.sent[event, ident] for event in events]
            if not all(one.over for one in those):
                continue
            number = sum(one.held for one in those)
            messages = "1 message" if number == 1 else f"{number} messages"
            words = f"{ident}: {messages} held back since {moment(min(o.wall for o in those))}; "
            words += (
                f"it is wrong now: it {now[ident].reason}" if ident in now else "it is well now"
            )
            yield Message(min(events, key=EVENTS.index), shortened(words, _LONGEST))
            self.changed = True
            self.sent = {key: one for key, one in self.sent.items() if key[1] != ident}


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
        words = f"{ident} is well again; it was wrong since {since}"
        found["recovered"].append((ident, words))
        del now[ident]
    for ident in news.gone:
        if ident in now and ident not in wrong:
            words = f"{ident} is not wanted any more, so it is not followed"
            found["recovered"].append((ident, words))
            del now[ident]
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
    # How often it was tried says less than what became of it the last time.
    _, could, error = before.reason.partition("could not be ") if before else ("", "", "")
    last = could + error
    kept = reason
    if last and reason.startswith("was "):
        kept += f"; the last one {last}"
        more = more if "; the last one " in more else f"{more}; the last one {last}"
    if before is None:
        return event, f"{reason}{more}", Trouble(event, kept, wall)
    if event == "gave_up" and before.event != "gave_up":
        return event, f"{reason}{more}", Trouble(event, kept, before.wall)
    if kept == before.reason or _figureless(kept) == _figureless(last):
        return "", "", before
    new = _figureless(kept) != _figureless(before.reason) or reason.startswith("was tried ")
    words = f"{reason}{more}" if new else ""
    return "progress", words, Trouble(before.event, kept, before.wall, before.told)


def _reminders(now: dict[str, Trouble], every: float) -> Iterator[Message]:
    """What was told long ago and is told again, which is noted in ``now``."""
    due = {i: one for i, one in now.items() if one.told is not None and one.told >= every}
    for event in ("gave_up", "failed"):
        lines = [
            f"{ident} is still wrong, since {moment(one.wall)}: it {one.reason}"
            for ident, one in due.items()
            if one.event == event
        ]
        for message in _put_together(event, lines):
            yield Message(REMINDER, message.body, event)
    now.update((ident, Trouble(one.event, one.reason, one.wall)) for ident, one in due.items())


def _wrong(news: News) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """By id: what is wrong now, as event, words that go on after the id, and more of them.

    Only what differs from one pass to the next in the same trouble stands in the last.
    """
    plan = news.plan
    for remark in plan.unknown:
        yield remark.id, ("failed", f"cannot be looked at: {remark.reason}", "")
    for remark in plan.failing:
        yield remark.id, ("failed", f"is failing: {remark.reason}", "")
    failed = {
        one.step.id: f"could not be {_DONE.get(one.step.verb, one.step.verb)}: "
        f"{(one.error or one.step.why).removeprefix(_STILL)}"
        for one in news.outcomes
        if one.result == "failed"
    }
    for ident, words in failed.items():
        yield ident, ("failed", words, "")
    for remark in plan.held:
        why, was, words = remark.reason.rpartition("; was ")
        tried = f"was {_without_time(words)}" if was else f"waits: {words}"
        if remark.id in plan.given_up:
            last = failed.get(remark.id)
            more = words[len(_without_time(words)) :] + (f"; the last one {last}" if last else "")
            yield remark.id, ("gave_up", tried, more)
        elif remark.id not in failed:  # Why says more than how often.
            yield remark.id, ("failed", tried, f" ({why})" if was else "")


def _well(known: Mapping[str, Trouble], news: News, wrong: Collection[str]) -> Iterator[str]:
    """What was in trouble, was looked at, and is as it should be, for good."""
    done = {one.step.id for one in news.outcomes if one.result == "done"}
    open_ = {step.id for step in news.plan.steps} - done
    open_ |= {remark.id for remark in news.plan.skipped}
    open_ |= {*wrong, *news.unproven, *news.gone}
    yield from (ident for ident in known if ident in news.scope and ident not in open_)


def _without_time(reason: str) -> str:
    """How long it still has to wait is different each time."""
    for word in _TIMES:
        reason = reason.partition(word)[0]
    return reason


def _figureless(reason: str) -> str:
    """What goes on being wrong in the same way often has other figures in it, each time."""
    if not reason.startswith(("could not be ", "was ")):
        return reason.partition(":")[0]
    return re.sub(r"\d+", "0", reason)


def moment(wall: float) -> str:
    """A time, in seconds since the epoch, as people of this place read it."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(wall))
    except (OverflowError, ValueError, OSError):
        return "some time ago"


def _put_together(event: str, lines: Sequence[str]) -> Iterator[Message]:
    """A message each, or one for all where there are many."""
    if len(lines) <= _MOST:
        yield from (Message(event, shortened(line, _LONGEST)) for line in lines)
        return
    words = {"changed": "changes", "recovered": "are well again", "progress": "were tried again"}
    yield Message(event, listing(f"{len(lines)} {words.get(event, 'are wrong')}:", lines))


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
