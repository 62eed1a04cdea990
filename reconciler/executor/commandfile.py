"""From the bytes of a command file to a checked command, or the reason why it is none.
Must not run anything and must not look at the host.
"""

from __future__ import annotations

import json
import math
import re
from typing import NamedTuple, NoReturn

from reconciler.base.text import escapes
from reconciler.executor.home import BadId, check_id

MAX_FILE = 1024 * 1024
MAX_COMMAND = 128 * 1024 - 1  # bytes; one argument of execve(2), MAX_ARG_STRLEN
MAX_DEPTH = 50
MAX_TIMEOUT = 366 * 86400.0
DEFAULT_TIMEOUT = 3600.0
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEYS = ("id", "command", "timeout", "cwd", "env")


class CommandRefused(Exception):
    """Not a command; the message is the reason."""


class Unfinished(CommandRefused):
    """Not a command yet: it may still be being written."""


class Command(NamedTuple):
    """What a command file says. `timeout` in seconds; `cwd` None means the home."""

    id: str
    command: str
    timeout: float
    cwd: str | None
    env: dict[str, str]
    extra: dict[str, object]


def parse(data: bytes, stem: str) -> Command:
    """The command in `data`; `stem` is its file's name without .json. Raises Refused."""
    if len(data) > MAX_FILE:
        raise CommandRefused(f"the file is larger than {MAX_FILE} bytes")
    found = _decode(data)
    if not isinstance(found, dict):
        raise CommandRefused(
            f"the file holds {_kind(found)}, not an object; "
            'write {"command": "echo hello"}; other keys are id, timeout, cwd, env'
        )
    _check_depth(found)
    if "command" not in found:
        raise CommandRefused('there is no "command"; write {"command": "echo hello"}')
    return Command(
        id=_id(found.get("id"), stem),
        command=_command(found["command"]),
        timeout=_timeout(found.get("timeout")),
        cwd=_cwd(found.get("cwd")),
        env=_env(found.get("env")),
        extra={key: value for key, value in found.items() if key not in _KEYS},
    )


def _decode(data: bytes) -> object:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unfinished(f"not UTF-8: byte {error.start} of the file") from None
    try:
        decoded: object = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Unfinished(f"not JSON: {escapes(error.msg)} ({where})") from None
    except RecursionError:
        raise CommandRefused("not a command: nested too deeply") from None
    except ValueError as error:  # a number with thousands of digits
        raise CommandRefused(f"not a command: {escapes(error)}") from None
    return decoded


def _no_constant(name: str) -> NoReturn:
    raise CommandRefused(f"{name} is not a number that JSON knows")


def _check_depth(value: object) -> None:
    """Refuses what could not be written into a result: deep nesting, numbers past all bounds."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, float) and not math.isfinite(item):
                raise CommandRefused("a number in it is too large")
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    raise CommandRefused(f"nested more than {MAX_DEPTH} levels deep")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise CommandRefused(f'"{key}" must be a string, not {_kind(value)}')
    if "\0" in value:
        raise CommandRefused(f'"{key}" contains a NUL character')
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise CommandRefused(f'"{key}" contains half of a surrogate pair') from None
    return value


def _id(value: object, stem: str) -> str:
    try:
        return check_id(stem if value is None else value)
    except BadId as error:
        source = 'it comes from the file\'s name, as there is no "id"' if value is None else ""
        raise CommandRefused(f"{error}{'; ' if source else ''}{source}") from None


def _command(value: object) -> str:
    command = _text("command", value)
    if not command.strip():
        raise CommandRefused('"command" is empty')
    size = len(command.encode("utf-8"))
    if size > MAX_COMMAND:
        raise CommandRefused(
            f'"command" is {size} bytes long, at most {MAX_COMMAND} are possible; '
            "put it into a script file and run that"
        )
    return command


def _timeout(value: object) -> float:
    if value is None:
        return DEFAULT_TIMEOUT
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CommandRefused(f'"timeout" must be a number of seconds, not {_kind(value)}')
    if not 0 < value <= MAX_TIMEOUT:
        raise CommandRefused(f'"timeout" must be more than 0 and at most {MAX_TIMEOUT:.0f} seconds')
    return float(value)


def _cwd(value: object) -> str | None:
    if value is None:
        return None
    cwd = _text("cwd", value)
    if not cwd.startswith(("/", "~")):
        raise CommandRefused(f"\"cwd\" must be absolute or begin with ~, not '{escapes(cwd)}'")
    return cwd


def _env(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CommandRefused(f'"env" must be an object of names and strings, not {_kind(value)}')
    env = {}
    for name, item in value.items():
        if not _NAME.fullmatch(name):
            raise CommandRefused(
                f"\"env\": '{escapes(name[:60])}' is no name of a variable: "
                "letters, digits and _, not beginning with a digit"
            )
        if isinstance(item, int) and not isinstance(item, bool):
            item = str(item)
        env[name] = _text(f"env.{name}", item)
    return env
