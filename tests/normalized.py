"""What two runs of a program print differently, made the same: times, process numbers, sizes."""

from __future__ import annotations

import re

_VARIES = (
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?\b", "<time>"),
    (r"\bpid \d+(, \d+)*", "pid <pid>"),
    (r"\bMainPID \d+", "MainPID <pid>"),
    (r"kill -CONT \d+", "kill -CONT <pid>"),
    (r"\b\d[\d,.]*(?= (ms|s|min|h|d)\b)", "<n>"),
    (r"<n> (ms|s|min|h|d)\b( <n> (ms|s|min|h|d)\b)?", "<span>"),
    (r"\b\d[\d,.]* ([KMGT]i)?B\b", "<size>"),
    (r"\b\d+ (full passe?s?)\b", "<n> full passes"),
    (r"\bload [\d.]+ [\d.]+ [\d.]+ on \d+ processors?", "load <n> on <n> processors"),
    (r"\b\d+\.\d+%", "<n>%"),
)


def normal(text: str) -> str:
    """The text with a placeholder for each value that is another one in the next run.

    Blanks between columns count as one: they depend on the widths of such values.
    """
    for pattern, instead in _VARIES:
        text = re.sub(pattern, instead, text)
    lines = (re.sub(r"(?<=\S) {2,}", "  ", line.rstrip()) for line in text.splitlines())
    return "\n".join(lines) + "\n"
