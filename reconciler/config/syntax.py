"""The parser's complaints in plain words, at the place where a person has to fix something.

It must not read YAML itself; it only looks at the text around a place that the parser named.
"""

from __future__ import annotations

import re
from typing import Any

from reconciler.config.errors import Problems
from reconciler.config.nodes import Source, SourceMark

_TAB_SHOWN = 10
_TABS = 1000
_KEY = 1024


def unquoted_template(source: Source, start: int, flow: bool, problems: Problems) -> int:
    """Report ``{{ x }}`` without quotes; returns where the value it is part of ends."""
    _, stop = source.span(source.line_of(start))
    rest = source.text[start:stop]
    close = rest.find("}}")
    length = len(rest) if close < 0 else close + 2
    tail = re.match(r"[^,\]}]*" if flow else r"(?:(?!\s#).)*", rest[length:])
    written = (rest[:length] + (tail[0] if tail else "")).rstrip()
    quote = "'" if '"' in written else '"'
    problems.add(
        SourceMark(source, start, start + len(written)),
        "a value that begins with a template needs quotes",
        f"write {quote}{written}{quote}",
    )
    return start + max(4, len(written))


def tabs(
    source: Source,
    text: str,
    spans: list[tuple[int, int, bool]],
    seen: int,
    broken: bool,
    problems: Problems,
) -> None:
    """Report every tab that stands outside quoted scalars, block scalars and comments.

    ``spans`` are the scalars (start, end, quoted) in order. After an error of syntax only what
    the parser saw is looked at, and an error on the line of a tab is taken back for it.
    """
    limit = len(text)
    if broken:
        places = [problem.line for problem in problems.found]
        line = source.line_of(seen) if not places else max(places) - 1
        limit = source.span(line)[1]
    found: list[tuple[SourceMark, bool]] = []
    index = 0
    comment = 0
    for match in re.finditer("\t+", text[:limit]):
        at = match.start()
        while index < len(spans) and spans[index][1] <= at:
            index += 1
        inside = index < len(spans) and spans[index][0] <= at
        if inside and spans[index][2]:
            continue
        if at < comment:
            continue
        first, last = source.span(source.line_of(at))
        if not inside and _in_comment(text, first, at, spans, index):
            comment = last
            continue
        found.append((SourceMark(source, at, match.end()), inside))
        if len(found) >= _TABS:
            break
    if broken:
        lines = {source.line_of(mark.start) + 1 for mark, _ in found}
        problems.found = [problem for problem in problems.found if problem.line not in lines]
    for mark, inside in found[:_TAB_SHOWN]:
        hint = "put quotes around a value that holds a tab" if inside else "use spaces"
        problems.add(mark, "a tab; YAML wants spaces here", hint)


def _in_comment(
    text: str, first: int, at: int, spans: list[tuple[int, int, bool]], index: int
) -> bool:
    """Does a comment begin on this line before ``at``? ``index`` is the next scalar's."""
    begin = first
    if index > 0 and spans[index - 1][1] > first:
        begin = spans[index - 1][1]
    match = re.search(r"(?:^|(?<=\s))#", text[first:at])
    while match is not None:
        if first + match.start() >= begin:
            return True
        match = re.compile(r"(?<=\s)#").search(text[first:at], match.end())
    return False


def explain(error: Exception, source: Source, last: Any, problems: Problems) -> None:
    """Report what ``error`` of the parser means. ``last`` is the event before it, or None."""
    text = source.text
    problem = str(getattr(error, "problem", None) or error)
    problem = f"{problem} {getattr(error, 'context', None) or ''}".strip()
    at = _index(getattr(error, "problem_mark", None))
    if at is None:
        position = getattr(error, "position", None)
        at = position if isinstance(position, int) else (last.end_mark.index if last else 0)
    began = _index(getattr(error, "context_mark", None))
    start, message, hint = _plainly(problem, at, began, source, text, last)
    problems.add(SourceMark(source, start, start + 1), message, hint)


def _index(mark: Any) -> int | None:
    return None if mark is None else int(mark.index)


_Problem = tuple[int, str, str | None]


def _plainly(
    problem: str, at: int, began: int | None, source: Source, text: str, last: Any
) -> _Problem:
    at = min(at, len(text))
    context = at if began is None else began
    sign = text[at : at + 1]
    if "mapping values are not allowed" in problem:
        return _second_colon(at, source, text)
    if "unexpected end of stream" in problem:
        return context, "this quote is never closed", None
    if "document separator" in problem or "unexpected document indicator" in problem:
        return context, "this quote is not closed before the document ends", None
    if "cannot start any token" in problem:
        if sign in "@`%":
            return at, f"a value cannot begin with {sign!r}", "put the value in quotes"
        return at, f"nothing can begin with {sign!r} here", None
    if "unknown escape" in problem:
        at -= sign != "\\"  # Without libyaml it is the character behind it.
        return (
            at,
            f"\\{text[at + 1 : at + 2]} means nothing in double quotes",
            "use 'single quotes', where a backslash is just that, or write \\\\",
        )
    if "character escape code" in problem or "hexdecimal" in problem:
        return at, "this escape is no character of Unicode", None
    if "could not find expected ':'" in problem:
        if not re.search(r"[\r\n]", text[context : context + _KEY + 1]):
            return context, f"this key is longer than {_KEY:,} characters", None
        return context, "there is no ':' after this key", None
    if "sequence entries are not allowed" in problem:
        return at, "a list cannot begin here", "put each '- ' on a line of its own, or write [a, b]"
    if "alphabetic or numeric" in problem:
        word = "an alias" if text[context : context + 1] == "*" else "an anchor"
        line_end = source.span(source.line_of(context))[1]
        value = re.split(r"\s#", text[context:line_end])[0].strip()
        return context, f"unquoted, this begins {word}", f'to mean the text, write "{value}"'
    if "directive" in problem or "incompatible YAML" in problem:
        return context, "directives such as %YAML and %TAG are not used", "leave the line out"
    if "tag" in problem:
        return at, "tags (words that begin with '!') are not used", "put the value in quotes"
    if "document start" in problem:
        return at, "a second document begins here; a spec is one document", "leave '...' out"
    for closer in ("']'", "'}'"):
        if f"or {closer}" in problem:
            line = source.line_of(at) + 1
            opener = "'['" if closer == "']'" else "'{'"
            return (
                context,
                f"this {opener} is not closed with {closer}, or a comma is missing by line {line}",
                None,
            )
    if "node content" in problem:
        if not sign or not text[at:].strip():
            return at, "the file ends where a value was expected", "is a bracket not closed?"
        return at, f"a value was expected here, not {sign!r}", "put the value in quotes"
    if "comment or line break" in problem:
        return at, "after '|' or '>' the text begins on the next line", None
    if "expected key" in problem or "expected <block end>" in problem or "'-' indicator" in problem:
        return _misfit(at, context, source, text, last)
    if "nesting" in problem or isinstance(problem, RecursionError):
        return at, "nested too deep", None
    return at, f"this cannot be read as YAML: {problem}", None


def _second_colon(at: int, source: Source, text: str) -> _Problem:
    """``a: b: c``, or a line before that has no ``: `` and was taken on."""
    line = source.line_of(at)
    first, stop = source.span(line)
    before = re.match(r"\s*(?:- +)*[^\s:]+:\s+", text[first:at])
    if before is not None:
        start = first + before.end()
        value = re.split(r"\s#", text[start:stop])[0].strip()
        quote = "'" if '"' in value else '"'
        return at, "a second ': ' in one line", f"put the value in quotes: {quote}{value}{quote}"
    for number in range(line - 1, -1, -1):
        begin, end = source.span(number)
        above = text[begin:end]
        if not above.strip() or above.lstrip().startswith("#"):
            continue
        tight = re.match(r"\s*(?:- +)*[\w.-]+:(?=\S)", above)
        if tight is not None:
            place = begin + tight.end() - 1
            return place, "there is no space after this ':'", "write a space after the colon"
        if ":" not in above:
            start = begin + len(above) - len(above.lstrip())
            return start, "this line is neither 'key: value' nor '- item'", None
        return (
            first + len(text[first:at]) - len(text[first:at].lstrip()),
            "this key is indented deeper than the keys it belongs to",
            "keys of one mapping begin in the same column",
        )
    return at, "a ':' cannot stand here", "put the value in quotes"


def _misfit(at: int, context: int, source: Source, text: str, last: Any) -> _Problem:
    """Something that does not go on with the mapping or list that began at ``context``."""
    if last is not None and getattr(last, "style", None) in ("'", '"'):
        start, end = last.start_mark.index, last.end_mark.index
        if end <= at and source.line_of(end) == source.line_of(at):
            if source.line_of(start) != source.line_of(end):
                line = source.line_of(end) + 1
                return start, f"this quote is closed only on line {line}", "is one missing here?"
            return at, "there is more text after the closing quote", "put all of it in the quotes"
    column = at - source.span(source.line_of(at))[0]
    wanted = context - source.span(source.line_of(context))[0]
    began = source.line_of(context) + 1
    if column != wanted:
        return (
            at,
            f"indented by {column}, which fits nothing above (what began on line {began} is "
            f"indented by {wanted})",
            "keys of one mapping begin in the same column",
        )
    what = "a mapping (key: value)" if text[context : context + 1] != "-" else "a list (- item)"
    return at, f"this does not go on with {what} that began on line {began}", None
