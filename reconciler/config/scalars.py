"""The types that plain scalars of variables have, by the core schema of YAML 1.2.

It must not be used for the fields of resources, whose parsers know better what is meant.
"""

from __future__ import annotations

import re
from typing import Any

from reconciler.config.nodes import Bare, is_null
from reconciler.config.templates import TemplateError

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN)"
)
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Written(float):
    """A float that is rendered the way it was written: ``1.10``."""

    __slots__ = ("text",)
    text: str

    def __str__(self) -> str:
        return self.text


def typed(node: Bare) -> Any:
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
