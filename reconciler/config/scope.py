"""What templates see, and what they give: vars, the environment, the host, the spec itself.

It must not look at the environment or the host beyond what it was handed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reconciler.base.text import FromFile
from reconciler.base.values import Facts
from reconciler.config.blanks import Blanks
from reconciler.config.errors import AlreadyReported, Problems
from reconciler.config.nodes import (
    Broken,
    Map,
    Node,
    Rendered,
    Seq,
    SourceMark,
    Text,
    broken,
    placed,
    texts,
)
from reconciler.config.template import (
    MAX_TEXT,
    Environ,
    Expression,
    TemplateError,
    split,
    typed,
    whole,
)

if TYPE_CHECKING:
    from reconciler.config.sandbox import Sandbox

FIXED = ("env", "user", "host", "spec", "state_dir", "each", "range")
"""Names that a variable may not have."""
MAX_ALL = 64 * 1024 * 1024
"""Characters that all of them may have together."""

_PUBLIC = re.compile(
    r"HOME|USER|LOGNAME|SHELL|PATH|PWD|TMPDIR|LANG|LANGUAGE|TERM|TZ|HOSTNAME|TMUX_TMPDIR|LC_\w+|XDG_\w+"
)
_SECRET_NAME = re.compile(
    r"(TOKEN|SECRET|PASS|PASSWORD|PASSWD|KEY|CREDENTIALS?|AUTH|COOKIE|WEBHOOK)\Z", re.IGNORECASE
)


def secret(name: str, value: str) -> bool:
    """May this value of the environment not be shown? All but places and well-known ones."""
    if not value or _PUBLIC.fullmatch(name):
        return False
    return bool(_SECRET_NAME.search(name)) or not re.fullmatch(r"/[\w./@+-]*", value)


def worth_hiding(name: str, value: str) -> bool:
    """Is it to be redacted wherever it turns up? A short word such as a port is in the way."""
    return (bool(_SECRET_NAME.search(name)) and len(value) > 3) or len(value) >= 8


def is_secret_setting(name: str, value: str) -> bool:
    """May a variable that was set from outside not be shown, by its name or where it is from?"""
    return isinstance(value, FromFile) or bool(_SECRET_NAME.search(name))


class Scope:
    """The names in scope, and everything that is done with them."""

    def __init__(
        self, facts: Facts, environ: Mapping[str, str], spec: Mapping[str, str],
        problems: Problems, partial: bool = False,
    ) -> None:  # fmt: skip
        self.problems = problems
        self.partial = partial
        """Is it not known what other files define, so that no name is reported as unknown?"""
        self.environ = Environ(environ, secret)
        self.values: dict[str, Any] = {
            "env": self.environ,
            "user": {"name": facts.user_name, "home": facts.user_home, "uid": facts.user_uid},
            "host": {
                "name": facts.host_name,
                "systemd": facts.systemd,
                "linger": facts.linger,
                "container": facts.container,
                "crontab": facts.crontab,
                "tmux": facts.tmux,
                "bin": facts.bin,
                "trust": list(facts.trust),
            },
            "spec": dict(spec),
            "state_dir": facts.state_dir,
        }
        self.blanks = Blanks(self.values, lambda: self.sandbox)
        self.secrets: set[str] = set()
        """Variables (and ``each``) that hold a value of the environment."""
        self.uses: dict[str, set[str]] = {}
        """The variables that each variable is made of."""
        self.failed: set[str] = set()
        """Variables whose value could not be made out."""
        self._left = MAX_ALL
        self._evaluations: dict[str, tuple[Any, bool]] = {}
        self._secret = False
        """Was any value of the environment a part of what was evaluated since this was False?"""

    @cached_property
    def sandbox(self) -> Sandbox:
        from reconciler.config.sandbox import Sandbox

        return Sandbox(lambda: [*self.values, "range"])

    def define(
        self, name: str, value: Any, is_secret: bool = False, node: Node | None = None
    ) -> None:
        """Put a variable in scope; ``node`` is what it was made of, if it was written there."""
        self.values[name] = value
        self.blanks.define(name, value, node)
        (self.secrets.add if is_secret else self.secrets.discard)(name)

    def set_each(self, value: Any, is_secret: bool, marked: Any) -> None:
        """Put ``each`` in scope; ``marked`` is what ``Blanks`` makes of it."""
        self.define("each", value, is_secret)
        self.blanks.define("each", marked)

    def clear_each(self) -> None:
        """Take ``each`` out of scope."""
        self.values.pop("each", None)
        self.blanks.forget("each")
        self.secrets.discard("each")

    def names(self, node: Node) -> set[str]:
        """Every name that the templates in ``node`` refer to."""
        found: set[str] = set()
        for text in texts(node):
            if "{{" in text:
                try:
                    for part in split(text):
                        if isinstance(part, Expression):
                            found |= self.sandbox.names(part)
                except TemplateError:
                    continue  # Reported when it is evaluated.
        return found

    def made_of(self, node: Node) -> set[str]:
        """Every variable that has a part in ``node``."""
        found: set[str] = set()
        todo = self.names(node) & self.uses.keys()
        while todo:
            found |= todo
            todo = set().union(*(self.uses[name] for name in todo)) - found
        return found

    def _evaluate(self, code: str) -> Any:
        """The value of an expression. Raises TemplateError, AlreadyReported."""
        known = self._evaluations.get(code)
        if known is None:
            names = self.sandbox.names(code)
            if names & self.failed or (self.partial and names - self.values.keys() - {"range"}):
                raise AlreadyReported
            before = self.environ.secrets
            hidden = bool(names & self.secrets)
            try:
                value = self.sandbox.evaluate(code, self.values)
            except TemplateError:
                if not hidden and self.environ.secrets == before:
                    raise
                message = "cannot be evaluated with this value of the environment (not shown)"
                raise TemplateError(message, None, code) from None
            known = value, hidden or self.environ.secrets != before
            if "each" not in names:
                self._evaluations[code] = known
        self._secret |= known[1]
        return known[0]

    def text(self, text: Text) -> Text:
        """``text`` with its templates rendered; Broken when that failed."""
        if "{{" not in text or isinstance(text, Broken):
            return text
        try:
            return self._rendered(text)
        except TemplateError as error:
            self._report_all(text, error)
        except AlreadyReported:
            pass
        return broken(text)

    def _report_all(self, text: Text, first: TemplateError) -> None:
        """Report what is wrong with a text, and with its other templates."""
        self.report(text, first)
        try:
            parts: Sequence[str] = split(text)
        except TemplateError:
            return
        for part in dict.fromkeys(parts):
            if isinstance(part, Expression) and first.code not in (part, ""):
                try:
                    self._evaluate(part)
                except TemplateError as error:
                    self.report(text, error)
                except AlreadyReported:
                    continue

    def _rendered(self, text: Text) -> Rendered:
        self._secret = False
        words = []
        parts = split(text)
        for part in parts:
            is_code = isinstance(part, Expression)
            words.append(_shown(self._evaluate(part), part) if is_code else part)
        size = sum(map(len, words))
        if size > MAX_TEXT:
            raise TemplateError(f"the rendered text is longer than {MAX_TEXT:,} characters")
        self._left -= size
        if self._left < 0:
            raise TemplateError(f"all rendered texts together exceed {MAX_ALL:,} characters")
        result = placed(Rendered("".join(words)), text.source, text.start)
        result.secret = self._secret
        result.hollow = self.blanks.taken(parts, words)
        result.template = str(text)
        return result

    def node(self, node: Node, kept: Collection[str] = ()) -> Node:
        """``node`` with every template in its values rendered; shared where there is none.

        The values of the keys in ``kept`` stay as they were written.
        """
        if isinstance(node, Text):
            return self.text(node)
        if isinstance(node, Map):
            changed = {key: one if key in kept else self.node(one) for key, one in node.items()}
            same = all(changed[key] is value for key, value in node.items())
            return node if same else node.but(changed)
        items = [self.node(item) for item in node]
        same = all(new is old for new, old in zip(items, node, strict=True))
        return node if same else placed(Seq(items), node.source, node.start)

    def value(self, node: Node) -> tuple[Any, bool] | None:
        """The value of a variable, and if it is secret; None when it failed, which is reported.

        Its type is that of the core schema of YAML 1.2, or that of what its one template gives.
        """
        try:
            return self._value(node)
        except TemplateError as error:
            every = list(texts(node))
            culprit = (text for text in every if error.code and error.code in text)
            self.report(next(culprit, every[0]), error)
        except AlreadyReported:
            pass
        return None

    def _value(self, node: Node) -> tuple[Any, bool]:
        if any(isinstance(text, Broken) for text in texts(node)):
            raise AlreadyReported
        secret = self._secret = False

        def join(text: Text) -> str:
            nonlocal secret
            secret |= self._secret
            return str(self._rendered(text))

        value = typed(node, self._evaluate, join)
        return value, secret or self._secret

    def gives(self, node: Node, text: str) -> bool:
        """Is ``text`` what a variable is that was written as ``node``? A secret never is."""
        try:
            value, is_secret = self._value(node)
            return not is_secret and text in (str(node), _shown(value, ""))
        except (TemplateError, AlreadyReported):
            return False

    def truth(self, text: Text) -> bool | None:
        """The truth of a ``when``; None when it failed. The text ``false`` counts as false."""
        if isinstance(text, Broken):
            return None
        try:
            code = (whole(text) if "{{" in text else None) or text.strip()
            if "{{" in code:
                raise TemplateError(
                    "when is an expression itself", "leave the {{ }} out and name the variables"
                )
            if not code:
                raise TemplateError("when needs an expression")
            value = self._evaluate(code)
        except TemplateError as error:
            self.report(text, error)
            return None
        except AlreadyReported:
            return None
        if isinstance(value, str):
            # --set gives strings: --set debug=false must not count as true.
            return value.strip().lower() not in ("", "false")
        return bool(value)

    def report(self, text: Text, error: TemplateError) -> None:
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
