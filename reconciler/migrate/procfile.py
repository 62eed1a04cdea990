"""Procfile: a process for each line, as foreman runs it."""

from __future__ import annotations

import os
import re

from reconciler.migrate.draft import SpecDraft
from reconciler.migrate.original import NotImported, Original, opened

_LINE = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(\S.*)")
CONTENT = re.compile(
    r"\A(?=[\s\S]*^[\w-]+:[ \t]*\S)(?:(?:[A-Za-z0-9_-]+:[ \t]*\S.*|[ \t]*#.*|[ \t]*)(?:\n|\Z))+\Z",
    re.MULTILINE,
)
NAMES = re.compile(r"(^|/)Procfile[^/]*$|\.[Pp]rocfile$")

_ASSIGNED = re.compile(r"\s*(export\s+)?([A-Za-z_]\w*)\s*=")
_FIRST_PORT = 5000
_BETWEEN = 100


def read(original: Original, draft: SpecDraft) -> None:
    """All its processes. Raises NotImported."""
    index = 0
    settings = os.path.join(original.folder, ".env")
    there = os.path.isfile(settings)
    for number, line in original.lines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise original.refused(number, "is not NAME: COMMAND")
        origin = original.at(number, line.strip())
        name, command = found.groups()
        port = _FIRST_PORT + _BETWEEN * index
        index += 1
        if name == "release":
            draft.leave(draft.document, origin, "runs once for each release, and nothing does that")
            continue
        block = draft.add("processes", name, origin)
        block.put("command", command, origin)
        block.put("cwd", original.folder, origin)
        if re.search(r"\bPORT\b", command):
            block.put("env", {"PORT": str(port)}, origin)
        if there:
            block.put("env_file", settings, original.at(number, ".env"))
    if there:
        _otherwise(settings, index > 1, draft)


def _otherwise(settings: str, several: bool, draft: SpecDraft) -> None:
    """Name what foreman reads there otherwise than an ``env_file``, but for its value."""
    try:
        original = opened(settings)
    except NotImported:
        return  # What is wrong with it is said when it is read for a start.
    for number, line in original.lines():
        found = _ASSIGNED.match(line)
        if found and found[1]:
            origin = original.at(number, f"export {found[2]}")
            draft.leave(draft.document, origin, "is not read from an env_file; take out export")
        elif found and found[2] == "PORT" and several:
            origin = original.at(number, "PORT")
            draft.leave(draft.document, origin, "is one for all; foreman adds 100 for each process")
