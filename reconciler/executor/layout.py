"""Where everything of one executor home lies, which ids are allowed, and who may read the files.
Must not read or write any file.
"""

from __future__ import annotations

import os
import re
import time

from reconciler.executor.text import shown

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
        raise BadId(f"the id '{shown(text)}' is not allowed: {ID_RULE}")
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
            f"AI_CO_FILE_MODE is '{shown(given)}', not the mode of a file that its owner may read "
            "and write, such as 0600, 0640 or 0644"
        )
    return int(given, 8)


class Layout:
    """The paths of one home, and the mode of the files that are made in it."""

    __slots__ = (
        "base",
        "completed",
        "event_log",
        "failed",
        "file_mode",
        "heartbeat",
        "home",
        "logs",
        "pending",
        "running",
        "stale",
    )

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
