"""``notify``: who is told of what.

It must not show a URL, nor what it was made of: whoever has one may write to its channel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from reconciler.base.scalars import parse_duration, parse_name, parse_path, parse_quiet
from reconciler.base.values import Secret
from reconciler.config.errors import Problems
from reconciler.config.include import Document
from reconciler.config.nodes import (
    Broken,
    Map,
    Node,
    Rendered,
    Seq,
    SourceMark,
    Text,
    get,
    is_null,
    place,
    texts,
)
from reconciler.config.scope import Scope
from reconciler.config.secrecy import hidden, shown
from reconciler.config.templates import Expression, TemplateError, split
from reconciler.core.model import EVENTS, Notify, Target

_FIELDS = ("targets", "remind_every", "report_every", "quiet", "title")
_PERIODS = 10
_TARGET = ("url", "url_file", "on")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}:\S+( .*)?")
_QUOTED = re.compile(r"""["']([^"']*)["']""")


def gathered(documents: Sequence[Document], problems: Problems) -> Node | None:
    """``notify`` of all the files of a spec as one; what stands in two of them is told."""
    nodes = [get(document.root, "notify") for document in documents]
    found = [node for node in nodes if node is not None and not is_null(node)]
    whole, targets = Map(), Map()
    for node in found:
        if len(found) == 1 or not isinstance(node, Map):
            return node
        whole.at = node.at
        for key, value in node.items():
            if key != "targets" or not isinstance(value, Map):
                _put(whole, key, value, "notify:", problems)
                continue
            if key not in whole:
                targets.at = value.at
                whole[key] = targets
            for name, target in value.items():
                _put(targets, name, target, "target", problems)
    return whole if found else None


def _put(whole: Map, key: Text, value: Node, what: str, problems: Problems) -> None:
    if key not in whole:
        whole[key] = value
        return
    first = whole.key(key).at
    where = f"{first.source.shown}, line {first.source.line_of(first.start) + 1}"
    problems.add(key.at, f"{what} {str(key)!r} is set twice; first in {where}")


class NotifyReader:
    """Reads ``notify``; ``notify`` is what it says, and ``urls`` are all that it names."""

    def __init__(
        self, scope: Scope, home: str, problems: Problems, settings: Collection[str] = ()
    ) -> None:
        self._settings = set(settings)
        self.notify = Notify()
        self.urls: list[str] = []
        self.made_of: set[str] = set()
        """The variables that have a part in a URL."""
        self.keeps_secrets = False
        """Some value of the environment stands in a field that is not made for secrets."""
        self._scope = scope
        self._home = home
        self._problems = problems

    def read(self, node: Node | None) -> None:
        """What stands below ``notify``."""
        if node is None or is_null(node):
            return
        if not self._fields(node, "notify", _FIELDS, "write notify: {targets: {NAME: {url: …}}}"):
            return
        self.notify = Notify(
            self._targets(node),
            self._value(node, "notify", "remind_every", parse_duration),
            self._value(node, "notify", "quiet", parse_quiet),
            self._value(node, "notify", "title", parse_name),
            self._periods(node),
        )

    def _periods(self, node: Node) -> tuple[float, ...]:
        """``report_every``: a duration, or a list of them."""
        assert isinstance(node, Map)
        value = get(node, "report_every")
        if value is None or is_null(value):
            return ()
        items = value if isinstance(value, Seq) else [value]
        found: dict[float, None] = {}
        if not items or len(items) > _PERIODS:
            hint = "write 1d, or [1d, 7d, 30d]"
            self._problems.add(
                value.at, f"notify: report_every takes one to {_PERIODS} durations", hint
            )
        for item in items[:_PERIODS]:
            text = self._scope.node(item)
            if isinstance(text, Broken):
                continue
            if isinstance(text, Rendered) and text.secret:
                self.keeps_secrets = True
            try:
                found[parse_duration(text)] = None
            except ValueError as error:
                said = hidden(text, str(error))
                self._problems.add(item.at, f"notify: report_every: {said}")
        return tuple(sorted(found))

    def _fields(self, node: Node, title: str, known: tuple[str, ...], hint: str) -> bool:
        """Is it a mapping? Keys that it may not have are told."""
        if not isinstance(node, Map):
            self._problems.add(node.at, f"{title} needs fields", hint)
            return False
        for key in node:
            if key not in known:
                self._problems.add(
                    key.at,
                    f"{title} has no field {str(key)!r}",
                    f"its fields are {', '.join(known)}",
                    near=(key, known),
                )
        return True

    def _targets(self, node: Node) -> tuple[Target, ...]:
        assert isinstance(node, Map)
        targets = get(node, "targets")
        if targets is None:
            self._problems.add(node.at, "notify needs 'targets'", "or leave notify out")
            return ()
        if is_null(targets):
            return ()
        if not isinstance(targets, Map):
            hint = "write targets: {NAME: {url: …}}"
            self._problems.add(targets.at, "targets needs names with fields", hint)
            return ()
        found = (self._target(key, value) for key, value in targets.items())
        return tuple(target for target in found if target is not None)

    def _target(self, key: Text, node: Node) -> Target | None:
        title = f"target {str(key)!r}"
        if not _NAME.fullmatch(key):
            self._problems.add(
                key.at, f"{title}: letters, digits, '_', '-' and '.' make the name of a target"
            )
            return None
        if not isinstance(node, Map):
            self._hide(node)  # Somebody has forgotten the word url.
        if not self._fields(node, title, _TARGET, "write {url: …} or {url_file: …}"):
            return None
        assert isinstance(node, Map)
        where = [name for name in ("url", "url_file") if get(node, name) is not None]
        if len(where) != 1:
            said = "has both url and url_file" if where else "needs url or url_file"
            hint = "take one out" if where else "url_file names a file that only you can read"
            if "url" in where:
                self._url(node, title)
            self._problems.add(key.at, f"{title} {said}", hint)
            return None
        on = self._events(get(node, "on"), title)
        url = url_file = None
        written_in = None
        if where == ["url"]:
            url = self._url(node, title)
            written_in = self._written_in(get(node, "url"))
        else:
            url_file = self._value(node, title, "url_file", self._path)
        return Target(str(key), on or Target("").on, url, url_file, written_in)

    def _written_in(self, value: Node | None) -> str | None:
        """The file in which a URL stands; None where it, or a part of it, comes from outside."""
        text = self._scope.node(value) if value is not None else None
        if not isinstance(text, Text) or not text or (isinstance(text, Rendered) and text.secret):
            return None
        outside = self._scope.made_of(value) & self._settings if value is not None else set()
        return None if outside else text.at.source.path

    def _url(self, node: Map, title: str) -> Secret | None:
        """The URL; all that it was made of is hidden in what is told from now on."""
        value = get(node, "url")
        assert value is not None
        mark = place(node, "url")
        self._hide(value)
        if not isinstance(value, Text):
            self._problems.add(mark, f"{title}: url needs a single value")
            return None
        if is_null(value) or not value:
            hint = "give it a value, or take the target out"
            self._problems.add(mark, f"{title}: url is empty", hint)
            return None
        text = self._scope.node(value)
        if isinstance(text, Broken) or not isinstance(text, Text):
            return None
        url = str(text).strip()
        self._problems.hide((url,))
        if url and not (_URL.fullmatch(url) and url.isprintable()):
            self._problems.add(
                mark,
                f"{title}: url is not a URL, which begins with slack:, https: or the like (it is "
                "not shown, since it is a secret)",
            )
            return None
        if url:
            self.urls.append(url)
        return Secret.of(url)

    def _hide(self, value: Node) -> None:
        """Show none of what it was made of: neither what is written here, nor variables."""
        names = self._scope.made_of(value)
        self.made_of |= names
        pieces = [self._scope.values.get(name) for name in names]
        for text in texts(value):
            try:
                parts = split(text)
            except TemplateError:
                parts = [str(text)]
            for part in parts:
                quoted = _QUOTED.findall(part.code) if isinstance(part, Expression) else [part]
                pieces.extend(quoted)
        self._problems.hide(piece for piece in pieces if isinstance(piece, str))

    def _events(self, node: Node | None, title: str) -> tuple[str, ...]:
        if node is None:
            return ()
        items = node if isinstance(node, Seq) else [node]
        if not items or is_null(node) or isinstance(node, Map):
            hint = f"the events are {', '.join(EVENTS)}"
            self._problems.add(node.at, f"{title}: on needs a list of events", hint)
            return ()
        found: dict[str, None] = {}
        for item in items:
            text = self._scope.node(item)
            if isinstance(text, Broken):
                continue
            if not isinstance(text, Text) or text not in EVENTS:
                said = f" {shown(text)[:40]!r}" if isinstance(text, Text) else ""
                near = (shown(text), EVENTS) if isinstance(text, Text) else None
                hint = f"the events are {', '.join(EVENTS)}"
                self._problems.add(item.at, f"{title}: on: there is no event{said}", hint, near)
                continue
            found[str(text)] = None
        return tuple(event for event in EVENTS if event in found)

    def _value(self, node: Node, title: str, name: str, parse: Callable[[object], Any]) -> Any:
        """The field ``name`` as ``parse`` reads it; None when it is not there, or not valid."""
        assert isinstance(node, Map)
        value = get(node, name)
        if value is None:
            return None
        mark: SourceMark = place(node, name)
        text = self._scope.node(value)
        if isinstance(text, Broken):
            return None
        if isinstance(text, Rendered) and text.secret:
            self.keeps_secrets = True
        try:
            return parse(text)
        except ValueError as error:
            self._problems.add(mark, f"{title}: {name}: {hidden(text, str(error))}")
            return None

    def _path(self, value: object) -> str:
        if isinstance(value, Text) and not is_null(value) and value.startswith("~/"):
            value = self._home + value[1:]
        return parse_path(value)
