"""Text that is safe to show on a terminal, whoever wrote it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(character: str) -> str:
    """One character as it may be shown: itself, or an escape of printable ASCII."""
    if character.isprintable():
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Censor:
    """Blots out values that must not be shown, wherever they turn up."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        # The longest first: one may be a part of another.
        # Also as they look once quoted for a shell or for Python, or escaped for a terminal.
        given = set(values)
        given |= {value.replace("'", "'\"'\"'") for value in given}
        given |= {value.replace("\\", "\\\\") for value in given}
        given |= {value.replace("'", "\\'") for value in given}
        found = given | {printable(value, len(value)) for value in given}
        self._values = sorted(filter(None, found), key=len, reverse=True)

    def text(self, text: str) -> str:
        """``text`` with every such value as ``***``."""
        for value in self._values:
            text = text.replace(value, "***")
        return text

    def json(self, value: Any) -> Any:
        """A JSON value, likewise, in all its strings."""
        if not self._values:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.json(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.json(item) for item in value]
        return value


def printable(text: str, limit: int = 1000) -> str:
    """``text`` on one line, with everything escaped that is not safe to print.

    That is C0 and C1 controls, line and paragraph separators, format characters such as
    bidirectional overrides, and lone surrogates (undecodable file names). What is longer than
    ``limit`` characters is cut and ends in ``...``.
    """
    if len(text) > limit:
        text = text[: max(0, limit - 3)] + "..."
    if text.isprintable():
        return text
    return "".join(map(escaped, text))
