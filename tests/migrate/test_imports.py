"""Golden cases of ``--import``: originals in ``imports/FORMAT``, each with the spec made of it.

``REGENERATE=1`` writes the specs anew. What each format's manual names stands in its ``SETTINGS``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from importing import CASES, CONTEXT, IMPORTS, spec_of

from reconciler.cli.commands.importing import problems_of
from reconciler.migrate.formats import FORMATS, format_of
from reconciler.migrate.original import opened

pytestmark = [pytest.mark.usefixtures("free")] if os.environ.get("REGENERATE") else []


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_original_becomes_a_spec(path: Path) -> None:
    text, left = spec_of(path)
    assert not problems_of(text, CONTEXT)
    for one in left:
        assert f"# {one.origin}: {one.reason}"[:300] in text, "what is left out is a comment"
    assert format_of(opened(str(path))) == path.parent.name
    text = text.replace(str(path.parent), "/here")
    expected = path.with_name(f"{path.name}.spec.yaml")
    if os.environ.get("REGENERATE"):
        expected.write_text(text)
    assert text == expected.read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_each_setting_of_the_manual_is_in_an_original(name: str) -> None:
    """So that each is imported, or left out, as somebody has read."""
    originals = "\n".join(path.read_text() for path in CASES if path.parent.name == name)
    settings = (IMPORTS / name / "SETTINGS").read_text().split("\n")
    missing = [one for one in settings if one and not re.search(rf"(?<!\w){one}(?!\w)", originals)]
    assert missing == []
