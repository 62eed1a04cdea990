"""What templates see, and what they give: vars, the environment, the host, the spec itself.

It must not look at the environment or the host beyond what it was handed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.base.redaction import FromFile
from reconciler.base.values import Facts
from reconciler.config import scalars
from reconciler.config.errors import Problems
from reconciler.config.hollow import Hollows
from reconciler.config.nodes import Bare, Broken, Map, Node, Rendered, Seq, SourceMark, Text, texts
from reconciler.config.templates import Environ, Expression, TemplateError, split, whole

if TYPE_CHECKING:
    from reconciler.config.sandbox import Sandbox

FIXED = ("env", "user", "host", "spec", "state_dir", "each", "range")
"""Names that a variable may not have."""
MAX_TEXT = 64 * 1024
"""Characters that a string may have once rendered."""
MAX_ALL = 64 * 1024 * 1024
"""Characters that all of them may have together."""

_PUBLIC = re.compile(
    r"HOME|USER|LOGNAME|SHELL|PATH|PWD|TMPDIR|LANG|LANGUAGE|TERM|TZ|HOSTNAME|TMUX_TMPDIR|LC_\w+|XDG_\w+"
)
_TELLING = re.compile(
    r"(TOKEN|SECRET|PASS|PASSWORD|PASSWD|KEY|CREDENTIALS?|AUTH|COOKIE|WEBHOOK)\Z", re.IGNORECASE
)


def secret(name: str, value: str) -> bool:
    """May this value of the environment not be shown? All but places and well-known ones."""
    if not value or _PUBLIC.fullmatch(name):
        return False
    return bool(_TELLING.search(name)) or not re.fullmatch(r"/[\w./@+-]*", value)


def worth_hiding(name: str, value: str) -> bool:
    """Is it to be blotted out wherever it turns up? A short word such as a port is in the way."""
    return (bool(_TELLING.search(name)) and len(value) > 3) or len(value) >= 8


def told_secret(name: str, value: str) -> bool:
    """May a variable that was set from outside not be shown, by its name or where it is from?"""
    return isinstance(value, FromFile) or bool(_TELLING.search(name))


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
                "bin": facts.bin,
                "trust": list(facts.trust),
            },
            "spec": dict(spec),
            "state_dir": facts.state_dir,
        }
        self.hollows = Hollows(self.values, lambda: self.sandbox)
        self.secrets: set[str] = set()
        """Variables (and ``each``) that hold a value of the environment."""
        self.uses: dict[str, set[str]] = {}
        """The variables that each variable is made of."""
        self.failed: set[str] = set()
        """Variables whose value could not be made out."""
        self._left = MAX_ALL
        self._known: dict[str, tuple[Any, bool]] = {}
        self._splits: dict[str, list[str | Expression]] = {}
        self._sandbox: Sandbox | None = None

    @property
    def sandbox(self) -> Sandbox:
        if self._sandbox is None:
            from reconciler.config.sandbox import Sandbox

            self._sandbox = Sandbox(lambda: [*self.values, "range"])
        return self._sandbox

    def define(self, name: str, value: Any, node: Node | None = None) -> None:
        """Put a variable in scope; ``node`` is what it was made of, if it was written there."""
        self.values[name] = value
        hollows = self.hollows
        marked = hollows.marked(value, name) if node is None else hollows.value(node, value, name)
        hollows.define(name, marked)

    def set_each(self, value: Any, is_secret: bool, marked: Any = None) -> None:
        """Put ``each`` in scope; ``marked`` is what it is with the marks of ``Hollows``."""
        self.values["each"] = value
        self.hollows.define("each", value if marked is None else marked)
        self.secrets.discard("each")
        if is_secret:
            self.secrets.add("each")

    def clear_each(self) -> None:
        """Take ``each`` out of scope."""
        self.values.pop("each", None)
        self.hollows.forget("each")
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

    def made_of(self, node: Node) -> set[str]:
        """Every variable that has a part in ``node``."""
        found: set[str] = set()
        todo = self.names(node) & self.uses.keys()
        while todo:
            found |= todo
            todo = set().union(*(self.uses[name] for name in todo)) - found
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
            self._others(text, error)
        except _Known:
            pass
        broken = Broken(text)
        broken.at = text.at
        return broken

    def _others(self, text: Text, first: TemplateError) -> None:
        """Tell what is wrong with the other templates of a text of which one has failed."""
        told = {first.code, ""}
        for part in self._splits.get(text, ()):
            if isinstance(part, Expression) and part.code not in told:
                told.add(part.code)
                try:
                    self.evaluate(part.code)
                except TemplateError as error:
                    self.tell(text, error)
                except _Known:
                    continue

    def _joined(self, text: Text, parts: list[str | Expression]) -> Rendered:
        words: list[str] = []
        hidden = False
        size = 0
        for part in parts:
            if isinstance(part, Expression):
                value, is_secret = self.evaluate(part.code)
                hidden = hidden or is_secret
                word = _shown(value, part.code)
            else:
                word = part
            words.append(word)
            size += len(word)
            if size > MAX_TEXT:
                raise TemplateError(f"the rendered text is longer than {MAX_TEXT:,} characters")
        self._left -= size
        if self._left < 0:
            raise TemplateError(f"all rendered texts together exceed {MAX_ALL:,} characters")
        result = Rendered("".join(words))
        result.at = text.at
        result.secret = hidden
        result.hollow = self.hollows.taken(parts) or (None if all(words) else _hollow(parts, words))
        result.source = str(text)
        return result

    def node(self, node: Node, kept: Collection[str] = ()) -> Node:
        """``node`` with every template in its values rendered; shared where there is none.

        The values of the keys in ``kept`` stay as they were written.
        """
        if isinstance(node, Text):
            return self.text(node)
        if isinstance(node, Map):
            changed = {
                key: value if key in kept else self.node(value) for key, value in node.items()
            }
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
            return scalars.typed(node), False
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

    def gives(self, node: Node, text: str) -> bool:
        """Is ``text`` what a variable is that was written as ``node``? A secret never is."""
        try:
            value, is_secret = self.typed(node)
            return not is_secret and text in (str(node), _shown(value, ""))
        except (TemplateError, _Known):
            return False

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
                mark = SourceMark(mark.source, start, start + len(error.code))
            if message.startswith(("gives ", "is ", "cannot ", "needs ")):
                code = error.code if len(error.code) <= 60 else f"{error.code[:57]}..."
                message = f"{{{{ {code} }}}} {message}"
        self.problems.add(mark, message, error.hint)


def _culprit(node: Node, error: TemplateError) -> Text:
    """The scalar in ``node`` that an error is about."""
    every = list(texts(node))
    for text in every:
        if error.code and error.code in text:
            return text
    return every[0]


def _hollow(parts: list[str | Expression], words: list[str]) -> str | None:
    """The code of templates that are a whole part of a path, between slashes, and gave nothing."""
    so_far = ""
    code: str | None = None
    for part, word in zip([*parts, "/"], [*words, "/"], strict=True):
        if isinstance(part, Expression):
            so_far += word.strip()
            code = code or part.code
            continue
        first, *others = word.split("/")
        so_far += first
        if others:
            if code is not None and not so_far:
                return code
            so_far, code = others[-1], None
    return None


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
