"""The pages tell the truth: links lead somewhere, examples are valid, tables are complete.

What is made from the code is written anew with ``REGENERATE=1``. See also machine/test_pages.py,
where their commands are run.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from pages import LANGUAGES, PAGES, Block, blocks, fields, generated, text_of, variables
from support import CHECKOUT, compiled

from reconciler import kinds
from reconciler.cli.options import all_modes, parser
from reconciler.config.errors import SpecError
from reconciler.config.schema import json_schema

EXAMPLES = [one for page in PAGES for one in blocks(page)]
TEMPLATES = sorted(
    one for one in (CHECKOUT / "templates").iterdir() if one.suffix not in (".md", ".cron")
)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as hosting sites make them."""
    heads = re.findall(r"(?m)^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", page.read_text()))
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = CHECKOUT / page
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        path, _, anchor = target.partition("#")
        if path.startswith("https:"):
            continue
        found = (here.parent / path).resolve() if path else here
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def test_a_newcomer_reads_two_hundred_lines() -> None:
    assert len(text_of("README.md").splitlines()) <= 200


def test_the_inside_is_where_the_page_says() -> None:
    page = text_of("reconciler/README.md")
    assert len(page.splitlines()) < 110
    for path, name in re.findall(r"`((?:\w+/)+\w+(?:\.py|/)?)(?:: (\w+))?`", page):
        roots = (CHECKOUT, CHECKOUT / "reconciler")
        found = [root / path for root in roots if (root / path).exists()]
        found += [root / f"{path}.py" for root in roots if (root / f"{path}.py").exists()]
        assert found or "KIND" in path, path
        assert not name or re.search(rf"def {name}\b", found[0].read_text()), f"{path}: {name}"
    for room, holds in re.findall(r"(?m)^\| `(\w+)` \| (.*) \|$", page):
        for name in re.findall(r"`(\w+)/?`", holds):
            inside = CHECKOUT / "reconciler" / room / name
            assert inside.exists() or inside.with_suffix(".py").exists(), f"{room}/{name}"


@pytest.mark.parametrize("block", EXAMPLES, ids=str)
def test_a_block_says_what_it_is_and_is_valid(block: Block, tmp_path: Path) -> None:
    assert block.language in LANGUAGES, "a fenced block needs a language"
    if block.language == "json":
        json.loads(block.text)
    if block.language == "yaml" and "save" not in block.said:
        text = block.text + "\n".join(block.said.get("with", ()))
        try:
            assert compiled(tmp_path, text).name
        except SpecError as error:
            pytest.fail("\n".join(text for text, _ in error.lines()))


@pytest.mark.parametrize("name", ["container", "executor", "webservice", "workspace"])
def test_shipped_specs_are_valid(name: str, tmp_path: Path) -> None:
    assert compiled(tmp_path, (CHECKOUT / f"specs/{name}.yaml").read_text()).name == name


def test_tables_that_are_made_from_the_code_are_as_it_is(free: None) -> None:
    made = {one.name: variables(one) for one in TEMPLATES}
    assert all(f"<!-- made: {name} -->" in text_of("templates/README.md") for name in made)
    made |= {kind.section: fields(kind) for kind in kinds.all_kinds()}
    for name in ("templates/README.md", "specs/README.md"):
        page = generated(name, made)
        if os.environ.get("REGENERATE"):
            (CHECKOUT / name).write_text(page)
        assert text_of(name) == page
    # What the template itself says of its variables is the same.
    for template in TEMPLATES:
        said = template.read_text().partition("#}")[0]
        for name in re.findall(r"^\| `(\w+)`", made[template.name], re.MULTILINE):
            assert re.search(rf"\b{name}\b", said), f"{template.name}: {name}"


def test_the_reference_names_every_field_and_every_option() -> None:
    reference = text_of("specs/README.md")
    sections = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", reference))
    for kind in kinds.all_kinds():
        fields = json_schema([kind])["properties"][kind.section]["additionalProperties"]
        for name in fields["properties"]:
            where = (
                sections[kind.section] if "$ref" not in fields["properties"][name] else reference
            )
            assert f"`{name}`" in where or f"`{name}:" in where, f"{kind.section}: {name}"
    commands = text_of("specs/commands.md")
    for mode in all_modes():
        assert f"`--{mode.name}" in commands
    for action in parser()._actions:
        for flag in action.option_strings:
            assert flag in commands or flag in ("-h", "--help", "--quiet", "--verbose"), flag
