"""Puts the manual pages into the wheel, made from the parsers while the wheel is built."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface):  # type: ignore[type-arg]
    """The custom hook of ``pyproject.toml``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the pages, and say where they are to be installed."""
        sys.path[:0] = folders = [self.root, f"{self.root}/.manual"]
        try:
            from manual import pages
        finally:
            del sys.path[: len(folders)]
        self._made = Path(tempfile.mkdtemp())
        for name, text in pages().items():
            file = self._made / name
            file.write_text(text)
            build_data["shared_data"][str(file)] = f"share/man/man1/{name}"
            # Where --man finds it, wherever the rest is put.
            build_data["force_include"][str(file)] = f"reconciler/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Nothing is left behind."""
        shutil.rmtree(self._made)
