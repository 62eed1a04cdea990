"""Procfile: a process for each line, as foreman runs it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from reconciler.migrate.document import Origin
from reconciler.migrate.draft import SpecDraft
from reconciler.migrate.original import NotImported, Original, opened

_LINE = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(\S.*)")
CONTENT = re.compile(
    r"\A(?=[\s\S]*^[\w-]+:[ \t]*\S)(?:(?:[A-Za-z0-9_-]+:[ \t]*\S.*|[ \t]*#.*|[ \t]*)(?:\n|\Z))+\Z",
    re.MULTILINE,
)
NAMES = re.compile(r"(^|/)Procfile[^/]*$|\.[Pp]rocfile$")

_ASSIGNED = re.compile(r"\s*(export\s+)?([A-Za-z_]\w*)\s*=\s*['\"]?([0-9]{1,5})?")
_FIRST_PORT = 5000
_BETWEEN = 100


def read(original: Original, draft: SpecDraft) -> None:
    """All its processes. Raises NotImported."""
    index = 0
    settings = os.path.join(original.folder, ".env")
    there = os.path.isfile(settings)
    assigned = list(_assigned(settings)) if there else []
    first = next((int(one[3]) for _, one in assigned if one[2] == "PORT" and one[3]), _FIRST_PORT)
    for number, line in original.lines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise original.refused(number, "is not NAME: COMMAND")
        origin = original.at(number, line.strip())
        name, command = found.groups()
        port = first + _BETWEEN * index
        index += 1
        if name == "release":
            draft.leave(draft.document, origin, "runs once for each release, and nothing does that")
            continue
        block = draft.add("processes", name, origin)
        block.put("command", command, origin)
        block.put("cwd", original.folder, origin)
        block.put("env", {"PORT": str(port)}, origin)
        if there:
            block.put("env_file", settings, original.at(number, ".env"))
    for origin, found in assigned:
        # What foreman reads otherwise than an ``env_file``.
        if found[1]:
            draft.leave(draft.document, origin, "is not read from an env_file; take out export")
        elif found[2] == "PORT" and index > 1:
            reason = "is one for all, though foreman adds 100 for each process; take it out there"
            draft.leave(draft.document, origin, reason)


def _assigned(settings: str) -> Iterator[tuple[Origin, re.Match[str]]]:
    """Each variable that is set there, without its value."""
    try:
        original = opened(settings)
    except NotImported:
        return  # What is wrong with it is said when it is read for a start.
    for number, line in original.lines():
        if found := _ASSIGNED.match(line):
            yield original.at(number, f"{'export ' * bool(found[1])}{found[2]}"), found
