"""Templates of resources: which file is meant, what they see, and where an error of them is.

It must not know what a template is for; a kind makes text of what it gives.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.base.records import options
from reconciler.config.errors import AlreadyReported, Problems
from reconciler.config.nodes import Map, Source, SourceMark, Text
from reconciler.config.scope import FIXED, Scope
from reconciler.config.template import LITERAL_HINT, TemplateError
from reconciler.core.kind import Templated
from reconciler.core.templating import BadValue, RenderedTemplate
from reconciler.host import spec_files
from reconciler.host.spec_files import folder, lying, placed

if TYPE_CHECKING:
    from reconciler.config.resolve import Declaration
    from reconciler.config.template_file import Template

MISSING = b""
"""Stands for the digest of a template that was looked for, and is not there."""
MAX_TEXT = 256 * 1024
"""Characters that a template may have, and what it gives."""


_marked: dict[type[Any], Mapping[str, str]] = {}


def marked(resource: type[Any]) -> Mapping[str, str]:
    """The fields of a kind's resource that have to do with templates, and how."""
    if resource not in _marked:
        said = {name: one.get("metadata", {}) for name, one in options(resource).items()}
        own = {name: one["template"] for name, one in said.items() if "template" in one}
        _marked[resource] = own
    return _marked[resource]


def unevaluated(resource: type[Any]) -> tuple[str, ...]:
    """The fields that keep their templates until they are rendered."""
    return tuple(name for name, sort in marked(resource).items() if sort != "file")


class Renderer:
    """Renders the templates of every resource of one spec.

    ``digests`` gets an entry for every file that was read or looked for.
    """

    def __init__(self, scope: Scope, problems: Problems, digests: dict[str, bytes]) -> None:
        self.scope = scope
        self.problems = problems
        self.digests = digests
        self.keeps_secrets = False
        """A secret stands in what a template gave."""
        self.secrets: list[str] = []
        """The values of variables that a resource has named as secret."""
        self._sources: dict[str, Source] = {}
        self._templates: dict[str, Template] = {}

    def want(self, declared: Declaration, want: Any) -> Any:
        """``want`` with what its templates give; None when something is wrong with them."""
        kind = declared.kind
        if want is None or not declared.present or not isinstance(kind, Templated):
            return want
        named = getattr(want, "secret", ())  # A kind may have a flag of that name.
        work = _ResourceTemplates(self, declared, named if isinstance(named, tuple) else ())
        try:
            return kind.rendered(want, work)
        except BadValue as error:
            work.report(error.field, error.line, str(error))
        except AlreadyReported:
            pass
        return None

    def source(self, name: Text, title: str) -> Source:
        """The file that a field names, read. Raises AlreadyReported."""
        path, shown = self._find(name, title)
        if path in self._sources:
            return self._sources[path]
        try:
            data = spec_files.read(path, f"the template {shown}")
            text = data.decode()
        except spec_files.ReadError as error:
            self.problems.files.setdefault(path, b"")
            self.problems.add(name.at, f"{title}: {error.message}", error.hint)
            raise AlreadyReported from None
        except UnicodeDecodeError as error:
            self.problems.add(name.at, f"{title}: the template {shown} is not UTF-8: {error}")
            raise AlreadyReported from None
        self.digests[path] = self.problems.files[path] = spec_files.digest(data)
        self._sources[path] = made = Source(shown, path, text)
        return made

    def _find(self, name: Text, title: str) -> tuple[str, str]:
        """The path of a template, and its name for people: beside the spec, else shipped."""
        own, shown = os.path.dirname(name.source.path), os.path.dirname(name.source.shown)
        home = str(self.scope.values["user"]["home"])
        plain = home + name[1:] if name.startswith("~/") else str(name)
        places = [(own, shown), (f"{own}/templates", os.path.join(shown, "templates"))]
        if not plain.startswith("/"):
            places.append((folder("templates"), folder("templates")))
        for place, words in places:
            path = os.path.normpath(os.path.join(place, plain))
            if os.path.lexists(path):
                return path, os.path.join(words, plain)
            self.digests[path] = self.problems.files[path] = MISSING
        near = [entry for place, _ in places for entry in _names(place)]
        tried = " and ".join(dict.fromkeys(words or "." for _, words in places))
        self.problems.add(
            name.at,
            f"{title}: there is no template {str(name)!r}",
            f"it was looked for in {tried}",
            near=(os.path.basename(plain), near),
        )
        raise AlreadyReported

    def template(self, text: str) -> Template:
        """That template, read. Raises InvalidTemplate."""
        if text not in self._templates:
            from reconciler.config.sandbox import Sandbox
            from reconciler.config.template_file import Template

            sandbox = Sandbox(lambda: [*self.scope.values, "range"])
            self._templates[text] = Template(sandbox, text)
        return self._templates[text]


class _ResourceTemplates:
    """The templates of one resource, as its kind sees them."""

    def __init__(self, renderer: Renderer, declared: Declaration, secret: Collection[str]) -> None:
        self.renderer = renderer
        self.secret = secret
        self.declared = declared
        self.id = declared.id
        self.spec = str(renderer.scope.values["spec"]["name"])
        self._marked = marked(declared.kind.resource)
        self._sources: dict[str, Source] = {}

    def render(self, field: str) -> RenderedTemplate:
        """What the template in ``field`` gives. Raises AlreadyReported."""
        from reconciler.config.template_file import InvalidTemplate

        node = self.declared.body[field]
        assert isinstance(node, Text)
        text = str(node)
        if self._marked[field] == "file":
            title = f"{self.declared.title}: {field}"
            self._sources[field] = source = self.renderer.source(node, title)
            text = source.text
        if len(text) > MAX_TEXT:
            self.report(field, 1, f"is longer than {MAX_TEXT:,} characters")
            raise AlreadyReported
        scope = self.renderer.scope
        values, secrets = self._values()
        try:
            template = self.renderer.template(text)
        except InvalidTemplate as error:
            said = str(error)
            self.report(field, error.line, said, LITERAL_HINT if "unexpected" in said else None)
            raise AlreadyReported from None
        unused = self._report_unused(field, template.names)
        if template.names & scope.failed:
            raise AlreadyReported
        before = scope.environ.secrets
        hidden = bool(template.names & secrets)
        try:
            pieces = template.pieces(values)
        except TemplateError as error:
            message, hint = error.message, error.hint
            if hidden or scope.environ.secrets != before:
                message = "cannot be evaluated with this secret value (not shown)"
                hint = None
            self.report(field, template.line_of(error), message, hint)
            raise AlreadyReported from None
        hidden = hidden or scope.environ.secrets != before
        self.renderer.keeps_secrets |= hidden
        if unused:
            raise AlreadyReported
        return RenderedTemplate(pieces, hidden)

    def beside(self, field: str) -> str:
        """The whole path of the file that ``field`` names. Raises AlreadyReported."""
        node = self.declared.body[field]
        assert isinstance(node, Text)
        home = str(self.renderer.scope.values["user"]["home"])
        plain = home + node[1:] if node.startswith("~/") else str(node)
        own = os.path.dirname(node.source.path)
        path = placed(os.path.normpath(os.path.join(own, plain)))
        if not os.path.isfile(lying(path)):
            names = _names(os.path.dirname(lying(path)))
            what = f"{self.declared.title}: {field}: there is no file {path}"
            self.renderer.problems.add(node.at, what, near=(os.path.basename(path), names))
            raise AlreadyReported
        return path

    def _report_unused(self, field: str, names: frozenset[str]) -> bool:
        """Is there a variable that the template never mentions? It is a mistake, and reported.

        What ``run_ass: nobody`` was to do is not done, and the service would run as root.
        """
        unused = [(body, key) for _, body in self._own() for key in body if key not in names]
        for body, key in unused:
            what = f"{self.declared.title}: vars: the {field} does not use {key!r}"
            near = key, [name for name in names if name not in FIXED]
            self.renderer.problems.add(body.key(key), what, "take it out", near=near)
        return bool(unused)

    def _own(self) -> Iterator[tuple[str, Map]]:
        """The fields that hold the resource's own variables, and these."""
        for name, sort in self._marked.items():
            body = self.declared.body.get(name) if sort == "values" else None
            if isinstance(body, Map):
                yield name, body

    def _values(self) -> tuple[dict[str, Any], set[str]]:
        """All that the template sees, the resource's own values last, and which are secret."""
        scope = self.renderer.scope
        values, secrets = dict(scope.values), set(scope.secrets)
        for field, body in self._own():
            for key, node in body.items():
                if key in FIXED:
                    what = f"{field}: {key!r} is a name that every template knows"
                    what = f"{self.declared.title}: {what}"
                    self.renderer.problems.add(body.key(key), what, "give it another name")
                    raise AlreadyReported
                found = scope.value(node)
                if found is None:
                    raise AlreadyReported
                values[key] = found[0]
                (secrets.add if found[1] or key in self.secret else secrets.discard)(key)
                if key in self.secret:
                    self.renderer.secrets.append(str(found[0]))
        return values, secrets

    def report(self, field: str, line: int | None, message: str, hint: str | None = None) -> None:
        """Add a problem on a line of the template; None: the field itself."""
        problems = self.renderer.problems
        at = self.declared.place(field)
        source = self._sources.get(field)
        if source is None or line is None:
            where = "" if line is None else f"line {line}: "
            problems.add(at, f"{self.declared.title}: {field}: {where}{message}", hint)
            return
        start, end = source.span(min(line, source.text.count("\n") + 1) - 1)
        problems.add(SourceMark(source, start, end), f"{message} (for {self.id}, {at})", hint)


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
