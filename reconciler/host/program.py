"""Is the program that runs still the one that is installed? An upgrade replaces its files.

It must not start the other one by itself: whoever runs this one must come to an end first.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Collection
from contextlib import suppress

from reconciler.base.errors import HostError, UnknownState
from reconciler.host.child import Child, WithChild
from reconciler.host.clock import Clock
from reconciler.host.command import run
from reconciler.host.trust import Untrusted, refuse_untrusted

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SETTLED = 3.0
"""Seconds without a change after which the files of an upgrade are whole."""
_ABSENCE = 30.0
"""Seconds for which there may be none, as between the removal of one and its successor."""
_START = 30.0
"""Seconds in which the other one must have shown that it can be loaded."""
_AGAIN = 1.0

Looks = tuple[tuple[str, int, int, int, int] | None, ...]


def versions() -> str:
    """Which version runs, and whether another one is installed here."""
    from importlib.metadata import PackageNotFoundError, version

    from reconciler import __version__

    try:
        installed = version("reconcile-host")
    except PackageNotFoundError:
        return f"program: version {__version__} runs; none is installed any more"
    if installed == __version__:
        return f"program: version {__version__} runs, and is the one that is installed"
    return (
        f"program: version {__version__} runs, but {installed} is installed; restart the watchdog"
    )


class Replaced(Exception):
    """Another program is installed by now, and can be started."""


def code() -> str:
    """A digest of the program itself, which says more than its version. Raises OSError."""
    from reconciler.base.digests import blake2b

    made = blake2b(digest_size=16)
    for folder, below, names in os.walk(_PACKAGE):
        below.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                with open(os.path.join(folder, name), "rb") as file:
                    made.update(name.encode() + b"\0" + file.read())
    return made.hexdigest()


class Installed(WithChild):
    """A part of a loop. ``over`` says why the loop must end, once there is another program.

    ``told`` takes what has become of it, and whether that is bad.
    """

    def __init__(self, clock: Clock, report: Callable[[str, bool], None]) -> None:
        self.over: Replaced | HostError | None = None
        self._clock = clock
        self._report = report
        rooms = [folder for folder, _, _ in os.walk(_PACKAGE) if "__" not in folder]
        self._folders = sorted(rooms)
        self._ours = self._last = self._looks()
        self._files = self._sources()
        self._since = 0.0
        """Since when it looks as it does now, by the monotonic clock."""
        self._gone: float | None = None
        """Since when there is none."""
        self._tried: Looks | None = None
        """How the one looked that was tried last."""

    def _looks(self) -> Looks:
        return tuple(_look(path) for path in (*self._folders, sys.executable))

    def _sources(self) -> Looks:
        found = []
        for folder in self._folders:
            try:
                names = sorted(name for name in os.listdir(folder) if name.endswith(".py"))
            except OSError:
                names = []
            found += [_look(os.path.join(folder, name)) for name in names]
        return tuple(found)

    def look(self) -> None:
        """Look at it; to be called with each full pass."""
        looks, now = self._looks(), self._clock.monotonic()
        if looks != self._last:
            self._last, self._since = looks, now
        if looks == self._ours:
            self._gone = None
            return
        if None in looks:
            self._is_gone(now, looks.index(None))
            if looks[-1] in (None, self._ours[-1]):
                return
            # There is another interpreter, for which it may be installed elsewhere.
        else:
            self._gone = None
        if self._child is None and now - self._since >= _SETTLED and looks != self._tried:
            if self._sources() == self._files and looks[-1] == self._ours[-1]:
                self._ours = looks  # Something else was put beside it.
            else:
                with suppress(OSError):  # No process can be had just now.
                    self._child, self._tried = Child(_loads, _START), looks

    def _is_gone(self, now: float, at: int) -> None:
        path = (*self._folders, sys.executable)[at]
        if self._gone is None:
            self._gone = now
            words = f"this program is missing: {path} does not exist; install it, or"
            self._report(f"{words} the watchdog ends in {_ABSENCE:g} s", True)
        elif now - self._gone >= _ABSENCE:
            self.over = HostError(
                f"this program is missing: {path} did not exist for {_ABSENCE:g} s, so the "
                "watchdog ends; install it, and start the watchdog again"
            )

    # -- as a part of the loop

    def due(self) -> float | None:
        """Seconds until the next look, where something has changed."""
        if self._child is not None:
            return super().due()
        waits = self.over is None and self._last != self._ours and self._last != self._tried
        return _AGAIN if waits else None

    def tend(self, ready: Collection[int]) -> Collection[str]:
        """Take what has become of the attempt to load it, or look again."""
        if self._child is None:
            if self.due() is not None:
                self.look()
            return ()
        try:
            answer = self._child.collect()
        except UnknownState as error:
            answer = str(error).encode()
        if answer is None:
            return ()
        self._child = None
        if answer:
            words = answer.decode(errors="replace")
            words = f"this program was replaced, but the new one cannot be used: {words}"
            self._report(words, True)
        elif self._looks() == self._tried:
            self.over = Replaced("this program was replaced; the watchdog restarts itself")
        else:
            self._tried = None
        return ()


def _look(path: str) -> tuple[str, int, int, int, int] | None:
    try:
        one = os.stat(path)
    except OSError:
        return None
    return path, one.st_dev, one.st_ino, one.st_mtime_ns, one.st_size


def _loads() -> bytes:
    """In a child: why the installed program cannot be loaded; nothing where it can."""
    try:
        for path in (sys.executable, *_packages()):
            refuse_untrusted(path, "what is run", notes=[])
        words = [sys.executable, "-P", "-c", "import reconciler.cli.commands.loop"]
        done = run(words, timeout=_START)
    except (Untrusted, OSError, HostError) as error:
        return str(error).encode(errors="replace")
    return b"" if done.status == 0 else (done.complaint or "it fails").encode(errors="replace")


def _packages() -> list[str]:
    """This package, and where another version of Python has it: ``lib/python*/site-packages``.

    Found without running anything, which is not trusted yet. Raises HostError where there is none.
    """
    site, name = os.path.split(_PACKAGE)
    library, folder = os.path.dirname(os.path.dirname(site)), os.path.basename(site)
    found = glob.glob(f"{glob.escape(library)}/python*/{glob.escape(folder)}/{name}")
    if os.path.isdir(_PACKAGE):
        found.append(_PACKAGE)
    if not found:
        raise HostError(f"it is not installed for {sys.executable}")
    return found
