"""Bytes of YAML to a tree of nodes that know their place.

The tree is put together from the parser's events with a stack of its own, and depth, number,
aliases, tags and keys are checked as the events come, so that no input can exhaust the machine:
ruamel's own composer recurses, keeps twice as much and takes longer. It gives scalars no types,
and it must not know what a spec looks like.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from typing import Any

from ruamel.yaml import YAML

from reconciler.base.text import escaped
from reconciler.config import syntax
from reconciler.config.errors import Problems, SpecError
from reconciler.config.nodes import (
    Bare,
    Map,
    Node,
    Seq,
    Source,
    SourceMark,
    Text,
    broken,
    is_null,
    placed,
)

MAX_DEPTH = 50
MAX_NODES = 500_000
"""Keys and values that may be written in one file."""
MAX_EXPANDED = 1_000_000
"""Keys and values once every alias is followed."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands for a character that YAML text may not hold."""
_UNFIT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"
)
_UNFIT_SHOWN = 5
_SURROGATE = re.compile("[\ud800-\udfff]")
_BEGIN = "it begins with: version: 1"

# libyaml reads flow collections as YAML 1.1 does: in [directory:logs, a?] it takes the colon and
# the question mark for indicators, which in YAML 1.2 they are not. They are hidden from it
# behind characters that the text does not hold, one for one, so that places stay right.
_INDICATORS = (
    (":", re.compile(r"""(?<!["'\]}]):(?=[^\s,\[\]{}])""")),
    ("?", re.compile(r"\?(?=[^\s,\[\]{}])|(?<=[^\s,\[\]{}])\?")),
)
_MASKS = 50


def load(data: bytes, source: Source, problems: Problems, main: bool = True) -> Map | None:
    """The mapping that a file holds, or None when it cannot be made out.

    ``source.text`` is set; what is wrong goes to ``problems``, all that can be found.
    """
    text = _decoded(data, source, problems)
    if text is None:
        return None
    source.templated = "{{" in text or "\\" in text  # An escape may stand for a brace.
    unfit = list(_UNFIT.finditer(text))
    for match in unfit[:_UNFIT_SHOWN]:
        problems.add(
            SourceMark(source, match.start(), match.end()),
            f"a character that YAML text may not hold: U+{ord(match[0]):04X}",
            f'inside "double quotes" it can be written as {escaped(match[0])}',
        )
    if unfit:
        text = _UNFIT.sub(_REPLACEMENT, text)
    root = _parsed(text, source, bool(unfit), problems)
    hint = _BEGIN if main else "write sections, such as directories:, or take it out of include"
    if root is not None and is_null(root):
        problems.add(SourceMark(source, 0, 0), "the file is empty", hint)
    elif isinstance(root, (Text, Seq)):
        what = "a list" if isinstance(root, Seq) else "a single value"
        problems.add(root.at, f"a spec is a mapping of keys to values, not {what}", hint)
    return root if isinstance(root, Map) else None


def _decoded(data: bytes, source: Source, problems: Problems) -> str | None:
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"))
    begin = data[:64]
    # Every other byte is NUL, as in ASCII text of 16 bits a character.
    wide |= any(begin) and len(data) > 3 and not (any(begin[::2]) and any(begin[1::2]))
    if wide:
        message = "the file is UTF-16 or UTF-32 text"
        problems.add(SourceMark(source, 0, 0), message, "save it as UTF-8")
        return None
    data = data.removeprefix(b"\xef\xbb\xbf")
    hint = None
    try:
        source.text = data.decode()
        bad = source.text.find("\0")
        if bad < 0:
            return source.text
        message = "the file is binary, not text: there is a NUL byte here"
    except UnicodeDecodeError as error:
        source.text = data.decode("utf-8", "replace")
        bad = len(data[: error.start].decode())
        message = "the file is binary, not text"
        if b"\0" not in data:
            message = f"the byte 0x{data[error.start]:02x} here is not UTF-8"
            hint = "save the file as UTF-8"
    problems.add(SourceMark(source, bad, bad + 1), message, hint)
    return None


def _parsed(text: str, source: Source, unfit: bool, problems: Problems) -> Node | None:
    """The root node; an empty scalar for an empty file; None after an error of syntax."""
    failed = False
    unused = (chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in text)
    meant = {}
    for sign, pattern in _INDICATORS:
        if sign in text and (stand_in := next(unused, None)) is not None:
            text, number = pattern.subn(stand_in, text)
            meant.update({ord(stand_in): sign} if number else {})
    for _ in range(_MASKS):
        attempt = Problems()
        builder = _Builder(source, attempt, meant, unfit)
        try:
            builder.run(YAML(typ="safe").parse(text))
        except _Unquoted as template:
            # Reported once, then hidden behind a string of the same length, so that the rest of
            # the file is still looked at.
            start = template.start
            end = syntax.unquoted_template(source, start, template.flow, problems)
            text = f'{text[:start]}"{"x" * (end - start - 2)}"{text[end:]}'
            failed = True
            continue
        except _Aborted:
            failed = True
        except SpecError:
            raise
        except Exception as error:
            failed = True
            syntax.explain(error, source, builder.last, attempt)
        if "\t" in text:
            syntax.tabs(source, text, builder.spans, builder.seen, failed, attempt)
        problems.found += attempt.found
        return None if failed else builder.root
    return None


class _Unquoted(Exception):
    """A template without quotes begins at ``start``, perhaps inside a flow collection."""

    def __init__(self, start: int, flow: bool) -> None:
        self.start = start
        self.flow = flow


class _Aborted(Exception):
    """Nothing sensible can be read from here on; the problem has been reported."""


class _Open:
    """A mapping or sequence that is still open."""

    __slots__ = ("anchor", "before", "flow", "height", "is_map", "key", "merges", "node", "starts")

    def __init__(self, node: Map | Seq, event: Any, before: int) -> None:
        self.node = node
        self.is_map = isinstance(node, Map)
        self.flow = bool(event.flow_style)
        self.anchor: str | None = event.anchor
        self.before = before
        self.height = 1
        self.key: str | None = None
        self.starts: list[int] = []
        self.merges: list[tuple[SourceMark, Node]] = []


_DROPPED = "a key whose value is not kept"
_MERGE = "the key << without quotes"
"""Stand for such keys, and are known by their identity."""


class _Builder:
    """Takes the events of one file. ``meant`` says what stand-in characters stand for."""

    def __init__(
        self, source: Source, problems: Problems, meant: dict[int, str], unfit: bool
    ) -> None:
        self.source = source
        self.meant = meant
        self.stand_ins = frozenset(map(chr, meant))
        self.problems = problems
        self.root: Node = placed(Bare(), source, 0)
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Node, int, int]] = {}
        self.opened: set[str] = set()
        self.written = 0
        self.expanded = 0
        self.documents = 0
        self.seen = 0
        self.last: Any = None
        self.spans: list[tuple[int, int, bool]] = []
        self.tabbed = "\t" in source.text
        self.unfit = unfit
        self.odd = self.tabbed or unfit
        source.starts, source.ends = array("I"), array("I")

    def run(self, events: Iterable[Any]) -> None:
        """Build the tree. Raises _Aborted, _Unquoted and whatever the parser raises."""
        handlers = {
            "ScalarEvent": self._scalar,
            "AliasEvent": self._alias,
            "MappingStartEvent": self._opening,
            "SequenceStartEvent": self._opening,
            "MappingEndEvent": self._closing,
            "SequenceEndEvent": self._closing,
            "DocumentStartEvent": self._document,
        }
        for event in events:
            handler = handlers.get(type(event).__name__)
            if handler is not None:
                handler(event)
                self.last = event

    def _mark(self, event: Any) -> SourceMark:
        return SourceMark(self.source, event.start_mark.index, event.end_mark.index)

    def _stop(self, mark: SourceMark, message: str, hint: str | None = None) -> None:
        self.problems.add(mark, message, hint)
        raise _Aborted

    def _document(self, event: Any) -> None:
        self.documents += 1
        if event.version is not None or event.tags:
            message = "directives such as %YAML and %TAG are not used"
            self.problems.add(self._mark(event), message, "leave the line out")
        if self.documents > 1:
            self._stop(
                self._mark(event),
                "a second document begins here; a spec is one document",
                "leave '---' out, or put the rest into a file named under include",
            )

    def _count(self, event: Any, size: int = 1) -> None:
        self.seen = event.end_mark.index
        self.written += 1
        self.expanded += size
        if self.written > MAX_NODES:
            message = f"more than {MAX_NODES:,} keys and values in one file"
            self._stop(self._mark(event), message, "use for_each for what repeats")
        if self.expanded > MAX_EXPANDED:
            self._stop(
                self._mark(event),
                f"with its aliases followed, the file has more than {MAX_EXPANDED:,} keys and "
                "values",
                "an alias of aliases grows with every level",
            )
        if getattr(event, "tag", None) is not None:
            self.problems.add(
                SourceMark(self.source, event.start_mark.index, event.start_mark.index + 1),
                "tags (words that begin with '!') are not used",
                "leave it out; put a value in quotes to make it text",
            )

    def _scalar(self, event: Any) -> None:
        self._count(event)
        source, style, value, end = self.source, event.style, event.value, self.seen
        start = event.start_mark.index
        source.starts.append(start)
        source.ends.append(end)
        if self.stand_ins and not self.stand_ins.isdisjoint(value):
            value = value.translate(self.meant)
        unfit = False
        if not value.isascii() and _SURROGATE.search(value):
            unfit = True  # libyaml finds it itself.
            message = "there is an escape that is no character of Unicode"
            self.problems.add(self._mark(event), message)
        if self.odd:
            if self.tabbed:
                self.spans.append((start, end, bool(style)))
            tabbed = not style and "\t" in value
            unfit |= tabbed or (self.unfit and _REPLACEMENT in value)
        if self.stack and event.anchor is None:
            top = self.stack[-1]
            if top.key is None and top.is_map:
                top.key = _DROPPED if unfit else _MERGE if value == "<<" and not style else value
                top.starts.append(start)
                return
        node = Text(value) if style else Bare(value)
        node.source, node.start = source, start
        if unfit:
            node = broken(node)
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 1, 0)
        self._place(node, start)

    def _alias(self, event: Any) -> None:
        name, mark = event.anchor, self._mark(event)
        if name in self.opened:
            self._stop(mark, f"the alias *{name} stands inside what it names")
        if name not in self.anchors:
            self._count(event)
            self.problems.add(
                mark,
                f"no anchor &{name} stands before this alias",
                f'to mean the text, put it in quotes: "*{name}"',
                near=(name, self.anchors),
            )
            self._place(broken(placed(Text(name), self.source, mark.start)), mark.start)
            return
        node, size, height = self.anchors[name]
        self._count(event, size)
        self._deep(mark, height)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, height + 1)
        self._place(node, mark.start)

    def _deep(self, mark: SourceMark, height: int) -> None:
        if len(self.stack) + height > MAX_DEPTH:
            self._stop(mark, f"nested more than {MAX_DEPTH} levels deep")

    def _opening(self, event: Any) -> None:
        start = event.start_mark.index
        top = self.stack[-1] if self.stack else None
        node: Map | Seq = Map() if type(event).__name__ == "MappingStartEvent" else Seq()
        if (
            isinstance(node, Map) and event.flow_style
            and top is not None and top.flow and top.key is None and isinstance(top.node, Map)
            and top.node.start == start - 1 and self.source.text.startswith("{{", start - 1)
        ):  # fmt: skip
            raise _Unquoted(start - 1, len(self.stack) > 1 and self.stack[-2].flow)
        self._count(event)
        placed(node, self.source, start)
        self._deep(node.at, 1)
        if event.anchor is not None:
            self.opened.add(event.anchor)
        self.stack.append(_Open(node, event, self.expanded - 1))

    def _closing(self, event: Any) -> None:
        self.seen = event.end_mark.index
        done = self.stack.pop()
        node = done.node
        if isinstance(node, Map):
            self._merge(node, done)
            node.starts = tuple(done.starts)
        if done.anchor is not None:
            self.opened.discard(done.anchor)
            self.anchors[done.anchor] = (node, self.expanded - done.before, done.height)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, done.height + 1)
        self._place(node, node.start)

    def _merge(self, node: Map, done: _Open) -> None:
        for mark, value in done.merges:
            for other in value if isinstance(value, Seq) else [value]:
                if isinstance(other, Map):
                    for (name, item), start in zip(other.items(), other.starts, strict=True):
                        if name not in node:
                            node[name] = item
                            done.starts.append(start)
                else:
                    what = "'<<' takes a mapping, or a list of mappings, such as *defaults"
                    self.problems.add(mark, what)

    def _place(self, node: Node, start: int) -> None:
        """Put a finished node where it belongs."""
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        holder = top.node
        if isinstance(holder, Seq):
            holder.append(node)
        elif top.key is not None:
            self._put(top, holder, top.key, node)
            top.key = None
        else:
            top.starts.append(start)
            top.key = str(node) if isinstance(node, Text) else _DROPPED
            if not isinstance(node, Text):
                mark = SourceMark(self.source, start, start + 1)
                self.problems.add(mark, "a key must be a single value, not a list or a mapping")

    def _put(self, top: _Open, holder: Map, key: str, node: Node) -> None:
        if key not in holder and key is not _DROPPED and key is not _MERGE:
            holder[key] = node
            return
        start = top.starts.pop()
        mark = SourceMark(self.source, start, self.source.end_of(start))
        if key is _MERGE:
            if top.merges:
                hint = "give one '<<' a list: <<: [*first, *second]"
                self.problems.add(mark, "a second '<<'", hint)
            top.merges.append((mark, node))
        elif key is not _DROPPED:
            line = self.source.line_of(top.starts[list(holder).index(key)]) + 1
            message = f"the key {key!r} is written twice; first on line {line}"
            self.problems.add(mark, message)
