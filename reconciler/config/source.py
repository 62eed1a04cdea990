"""Bytes of YAML to a tree of nodes that know their place.

It gives scalars no types, and it must not know what a spec looks like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reconciler.base.text import escaped
from reconciler.config import syntax
from reconciler.config.errors import Problems, SpecError
from reconciler.config.nodes import Map, Node, Seq, Source, SourceMark, is_null
from reconciler.config.tree import REPLACEMENT, Builder, Stop, Unquoted

_UNFIT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"
)
_UNFIT_SHOWN = 5

# libyaml reads flow collections as YAML 1.1 does: in [directory:logs, a?] it takes the colon and
# the question mark for indicators, which in YAML 1.2 they are not. They are hidden from it
# behind characters that the text does not hold, one for one, so that places stay right.
_COLON = re.compile(r"""(?<!["'\]}]):(?=[^\s,\[\]{}])""")
_QUESTION = re.compile(r"\?(?=[^\s,\[\]{}])|(?<=[^\s,\[\]{}])\?")
_MASKS = 50


def load(data: bytes, source: Source, problems: Problems, main: bool = True) -> Map | None:
    """The mapping that a file holds, or None when it cannot be made out.

    ``source.text`` is set; what is wrong goes to ``problems``, all that can be found.
    """
    text = _decode(data, source, problems)
    if text is None:
        return None
    found = 0
    for match in _UNFIT.finditer(text):
        found += 1
        if found <= _UNFIT_SHOWN:
            code = ord(match[0])
            problems.add(
                SourceMark(source, match.start(), match.end()),
                f"a character that YAML text may not hold: U+{code:04X}",
                f'inside "double quotes" it can be written as {escaped(match[0])}',
            )
    if found:
        text = _UNFIT.sub(REPLACEMENT, text)
    root = _parse(text, source, bool(found), problems)
    if root is None:
        return None
    hint = _BEGIN if main else "write sections, such as directories:, or take it out of include"
    if is_null(root):
        problems.add(SourceMark(source, 0, 0), "the file is empty", hint)
        return None
    if not isinstance(root, Map):
        what = "a list" if isinstance(root, Seq) else "a single value"
        problems.add(root.at, f"a spec is a mapping of keys to values, not {what}", hint)
        return None
    return root


_BEGIN = "it begins with: version: 1"


def _decode(data: bytes, source: Source, problems: Problems) -> str | None:
    start = SourceMark(source, 0, 0)
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if wide or data[:4] == b"\0\0\xfe\xff" or (len(data) > 3 and _half_empty(data[:64])):
        problems.add(start, "the file is UTF-16 or UTF-32 text", "save it as UTF-8")
        return None
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        source.text = data.decode()
        bad = source.text.find("\0")
        if bad < 0:
            return source.text
        message, hint = "the file is binary, not text: there is a NUL byte here", None
    except UnicodeDecodeError as error:
        source.text = data.decode("utf-8", "replace")
        bad = len(data[: error.start].decode())
        if b"\0" in data:
            message, hint = "the file is binary, not text", None
        else:
            message = f"the byte 0x{data[error.start]:02x} here is not UTF-8"
            hint = "save the file as UTF-8"
    problems.add(SourceMark(source, bad, bad + 1), message, hint)
    return None


def _half_empty(data: bytes) -> bool:
    """Is every other byte NUL, as in ASCII text of 16 bits a character?"""
    return any(data) and not (any(data[::2]) and any(data[1::2]))


def _parse(text: str, source: Source, unfit: bool, problems: Problems) -> Node | None:
    """The root node; an empty scalar for an empty file; None after an error of syntax."""
    broken = False
    text, meant = _hidden(text)
    for _ in range(_MASKS):
        attempt = Problems()
        builder = Builder(source, attempt, meant, unfit)
        try:
            builder.run(_events(text))
        except Unquoted as template:
            # Told once, then hidden behind a string of the same length, so that the rest of
            # the file is still looked at.
            start = template.start
            end = syntax.unquoted_template(source, start, template.flow, problems)
            text = f'{text[:start]}"{"x" * (end - start - 2)}"{text[end:]}'
            broken = True
            continue
        except Stop:
            broken = True
        except Exception as error:
            broken = True
            if isinstance(error, SpecError):
                raise
            syntax.explain(error, source, builder.last, attempt)
        if "\t" in text:
            syntax.tabs(source, text, builder.spans, builder.seen, broken, attempt)
        problems.found += attempt.found
        return None if broken else builder.root
    return None


def _hidden(text: str) -> tuple[str, dict[int, str]]:
    """``text`` with stand-ins for signs that are no indicators, and what these stand for."""
    unused = (chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text)
    meant = {}
    for sign, pattern in ((":", _COLON), ("?", _QUESTION)):
        stand_in = next(unused, None)
        if stand_in is not None and sign in text:
            text = pattern.sub(stand_in, text)
            meant[ord(stand_in)] = sign
    return text, meant


def _events(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML

    return iter(YAML(typ="safe").parse(text))
