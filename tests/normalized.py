"""What two runs of a program print differently, made the same: times, process numbers, sizes."""

from __future__ import annotations

import re

_VARIES = (
    (r"\b\d{4}-\d\d-\d\d\s+\d\d:\d\d(:\d\d)?\b", "<time>"),
    (r"(?m)^  \d+\. ", "  <n>. "),
    (r"(?m)^- \d\d:\d\d ", "- <time> "),
    (r"\bpid \d+(, \d+)*", "pid <pid>"),
    (r"kill -(CONT|9) \d+", r"kill -\1 <pid>"),
    (r"\b\d[\d,.]* ([KMGT]i)?B\b", "<size>"),
    (r"\b\d[\d,.]*(\s+)(ms|s|min|h|d)\b", r"<n>\1s"),
    (r"<n> s <n> s\b", "<n> s"),
    (r"\b\d+ full passe?s?\b", "<n> full passes"),
    (r"\bload [\d.]+ [\d.]+ [\d.]+ on \d+ processors?", "load <n> on <n> processors"),
    (r"\b\d+(\.\d+)?%", "<n>%"),
    (r"no swap|swap <size> of <size> free", "<swap>"),
    (r"\(UTC[+-]\d{4}\)", "(<zone>)"),
    (r"\b\d{1,3}(,\d{3})+\b", "<n>"),
)


def normal(text: str) -> str:
    """The text with a placeholder for each value that is another one in the next run.

    Blanks between columns count as two: how many there are depends on the widths of such values.
    """
    for pattern, instead in _VARIES:
        text = re.sub(pattern, instead, text)
    return "".join(f"{_narrowed(line)}\n" for line in text.splitlines())


def _narrowed(line: str) -> str:
    quoted = re.match(r" *\d* +\| ", line)  # A line of a file, or what points at a part of it.
    return line.rstrip() if quoted else re.sub(r"(?<=\S) {2,}", "  ", line.rstrip())
