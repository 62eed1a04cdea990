"""Evaluates templates with jinja2, within bounds of time and memory.

A spec is trusted, but a mistake in it must not hang a root process or fill its memory: only what
is listed here can be called, and every result is charged against a budget. It must not reach
the host nor read a file, and jinja2 is imported here and nowhere else in this room.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from reconciler.config.errors import closest
from reconciler.config.template import LITERAL_HINT, MAX_TEXT, Environ, TemplateError

_MAX_CODE = 4096
_BUDGET = 1024 * 1024
"""Characters and items that the parts of one expression may give together."""
_MAX_BITS = 256
_TOO_MUCH = "gives more than a template may give"

_STRING_METHODS = (
    "capitalize", "count", "endswith", "find", "isalnum", "isalpha", "isdigit", "join", "lower",
    "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rpartition", "rsplit",
    "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
)  # fmt: skip
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_STRING_METHODS),
    dict: frozenset(("get", "keys", "values", "items")),
    list: frozenset(("index", "count")),
    tuple: frozenset(("index", "count")),
    LoopContext: frozenset(("index", "index0", "first", "last", "length", "revindex", "revindex0")),
}
_WORDS = {
    str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list",
    tuple: "a list", dict: "a mapping", type(None): "null",
}  # fmt: skip
# The text of an error may quote a value, which may be a secret: only its sort is shown.
_SAID = {
    "TypeError": "it does not fit the types of its values",
    "ZeroDivisionError": "it divides by zero",
    "OverflowError": "a number is too large",
    "FilterArgumentError": "a filter is used in a wrong way",
    "KeyError": "there is no such key",
}


def _join(value: Any, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        raise TemplateError("join takes no attribute here", "use map(attribute='...') before it")
    words = [str(word) for word in value]
    if sum(map(len, words)) + len(str(d)) * max(0, len(words) - 1) > MAX_TEXT:
        raise TemplateError(_TOO_MUCH)
    return str(d).join(words)


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    text, old, new = str(value), str(old), str(new)
    if len(text) + (text.count(old) if old else len(text) + 1) * len(new) > 2 * MAX_TEXT:
        raise TemplateError(_TOO_MUCH)
    return text.replace(old, new, count)


def _round(value: Any, digits: int = 0) -> float:
    if not 0 <= digits <= 12:
        raise TemplateError("round takes 0 to 12 digits")
    return round(float(value), digits)


def _range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > 100_000:
        raise TemplateError("range() gives at most 100,000 numbers")
    return list(numbers)


_FILTERS: dict[str, Callable[..., Any]] = {
    **{
        name: FILTERS[name]
        for name in (
            "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int",
            "items", "last", "length", "list", "lower", "map", "max", "min", "reject",
            "rejectattr", "reverse", "select", "selectattr", "sort", "string", "title", "trim",
            "unique", "upper",
        )
    },
    "join": _join,
    "replace": _replace,
    "round": _round,
    "tojson": lambda value: json.dumps(value, ensure_ascii=False),
    "quote": lambda value: shlex.quote(str(value)),
    "regex_escape": lambda value: re.escape(str(value)),
}  # fmt: skip


class _Missing(StrictUndefined):
    """An undefined value that says what was probably meant."""

    __slots__ = ()
    scope: Callable[[], Iterable[str]] = staticmethod(tuple)

    @property
    def _undefined_message(self) -> str:
        name, owner = str(self._undefined_name), self._undefined_obj
        if isinstance(owner, Environ):
            return (
                f"the environment variable {name} is not set\n"
                f"set it, or give a value for then: {{{{ env.{name} | default('...') }}}}"
            )
        if isinstance(owner, dict):
            near = closest(name, map(str, owner))
            what = f"there is no {name!r} in it"
        elif owner is missing:
            near = closest(name, self.scope())
            what = f"{name!r} is not defined"
        else:
            return f"{_WORDS.get(type(owner), 'this')} has no {name!r}"
        return what + (f"\ndid you mean {near!r}?" if near else "")


def defined(value: Any) -> Any:
    """The value. Raises UndefinedError, which says what was undefined first."""
    if isinstance(value, Undefined):
        str(value)
    return value


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles and evaluates expressions and templates; ``names`` are those in scope."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        undefined = type("_Scoped", (_Missing,), {"scope": staticmethod(names)})
        super().__init__(optimized=False, undefined=undefined)
        self.left = 0
        self._codes: dict[str, tuple[Callable[..., Any], frozenset[str]]] = {}
        self.filters = {name: self._charged(function) for name, function in _FILTERS.items()}
        self.globals = {"range": _range}

    def names(self, code: str) -> frozenset[str]:
        """The names that an expression refers to. Raises TemplateError."""
        return self._compiled(code)[1]

    def evaluate(self, code: str, scope: Mapping[str, Any]) -> Any:
        """The value of an expression: None, bool, int, float, str, list or dict.

        Raises TemplateError.
        """
        compiled, _ = self._compiled(code)
        with self.bounded(code):
            return self.plain(defined(compiled(scope)))

    @contextmanager
    def bounded(self, code: str) -> Iterator[None]:
        """Work within the budget; whatever goes wrong becomes a TemplateError about ``code``."""
        self.left = _BUDGET
        hint = None
        try:
            yield
            return
        except TemplateError as error:
            cause: Exception = error
            message, hint = error.message, error.hint
        except UndefinedError as error:
            cause = error
            message, _, hint = str(error).partition("\n")
        except SecurityError as error:
            cause, message = error, "this is not allowed in a template"
        except RecursionError as error:
            cause, message = error, "is nested too deep"
        except MemoryError as error:
            cause, message = error, "needs too much memory"
        except Exception as error:
            said = _SAID.get(type(error).__name__, "a value does not fit here")
            cause, message = error, f"cannot be evaluated: {said}"
        raise TemplateError(message, hint or None, code) from cause

    def _compiled(self, code: str) -> tuple[Callable[..., Any], frozenset[str]]:
        if code in self._codes:
            return self._codes[code]
        if len(code) > _MAX_CODE:
            raise TemplateError(f"is longer than {_MAX_CODE:,} characters", None, code[:40])
        try:
            tree = Parser(self, code, state="variable").parse_expression()
            # The tree's own root is not among what is found in it.
            names = {name.name for name in nodes.Tuple([tree], "load").find_all(nodes.Name)}
            compiled = self.compile_expression(code, undefined_to_none=False)
        except TemplateSyntaxError as error:
            message = syntax(error.message or "")
            near = re.match(r"there is no filter named '([^']*)'", message)
            if near is None:
                message = f"cannot be read as an expression: {message}"
                raise TemplateError(message, LITERAL_HINT, code) from None
            meant = closest(near[1], self.filters)
            hint = f"did you mean {meant!r}?" if meant else f"there are {', '.join(self.filters)}"
            raise TemplateError(message, hint, code) from None
        except (RecursionError, MemoryError):
            raise TemplateError("is nested too deep", None, code) from None
        except (SyntaxError, ValueError, OverflowError):
            raise TemplateError("cannot be read as an expression", None, code) from None
        self._codes[code] = compiled, frozenset(names)
        return self._codes[code]

    def spend(self, value: Any) -> Any:
        """Charge a result; it is a bound on the work of one expression. Raises TemplateError."""
        if isinstance(value, (str, list, tuple, dict)):
            self.left -= len(value)
            if isinstance(value, str) and len(value) > MAX_TEXT:
                self.left = -1
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise TemplateError("gives a number that is too large")
        else:
            self.left -= 1
        if self.left < 0:
            raise TemplateError(_TOO_MUCH)
        return value

    def _charged(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def charged(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            return map(self.spend, result) if isinstance(result, Iterator) else self.spend(result)

        return charged

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise TemplateError("'**' is not allowed in a template")
        if operator == "%" and isinstance(left, str):
            raise TemplateError("'%' does not format text in a template", "join it with ~")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                long = isinstance(text, (str, list, tuple)) and isinstance(times, int)
                if long and len(text) * max(times, 0) > MAX_TEXT:
                    raise TemplateError(_TOO_MUCH)
        return self.spend(super().call_binop(context, operator, left, right))

    def getattr(self, obj: Any, attribute: str) -> Any:
        defined(obj)
        if isinstance(obj, Environ):
            value = obj.read(attribute)
            return self.undefined(obj=obj, name=attribute) if value is None else value
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, str) and attribute in ("join", "replace"):
            return partial(_replace, obj) if attribute == "replace" else partial(_join, d=obj)
        if any(isinstance(obj, kind) and attribute in its for kind, its in _METHODS.items()):
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, (Environ, dict)) and isinstance(argument, str):
            return self.getattr(obj, argument)
        if isinstance(obj, (str, list, tuple)) and isinstance(argument, (int, slice)):
            try:
                return obj[argument]
            except IndexError:
                raise TemplateError(f"there is no item {argument} in it") from None
        return self.undefined(obj=obj, name=argument)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        defined(obj)
        ours = obj is _range or (isinstance(obj, partial) and obj.func in (_join, _replace))
        owner = getattr(obj, "__self__", None)
        if not ours and not (
            isinstance(obj, BuiltinMethodType)
            and any(isinstance(owner, k) and obj.__name__ in m for k, m in _METHODS.items())
        ):
            raise TemplateError("this cannot be called in a template")
        result = obj(*args, **kwargs)
        known = isinstance(result, (str, bool, int, dict, type(None)))
        return self.spend(result if known else list(result))

    def plain(self, value: Any, depth: int = 0) -> Any:
        """``value`` as data that a spec may hold."""
        if depth > 50:
            raise TemplateError("gives a value that is nested too deep")
        if value is None or isinstance(value, (bool, int, float, str)):
            return self.spend(value)
        if isinstance(value, dict):
            return {str(key): self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, Iterator)):
            return [self.plain(item, depth + 1) for item in value]
        defined(value)
        raise TemplateError("gives something that is no value", "name one of its fields")


def syntax(said: str) -> str:
    """What jinja2 says of something that it cannot parse, in our words."""
    if said.startswith("No filter named"):
        return f"there is no filter named {said.split()[-1].rstrip('.')}"
    if said.startswith("chunk after"):
        return "there is more after the expression"
    return said[:1].lower() + said[1:].rstrip(".")
