"""Can the wall clock be believed? What goes by the age of files must not trust one that leapt.

It must not correct any clock. What is known of the clock is one line in the state directory.
"""

from __future__ import annotations

import os
from contextlib import suppress

from reconciler.host.clock import Clock
from reconciler.host.processes import boot_id
from reconciler.host.remedy import remedy
from reconciler.host.trust import own_file
from reconciler.model import HostError, UnknownState
from reconciler.records import dataclass

_NAME = "clock"
_FAR = 3600.0
"""Seconds that the clock may be set ahead without being doubted; daylight saving is no setting."""
_EARLIEST = 1_600_000_000.0
"""In seconds since the epoch: a clock that stands earlier is one that was not set."""
_DOUBT = 24 * 3600.0
"""Seconds for which a clock that was set further ahead is doubted."""


@dataclass(frozen=True, slots=True)
class Known:
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

    def __init__(self, folder: str, clock: Clock) -> None:
        self._path = os.path.join(folder, _NAME)
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
        return UnknownState(
            f"the clock was set {_long(ahead)} ahead, so the age of files is not believed for the "
            f"next {_long(left)}; set it right, or believe it",
            remedy=remedy("rm", self._path),
        )

    @property
    def gained(self) -> float:
        """Seconds by which the clock was set ahead in this boot, as far as that was noticed."""
        known = self._known()
        return 0.0 if known is None else known.gained + max(0.0, self._ahead(known))

    def note(self) -> None:
        """Remember how the clock stands, where that is new. Never raises for the host."""
        known = self._known()
        ahead = self._ahead(known)
        since_boot = self._clock.since_boot()
        offset = self._clock.wall() - since_boot
        if known is None:
            now = Known(offset)
        elif ahead < -_FAR:
            now = Known(offset, gained=known.gained)
        elif ahead <= _FAR:
            if not known.ahead:
                return
            now = Known(known.offset, gained=known.gained)
        elif abs(known.ahead - ahead) > _FAR:
            now = Known(known.offset, ahead, since_boot, known.gained)
        elif since_boot - known.since >= _DOUBT:
            now = Known(offset, gained=known.gained + ahead)
        else:
            return
        if self._clock.wall() < _EARLIEST:
            return  # It was not set yet, since this machine has been switched on.
        words = f"{self._boot} {now.offset:.3f} {now.ahead:.3f} {now.since:.3f} {now.gained:.3f}\n"
        from reconciler.host.place import put_at

        with suppress(OSError, HostError):
            put_at(self._path, words.encode(), sync=False)

    def _ahead(self, known: Known | None) -> float:
        if known is None:
            return 0.0
        return self._clock.wall() - self._clock.since_boot() - known.offset

    def _known(self) -> Known | None:
        """What was noted in this boot."""
        try:
            handle = own_file(self._path)
        except (OSError, HostError):
            return None
        try:
            boot, *numbers = os.read(handle, 400).decode(errors="replace").split()
            offset, ahead, since, gained = map(float, numbers)
        except (ValueError, OSError):
            return None
        finally:
            os.close(handle)
        return Known(offset, ahead, since, gained) if boot == self._boot else None


def _long(seconds: float) -> str:
    """A long time, for people."""
    for size, word in ((365.25 * 86400, "years"), (86400.0, "days"), (3600.0, "hours")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{max(1, round(seconds / 60))} minutes"
