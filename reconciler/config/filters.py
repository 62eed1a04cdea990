"""Filters of templates that are our own, or that jinja2 has without a bound. Pure."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from reconciler.config.templates import TemplateError

MAX_TEXT = 64 * 1024
"""Characters that one string may have once rendered."""


def join(value: Any, d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        raise TemplateError("join takes no attribute here", "use map(attribute='...') before it")
    words = [str(word) for word in value]
    if sum(map(len, words)) + len(str(d)) * max(0, len(words) - 1) > MAX_TEXT:
        raise TemplateError("gives more than a template may give")
    return str(d).join(words)


def replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    text, old, new = str(value), str(old), str(new)
    if len(text) + (text.count(old) if old else len(text) + 1) * len(new) > 2 * MAX_TEXT:
        raise TemplateError("gives more than a template may give")
    return text.replace(old, new, count)


def rounded(value: Any, digits: int = 0) -> float:
    if not 0 <= digits <= 12:
        raise TemplateError("round takes 0 to 12 digits")
    return round(float(value), digits)


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def quote(value: Any) -> str:
    return shlex.quote(str(value))


def regex_escape(value: Any) -> str:
    return re.escape(str(value))
