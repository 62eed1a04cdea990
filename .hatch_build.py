"""Puts the manual page into the wheel, made from the parser while the wheel is built.

It must not need anything that is not in this folder or in the standard library.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPage(BuildHookInterface):  # type: ignore[type-arg]
    """The custom hook of ``pyproject.toml``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the page, and say where it is to be installed."""
        sys.path.insert(0, self.root)
        try:
            from reconciler.cli.commands.man import page
        finally:
            sys.path.remove(self.root)
        self._made = Path(tempfile.mkdtemp())
        file = self._made / "reconcile.1"
        file.write_text(page())
        build_data["shared_data"][str(file)] = "share/man/man1/reconcile.1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Nothing is left behind."""
        shutil.rmtree(self._made)
