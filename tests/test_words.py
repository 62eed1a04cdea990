"""One meaning for each class name, and no module that is more than one idea."""

from __future__ import annotations

import ast
from collections import defaultdict

from support import CHECKOUT

MODULES = sorted((CHECKOUT / "reconciler").rglob("*.py"))


def test_each_class_name_has_one_meaning() -> None:
    """Whatever its underscore says: a reader looks for the name."""
    found = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name.strip("_").lower()].append(f"{path.name}:{node.lineno}")
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_a_module_is_one_idea_of_at_most_400_lines() -> None:
    long = {str(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: lines for path, lines in long.items() if lines > 400} == {}
