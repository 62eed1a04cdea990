"""Asks what runs and is not ready yet, each in a child, until it is ready or late.

It must not plan or act, and only ``wait`` waits: a part of the loop, or the end of a step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.core.kind import GetKind, Probed, Readied
from reconciler.core.model import Resource
from reconciler.host.child import Child
from reconciler.host.clock import Clock
from reconciler.host.progress import BEAT, readable, working

if TYPE_CHECKING:
    from reconciler.host import Host

_PAUSE = 0.1
"""Seconds between two questions at first; each pause is longer by a half, up to the next."""
_LONGEST = 2.0
_ASKING = 10.0
"""Seconds for an answer, at most."""


@dataclass(slots=True, eq=False)
class _Question:
    """Something that is asked: the state that was seen of it, and when the next question is due."""

    resource: Resource[Any]
    have: Any
    at: float
    pause: float
    late: bool
    child: Child | None


class Readiness:
    """A part of the loop."""

    def __init__(
        self,
        clock: Clock,
        get_kind: GetKind,
        host: Callable[[], Host],
    ) -> None:
        self._clock = clock
        self._get_kind = get_kind
        self._host = host
        self._asked: dict[str, _Question] = {}
        self.words: dict[str, str] = {}
        """What was said last of those that are not ready, by id."""

    def take(self, seen: Sequence[tuple[Resource[Any], Any]]) -> None:
        """So these were seen last: those of them that are not ready are asked from now on."""
        for resource, have in seen:
            kind = self._get_kind(resource.kind)
            assert isinstance(kind, Readied)
            before = self._asked.get(resource.id)
            ones = kind.unready(have) if have is not None else ()
            same = before is not None and before.resource.want == resource.want
            if before is not None and same and ones and kind.unready(before.have) == ones:
                continue
            self._drop(resource.id)
            if ones:
                now = self._clock.monotonic()
                self._asked[resource.id] = _Question(resource, have, now, _PAUSE, False, None)

    def asks(self, ident: str) -> bool:
        """Is it not ready yet?"""
        return ident in self._asked

    def only(self, ids: Collection[str]) -> None:
        """Nothing else is declared any more."""
        for ident in self._asked.keys() - set(ids):
            self._drop(ident)

    def _drop(self, ident: str) -> None:
        one = self._asked.pop(ident, None)
        self.words.pop(ident, None)
        if one is not None and one.child is not None:
            one.child.kill()

    def descriptors(self) -> Collection[int]:
        """One for each question that is under way."""
        return [one.child.descriptor for one in self._asked.values() if one.child is not None]

    def due(self) -> float | None:
        """Seconds until the next question, or until one has had its time."""
        now = self._clock.monotonic()
        times = (
            one.child.left if one.child is not None else max(0.0, one.at - now)
            for one in self._asked.values()
        )
        return min(times, default=None)

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Take the answers, and ask what is due; the ids that have become ready, or late."""
        found = set()
        for ident, one in list(self._asked.items()):
            if one.child is not None and self._answered(one):
                found.add(ident)
            if ident in self._asked and one.child is None and one.at <= self._clock.monotonic():
                kind = self._get_kind(one.resource.kind)
                assert isinstance(kind, Readied)
                work = partial(_ask, kind, one.resource, one.have, self._host)
                try:
                    one.child = Child(work, _ASKING)
                except OSError:
                    self._rest(one)
        return found

    def _rest(self, one: _Question) -> None:
        one.at = self._clock.monotonic() + one.pause
        one.pause = min(one.pause * 1.5, _LONGEST)

    def _answered(self, one: _Question) -> bool:
        """Has it become ready, or late?"""
        assert one.child is not None
        resource, host = one.resource, self._host()
        kind = self._get_kind(resource.kind)
        assert isinstance(kind, Readied)
        ones = kind.unready(one.have)
        try:
            answer = one.child.collect()
            if answer is None:
                return False
            verdicts: Mapping[str, tuple[bool, str]] = json.loads(answer)
        except UnknownState as error:
            verdicts = {each.text: (False, str(error)) for each in ones}
        one.child = None
        self._rest(one)
        wrong = [words for ok, words in verdicts.values() if not ok]
        longest = kind.readiness(resource.want) or 0.0
        news = not wrong
        try:
            for each in ones:
                ok, _ = verdicts.get(each.text, (False, ""))
                late = not ok and host.processes.age(each) >= longest
                if ok or (late and not one.late):
                    kind.note_ready(resource, each, ok, host)
                news = news or (late and not one.late)
        except HostError as error:
            wrong.append(str(error))
        if wrong:
            self.words[resource.id] = "; ".join(dict.fromkeys(wrong))
            one.late = one.late or news
        else:
            self._drop(resource.id)
        return news

    def close(self) -> None:
        """Ask nothing any more."""
        for ident in list(self._asked):
            self._drop(ident)

    def wait(self) -> None:
        """Until all are ready, late, or have ended."""
        with working("wait until all is ready", len(self._asked)) as work:
            total = len(self._asked)
            while True:
                self.tend(())
                for ident, one in list(self._asked.items()):
                    kind = self._get_kind(one.resource.kind)
                    assert isinstance(kind, Readied)
                    alive = map(self._host().processes.alive, kind.unready(one.have))
                    if one.late or not all(alive):
                        if one.child is not None:
                            one.child.kill()
                        del self._asked[ident]
                work.advance(total - len(self._asked) - work.done)
                if not self._asked:
                    return
                readable(self.descriptors(), min(self.due() or 0.0, BEAT, _PAUSE))


def waiting(resources: Sequence[Resource[Any]], get_kind: GetKind) -> Mapping[str, Collection[str]]:
    """By the id of each that is asked, what needs it, also through others."""
    behind: dict[str, list[str]] = {}
    for one in resources:
        for need in one.needs:
            behind.setdefault(need, []).append(one.id)
    found = {}
    for one in resources:
        kind = get_kind(one.kind)
        asked = isinstance(kind, Readied) and kind.readiness(one.want) is not None
        if one.id in behind and (asked or isinstance(kind, Probed)):
            ids, todo = set(), [one.id]
            while todo:
                more = [ident for ident in behind.get(todo.pop(), ()) if ident not in ids]
                ids.update(more)
                todo += more
            found[one.id] = ids
    return found


def _ask(kind: Readied, resource: Resource[Any], have: Any, host: Callable[[], Host]) -> bytes:
    """The child's side."""
    found = kind.ask_ready(resource, have, host())
    return json.dumps({one.text: (each.ok, each.words) for one, each in found.items()}).encode()
