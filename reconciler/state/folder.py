"""The state directory and its lock: at most one acts on a spec, and none that hangs keeps the
others out.

It must not hold anything that a pass needs in order to be right; losing it loses history only.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError
from reconciler.base.text import hides_values, marks
from reconciler.host import trust

if TYPE_CHECKING:
    from reconciler.state.heartbeat import WatchdogHeartbeat


_PAUSE = 0.1
STORE = "store.db"
_HANDED_ON = b"RECONCILE_LOCK"
_SPEC = "spec"
"""The file that names the spec whose state this is."""
_VOLUME = "spec.mount"
"""The file that names it too, and where the file system that it is on was mounted."""
_SECRETS = "secrets"
"""The file with the marks of what must not be shown, for passes that are not told it."""
_MOST_MARKS = 4000
_LONGEST_PATH = 4097
_VARIABLES = "variables"
"""The file with the variables of its last pass, each as ``NAME=VALUE`` and a NUL."""
_MOST_VARIABLES = 2**20
REQUESTS = "requests"
"""The socket on which a loop takes requests."""
_USER_VERSION = slice(60, 64)
"""Where its header has the user version, https://www.sqlite.org/fileformat.html. The store
keeps the number of its lines there."""


kept_by: Callable[[int], Callable[[], None]] | None = None
"""Takes over a lock that this process is not to hold itself; gives what releases it."""


class Newer(HostError):
    """The store was made by a newer version of this program, which is to use it."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(
            f"the store {path} was made by a newer version of this program ({why}), so it is left "
            "as it is; run that version, or name another state directory with --state-dir"
        )


class Unreadable(HostError):
    """The store cannot be read, so that it is not known what is paused: nothing may act."""

    def __init__(self, words: str) -> None:
        super().__init__(
            f"{words}; until that is fixed it is not known what is paused, and nothing is done"
        )


class Busy(Exception):
    """Another pass holds the lock; ``pid`` is its process, or None where that is unknown."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(
            f"another pass is at work (pid {pid})" if pid else "another pass is at work"
        )
        self.pid = pid


def make_folder(path: str) -> None:
    """Make a private directory, with its parents, unless it is there. Raises HostError."""
    _reach(path, 0o700)


def refuse_folder(path: str) -> None:
    """Raise HostError where somebody else could change what is in that state directory.

    One that is not there yet is fine.
    """
    with suppress(FileNotFoundError):
        _reach(path, None)


def _reach(path: str, make: int | None) -> None:
    try:
        os.close(trust.opened(path, os.O_PATH, what="the state that is kept there", make=make))
    except trust.Untrusted as error:
        words = f"the state directory {path} could be written to by others: {error.reason}"
        raise HostError(words, remedy=error.remedy) from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise HostError(
            f"cannot {'look at' if make is None else 'make'} the state directory {path}: "
            f"{error.strerror}; name another with --state-dir"
        ) from None


@contextmanager
def locked(
    folder: str, patience: float = 0.0, unless: Callable[[], bool] = lambda: False
) -> Iterator[int]:
    """Hold the lock of a spec's state directory, which is trusted. Raises Busy, or HostError.

    It is waited for ``patience`` seconds, ``unless`` that is of no use. The lock is the kernel's
    (flock(2)), so one that was killed leaves nothing behind. Gives its descriptor.
    """
    path = os.path.join(folder, "lock")
    handle = _open(path, folder)
    handle = _handed_on(handle) or handle
    end = time.monotonic() + patience
    release: Callable[[], None] = partial(os.close, handle)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end or unless():
                    raise Busy(_holder(handle)) from None
            # flock(2) itself cannot be waited for with an end.
            time.sleep(_PAUSE)
        if not os.fstat(handle).st_nlink:
            raise HostError(f"{folder} was removed just now, as --uninstall does; nothing is done")
        if kept_by is not None:
            release = kept_by(handle)
        yield handle
    finally:
        release()


def delivery_lock(folder: str) -> int | None:
    """The lock of those who deliver messages, or None while others do.

    It is held as long as its descriptor is open in any process, such as the child that delivers
    for a loop that was killed. Raises HostError or OSError.
    """
    from reconciler.host.place import own_file

    handle = own_file(os.path.join(folder, "delivery"))
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def hand_on(lock: int) -> dict[bytes, bytes]:
    """For the environment of the program that this process is to become: it holds that lock."""
    os.set_inheritable(lock, True)
    return {_HANDED_ON: b"%d" % lock}


def _handed_on(handle: int) -> int | None:
    """The same lock as ``handle``, which is closed then, if this process has held it already."""
    given = os.environb.pop(_HANDED_ON, b"")
    if not given.isdigit():
        return None
    before = int(given)
    with suppress(OSError):
        if before > 2 and os.path.sameopenfile(before, handle):
            os.close(handle)
            return before
    return None


def _open(path: str, folder: str) -> int:
    try:
        # Made once: a pass that changes nothing must not even ask for a new file.
        try:
            return trust.own_file(path)
        except FileNotFoundError:
            make_folder(folder)
            from reconciler.host.place import own_file

            return own_file(path)
    except OSError as error:
        raise HostError(
            f"cannot open the lock {path}: {error.strerror}; name another state directory "
            "with --state-dir"
        ) from None


def _holder(handle: int) -> int | None:
    """Who holds the lock, from /proc/locks, proc(5)."""
    status = os.fstat(handle)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            for line in locks:
                words = line.split()
                if words[1] == "FLOCK" and words[5] == device and int(words[4]) > 0:
                    return int(words[4])
    except (OSError, ValueError, IndexError):
        pass
    return None


def _kept(folder: str, name: str, most: int) -> bytes:
    """What a file of the state directory holds; nothing where it cannot be read."""
    return trust.own_bytes(os.path.join(folder, name), most) or b""


def _keep(folder: str, name: str, data: bytes) -> None:
    from reconciler.host.place import put_at

    make_folder(folder)
    put_at(os.path.join(folder, name), data)


def known_spec(folder: str) -> str | None:
    """What the spec is remembered by whose state this is; None: it is not known.

    A path, or the name of a spec that comes with the program; anything else is damage.
    """
    from reconciler.host.spec_files import path_of

    known = os.fsdecode(_kept(folder, _SPEC, _LONGEST_PATH).removesuffix(b"\n"))
    if not known.isprintable() or not (os.path.isabs(known) or os.path.exists(path_of(known))):
        return None
    return known


def remember_spec(folder: str, known: str) -> None:
    """From now on it is the state of that spec. Raises OSError or HostError."""
    from reconciler.host.filesystems import volume
    from reconciler.host.spec_files import path_of

    _, mount = volume(path_of(known))
    _keep(folder, _VOLUME, os.fsencode(f"{known}\0{mount}"))
    _keep(folder, _SPEC, os.fsencode(known) + b"\n")


def knows_volume(folder: str) -> bool:
    """Is it remembered where the file system of the spec is mounted?"""
    return os.path.lexists(os.path.join(folder, _VOLUME))


def is_gone(folder: str, known: str) -> bool:
    """Is a remembered spec that is not there deleted, for all that is known?

    It may be on a volume that is not mounted just now.
    """
    from reconciler.host.filesystems import volume
    from reconciler.host.spec_files import path_of

    try:
        above, mount = volume(path_of(known))
    except OSError:
        return False
    of, _, before = os.fsdecode(_kept(folder, _VOLUME, 2 * _LONGEST_PATH)).partition("\0")
    return mount == before if of == known else above == os.path.dirname(path_of(known))


def variables(folder: str) -> dict[str, str]:
    """The variables that the spec was last applied with, by name."""
    text = _kept(folder, _VARIABLES, _MOST_VARIABLES)
    words = text.decode("utf-8", "surrogateescape").split("\0")
    pairs = (word.partition("=") for word in words[:-1])
    return {name: value for name, equals, value in pairs if name and equals}


def with_variables(state_dir: str) -> list[str]:
    """The folders below it in which variables are remembered."""
    try:
        with os.scandir(state_dir) as entries:
            folders = [entry.path for entry in entries]
    except OSError:
        return []
    return [one for one in folders if os.path.lexists(os.path.join(one, _VARIABLES))]


def remember_variables(folder: str, values: Mapping[str, str]) -> None:
    """From now on these are the spec's, and no others. Raises OSError or HostError."""
    if values == variables(folder):
        return
    text = "".join(f"{name}={value}\0" for name, value in values.items())
    _keep(folder, _VARIABLES, text.encode("utf-8", "surrogateescape"))


def secret_marks(folder: str) -> tuple[bytes, list[str]]:
    """The key and the marks of the secrets that passes of that spec have known; none: no key."""
    try:
        key, *known = _kept(folder, _SECRETS, _MOST_MARKS * 64).decode("ascii").split()
        return bytes.fromhex(key), known
    except ValueError:
        return b"", []


def mark_secrets(folder: str) -> None:
    """Remember what is hidden now, so that a pass that is not told it does not show it either.

    Raises OSError or HostError.
    """
    if not hides_values():
        return
    key, known = secret_marks(folder)
    key = key or os.urandom(16)
    new = marks(key).difference(known)
    if new:
        lines = [key.hex(), *known, *sorted(new)]
        del lines[1:-_MOST_MARKS]  # The oldest go first.
        _keep(folder, _SECRETS, "\n".join(lines).encode())


def is_asked(state_dir: str) -> bool:
    """May a loop take requests there, of whichever spec?"""
    try:
        with os.scandir(state_dir) as entries:
            return any(os.path.lexists(os.path.join(one.path, REQUESTS)) for one in entries)
    except OSError:
        return False


def interrupted(folder: str) -> bool:
    """Is somebody writing to the store, or was killed while doing so?"""
    return os.path.exists(os.path.join(folder, f"{STORE}-journal"))


def quiet(folder: str) -> bool:
    """Is there nothing in the store that a pass would have to look at? Costs one read."""
    path = os.path.join(folder, STORE)
    try:
        with os.fdopen(trust.own_file(path), "rb", buffering=0) as file:
            header = file.read(100)
    except FileNotFoundError:
        return True
    except (OSError, HostError):
        return False  # Whoever looks into it says why.
    if len(header) < 100 or interrupted(folder):
        return False
    return not any(header[_USER_VERSION])


_AFTER_END = 5.0
"""Seconds until the lock of one that was ended must be free."""


class LockHeld(Exception):
    """Another actor is at work on this spec. ``loop`` is it, or None when it is a pass."""

    def __init__(self, pid: int | None, loop: WatchdogHeartbeat | None) -> None:
        super().__init__(pid, loop)
        self.loop = loop
        self.pid = pid if loop is None else loop.identity.pid

    def __str__(self) -> str:
        who = f" (pid {self.pid})" if self.pid is not None else ""
        if self.loop is None:
            return f"another pass is at work{who}"
        return f"the watchdog{who} keeps it as declared"


@contextmanager
def turn(folder: str, warn: Callable[[str], None], patience: float = 0.0) -> Iterator[int]:
    """Hold the lock of the state directory; its descriptor. Raises LockHeld, or HostError.

    A loop that has stopped moving is ended, with a warning. A pass that is at work is waited
    for, ``patience`` seconds at most; a loop is not.
    """
    with ExitStack() as held:
        try:
            lock = held.enter_context(locked(folder, patience, lambda: _loop(folder) is not None))
        except Busy as busy:
            from reconciler.host.clock import Clock
            from reconciler.state.heartbeat import end

            loop = _loop(folder)
            if loop is None or loop.healthy:
                raise LockHeld(busy.pid, loop) from None
            warn(
                f"the loop (pid {loop.identity.pid}) has not moved for {loop.age:.0f} s; "
                "it is ended, and its work is taken over"
            )
            end(loop, Clock())
            try:
                lock = held.enter_context(locked(folder, _AFTER_END))
            except Busy as faster:
                raise LockHeld(faster.pid, _loop(folder)) from None
        yield lock


def _loop(folder: str) -> WatchdogHeartbeat | None:
    # Only where somebody is in the way, so that a pass alone need not load this.
    from reconciler.host.clock import Clock
    from reconciler.state.heartbeat import pulse

    return pulse(folder, Clock())
