"""What templates see, and what they give: vars, the environment, the host, the spec itself.

It must not look at the environment or the host beyond what it was handed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.model import Facts
from reconciler.spec.errors import Problems
from reconciler.spec.nodes import Bare, Broken, Map, Mark, Node, Rendered, Seq, Text, is_null
from reconciler.spec.templates import Environ, Expression, TemplateError, split, whole

if TYPE_CHECKING:
    from reconciler.spec.sandbox import Sandbox

FIXED = ("env", "user", "host", "spec", "state_dir", "each", "range")
"""Names that a variable may not have."""
MAX_TEXT = 64 * 1024
"""Characters that a string may have once rendered."""

_PUBLIC = re.compile(
    r"HOME|USER|LOGNAME|SHELL|PATH|PWD|TMPDIR|LANG|LANGUAGE|TERM|TZ|HOSTNAME|LC_\w+|XDG_\w+"
)
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN)"
)
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def secret(name: str, value: str) -> bool:
    """May this value of the environment not be shown? All but places and well-known ones."""
    return not (_PUBLIC.fullmatch(name) or re.fullmatch(r"/[\w./@+-]*", value))


class Written(float):
    """A float that is rendered the way it was written: ``1.10``."""

    __slots__ = ("text",)
    text: str

    def __str__(self) -> str:
        return self.text


class _Known(Exception):
    """What went wrong has been told at its cause."""


class Scope:
    """The names in scope, and everything that is done with them."""

    def __init__(
        self, facts: Facts, environ: Mapping[str, str], spec: Mapping[str, str], problems: Problems
    ) -> None:
        self.problems = problems
        self.environ = Environ(environ, secret)
        self.values: dict[str, Any] = {
            "env": self.environ,
            "user": {"name": facts.user_name, "home": facts.user_home, "uid": facts.user_uid},
            "host": {
                "name": facts.host_name,
                "systemd": facts.systemd,
                "crontab": facts.crontab,
                "tmux": facts.tmux,
            },
            "spec": dict(spec),
            "state_dir": facts.state_dir,
        }
        self.secrets: set[str] = set()
        """Variables (and ``each``) that hold a value of the environment."""
        self.failed: set[str] = set()
        """Variables whose value could not be made out."""
        self._each = False
        self._known: dict[str, tuple[Any, bool]] = {}
        self._splits: dict[str, list[str | Expression]] = {}
        self._sandbox: Sandbox | None = None

    @property
    def sandbox(self) -> Sandbox:
        if self._sandbox is None:
            from reconciler.spec.sandbox import Sandbox

            self._sandbox = Sandbox(lambda: [*self.values, "range"])
        return self._sandbox

    def set_each(self, value: Any, is_secret: bool) -> None:
        """Put ``each`` in scope."""
        self.values["each"] = value
        self.secrets.discard("each")
        if is_secret:
            self.secrets.add("each")

    def clear_each(self) -> None:
        """Take ``each`` out of scope."""
        self.values.pop("each", None)
        self.secrets.discard("each")

    def names(self, node: Node) -> set[str]:
        """Every name that the templates in ``node`` refer to."""
        found: set[str] = set()
        for text in texts(node):
            if "{{" in text:
                try:
                    for part in split(text):
                        if isinstance(part, Expression):
                            found |= self.sandbox.names(part.code)
                except TemplateError:
                    continue  # Told when it is evaluated.
        return found

    def evaluate(self, code: str) -> tuple[Any, bool]:
        """The value of an expression, and whether it is secret. Raises TemplateError, _Known."""
        known = self._known.get(code)
        if known is not None:
            return known
        names = self.sandbox.names(code)
        if names & self.failed:
            raise _Known
        before = self.environ.secrets
        hidden = bool(names & self.secrets)
        try:
            value = self.sandbox.evaluate(code, self.values)
        except TemplateError as error:
            if hidden or self.environ.secrets != before:
                message = "cannot be evaluated with this value of the environment (not shown)"
                raise TemplateError(message, None, code) from None
            raise error from None
        result = (value, hidden or self.environ.secrets != before)
        if "each" not in names:
            self._known[code] = result
        return result

    def text(self, text: Text) -> Text:
        """``text`` with its templates rendered; Broken when that failed."""
        if "{{" not in text or isinstance(text, Broken):
            return text
        try:
            parts = self._splits.get(text)
            if parts is None:
                parts = self._splits[str(text)] = split(text)
            return self._joined(text, parts)
        except TemplateError as error:
            self.tell(text, error)
        except _Known:
            pass
        broken = Broken(text)
        broken.at = text.at
        return broken

    def _joined(self, text: Text, parts: list[str | Expression]) -> Rendered:
        words: list[str] = []
        hidden = False
        hollow: str | None = None
        size = 0
        for number, part in enumerate(parts):
            if isinstance(part, Expression):
                value, is_secret = self.evaluate(part.code)
                hidden = hidden or is_secret
                word = _shown(value, part.code)
                after = parts[number + 1] if number + 1 < len(parts) else "/"
                alone = not words or words[-1].endswith("/") or not "".join(words)
                if not word.strip() and alone and (not isinstance(after, str) or after[0] == "/"):
                    hollow = part.code
            else:
                word = part
            words.append(word)
            size += len(word)
            if size > MAX_TEXT:
                raise TemplateError(f"the rendered text is longer than {MAX_TEXT:,} characters")
        result = Rendered("".join(words))
        result.at = text.at
        result.secret = hidden
        result.hollow = hollow
        result.source = str(text)
        return result

    def node(self, node: Node) -> Node:
        """``node`` with every template in its values rendered; shared where there is none."""
        if isinstance(node, Text):
            return self.text(node)
        if isinstance(node, Map):
            changed = {key: self.node(value) for key, value in node.items()}
            if all(changed[key] is value for key, value in node.items()):
                return node
            result: Map | Seq = Map(changed)
        else:
            items = [self.node(item) for item in node]
            if all(new is old for new, old in zip(items, node, strict=True)):
                return node
            result = Seq(items)
        result.at = node.at
        return result

    def typed(self, node: Node) -> tuple[Any, bool]:
        """The value of a variable, typed by the core schema of YAML 1.2, and if it is secret.

        A string that is exactly one template has the type of what it gives. Raises
        TemplateError and _Known.
        """
        if isinstance(node, Map):
            pairs = {str(key): self.typed(value) for key, value in node.items()}
            return {k: v for k, (v, _) in pairs.items()}, any(s for _, s in pairs.values())
        if isinstance(node, Seq):
            items = [self.typed(item) for item in node]
            return [value for value, _ in items], any(is_secret for _, is_secret in items)
        if isinstance(node, Broken):
            raise _Known
        if "{{" in node:
            code = whole(node.strip())
            if code is not None:
                return self.evaluate(code)
            rendered = self._joined(node, split(node))
            return str(rendered), rendered.secret
        if isinstance(node, Bare):
            return _core(node), False
        return str(node), False

    def value(self, node: Node) -> tuple[Any, bool] | None:
        """As ``typed``; None when it failed, which has been told at the scalar."""
        try:
            return self.typed(node)
        except TemplateError as error:
            self.tell(_culprit(node, error), error)
        except _Known:
            pass
        return None

    def truth(self, text: Text) -> bool | None:
        """The truth of a ``when``; None when it failed. The text ``false`` counts as false."""
        if isinstance(text, Broken):
            return None
        try:
            code = (whole(text.strip()) if "{{" in text else None) or str(text).strip()
            if "{{" in code:
                raise TemplateError(
                    "when is an expression itself", "leave the {{ }} out and name the variables"
                )
            if not code:
                raise TemplateError("when needs an expression")
            value, _ = self.evaluate(code)
        except TemplateError as error:
            self.tell(text, error)
            return None
        except _Known:
            return None
        if isinstance(value, str):
            # --set gives strings: --set debug=false must not count as true.
            return value.strip().lower() not in ("", "false")
        return bool(value)

    def tell(self, text: Text, error: TemplateError) -> None:
        """Add the problem, at the expression where it can be found in what was written."""
        mark = text.at
        message = error.message
        if error.code:
            raw = mark.source.text[mark.start : mark.end]
            found = raw.find(error.code)
            if found >= 0:
                start = mark.start + found
                mark = Mark(mark.source, start, start + len(error.code))
            if not message.startswith("'"):
                message = f"{error.code[:60]!r} {message}"
        self.problems.add(mark, message, error.hint)


def texts(node: Node) -> Iterable[Text]:
    """Every value below ``node`` that is a scalar."""
    if isinstance(node, Text):
        yield node
    else:
        for item in node.values() if isinstance(node, Map) else node:
            yield from texts(item)


def _culprit(node: Node, error: TemplateError) -> Text:
    """The scalar in ``node`` that an error is about."""
    every = list(texts(node))
    for text in every:
        if error.code and error.code in text:
            return text
    return every[0]


def _shown(value: Any, code: str) -> str:
    """How a value stands in a string."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        raise TemplateError("is null and has no text", "give it a value, or | default('')", code)
    if isinstance(value, (list, dict)):
        what = "a list" if isinstance(value, list) else "a mapping"
        raise TemplateError(f"is {what}, not text", "join a list: | join(' ')", code)
    return str(value)


def _core(node: Bare) -> Any:
    """A plain scalar by the core schema, https://yaml.org/spec/1.2.2/#103-core-schema."""
    text = str(node)
    if is_null(node):
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > 24 and re.fullmatch(r"[-+]?[0-9][0-9.eExo]*", text):
        raise TemplateError(
            f"a number of {len(text):,} characters", "put quotes around it to make it text", text
        )
    if _INT.fullmatch(text):
        if re.fullmatch(r"[-+]?0[0-9]+", text):
            raise TemplateError(
                f"{text} is the decimal number {int(text)} in YAML",
                f'write "{text}", or the number without the leading zero',
                text,
            )
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        number = Written(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        number.text = text
        return number
    return text
