"""The pages of this project, and the examples in them: what is code, and how it is run.

A fenced block says what it is: ``sh`` is run line by line, ``console`` is run and must print what
stands there (a line ``...`` is any number of lines), ``yaml`` is a spec or a part of one,
``python`` is run, ``json`` is read, ``text`` is none of these. Comments of HTML before a block::

    <!-- before: COMMAND -->   run first, and not shown
    <!-- file: NAME
    TEXT -->                   a file that is there by then
    <!-- with: YAML -->        what a part of a spec needs besides, to be a whole one
    <!-- status: 1 -->         with which status the last command of the block ends
    <!-- save: NAME -->        ``yaml`` that is no spec, but that file, which is there from then on
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import CHECKOUT

from reconciler.config.schema import json_schema
from reconciler.core.kind import Kind

PAGES = (
    "README.md", "CHANGELOG.md", "specs/README.md", "specs/README.ja.md", "specs/commands.md",
    "specs/executor.md", "specs/fleet.md", "specs/security.md", "templates/README.md",
    "tests/README.md", "reconciler/README.md",
)  # fmt: skip
LANGUAGES = ("sh", "console", "yaml", "python", "json", "text")
_COMMENT = re.compile(r"<!-- (before|file|with|status|save): (.*?)\s*-->", re.DOTALL)


@dataclass
class Block:
    """A fenced block: where its text begins in the page, and what stands before it."""

    page: str
    line: int
    language: str
    text: str
    said: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def whole(self) -> str | None:
        """The name of the spec that this is, where it is a whole one."""
        found = re.search(r"(?m)^name: (\S+)", self.text)
        return found[1] if found and self.text.startswith("version: 1\n") else None

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Of a ``console``, each command with what it prints."""
        command, printed = "", []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, printed
                command, printed = line[2:], []
            else:
                printed.append(line)
        yield command, printed


def text_of(page: str) -> str:
    """The page as it stands in this checkout."""
    return (CHECKOUT / page).read_text()


def blocks(page: str) -> Iterator[Block]:
    """All fenced blocks of the page."""
    lines = text_of(page).splitlines()
    start, said = None, ""
    for at, line in enumerate(lines):
        if start is None and line.lstrip().startswith("```"):
            start = at
        elif start is not None and line.lstrip() == "```":
            inside = lines[start + 1 : at]
            indent = len(lines[start]) - len(lines[start].lstrip())
            text = "".join(f"{one[indent:]}\n" for one in inside)
            found: dict[str, list[str]] = {}
            for word, value in _COMMENT.findall(said):
                found.setdefault(word, []).append(value)
            yield Block(page, start + 1, lines[start].strip()[3:], text, found)
            start, said = None, ""
        elif start is None:
            said = f"{said}{line}\n" if line.strip() else said


def generated(page: str, made: dict[str, str]) -> str:
    """The page with what stands between ``<!-- made: NAME -->`` and ``<!-- end -->`` made anew."""

    def one(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{made[found[2]].strip()}\n\n{found[3]}"

    return re.sub(r"(?s)(<!-- made: (\S+) -->).*?(<!-- end -->)", one, text_of(page))


def variables(template: Path) -> str:
    """A table of the variables of a template of a unit, read from the template itself."""
    rows: dict[str, str] = {}
    loops: dict[str, str] = {}
    for line in template.read_text().splitlines():
        loop = re.match(r"{% for (\w+) in \(?\[?(\w+)", line)
        if loop:
            loops[loop[1]] = loop[2]
        found = re.match(r"(\w+)={{ (\w+)(?: \| default\((.*)\))? }}$", line)
        if not found:
            continue
        name = loops.get(found[2], found[2])
        default = f"`{found[3]}`" if found[3] else ""
        if found[3] and "|" in found[3]:
            default = "the program"
        rows[name] = f"| `{name}` | `{found[1]}=` | {default} |"
    return "\n".join(["| variable | sets | default |", "|---|---|---|", *rows.values()])


def fields(kind: Kind[Any, Any]) -> str:
    """A table of the fields that only resources of this kind have, from the schema."""
    schema = json_schema([kind])["properties"][kind.section]["additionalProperties"]
    rows = ["| field | meaning |", "|---|---|"]
    for name, value in schema["properties"].items():
        if "$ref" not in value:  # Every resource has those.
            required = "; required" if name in schema.get("required", ()) else ""
            rows.append(f"| `{name}` | {value['description'].rstrip('.')}{required} |")
    return "\n".join(rows)
