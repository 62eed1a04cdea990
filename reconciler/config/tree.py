"""Events of a YAML parser to a tree of nodes that know their place.

The tree is put together with a stack of our own, and depth, number, aliases, tags and keys are
checked as the events come, so that no input can exhaust the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from reconciler.config.errors import Problems
from reconciler.config.nodes import Bare, Broken, Map, Node, Seq, Source, SourceMark, Text

MAX_DEPTH = 50
MAX_NODES = 500_000
"""Keys and values that may be written in one file."""
MAX_EXPANDED = 1_000_000
"""Keys and values once every alias is followed."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What stands for a character that YAML text may not hold."""


class Unquoted(Exception):
    """A template without quotes begins at ``start``, perhaps inside a flow collection."""

    def __init__(self, start: int, flow: bool) -> None:
        self.start = start
        self.flow = flow


class Stop(Exception):
    """Nothing sensible can be read from here on; the problem has been told."""


class _Frame:
    """A mapping or sequence that is still open."""

    __slots__ = ("anchor", "before", "flow", "height", "is_key", "key", "merges", "node")

    def __init__(self, node: Map | Seq, flow: bool, anchor: str | None, before: int) -> None:
        self.node = node
        self.flow = flow
        self.anchor = anchor
        self.before = before
        self.height = 1
        self.is_key = False
        self.key: Text | None = None
        self.merges: list[tuple[Text, Node]] = []


class Builder:
    """Takes the events of one file. ``meant`` says what stand-in characters stand for."""

    def __init__(
        self, source: Source, problems: Problems, meant: dict[int, str], unfit: bool
    ) -> None:
        self.source = source
        self.meant = meant
        self.stand_ins = frozenset(map(chr, meant))
        self.unfit = unfit
        self.problems = problems
        self.root: Node | None = None
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Node, int, int]] = {}
        self.opened: set[str] = set()
        self.written = 0
        self.expanded = 0
        self.documents = 0
        self.seen = 0
        self.last: Any = None
        self.spans: list[tuple[int, int, bool]] = []
        self.tabbed = "\t" in source.text
        self.dropped = Text()

    def run(self, events: Iterator[Any]) -> None:
        handlers: dict[str, Callable[[Any], None]] = {
            "ScalarEvent": self.scalar,
            "AliasEvent": self.alias,
            "MappingStartEvent": self.opening,
            "SequenceStartEvent": self.opening,
            "MappingEndEvent": self.closing,
            "SequenceEndEvent": self.closing,
            "DocumentStartEvent": self.document,
        }
        for event in events:
            handler = handlers.get(type(event).__name__)
            if handler is not None:
                handler(event)
                self.last = event
        if self.root is None:
            self.root = Bare()
            self.root.at = SourceMark(self.source, 0, 0)

    def mark(self, event: Any) -> SourceMark:
        return SourceMark(self.source, event.start_mark.index, event.end_mark.index)

    def document(self, event: Any) -> None:
        self.documents += 1
        mark = self.mark(event)
        if event.version is not None or event.tags:
            self.problems.add(
                mark, "directives such as %YAML and %TAG are not used", "leave the line out"
            )
        if self.documents > 1:
            self.problems.add(
                mark,
                "a second document begins here; a spec is one document",
                "leave '---' out, or put the rest into a file named under include",
            )
            raise Stop

    def count(self, event: Any, size: int = 1) -> None:
        self.seen = event.end_mark.index
        self.written += 1
        self.expanded += size
        if self.written > MAX_NODES:
            self.problems.add(
                self.mark(event),
                f"more than {MAX_NODES:,} keys and values in one file",
                "use for_each for what repeats",
            )
            raise Stop
        if self.expanded > MAX_EXPANDED:
            self.problems.add(
                self.mark(event),
                f"with its aliases followed, the file has more than {MAX_EXPANDED:,} keys and "
                "values",
                "an alias of aliases grows with every level",
            )
            raise Stop
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.problems.add(
                SourceMark(self.source, event.start_mark.index, event.start_mark.index + 1),
                "tags (words that begin with '!') are not used",
                "leave it out; put a value in quotes to make it text",
            )

    def scalar(self, event: Any) -> None:
        self.count(event)
        style = event.style
        value = event.value
        if self.stand_ins and not self.stand_ins.isdisjoint(value):
            value = value.translate(self.meant)
        node = Text(value) if style else Bare(value)
        mark = node.at = self.mark(event)
        if (self.unfit and REPLACEMENT in value) or (self.tabbed and not style and "\t" in value):
            node = self.broken(value, mark)
        if self.tabbed:
            self.spans.append((mark.start, mark.end, bool(style)))
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, 1, 0)
        self.place(node, mark)

    def broken(self, value: str, mark: SourceMark) -> Broken:
        node = Broken(value)
        node.at = mark
        return node

    def alias(self, event: Any) -> None:
        name = event.anchor
        mark = self.mark(event)
        if name in self.opened:
            self.problems.add(mark, f"the alias *{name} stands inside what it names")
            raise Stop
        if name not in self.anchors:
            self.count(event)
            self.problems.add(
                mark,
                f"no anchor &{name} stands before this alias",
                f'to mean the text, put it in quotes: "*{name}"',
                near=(name, self.anchors),
            )
            self.place(self.broken(name, mark), mark)
            return
        node, size, height = self.anchors[name]
        self.count(event, size)
        self.deep(mark, height)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, height + 1)
        self.place(node, mark)

    def deep(self, mark: SourceMark, height: int) -> None:
        if len(self.stack) + height > MAX_DEPTH:
            self.problems.add(mark, f"nested more than {MAX_DEPTH} levels deep")
            raise Stop

    def opening(self, event: Any) -> None:
        start = event.start_mark.index
        top = self.stack[-1] if self.stack else None
        is_map = type(event).__name__ == "MappingStartEvent"
        is_key = top is not None and isinstance(top.node, Map) and top.key is None
        if (
            is_key
            and is_map
            and top is not None
            and top.flow
            and event.flow_style
            and top.node.at.start == start - 1
            and self.source.text.startswith("{{", start - 1)
        ):
            outer = len(self.stack) > 1 and self.stack[-2].flow
            raise Unquoted(start - 1, outer)
        self.count(event)
        node: Map | Seq = Map() if is_map else Seq()
        node.at = SourceMark(self.source, start, start + 1)
        self.deep(node.at, 1)
        frame = _Frame(node, bool(event.flow_style), event.anchor, self.expanded - 1)
        frame.is_key = is_key
        if event.anchor is not None:
            self.opened.add(event.anchor)
        self.stack.append(frame)

    def closing(self, event: Any) -> None:
        self.seen = event.end_mark.index
        frame = self.stack.pop()
        node = frame.node
        if frame.merges and isinstance(node, Map):
            self.merge(node, frame.merges)
        if frame.anchor is not None:
            self.opened.discard(frame.anchor)
            size = self.expanded - frame.before
            self.anchors[frame.anchor] = (node, size, frame.height)
        if self.stack:
            self.stack[-1].height = max(self.stack[-1].height, frame.height + 1)
        self.place(node, node.at)

    def merge(self, node: Map, merges: list[tuple[Text, Node]]) -> None:
        for key, value in merges:
            for other in value if isinstance(value, Seq) else [value]:
                if isinstance(other, Map):
                    for name, item in other.items():
                        node.setdefault(name, item)
                else:
                    self.problems.add(
                        key.at, "'<<' takes a mapping, or a list of mappings, such as *defaults"
                    )

    def place(self, node: Node, mark: SourceMark) -> None:
        """Put a finished node where it belongs; ``mark`` is where it was written."""
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        holder = frame.node
        if isinstance(holder, Seq):
            holder.append(node)
        elif frame.key is None:
            if isinstance(node, Text):
                frame.key = node
            else:
                self.problems.add(mark, "a key must be a single value, not a list or a mapping")
                frame.key = self.dropped
        else:
            self.put(frame, holder, frame.key, node)
            frame.key = None

    def put(self, frame: _Frame, holder: Map, key: Text, node: Node) -> None:
        if key is self.dropped:
            return
        if key == "<<" and isinstance(key, Bare):
            if frame.merges:
                self.problems.add(
                    key.at, "a second '<<'", "give one '<<' a list: <<: [*first, *second]"
                )
            frame.merges.append((key, node))
        elif key in holder:
            first = holder.key(key).at
            line = first.source.line_of(first.start) + 1
            self.problems.add(
                key.at, f"the key {str(key)!r} is written twice; first on line {line}"
            )
        else:
            holder[key] = node
