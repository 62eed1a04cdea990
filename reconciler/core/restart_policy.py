"""When a process that keeps failing may be started again. No I/O: numbers in, numbers out.

The form is systemd's and Kubernetes' crash loop: pauses that grow, then an end to it, told once.
"""

from __future__ import annotations

from reconciler.base.records import dataclass

_MOST_DOUBLINGS = 1000


NEXT = ", next in "
"""Behind it stands the time until the next start, which is another one at each look."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why something must not be started now; ``final``: it was given up but for a slow retry."""

    words: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """All times in seconds. Failed starts count no more after ``healthy_after``."""

    attempts: int
    initial: float
    factor: float
    most: float
    healthy_after: float
    retry_every: float

    def pause(self, failed: int) -> float:
        """Seconds between the start of the last of ``failed`` attempts and the next one."""
        if failed <= 0:
            return 0.0
        if failed >= self.attempts:
            return self.retry_every
        try:
            return min(self.most, self.initial * self.factor ** min(failed - 1, _MOST_DOUBLINGS))
        except OverflowError:
            return self.most

    def left(self, failed: int, since: float | None) -> float:
        """Seconds until the next attempt may be made; 0 for now.

        ``since`` is the age of the last attempt, or None when it was made before this boot.
        """
        if since is None or since < 0:
            return 0.0
        return max(0.0, self.pause(failed) - since)

    def given_up(self, failed: int) -> bool:
        """Have so many attempts failed that only the slow retry is left?"""
        return failed >= self.attempts

    def is_reset(self, since: float | None) -> bool:
        """Has the last attempt stayed healthy for long enough? It is healthy now."""
        return since is not None and since >= self.healthy_after


def in_words(seconds: float) -> str:
    """A time to wait, for people: "4 s", "15 min", "2 h"."""
    for size, word in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {word}"
    return f"{max(1, round(seconds))} s"
