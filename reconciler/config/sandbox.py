"""Evaluates the expressions of templates with jinja2, within bounds of time and memory.

A spec is trusted, but a slip in it must not hang a root process or fill its memory: only what
is listed here can be called, and every result is charged against a budget. It must not reach
the host, and jinja2 is imported here and nowhere else in this room.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from reconciler.config import filters
from reconciler.config.errors import closest
from reconciler.config.filters import MAX_TEXT
from reconciler.config.templates import LITERAL_HINT, Environ, TemplateError

_MAX_CODE = 4096
_BUDGET = 1024 * 1024
"""Characters and items that the parts of one expression may give together."""
_MAX_BITS = 256

_FILTERS = (
    "abs", "capitalize", "d", "default", "dictsort", "first", "float", "int", "items", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select",
    "selectattr", "sort", "string", "title", "trim", "unique", "upper",
)  # fmt: skip
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
}
_LOOP = frozenset(("index", "index0", "first", "last", "length", "revindex", "revindex0"))


class _Missing(StrictUndefined):
    """An undefined value that says what was probably meant."""

    __slots__ = ()
    scope: Callable[[], Iterable[str]] = staticmethod(tuple)

    @property
    def _undefined_message(self) -> str:
        name = str(self._undefined_name)
        if isinstance(self._undefined_obj, Environ):
            return (
                f"the environment variable {name} is not set\n"
                f"set it, or give a value for then: {{{{ env.{name} | default('...') }}}}"
            )
        if isinstance(self._undefined_obj, dict):
            near = closest(name, (str(key) for key in self._undefined_obj))
            what = "there is no " + repr(name) + " in it"
        elif self._undefined_obj is missing:
            near = closest(name, self.scope())
            what = f"{name!r} is not defined"
        else:
            return f"{_word(self._undefined_obj)} has no {name!r}"
        return what + (f"\ndid you mean {near!r}?" if near else "")


def _word(value: object) -> str:
    return {
        str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list",
        tuple: "a list", dict: "a mapping", type(None): "null",
    }.get(type(value), "this")  # fmt: skip


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles and evaluates single expressions; see ``evaluate``."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        super().__init__(
            optimized=False, undefined=type("_Scoped", (_Missing,), {"scope": staticmethod(names)})
        )
        self.left = 0
        self.codes: dict[str, tuple[Callable[..., Any], frozenset[str]]] = {}
        allowed: dict[str, Any] = {name: FILTERS[name] for name in _FILTERS}
        allowed["count"] = FILTERS["length"]
        allowed.update(
            join=filters.join,
            replace=filters.replace,
            tojson=filters.to_json,
            quote=filters.quote,
            regex_escape=filters.regex_escape,
            round=filters.rounded,
        )
        self.filters = {name: self._charged(filter_) for name, filter_ in allowed.items()}
        self.globals = {"range": self._range}

    def names(self, code: str) -> frozenset[str]:
        """The names that an expression refers to. Raises TemplateError."""
        return self._compiled(code)[1]

    def evaluate(self, code: str, scope: Mapping[str, Any]) -> Any:
        """The value of an expression: None, bool, int, float, str, list or dict.

        Raises TemplateError.
        """
        compiled, _ = self._compiled(code)
        with self.bounded(code):
            result = compiled(scope)
            if isinstance(result, Undefined):
                str(result)
            return self.plain(result)

    @contextmanager
    def bounded(self, code: str) -> Iterator[None]:
        """Work within the budget; whatever goes wrong becomes a TemplateError about ``code``."""
        self.left = _BUDGET
        try:
            yield
        except TemplateError as error:
            raise TemplateError(error.message, error.hint, code) from error
        except UndefinedError as error:
            message, _, hint = str(error).partition("\n")
            raise TemplateError(message, hint or None, code) from error
        except SecurityError as error:
            raise TemplateError("this is not allowed in a template", None, code) from error
        except RecursionError as error:
            raise TemplateError("is nested too deep", None, code) from error
        except MemoryError as error:
            raise TemplateError("needs too much memory", None, code) from error
        except Exception as error:
            # Its text may quote a value, which may be a secret: only its sort is told.
            raise TemplateError(f"cannot be evaluated: {_told(error)}", None, code) from error

    def _compiled(self, code: str) -> tuple[Callable[..., Any], frozenset[str]]:
        known = self.codes.get(code)
        if known is None:
            known = self.codes[code] = self._parsed(code)
        return known

    def _parsed(self, code: str) -> tuple[Callable[..., Any], frozenset[str]]:
        if len(code) > _MAX_CODE:
            raise TemplateError(f"is longer than {_MAX_CODE:,} characters", None, code[:40])
        try:
            tree = Parser(self, code, state="variable").parse_expression()
            names = {name.name for name in tree.find_all(nodes.Name)}
            if isinstance(tree, nodes.Name):
                names.add(tree.name)
            compiled = self.compile_expression(code, undefined_to_none=False)
        except TemplateSyntaxError as error:
            raise TemplateError(*self.syntax(code, error.message or "")) from None
        except (RecursionError, MemoryError):
            raise TemplateError("is nested too deep", None, code) from None
        except (SyntaxError, ValueError, OverflowError):
            raise TemplateError("cannot be read as an expression", None, code) from None
        return compiled, frozenset(names)

    def syntax(self, code: str, message: str) -> tuple[str, str, str]:
        """Message, hint and code for what jinja2 says of something that it cannot parse."""
        filter_ = re.match(r"No filter named '([^']*)'", message)
        if filter_ is not None:
            near = closest(filter_[1], self.filters)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(self.filters)}"
            return f"there is no filter {filter_[1]!r}", hint, code
        if message.startswith("chunk after"):
            message = "there is more after the expression"
        said = message[:1].lower() + message[1:].rstrip(".")
        return f"cannot be read as an expression: {said}", LITERAL_HINT, code

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
            raise TemplateError("gives more than a template may give")
        return value

    def _charged(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def charged(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            return self._metered(result) if isinstance(result, Iterator) else self.spend(result)

        return charged

    def _metered(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            yield self.spend(item)

    def _range(self, *bounds: int) -> list[int]:
        numbers = range(*bounds)
        if len(numbers) > 100_000:
            raise TemplateError("range() gives at most 100,000 numbers")
        return list(numbers)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise TemplateError("'**' is not allowed in a template")
        if operator == "%" and isinstance(left, str):
            raise TemplateError("'%' does not format text in a template", "join it with ~")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                long = isinstance(text, (str, list, tuple)) and isinstance(times, int)
                if long and len(text) * max(times, 0) > MAX_TEXT:
                    raise TemplateError("gives more than a template may give")
        return self.spend(super().call_binop(context, operator, left, right))

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Undefined):
            str(obj)  # Raises, and names what was undefined first.
        if isinstance(obj, Environ):
            value = obj.read(attribute)
            return self.undefined(obj=obj, name=attribute) if value is None else value
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind) and attribute in methods:
                return getattr(obj, attribute)
        if isinstance(obj, LoopContext) and attribute in _LOOP:
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
        if obj == self._range:
            return self.spend(self._range(*args, **kwargs))
        if isinstance(obj, Undefined):
            return obj()
        owner = getattr(obj, "__self__", None)
        if isinstance(obj, BuiltinMethodType) and owner is not None:
            if obj.__name__ == "join" and isinstance(owner, str):
                return self.spend(filters.join(args[0], owner))
            if obj.__name__ == "replace" and isinstance(owner, str):
                return self.spend(filters.replace(owner, *args))
            if any(isinstance(owner, k) and obj.__name__ in m for k, m in _METHODS.items()):
                result = obj(*args, **kwargs)
                known = isinstance(result, (str, bool, int, dict, type(None)))
                return self.spend(result if known else list(result))
        raise TemplateError("this cannot be called in a template")

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
        if isinstance(value, Undefined):
            str(value)
        raise TemplateError("gives something that is no value", "name one of its fields")


def _told(error: Exception) -> str:
    return {
        "TypeError": "it does not fit the types of its values",
        "ZeroDivisionError": "it divides by zero",
        "OverflowError": "a number is too large",
        "FilterArgumentError": "a filter is used in a wrong way",
        "KeyError": "there is no such key",
    }.get(type(error).__name__, "a value does not fit here")
