"""Procfile: a process for each line, as foreman runs it."""

from __future__ import annotations

import os
import re

from reconciler.migrate.draft import SpecDraft
from reconciler.migrate.original import Original

_LINE = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(\S.*)")
CONTENT = re.compile(
    r"\A(?=[\s\S]*^[\w-]+:[ \t]*\S)(?:(?:[A-Za-z0-9_-]+:[ \t]*\S.*|[ \t]*#.*|[ \t]*)(?:\n|\Z))+\Z",
    re.MULTILINE,
)
NAMES = re.compile(r"(^|/)Procfile[^/]*$|\.[Pp]rocfile$")

_FIRST_PORT = 5000
_BETWEEN = 100


def read(original: Original, draft: SpecDraft) -> None:
    """All its processes. Raises NotImported."""
    index = 0
    for number, line in original.lines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise original.refused(number, "is not NAME: COMMAND")
        origin = original.at(number, line.strip())
        name, command = found.groups()
        if name == "release":
            draft.leave(draft.document, origin, "runs once for each release, and nothing does that")
            continue
        block = draft.add("processes", name, origin)
        block.put("command", command, origin)
        block.put("cwd", original.folder, origin)
        if re.search(r"\bPORT\b", command):
            block.put("env", {"PORT": str(_FIRST_PORT + _BETWEEN * index)}, origin)
        settings = os.path.join(original.folder, ".env")
        if os.path.isfile(settings):
            block.put("env_file", settings, original.at(number, ".env"))
        index += 1
