"""One executor home: where everything lies, which ids are allowed, and who may write there.

Whoever may write to a folder of a queue, or exchange one on the way, decides what is run. So a
worker of root's works only where nobody else may; one of another user refuses what everybody may
write to, and notes what a group may.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.base.errors import HostError
from reconciler.base.text import escapes
from reconciler.host import trust, walk
from reconciler.host.walk import closing

ID_RULE = "1 to 128 of the characters A-Z a-z 0-9 . _ -, beginning with a letter or a digit"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


_FILE_MODE = re.compile(r"0?6[046][04]")


class BadId(ValueError):
    """An id that may not be used; the message says which and what is allowed."""


def check_id(value: object) -> str:
    """`value` itself, if it is an id that stays inside its folder; else BadId."""
    if not isinstance(value, str):
        raise BadId(f"the id must be a string, not {type(value).__name__}: {ID_RULE}")
    if not _ID.fullmatch(value):
        text = value if len(value) <= 60 else f"{value[:60]}... ({len(value)} characters)"
        raise BadId(f"the id '{escapes(text)}' is not allowed: {ID_RULE}")
    return value


def new_id(prefix: str = "") -> str:
    """An id nobody else has, which sorts by time: UTC to the microsecond, and six random digits."""
    now = time.time_ns()
    clock = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now // 1_000_000_000))
    return f"{prefix}{clock}-{now // 1000 % 1_000_000:06d}-{os.urandom(3).hex()}"


def resolve_home(given: str | None) -> str:
    """The home as an absolute path: what was given, else $AI_CO_HOME, else ~/ai_co.

    Symbolic links stay as they are, so that process listings show what the user wrote.
    """
    home = given or os.environ.get("AI_CO_HOME") or "~/ai_co"
    if "\0" in home:
        raise ValueError("the home contains a NUL character; give a directory, such as ~/ai_co")
    return os.path.abspath(os.path.expanduser(home))


def file_mode() -> int:
    """The mode of command files, results and logs: $AI_CO_FILE_MODE, else 0600.

    Raises ValueError.
    """
    given = os.environ.get("AI_CO_FILE_MODE") or "0600"
    if not _FILE_MODE.fullmatch(given):
        raise ValueError(
            f"AI_CO_FILE_MODE is '{escapes(given)}', not the mode of a file that its owner may "
            "read and write, such as 0600, 0640 or 0644"
        )
    return int(given, 8)


class Layout:
    """The paths of one home, and the mode of the files that are made in it."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.file_mode = file_mode()
        self.base = os.path.join(home, "ai_commands")
        self.pending = os.path.join(self.base, "pending")
        self.running = os.path.join(self.base, "running")
        self.completed = os.path.join(self.base, "completed")
        self.failed = os.path.join(self.base, "failed")
        self.stale = os.path.join(self.base, "stale")
        self.logs = os.path.join(self.base, "logs")
        self.heartbeat = os.path.join(self.base, "heartbeat")
        self.event_log = os.path.join(home, "logs", "command_executor.log")

    def directories(self) -> tuple[str, ...]:
        """Every directory that a worker needs, parents first."""
        return (
            self.home,
            os.path.dirname(self.event_log),
            self.base,
            self.pending,
            self.running,
            self.completed,
            self.failed,
            self.logs,
        )

    def pending_file(self, command_id: str) -> str:
        return os.path.join(self.pending, f"{command_id}.json")

    def running_file(self, command_id: str) -> str:
        return os.path.join(self.running, f"{command_id}.json")

    def process_file(self, command_id: str) -> str:
        return os.path.join(self.running, f"{command_id}.pid")

    def result_file(self, command_id: str) -> str:
        return os.path.join(self.completed, f"{command_id}.json")

    def log_file(self, command_id: str) -> str:
        return os.path.join(self.logs, f"{command_id}.log")


def is_command_name(name: str) -> bool:
    """Whether a file of this name is meant as a command; dot names are still being written."""
    return name.endswith(".json") and not name.startswith(".")


Note = trust.Untrusted
"""Who else may write to a folder, where that is not refused."""
_MODE = 0o755
"""Of a folder that is missing, as `specs/executor.yaml` declares it; the umask narrows it."""
_PATH_ONLY = os.O_PATH | os.O_DIRECTORY


class UntrustedFolder(OSError):
    """Somebody else could decide what is run; the message names the folder and the remedy."""


def opened(
    path: str,
    *,
    make: bool = False,
    readable: bool = False,
    notes: list[Note] | None = None,
) -> int:
    """A descriptor of a folder of one's own home, whose whole way has been looked at.

    `readable`: its names can be read through it. `notes` takes what may be written to by others
    and is only noted. Raises Untrusted, and OSError as open(2) has it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY if readable else _PATH_ONLY
    try:
        return trust.opened(
            path,
            flags,
            what="what is run",
            make=_MODE if make else None,
            shared=True,
            notes=notes,
        )
    except trust.Untrusted as error:
        raise UntrustedFolder(
            f"whoever may write to a queue decides what is run: {error}"
        ) from None
    except OSError as error:
        error.filename = path
        raise


@contextmanager
def held(path: str, *, make: bool = False, readable: bool = False) -> Iterator[int]:
    """As `opened`, for the length of the block."""
    with closing(opened(path, make=make, readable=readable)) as handle:
        yield handle


@contextmanager
def reached(path: str) -> Iterator[int]:
    """A descriptor of a folder of any home, to give a command to it or take one back.

    It may be somebody else's home, so no symlink of others is followed. Raises OSError.
    """
    with _as_oserror(), walk.opened(path) as handle:
        yield handle


def provide(paths: tuple[str, ...]) -> None:
    """Make those of `paths` that are missing, parents first; the mode of others stays.

    What root makes in a folder of somebody else's belongs to that user. Raises OSError.
    """
    for path in paths:
        if os.path.isdir(path):
            continue
        parent, name = os.path.split(path)
        with _as_oserror(), walk.opened(parent, make=True) as above:
            try:
                _make(above, name)
            except FileExistsError:
                if not os.path.isdir(path):
                    raise NotADirectoryError(f"{path} is not a directory; move it away") from None


def _make(above: int, name: str) -> None:
    status = os.fstat(above)
    if os.geteuid() != 0 or status.st_uid == 0:
        os.mkdir(name, _MODE, dir_fd=above)
        return
    from reconciler.host import place

    os.close(place.make_folder(above, name, _MODE, status.st_uid, status.st_gid))


@contextmanager
def _as_oserror() -> Iterator[None]:
    try:
        yield
    except HostError as error:
        raise OSError(str(error)) from None
