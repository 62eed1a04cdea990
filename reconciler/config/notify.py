"""``notify``: who gets which messages.

It must not show a URL, nor what it was made of: whoever has one may write to its channel.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any

from reconciler.base.records import dataclass
from reconciler.base.scalars import InvalidScalar, parse_quiet
from reconciler.base.values import Alive, Notify, Secret, Target
from reconciler.config.errors import Problems
from reconciler.config.nodes import (
    Broken,
    Map,
    Node,
    Rendered,
    SourceMark,
    Text,
    follow,
    is_null,
    is_secret,
    texts,
)
from reconciler.config.scope import Scope
from reconciler.config.template import Expression, TemplateError, split
from reconciler.config.validate import Validator
from reconciler.core.fields import Duration, Name, Parsed, Path
from reconciler.core.messages import EVENTS

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}:\S+( .*)?")
_QUOTED = re.compile(r"""["']([^"']*)["']""")
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]"


class _OneOrMore:
    """Annotation of a list: a single item does as well, and there are at most ``most``."""

    def __init__(self, most: int, hint: str) -> None:
        self._most = most
        self._hint = hint

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        function = {"type": "no-info", "function": self._items}
        return {"type": "function-before", "function": function, "schema": handler(source)}

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        many = handler(core)
        return {"anyOf": [{**many, "minItems": 1, "maxItems": self._most}, many["items"]]}

    def _items(self, node: Any) -> Any:
        items = [node] if isinstance(node, Text) else node
        if is_null(node) or not 0 < len(items) <= self._most:
            raise InvalidScalar(f"takes 1 to {self._most} of them", hint=self._hint)
        return items


def _event(value: object) -> str:
    if value not in EVENTS:
        said = f" {str(value)[:40]!r}" if isinstance(value, str) else ""
        near = (str(value), EVENTS) if said else None
        hint = f"the events are {', '.join(EVENTS)}"
        raise InvalidScalar(f"there is no event{said}", near=near, hint=hint)
    return str(value)


def _url(value: object) -> Secret:
    """A URL; one that a template leaves empty switches the target off. Raises ValueError."""
    if not isinstance(value, Text):
        raise ValueError("needs a single value")
    if not isinstance(value, Rendered) and (is_null(value) or not value):
        raise ValueError("is empty; give it a value, or take the target out")
    url = value.strip()
    if url and not (_URL.fullmatch(url) and url.isprintable()):
        raise ValueError(
            "is not a URL, which begins with slack:, https: or the like (it is not shown, since "
            "it is a secret)"
        )
    return Secret.of(url)


_Url = Annotated[Secret, Parsed(_url, {"type": "string", "minLength": 1})]
_Event = Annotated[str, Parsed(_event, {"enum": list(EVENTS)})]
_Quiet = Annotated[
    tuple[int, int],
    Parsed(parse_quiet, {"type": "string", "pattern": rf"^{_TIME}-{_TIME}$|\{{\{{"}),
]
_PERIODS = 10


@dataclass(frozen=True, slots=True)
class TargetFields:
    """Who gets messages; exactly one of ``url`` and ``url_file`` says where."""

    url: _Url | None = None
    """Any URL of apprise. Better: url_file."""
    url_file: Path | None = None
    """A file with the URL on its first line. As long as it does not exist, nothing is sent."""
    on: Annotated[tuple[_Event, ...], _OneOrMore(100, "write a list of events")] = Target("").on
    """The events that are sent."""


@dataclass(frozen=True, slots=True)
class AliveFields:
    """A service elsewhere that notices when passes no longer come to their end."""

    url_file: Path
    """A file with its URL: a GET after each pass that came to its end, or of URL/fail after one
    that did not."""
    every: Duration = 60.0
    """The shortest time between two of them in a loop, as long as they say the same."""


@dataclass(frozen=True, slots=True)
class NotifyFields:
    """Who gets messages when something goes wrong, and when it has recovered."""

    targets: dict[str, TargetFields] | None = None
    """Who gets messages, by names of your own; several files of a spec may have some."""
    remind_every: Duration | None = None
    """Time after which what is still wrong is sent again."""
    report_every: Annotated[
        tuple[Duration, ...], _OneOrMore(_PERIODS, "write 1d, or [1d, 7d, 30d]")
    ] = ()
    """How often a report sums up what has happened: 1d, or [1d, 7d, 30d]."""
    quiet: _Quiet | None = None
    """From when to when messages are held back, to be sent as one afterwards; gave_up is not."""
    title: Name | None = None
    """The title of every message."""
    alive: AliveFields | None = None
    """A service that is told of each pass, and so notices when the host is dead."""


class NotifyReader:
    """Reads ``notify``; ``notify`` is what it says, and ``urls`` are all that it names."""

    def __init__(
        self, scope: Scope, validator: Validator, problems: Problems, settings: Collection[str] = ()
    ) -> None:
        self.notify = Notify()
        self.urls: list[str] = []
        self.made_of: set[str] = set()
        """The variables that have a part in a URL."""
        self._settings = set(settings)
        self._scope = scope
        self._validator = validator
        self._problems = problems
        self._first: dict[tuple[str, str], SourceMark] = {}

    def read(self, roots: Sequence[Map]) -> None:
        """What stands below ``notify`` in all the files of a spec."""
        nodes = [root.get("notify") for root in roots]
        found = [node for node in nodes if node is not None and not is_null(node)]
        for node in found:
            if isinstance(node, Map):
                self._one(node)
            else:
                hint = "write notify: {targets: {NAME: {url: …}}}"
                self._problems.add(node.at, "notify needs fields", hint)
        named = ("targets", "alive")
        if found and all(isinstance(n, Map) and not any(k in n for k in named) for n in found):
            self._problems.add(found[-1].at, "notify needs 'targets'", "or leave notify out")

    def _one(self, node: Map) -> None:
        targets = node.get("targets")
        self._once(node, "notify:", "targets")
        if isinstance(targets, Map):
            self._once(targets, "target")
            for name, body, at in targets.entries():
                if not _NAME.fullmatch(name):
                    letters = "letters, digits, '_', '-' and '.' make the name of a target"
                    self._problems.add(at, f"target {name!r}: {letters}")
                # What is no mapping is a URL of somebody who has forgotten the word url.
                self._hide(body.get("url") if isinstance(body, Map) else body)
        body = self._scope.node(node)
        assert isinstance(body, Map)
        empty = [key for key in ("targets", "report_every") if is_null(body.get(key))]
        body = body.but({key: value for key, value in body.items() if key not in empty})
        fields = self._validator.read(NotifyFields, body, "notify", node.at)
        if fields is None:
            return
        made = []
        for name, target in (fields.targets or {}).items():
            assert isinstance(targets, Map)
            if (target.url is None) == (target.url_file is None):
                both = target.url is not None
                what = "has both url and url_file" if both else "needs url or url_file"
                hint = "take one out" if both else "url_file names a file that only you can read"
                self._problems.add(targets.key(name), f"target {name!r} {what}", hint)
            if target.url is not None:
                self.urls += filter(None, [target.url.reveal()])
            on = tuple(event for event in EVENTS if event in target.on)
            written_in = self._written_in(node, body, name)
            made.append(Target(name, on, target.url, target.url_file, written_in))
        before = self.notify
        self.notify = Notify(
            (*before.targets, *made),
            fields.remind_every or before.remind_every,
            fields.quiet or before.quiet,
            fields.title or before.title,
            tuple(sorted(set(fields.report_every))) or before.report_every,
            Alive(fields.alive.url_file, fields.alive.every) if fields.alive else before.alive,
        )

    def _once(self, node: Map, what: str, *but: str) -> None:
        """What stands in two files is reported."""
        for name, _, at in node.entries():
            first = self._first.setdefault((what, name), at)
            if first is not at and name not in but:
                self._problems.add(at, f"{what} {name!r} is set twice; first in {first}")

    def _written_in(self, node: Map, body: Map, name: str) -> str | None:
        """The file in which a URL stands; None where it, or a part of it, comes from outside."""
        written, url = (follow(each, ("targets", name, "url"))[0] for each in (node, body))
        if not isinstance(url, Text) or not url or is_secret(url):
            return None
        return None if self._scope.made_of(written) & self._settings else url.source.path

    def _hide(self, value: Node | None) -> None:
        """Show none of what a URL was made of: neither what is written here, nor variables."""
        if value is None:
            return
        names = self._scope.made_of(value)
        self.made_of |= names
        pieces = [self._scope.values.get(name) for name in names]
        for text in texts(value):
            rendered = self._scope.text(text)
            pieces.append(None if isinstance(rendered, Broken) else rendered.strip())
            try:
                parts = split(text)
            except TemplateError:
                parts = (str(text),)
            for part in parts:
                pieces += _QUOTED.findall(part) if isinstance(part, Expression) else [part]
        self._problems.hide(piece for piece in pieces if isinstance(piece, str))
