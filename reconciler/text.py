"""Text that is safe to show on a terminal, whoever wrote it, and holds no known secret."""

from __future__ import annotations

from reconciler.redaction import redacted

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


def printable(text: str, limit: int = 1000) -> str:
    """``text`` on one line, with everything escaped that is not safe to print.

    That is C0 and C1 controls, line and paragraph separators, format characters such as
    bidirectional overrides, and lone surrogates (undecodable file names). What is longer than
    ``limit`` characters is cut and ends in ``...``, after known secrets were taken out of it.
    """
    text = redacted(text)
    if len(text) > limit:
        text = text[: max(0, limit - 3)] + "..."
    return escapes(text)


def escapes(text: str) -> str:
    """``text`` with everything escaped that is not safe to print."""
    return text if text.isprintable() else "".join(map(escaped, text))
