"""Text that is safe to show on a terminal, whoever wrote it, and holds no known secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from reconciler.base.errors import HostError

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


HIDDEN = "***"
"""Stands for what is not shown."""
_LEAST = 4
"""Characters that a secret must have to be taken out; less are in the way everywhere."""
_LEAST_WORD = 8
"""The same for a line of a longer value that is made of letters only, as words are."""

_LOOKED_AT = 4096
"""Characters of the words of others that are looked through for forms: the time grows faster."""

_START = 4
"""Characters by whose digest it is known where a marked value may begin."""
_PLACES = r"(?s)(?:(?<![^\W_])|(?=[\W_]))(?=(.{4}))"
"""Those at every place where a value may begin: not within a word."""

_values: tuple[str, ...] = ()
_given: set[str] = set()
_load: Callable[[], tuple[bytes, Iterable[str]]] | None = None
_key = b""
_marked: dict[str, set[tuple[int, str]]] = {}
"""Lengths and digests of values that are not known, by the digest of how they start."""

_NAMES = r"passw(?:or)?d|passphrase|secret|token|api[-_]?key|credential|private[-_]?key"
_ONE = r"(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s'\"]+)"
_TELLING = r"(?i)hook|token|key|secret"
_WORDS = "pass pw secret token key credential"
"""Of these one stands in each of the names."""
_FORMS: tuple[tuple[str, str, str | Callable[[re.Match[str]], str]], ...] = (
    # https://me:pw@host; greedy, since a password may hold an @ as well.
    ("://", r"(?<=://)[^\s/'\"<>]+@", "***@"),
    # Addresses whose path or query is the secret, as those of webhooks are.
    ("://", r"(?i)(\b[a-z][a-z0-9+.-]{0,30}://)([^\s'\"]+)",
     lambda url: url[1] + HIDDEN if re.search(_TELLING, url[2]) else url[0]),
    # HTTP headers, up to the end of the line or of the quotes around it, RFC 9110.
    ("authorization cookie",
     r"(?i)((?:proxy-)?authorization|(?:set-)?cookie)(['\"]?\s*[:=]\s*['\"]?)[^'\"\n]+",
     r"\1\2***"),
    ("bearer", r"(?i)\b(bearer)(\s+)(?=\S*\d)[\w.~+/=-]{8,}", r"\1\2***"),
    # name=value, name: value and --name value, also with quotes around either.
    (_WORDS, rf"(?i)((?:{_NAMES}|\bpwd?|\bpass)[\w-]{{0,64}}['\"]?\s*[=:]\s*){_ONE}", r"\1***"),
    (_WORDS,
     rf"(?i)((?:^|[\s'\"])--?[\w-]{{0,64}}(?:{_NAMES})[\w-]{{0,64}}['\"]?\s+){_ONE}", r"\1***"),
    # curl -u me:pw; a uid and a gid are none.
    ("-u", r"(?<![\w-])(-u|-U|--user|--proxy-user)(['\"]?[\s=]*['\"]?)(?!\d+:\d+\b)"
     r"([^\s:'\"=]+):[^\s'\"]+", r"\1\2\3:***"),
    # mysql -ppw
    ("mysql mariadb sshpass",
     r"(\b(?:mysql|mariadb|sshpass)[\w-]*\b[^\n;|&]*?\s['\"]?-p)[^\s'\"]+", r"\1***"),
    # Tokens that well-known services give out, and JSON web tokens, RFC 7519.
    ("gh github_pat_ glpat- xox sk- akia aiza eyj",
     r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|sk-|AKIA|AIza)[\w-]{10,}"
     r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*", HIDDEN),
)  # fmt: skip
"""What looks like a secret, behind small letters of which some stand in all that does, and what
stands instead. No word of others may make it slow: what may be repeated in front of something else
has a bound."""


class FromFile(str):
    """A value that was read from a file, and so is not to be shown, whatever its name is.

    ``path`` is the file, and ``digest`` that of all its bytes.
    """

    __slots__ = ("digest", "path")
    path: str
    digest: bytes


def hide(values: Iterable[str]) -> None:
    """Let nothing that is shown from now on hold any of these values."""
    global _values
    new = set(filter(None, values)) - _given
    if new:
        _given.update(new)
        _values = tuple(_sorted({*_values, *_written(new)}))


def hide_marked(load: Callable[[], tuple[bytes, Iterable[str]]]) -> None:
    """Let nothing that is shown hold a value of which only the mark is known.

    ``load`` gives the key and the marks; it is called as soon as something is shown.
    """
    global _load
    _load = load


def hides_values() -> bool:
    """Is there anything that must not be shown?"""
    return bool(_values)


def marks(key: bytes) -> set[str]:
    """What tells each value that is hidden now from others, for whoever has the key."""
    return {_mark(value, key) for value in _values}


def redacted(text: str, also: Iterable[str] = ()) -> str:
    """``text`` with every known value, those of ``also``, and what is marked, as ``***``."""
    text = without_values(text, also)
    _take_marks()
    return _without_marked(text) if _marked else text


def without_values(text: str, also: Iterable[str] = ()) -> str:
    """The same but for what is marked, for much text of which little will be shown."""
    for value in _values:
        text = text.replace(value, HIDDEN)
    for value in _sorted(set(_written(also))):
        text = text.replace(value, HIDDEN)
    return text


def _take_marks() -> None:
    global _load, _key
    if _load is None:
        return
    (_key, known), _load = _load(), None
    for mark in set(known) - marks(_key):
        start, length, digest = mark.split(":")
        _marked.setdefault(start, set()).add((int(length), digest))


def _without_marked(text: str) -> str:
    starts = {start: _marked.get(_digest(start, 2)) for start in set(re.findall(_PLACES, text))}
    found = []
    for start in [start for start, lengths in starts.items() if lengths]:
        at = text.find(start)
        while at >= 0:
            for length, digest in starts[start] or ():
                if _digest(text[at : at + length], 16) == digest:
                    found.append(text[at : at + length])
            at = text.find(start, at + 1)
    for value in _sorted(found):
        text = text.replace(value, HIDDEN)
    return text


def _mark(value: str, key: bytes) -> str:
    return f"{_digest(value[:_START], 2, key)}:{len(value)}:{_digest(value, 16, key)}"


def _digest(text: str, size: int, key: bytes | None = None) -> str:
    from reconciler.base.digests import blake2b

    data = text.encode("utf-8", "surrogatepass")
    return blake2b(data, key=_key if key is None else key, digest_size=size).hexdigest()


def censored(text: str, also: Iterable[str] = (), most: int | None = _LOOKED_AT) -> str:
    """The words of others, without known values and without what looks like a secret.

    Of what is left without known values, at most the first ``most`` characters.
    """
    text = redacted(text, also)[:most]
    # Most texts hold none of them, and to look for those takes a tenth of the time.
    small = text.lower() if text.isascii() else None
    for words, form, instead in _FORMS:
        if small is None or any(word in small for word in words.split()):
            text = re.sub(form, instead, text)
    return text


def shortened(text: str, limit: int) -> str:
    """At most the first ``limit`` characters of ``text``, redacted before it is cut."""
    return redacted(text)[:limit]


def redacted_json(value: Any) -> Any:
    """A JSON value, redacted in all its strings."""
    _take_marks()
    if not _values and not _marked:
        return value
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {_redacted_key(key): redacted_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted_json(item) for item in value]
    return value


def _redacted_key(key: str) -> str:
    # Ids and paths; a plain name is one of our own, which stays even if a password is called so.
    return key if key.isidentifier() else redacted(key)


def _written(values: Iterable[str]) -> Iterator[str]:
    """The ways in which a secret may stand in a text, longer ones than the value among them."""
    for whole in values:
        if len(whole) < _LEAST:
            continue
        for value in _with_lines(whole):
            for form in {value, *_quoted(value)}:
                yield form
                if not form.isprintable():
                    # As Python and a terminal have it; only the one doubles a backslash.
                    yield (escaped := repr(form)[1:-1])
                    yield escaped.replace("\\\\", "\\")


def _with_lines(value: str) -> Iterator[str]:
    """The value, and each line of it that is long enough to be one."""
    yield value
    lines = value.splitlines()
    for line in map(str.strip, lines if len(lines) > 1 or value != value.strip() else ()):
        if len(line) >= (_LEAST_WORD if line.isalpha() else _LEAST):
            yield line


def _quoted(value: str) -> Iterator[str]:
    """As it is quoted for a shell, Python, JSON, a URL, cron and systemd."""
    if value.isascii() and value.isalnum():
        return
    yield value.replace("'", "'\"'\"'")
    yield value.replace("\\", "\\\\")
    yield value.replace("'", "\\'")
    yield repr(value)[1:-1]
    yield value.replace("%", "%%")
    yield value.replace("%", "\\%")
    from json import dumps
    from urllib.parse import quote

    yield dumps(value)[1:-1]
    yield dumps(value, ensure_ascii=False)[1:-1]
    encoded = value.encode("utf-8", "surrogatepass")
    yield quote(encoded, safe="")
    yield quote(encoded)


def _sorted(values: Iterable[str]) -> list[str]:
    # The longest first: one may be a part of another.
    return sorted(filter(None, values), key=len, reverse=True)
