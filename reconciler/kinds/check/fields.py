"""What a user may write in the fields of checks, and how it is read. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from reconciler.base.scalars import (
    InvalidScalar,
    integer_parser,
    parse_command,
    parse_name,
    parse_size,
    parse_text,
)
from reconciler.base.values import Secret
from reconciler.core.fields import Parsed

_TEMPLATE = r".*\{\{.*\}\}.*"
_STRING: dict[str, Any] = {"type": "string", "minLength": 1}
_STATUS: dict[str, Any] = {"type": "integer", "minimum": 100, "maximum": 599}
_PERCENT = r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%"
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
"""The name of a header, RFC 9110."""
_LINE = r"[\t\x20-\x7e\xa0-\xff]*"
_status = integer_parser(100, 599)
_port = integer_parser(1, 65535)


def parse_percent(value: object) -> float:
    """``90%`` as 90.0. Raises ValueError."""
    text = parse_name(value)
    match = re.fullmatch(_PERCENT, text)
    if match is None or not 0 < float(match[1]) < 100:
        raise ValueError(f"{text!r} is not a percentage between 0 and 100, such as 90%")
    return float(match[1])


def parse_level(value: object) -> tuple[str, float]:
    """``10%`` as ("%", 10.0), ``5GiB`` as ("B", bytes). Raises ValueError."""
    text = parse_name(value)
    if text.endswith("%"):
        return "%", parse_percent(value)
    try:
        return "B", float(parse_size(value))
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a size, such as 5GiB, nor a percentage, such as 10%"
        ) from None


def parse_address(value: object) -> tuple[str, int]:
    """``localhost:80`` or ``[::1]:80``. Raises ValueError."""
    text = parse_name(value)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or re.search(r"[\s/@\[\]]", host):
        raise ValueError(f"{text!r} is not HOST:PORT, such as localhost:80 or [::1]:80")
    return host, _port(port)


def parse_url(value: object) -> str:
    """A URL of http or https. Raises ValueError, which never holds it: a secret may be in it."""
    from urllib.parse import urlsplit

    url = parse_name(value)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable or not url.isascii() or " " in url:
        raise ValueError("needs a URL that begins with http:// or https:// and names a host")
    return url


def parse_statuses(value: object) -> tuple[int, ...]:
    """A status code, or a list of them. Raises ValueError."""
    codes = value if isinstance(value, (list, tuple)) else [value]
    if not codes:
        raise ValueError("is empty; give it a status code or leave it out")
    return tuple(_status(code) for code in codes)


def parse_headers(value: object) -> tuple[tuple[str, Secret], ...]:
    """Names of HTTP headers to values, as sorted pairs. Raises ValueError without any value."""
    if not isinstance(value, Mapping):
        raise ValueError("needs a mapping of names to values, such as {Accept: text/plain}")
    pairs = []
    for name, text in value.items():
        if not re.fullmatch(_TOKEN, name):
            raise InvalidScalar(f"{name!r} is not a name for an HTTP header", (name,), key=True)
        try:
            line = parse_text(text)
        except ValueError as error:
            raise InvalidScalar(f"{name}: {error}", (name,)) from None
        if not re.fullmatch(_LINE, line):
            words = f"{name} holds what no header can: a line break, or no Latin-1 (not shown)"
            raise InvalidScalar(words, (name,))
        pairs.append((str(name), Secret.of(line)))
    if len({name.lower() for name, _ in pairs}) < len(pairs):
        raise ValueError("names a header twice; their case does not matter")
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def address_or_socket(text: str) -> str:
    """Which field of a listener a text alone stands for."""
    return "unix" if text.startswith(("/", "~", "unix:")) else "address"


def parse_reaction(value: object) -> tuple[str, ...]:
    """``restart process:NAME``, ``run CMD`` or ``notify``, or ``{run: CMD}``, ``{restart: NAME}``.

    Gives ("restart", NAME), ("run", argument…) or ("notify",). Raises ValueError.
    """
    given: object
    if isinstance(value, Mapping):
        if len(value) != 1:
            raise ValueError("needs one of 'restart' and 'run', each in an entry of its own")
        (word, given), *_ = value.items()
    else:
        text = parse_name(value).strip()
        word, _, given = text.partition(" ")
    if word == "notify" and not given:
        return ("notify",)
    if word == "run" and given:
        return ("run", *parse_command(given))
    if word == "restart" and given:
        name = parse_name(given).strip()
        if name.startswith("process:") or ":" not in name:
            return "restart", name.removeprefix("process:")
        raise ValueError(f"restart takes a process, not {name!r}")
    raise ValueError(
        "is none of 'restart process:NAME', 'run COMMAND' and 'notify'"
        if word not in ("run", "restart")
        else f"{word} needs {'a command' if word == 'run' else 'a process'}, "
        f"such as {'run systemctl restart x' if word == 'run' else 'restart process:worker'}"
    )


Percent = Annotated[
    float, Parsed(parse_percent, {**_STRING, "pattern": rf"^([0-9.]+ ?%|{_TEMPLATE})$"})
]
Level = Annotated[
    tuple[str, float],
    Parsed(
        parse_level,
        {**_STRING, "pattern": rf"^([0-9.]+ ?%|[0-9.]+([KMGT]i?)?B|{_TEMPLATE})$"},
    ),
]
Address = Annotated[
    tuple[str, int], Parsed(parse_address, {**_STRING, "pattern": rf"^(.+:[0-9]+|{_TEMPLATE})$"})
]
Url = Annotated[str, Parsed(parse_url, _STRING, secrets=True)]
Statuses = Annotated[
    tuple[int, ...],
    Parsed(
        parse_statuses,
        {
            "anyOf": [
                _STATUS,
                {"type": "string", "pattern": _TEMPLATE},
                {"type": "array", "items": _STATUS, "minItems": 1},
            ]
        },
    ),
]
Headers = Annotated[
    tuple[tuple[str, Secret], ...],
    Parsed(
        parse_headers,
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{_TOKEN}$"},
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        },
    ),
]
Reaction = Annotated[
    tuple[str, ...],
    Parsed(
        parse_reaction,
        {
            "oneOf": [
                {"type": "string", "pattern": rf"^((restart|run) +.+|notify|{_TEMPLATE})$"},
                {
                    "type": "object",
                    "properties": {
                        "restart": {**_STRING, "description": "The process resource."},
                        "run": {
                            "oneOf": [_STRING, {"type": "array", "minItems": 1}],
                            "description": "A list of arguments, or a string for sh -c.",
                        },
                    },
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": False,
                },
            ]
        },
        secrets=True,
    ),
]
