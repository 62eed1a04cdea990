"""Text that is safe to show on a terminal, whoever wrote it, and holds no known secret."""

from __future__ import annotations

from reconciler.base.errors import HostError
from reconciler.base.redaction import redacted

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


def count_of(number: int, one: str, many: str | None = None) -> str:
    """``1 step``, ``1,200 steps``, ``3 passes``."""
    plural = many or one + ("es" if one.endswith("s") else "s")
    return f"1 {one}" if number == 1 else f"{number:,} {plural}"


def amount(number: float) -> str:
    """Bytes for people: "512 B", "1.2 MiB", "50 GiB"."""
    units = iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while number >= 1024 and unit != "TiB":
        number, unit = number / 1024, next(units)
    return f"{number:.{0 if unit == 'B' or number >= 10 else 1}f} {unit}"


def escapes(text: object, keep: str = "") -> str:
    """A text with everything escaped that is not safe to print, but for what is in ``keep``."""
    raw = str(text)
    if raw.isprintable():
        return raw
    return "".join(one if one in keep else escaped(one) for one in raw)


def error_in_words(error: BaseException) -> str:
    """What to say of an error, also of one that nobody foresaw: enough to report it, no more."""
    if isinstance(error, HostError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'input or output'}: {error.strerror.lower()}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"internal error: {type(error).__name__}: {error}{where}; please report it"
