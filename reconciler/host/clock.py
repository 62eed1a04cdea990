"""Time: intervals by the monotonic clock of this boot, wall time for file ages and for people.

It must not correct any clock. Whether the wall clock can be believed is known from one line in the
state directory: what goes by the age of files must not trust one that leapt.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache

from reconciler.base.digests import blake2b
from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass
from reconciler.host.trust import own_bytes


@cache
def boot_id() -> str:
    """The kernel's name for this boot, proc(5). We do not outlive it."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


class Clock:
    """The host's clocks; a test hands in another one."""

    def monotonic(self) -> float:
        """Seconds since some moment; never jumps."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch; may jump."""
        return time.time()

    def since_boot(self) -> float:
        """Seconds since this boot, in which the machine may have slept."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds; whoever waits for us sees each second that we live."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))

    ahead = 0.0
    """Seconds by which it is ahead of the host's, in a rehearsal."""


_spoken = [Clock()]


def speak_by(clock: Clock) -> None:
    """Words about time to come go by that clock from now on."""
    _spoken[0] = clock


def spoken() -> float:
    """The time of this call, in seconds since the epoch, for words that nothing goes by."""
    return _spoken[0].wall()


_IN_A_SECOND = 1024
"""Steps of a clock that is rehearsed on."""


class LaterClock(Clock):
    """The host's clocks as they will stand in so many seconds."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    def wall(self) -> float:
        return super().wall() + self.ahead

    def since_boot(self) -> float:
        return super().since_boot() + self.ahead

    def skip(self, seconds: float) -> None:
        """So many seconds have passed."""
        self.ahead += max(0.0, seconds)


class RehearsedClock(LaterClock):
    """One that stands still, but for what is skipped.

    It goes on in steps that floats hold exactly, so that no time is missed by a rounding.
    """

    def __init__(self, ahead: float) -> None:
        super().__init__(-(-ahead // 1))
        now = Clock()
        self._stands = now.monotonic() // 1, now.wall() // 1, now.since_boot() // 1

    def skip(self, seconds: float) -> None:
        super().skip(seconds)
        self.ahead = -(-self.ahead * _IN_A_SECOND // 1) / _IN_A_SECOND

    def monotonic(self) -> float:
        return self._stands[0] + self.ahead

    def wall(self) -> float:
        return self._stands[1] + self.ahead

    def since_boot(self) -> float:
        return self._stands[2] + self.ahead

    def sleep(self, seconds: float) -> None:
        self.skip(seconds)


_NAME = "clock"
_STEPS = "clock-steps"
_STEP = 2.0
"""Seconds by which wall time and running time may part without a step of the clock, or a sleep."""
_FAR = 3600.0
"""Seconds that the clock may be set ahead without being doubted; daylight saving is no setting."""
_EARLIEST = 1_600_000_000.0
"""In seconds since the epoch: a clock that stands earlier is one that was not set."""
_DOUBT = 24 * 3600.0
"""Seconds for which a clock that was set further ahead is doubted."""


@dataclass(frozen=True, slots=True)
class ClockRecord:
    """How the wall clock stood in this boot.

    ``offset`` is wall time minus time since boot, in seconds, as it is believed; ``ahead`` how
    far the clock was set ahead of it, and ``since`` when that was seen, in seconds since boot.
    ``gained`` is by how much it was set ahead in this boot and believed in the end.
    """

    offset: float
    ahead: float = 0.0
    since: float = 0.0
    gained: float = 0.0


class WallTime:
    """The wall clock, and how far it may be believed."""

    def __init__(self, folder: str, clock: Clock, remembers: bool = False) -> None:
        self._folder = folder
        self.remembers = remembers
        """May what is seen be written down? Only for one who holds the lock."""
        self._path = os.path.join(folder, _NAME)
        self._steps = os.path.join(folder, _STEPS)
        self._clock = clock
        self._boot = boot_id()

    def doubt(self) -> UnknownState | None:
        """Why it is not to be believed now; None when it is. Read only."""
        known = self._known()
        ahead = self._ahead(known)
        if known is None or ahead <= _FAR:
            return None
        left = _DOUBT
        if abs(known.ahead - ahead) <= _FAR:
            left -= self._clock.since_boot() - known.since
        if left <= 0:
            return None
        from reconciler.host.remedy import remedy

        return UnknownState(
            f"the clock was set {_long(ahead)} ahead, so the age of files is not trusted for the "
            f"next {_long(left)}; set it right, or accept it",
            remedy=remedy("rm", self._path),
        )

    @property
    def gained(self) -> float:
        """Seconds by which the clock was set ahead in this boot, as far as that was noticed."""
        known = self._known()
        return 0.0 if known is None else known.gained + max(0.0, self._ahead(known))

    def age(self, path: str, time: float) -> float:
        """Seconds since ``time``, that of the file ``path``, as far as they passed for what runs.

        After a step of the clock, or a sleep of the machine, an age begins again: nobody could
        write a file meanwhile. A time that lies ahead of the clock, as that of a file server may,
        has the age for which it was seen to be the same.
        """
        age = self._clock.wall() - time
        if age < -_STEP:
            return self._same_for(path, time)
        step, at = self._last_step()
        if step is not None and abs(self._steady() - step) > _STEP:
            at = self._clock.monotonic()
        return age if at is None else min(age, self._clock.monotonic() - at)

    def _same_for(self, path: str, time: float) -> float:
        """For how many seconds the time of a file, which is in the future, has not changed."""
        digest = blake2b(os.fsencode(path), digest_size=8).hexdigest()
        place = os.path.join(self._folder, f"ahead-{digest}")
        now, known = self._clock.monotonic(), [self._boot, f"{time:.6f}"]
        words = self._words(place)
        with suppress(ValueError):
            if words[:2] == known and len(words) == 3:
                return now - float(words[2])
        if self.remembers:
            self._put(place, f"{self._boot} {time:.6f} {now:.3f}\n")
        return 0.0

    def _steady(self) -> float:
        """Wall time minus running time, which only a step or a sleep changes."""
        return self._clock.wall() - self._clock.monotonic()

    def _last_step(self) -> tuple[float | None, float | None]:
        """How wall and running time stood when that was noted last, and when the clock was seen
        to have stepped, in running time."""
        try:
            boot, steady, at = self._words(self._steps)
            return (float(steady), None if at == "-" else float(at)) if boot == self._boot else _NO
        except ValueError:
            return _NO

    def note(self) -> None:
        """Remember how the clock stands, where that is new. Never raises for the host."""
        step, _ = self._last_step()
        if step is None or abs(self._steady() - step) > _STEP:
            at = "-" if step is None else f"{self._clock.monotonic():.3f}"
            self._put(self._steps, f"{self._boot} {self._steady():.3f} {at}\n")
        known = self._known()
        ahead = self._ahead(known)
        since_boot = self._clock.since_boot()
        offset = self._clock.wall() - since_boot
        if known is None:
            now = ClockRecord(offset)
        elif ahead < -_FAR:
            now = ClockRecord(offset, gained=known.gained)
        elif ahead <= _FAR:
            if not known.ahead:
                return
            now = ClockRecord(known.offset, gained=known.gained)
        elif abs(known.ahead - ahead) > _FAR:
            now = ClockRecord(known.offset, ahead, since_boot, known.gained)
        elif since_boot - known.since >= _DOUBT:
            now = ClockRecord(offset, gained=known.gained + ahead)
        else:
            return
        if self._clock.wall() < _EARLIEST:
            return  # It was not set yet, since this machine has been switched on.
        numbers = f"{now.offset:.3f} {now.ahead:.3f} {now.since:.3f} {now.gained:.3f}"
        self._put(self._path, f"{self._boot} {numbers}\n")

    def _put(self, path: str, words: str) -> None:
        from reconciler.host.place import put_at

        with suppress(OSError, HostError):
            put_at(path, words.encode(), sync=False)

    def _ahead(self, known: ClockRecord | None) -> float:
        if known is None:
            return 0.0
        return self._clock.wall() - self._clock.since_boot() - known.offset

    def _known(self) -> ClockRecord | None:
        """What was noted in this boot."""
        try:
            boot, *numbers = self._words(self._path)
            offset, ahead, since, gained = map(float, numbers)
        except ValueError:
            return None
        return ClockRecord(offset, ahead, since, gained) if boot == self._boot else None

    def _words(self, path: str) -> list[str]:
        """The words of a file of ours; none when there is none."""
        return (own_bytes(path, 400) or b"").decode(errors="replace").split()


_NO = None, None


def _long(seconds: float) -> str:
    """A long time, for people."""
    for size, word in ((365.25 * 86400, "years"), (86400.0, "days"), (3600.0, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{max(1, round(seconds / 60))} minutes"
