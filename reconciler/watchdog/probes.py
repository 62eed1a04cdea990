"""The probes of checks, beside the passes: which are due, each in a child, and what was said.

It must not plan or act, and it never waits: a probe that hangs delays no pass and no other probe.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass, replace
from reconciler.base.values import ProbeHistory, due_in
from reconciler.core.kind import GetKind, Probed, Rhythm
from reconciler.core.model import Resource
from reconciler.host.child import Child
from reconciler.host.clock import Clock
from reconciler.host.progress import BEAT, readable, working

if TYPE_CHECKING:
    from reconciler.host import Host

_MOST = 8
"""Probes at the same time, as long as there are no more users than that."""
_GRACE = 2.0
"""Seconds behind its own end after which a probe's child is killed."""
_SOON = 0.5
"""Seconds until what has only just been started is asked again."""
_EARLY = 0.1
"""Of its interval, by which what needs no program may be asked early, with others."""
_KEPT = 60.0
"""Seconds that a verdict like the last one may wait for being written."""


def places(numbers: Mapping[str, int]) -> dict[str, int]:
    """How many probes of each user may be under way, given how many each has. No I/O.

    Each has the same share of all places, and at least one; what one has no use for the others
    have. So however many of somebody's hang, they take no place of anybody else's.
    """
    found: dict[str, int] = {}
    left = _MOST
    for at, (user, number) in enumerate(sorted(numbers.items(), key=lambda pair: pair[1])):
        found[user] = min(number, max(1, left // (len(numbers) - at)))
        left -= found[user]
    return found


def heard(
    before: ProbeHistory | None, version: str, ok: bool, words: str, failures: int, wall: float
) -> ProbeHistory:
    """What is said of a check after one more verdict. No I/O.

    It is ``failing`` after so many ``failures`` in a row, and until it is well; before that it is
    ``shaky``. What was said of another version of it does not count.
    """
    if before is None or before.version != version:
        before = ProbeHistory(version, "", 0, 0, "", wall, wall)
    result, count, acted = "ok", 0, 0
    if not ok:
        count, acted = before.failures + 1, before.acted
        result = "failing" if before.result == "failing" or count >= failures else "shaky"
    since = before.since if result == before.result else wall
    return ProbeHistory(version, result, count, acted, words, since, wall, 0.0)


@dataclass(slots=True, eq=False)
class _Probe:
    """A child that asks these, one after the other."""

    child: Child
    ids: tuple[str, ...]
    begun: float


class ProbeScheduler:
    """A part of the loop: asks what is due, and keeps what was said.

    ``said`` is what was said last, by id, and shared with the passes. ``keep`` writes it down,
    and ``clean`` gives words without what nobody may see.
    """

    def __init__(
        self,
        clock: Clock,
        get_kind: GetKind,
        host: Callable[[], Host],
        said: dict[str, ProbeHistory],
        keep: Callable[[Mapping[str, ProbeHistory]], None],
        clean: Callable[[str], str],
        start: Callable[..., Child] | None = None,
    ) -> None:
        self._clock = clock
        self._child = start or Child
        self._get_kind = get_kind
        self._host = host
        self._said = said
        self._keep = keep
        self._clean = clean
        self._resources: dict[str, Resource[Any]] = {}
        self._rhythms: dict[str, tuple[Rhythm, str]] = {}
        self._broken: set[str] = set()
        self._muted: set[str] = set()
        self._needed: set[str] = set()
        """What others wait for, until it is well for the first time."""
        self._next: dict[str, float] = {}
        self._places: dict[str, int] = {}
        self._young: dict[str, tuple[float, float]] = {}
        """What was just started: until when only a good answer counts, and when to ask then."""
        self._patient = True
        self._running: dict[str, _Probe] = {}
        self._written: dict[str, float] = {}
        self.answered: set[str] = set()
        """Those that have had a verdict since this part began."""

    # -- what is asked

    def take(self, resources: Iterable[Resource[Any]]) -> None:
        """These are declared now; of them, those are asked that are to be probed."""
        wanted: dict[str, Resource[Any]] = {}
        rhythms: dict[str, tuple[Rhythm, str]] = {}
        every = list(resources)
        for resource in every:
            if not resource.present or resource.skip is not None:
                continue
            kind = self._get_kind(resource.kind)
            if isinstance(kind, Probed):
                wanted[resource.id] = resource
                rhythms[resource.id] = kind.rhythm(resource.want), kind.version(resource.want)
        for ident in self._rhythms.keys() | rhythms.keys():
            if self._rhythms.get(ident) != rhythms.get(ident):
                self._drop(ident)
        self._resources, self._rhythms = wanted, rhythms
        self._needed = {need for one in every for need in one.needs}
        numbers: dict[str, int] = {}
        for rhythm, _ in rhythms.values():
            numbers[rhythm.user] = numbers.get(rhythm.user, 0) + 1
        self._places = places(numbers)
        now, wall = self._clock.monotonic(), self._clock.wall()
        for ident, (rhythm, version) in rhythms.items():
            if ident not in self._next:
                left = due_in(self._said.get(ident), version, rhythm.every, wall)
                self._next[ident] = now + left

    def _drop(self, ident: str) -> None:
        self._next.pop(ident, None)
        self._stop(ident)

    def _stop(self, ident: str) -> bool:
        """End its probe, if one is under way; others of the same child are asked again."""
        probe = self._running.get(ident)
        if probe is None:
            return False
        probe.child.kill()
        for other in probe.ids:
            if self._running.pop(other, None) is not None and other != ident:
                self._next[other] = self._clock.monotonic()
        return True

    def passed(
        self, seen: Collection[str], broken: Collection[str], started: Collection[str]
    ) -> None:
        """A pass has looked at the ids ``seen``; of them, ``broken`` are not as declared.

        What needs a broken one is not asked. What was ``started`` has as long to come up as the
        check may take: until then only a good answer counts.
        """
        now = self._clock.monotonic()
        self._broken = self._broken.difference(seen).union(broken)
        for ident, resource in self._resources.items():
            if not {ident, *resource.needs}.intersection(started):
                continue
            rhythm, _ = self._rhythms[ident]
            self._young[ident] = now + rhythm.timeout, now + rhythm.every
            said = self._said.get(ident)
            if self._stop(ident) or (said is not None and said.result != "ok"):
                self._next[ident] = now + _SOON

    # -- a part of the loop

    def descriptors(self) -> Collection[int]:
        """One for each probe that is under way; readable once it has ended."""
        return {probe.child.descriptor for probe in self._running.values()}

    def due(self) -> float | None:
        """Seconds until something is to be asked, or a probe's time is over."""
        times = [probe.child.left for probe in self._running.values()]
        now, free = self._clock.monotonic(), self._free()
        times += [self._next[i] - now for i in self._waiting() if free[self._user(i)] > 0]
        return max(0.0, min(times)) if times else None

    def _user(self, ident: str) -> str:
        return self._rhythms[ident][0].user

    def _free(self) -> dict[str, int]:
        """How many more probes of each user may be begun now."""
        free = dict(self._places)
        for ident in self._running:
            free[self._user(ident)] -= not self._is_brief(ident)
        return free

    def _is_brief(self, ident: str) -> bool:
        resource = self._resources[ident]
        kind = self._get_kind(resource.kind)
        return isinstance(kind, Probed) and kind.is_brief(resource.want)

    def _waiting(self) -> list[str]:
        return [
            ident
            for ident, resource in self._resources.items()
            if ident not in self._running
            and ident not in self._muted
            and not self._broken.intersection((ident, *resource.needs))
        ]

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Collect what was said and ask what is due; the ids of which something else is said."""
        found: dict[str, ProbeHistory] = {}
        changed = set()
        for probe in dict.fromkeys(self._running.values()):
            verdicts = self._verdicts(probe)
            for ident, verdict in verdicts.items() if verdicts is not None else ():
                del self._running[ident]
                news = self._take(ident, probe.begun, *verdict)
                if news is not None:
                    found[ident] = self._said[ident]
                if news:
                    changed.add(ident)
        self._write(found, changed)
        self._start()
        return changed

    def _take(self, ident: str, begun: float, ok: bool, words: str) -> bool | None:
        """Take a verdict; is something to be done about it, or is it another one?

        None: it does not count, for what it is about has only just been started.
        """
        now = self._clock.monotonic()
        rhythm, version = self._rhythms[ident]
        self._next[ident] = begun + rhythm.every
        until, later = self._young.get(ident, (0.0, 0.0))
        if not ok and begun < until:
            soon = now + _SOON
            if soon < until or self._patient:
                self._next[ident] = soon if soon < until else later
                return None
        self.answered.add(ident)
        before = self._said.get(ident)
        wall = self._clock.wall()
        said = heard(before, version, ok, self._clean(words), rhythm.failures, wall)
        self._said[ident] = said = replace(said, seconds=now - begun)
        # What stays as it is may be due for something to be done about it.
        due = rhythm.acts and said.result == "failing" and said.failures >= rhythm.failures
        first = ident in self._needed and (before is None or before.version != version)
        return due or first or said.result != (before.result if before is not None else "ok")

    def _verdicts(self, probe: _Probe) -> dict[str, tuple[bool, str]] | None:
        import json

        why = "the probe gave no answer"
        answers: dict[str, tuple[bool, str]] = {}
        try:
            answer = probe.child.collect()
            if answer is None:
                return None
            answers = json.loads(answer)
        except UnknownState as error:
            why = str(error)
        except ValueError:
            pass
        silent = False, f"cannot be known: {why}"
        return {ident: answers.get(ident, silent) for ident in probe.ids if ident in self._running}

    def _write(self, found: Mapping[str, ProbeHistory], changed: Collection[str]) -> None:
        """What is said for the same reason again need not wait for the disk each time."""
        now = self._clock.monotonic()
        late = {i for i in found if now - self._written.get(i, -_KEPT) >= _KEPT}
        chosen = {ident: found[ident] for ident in found if ident in late or ident in changed}
        if chosen:
            self._keep(chosen)
            self._written.update(dict.fromkeys(chosen, now))

    def _start(self) -> None:
        now = self._clock.monotonic()
        free = self._free()
        waiting = self._waiting()
        due = sorted((self._next[ident], ident) for ident in waiting if self._next[ident] <= now)
        brief = False
        for _, ident in due:
            rhythm, _ = self._rhythms[ident]
            if self._is_brief(ident):
                brief = True
            elif free[rhythm.user] > 0:
                free[rhythm.user] -= 1
                self._begin((ident,), now)
        if brief:
            # Those that are due soon are asked by the same child.
            soon = [i for i in waiting if self._next[i] - now <= _EARLY * self._rhythms[i][0].every]
            self._begin(tuple(filter(self._is_brief, soon)), now)

    def _begin(self, ids: tuple[str, ...], now: float) -> None:
        resources = [self._resources[ident] for ident in ids]
        rhythms = [self._rhythms[ident][0] for ident in ids]
        work = partial(_probe, self._get_kind, resources, self._host, os.getpid())
        try:
            child = self._child(work, max(rhythm.timeout for rhythm in rhythms) + _GRACE)
        except (OSError, HostError):
            for ident, rhythm in zip(ids, rhythms, strict=True):
                self._next[ident] = now + rhythm.every  # No room for a child just now.
                self.answered.add(ident)
            return
        self._running |= dict.fromkeys(ids, _Probe(child, ids, now))

    def close(self) -> None:
        """End every probe that is under way."""
        for ident in list(self._running):
            self._drop(ident)

    # -- without a loop

    def to_ask(self) -> set[str]:
        """What is due now."""
        now = self._clock.monotonic()
        return {ident for ident in self._waiting() if self._next[ident] <= now}

    def ask(self, due: Collection[str]) -> Collection[str]:
        """Ask these, each once, and wait for what they say; the ids that have answered.

        It takes no longer than the probes may, for what was only just started twice as long.
        """
        self._patient = False
        self._muted |= self._rhythms.keys() - due
        self._ask_here(due)
        with working("ask the checks", len(due)) as work:
            while left := set(due) - self.answered:
                self.tend(())
                self._muted |= self.answered
                work.advance(len(due) - len(left) - work.done)
                readable(self.descriptors(), min(self.due() or 0.0, BEAT))
        return self.answered

    def _ask_here(self, due: Collection[str]) -> None:
        """Ask in this process what cannot hang: a child takes longer than most answers."""
        found: dict[str, ProbeHistory] = {}
        host = self._host()
        for ident in sorted(set(due).intersection(self._waiting())):
            resource = self._resources[ident]
            kind = self._get_kind(resource.kind)
            if isinstance(kind, Probed) and kind.is_brief(resource.want):
                begun = self._clock.monotonic()
                verdict = kind.probe(resource, host, None)
                if self._take(ident, begun, verdict.ok, verdict.words) is not None:
                    found[ident] = self._said[ident]
        self._write(found, found)


def _probe(
    get_kind: GetKind, resources: Iterable[Resource[Any]], host: Callable[[], Host], parent: int
) -> bytes:
    """The child's side."""
    import json

    answers = {}
    for resource in resources:
        kind = get_kind(resource.kind)
        assert isinstance(kind, Probed)
        verdict = kind.probe(resource, host(), parent)
        answers[resource.id] = verdict.ok, verdict.words
    return json.dumps(answers).encode()
