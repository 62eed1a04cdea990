"""Originals of ``--import``, and the specs that are made of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from reconciler.base.values import Facts
from reconciler.cli.commands.importing import problems_of
from reconciler.migrate.formats import imported

IMPORTS = Path(__file__).parent / "imports"
CASES = sorted(
    path for path in IMPORTS.glob("*/*") if path.is_file()
    and not path.name.startswith(("SETTINGS", ".")) and not path.name.endswith(".spec.yaml")
)  # fmt: skip
FACTS = Facts("me", "/home/me", 1000, "web1", True, True, True, "/state")
CONTEXT: Any = SimpleNamespace(facts=lambda: FACTS)


def spec_of(path: Path) -> tuple[str, list[Any]]:
    draft = imported([str(path)])
    text = draft.valid(lambda text: problems_of(text, CONTEXT))
    return text, draft.left
