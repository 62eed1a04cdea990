"""Which format a file has, by its content and its name; and one spec from several files.

A format is a module with ``NAMES`` (of files), ``CONTENT`` (what only it has) and ``read``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from reconciler.migrate import tmpfiles
from reconciler.migrate.draft import SpecDraft
from reconciler.migrate.original import Original, opened

FORMATS = {
    "supervisord": "supervisord.conf",
    "pm2": "pm2 ecosystem (JSON)",
    "tmuxp": "tmuxp",
    "tmuxinator": "tmuxinator",
    "monit": "monitrc",
    "logrotate": "logrotate.conf",
    "tmpfiles": "tmpfiles.d",
    "crontab": "crontab",
    "procfile": "Procfile",
}
"""The module of each, and what people call it; a content that fits two is the first one's."""
_ADVICE = (
    "What runs by that goes on running: stop it there before the first pass.",
    "To have all of it kept from then on, add: include: [watchdog]",
)


class Format(Protocol):
    """What each module has."""

    CONTENT: re.Pattern[str]
    NAMES: re.Pattern[str]

    def read(self, original: Original, draft: SpecDraft) -> None:
        """Put what stands there into the draft. Raises NotImported."""


def imported(paths: Sequence[str]) -> SpecDraft:
    """What stands in these files. Raises NotImported."""
    originals = [opened(path) for path in paths]
    stem = originals[0].base.partition(".")[0] if paths[0] != "-" else "imported"
    formats = [(one, format_of(one)) for one in originals]
    about = [f"From {one.shown} ({FORMATS[name]})" for one, name in formats]
    draft = SpecDraft(stem, [*about, *_ADVICE])
    together = [one for one, name in formats if name == "tmpfiles"]
    for original, name in formats:
        found: Format = import_module(f"reconciler.migrate.{name}")
        if name != "tmpfiles":
            found.read(original, draft)
        elif original is together[0]:
            tmpfiles.read_all(together, draft)
    return draft


def format_of(original: Original) -> str:
    """The module that reads it. Raises NotImported."""
    modules = {name: import_module(f"reconciler.migrate.{name}") for name in FORMATS}
    path = original.path if original.shown != "standard input" else ""
    named = [name for name, one in modules.items() if one.NAMES.search(path)]
    held = [name for name, one in modules.items() if one.CONTENT.search(original.text)]
    both = [name for name in held if name in named]
    if path.endswith((".js", ".cjs", ".mjs", ".ts")):
        raise original.refused(
            1, "is a program; write what it gives as JSON: node -p "
            f"'JSON.stringify(require(\"{original.path}\"))'",
        )  # fmt: skip
    for found in (both, held, named):
        if found:
            return found[0]
    raise original.refused(1, f"is none of {', '.join(FORMATS.values())}")
