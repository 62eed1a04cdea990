"""Golden cases of ``--import``: originals in ``imports/FORMAT``, each with the spec made of it.

``REGENERATE=1`` writes the specs anew. What each format's manual names stands in ``SETTINGS.yaml``,
as ``taken`` over, ``left`` out with a word, or the ``same`` as what is done without it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from importing import CASES, CONTEXT, IMPORTS, spec_of
from ruamel.yaml import YAML

from reconciler.cli.commands.importing import problems_of
from reconciler.migrate.formats import FORMATS, format_of, imported
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


class Setting(NamedTuple):
    """One of a manual: how it is said, in which original, and what becomes of it."""

    name: str
    original: str
    said: str
    fate: str


def settings_of(folder: str) -> list[Setting]:
    manual = YAML(typ="safe").load(IMPORTS / folder / "SETTINGS.yaml")
    return [
        Setting(group.get("name", manual["name"]), group["original"], said, fate)
        for group in manual["groups"]
        for fate in ("taken", "left", "same")
        for said in group.get(fate, ())
    ]


def fate_of(one: Setting, file: Path, without: tuple[str, list[Any]]) -> str:
    """What became of it, seen from what is made of the same original without it."""
    head = one.original.partition("@")[0]
    margin = head[len(head.rstrip(" ")) :]
    spec, left = made(one, file, one.said.rstrip("\n").replace("\n", f"\n{margin}"))
    first = head.count("\n") + 1
    word = next(iter(re.findall(r"\w+", one.said)), "\n")
    known = {at.reason for at in without[1]}
    for at in left:
        here = first <= at.origin.line <= first + one.said.count("\n")
        if (here and at not in without[1]) or (at.reason not in known and word in at.reason):
            return "left"
    return "same" if spec == without[0] else "taken"


def made(one: Setting, file: Path, text: str) -> tuple[str, list[Any]]:
    """The spec without its comments, and what was left out."""
    file.write_text(one.original.replace("@", text))
    spec, left = spec_of(file)
    return re.sub(r"(?m)^ *#.*\n", "", spec), left


@pytest.mark.parametrize("name", FORMATS)
def test_no_setting_of_a_manual_is_lost(name: str, tmp_path: Path) -> None:
    """Each is taken over, or named with its place, or says what is so here anyway."""
    without: dict[str, tuple[str, list[Any]]] = {}
    fates = {}
    for one in (settings := settings_of(name)):
        file = tmp_path / one.name
        file.parent.mkdir(parents=True, exist_ok=True)
        if one.original not in without:
            without[one.original] = made(one, file, "")
        fates[one] = fate_of(one, file, without[one.original])
    assert {one.said: fate for one, fate in fates.items() if fate != one.fate} == {}
    assert len(settings) > 4


def test_what_is_left_out_is_counted_once(tmp_path: Path) -> None:
    (table := tmp_path / "crontab").write_text("".join(f"{n}~9 1 * * * job\n" for n in range(6)))
    text, left = spec_of(table)
    assert [one.origin.line for one in left] == [1, 2, 3, 4, 5, 6]
    assert text.count("# crontab:") == 6
    names = ("shred", "mailfirst", "start 3", "uncompresscmd x", "addextension y")
    stanza = "\n  ".join(("/var/log/a/x.log /var/log/b/x.log {", *names)) + "\n}\n"
    (conf := tmp_path / "logrotate.conf").write_text(stanza)
    text, left = spec_of(conf)
    assert [one.origin.text for one in left] == list(names)
    assert text.count("# logrotate.conf:") == 2 * len(names), "with each of the folders"


def test_a_part_of_logrotate_says_that_the_whole_says_more(tmp_path: Path) -> None:
    (tmp_path / "logrotate.d").mkdir()
    (part := tmp_path / "logrotate.d/x").write_text("/var/log/x {\n  missingok\n}\n")
    (whole := tmp_path / "logrotate.conf").write_text("weekly\nrotate 4\ninclude logrotate.d\n")
    text, (left,) = spec_of(part)
    assert "import that one, which includes this" in left.reason and "every:" not in text
    text, nothing = spec_of(whole)
    assert not nothing and "every: week\n    keep: 4\n" in text


def test_several_of_tmpfiles_are_about_the_same_folders(tmp_path: Path) -> None:
    files = [tmp_path / "tmpfiles.d" / name for name in ("a.conf", "b.conf")]
    files[0].parent.mkdir()
    files[0].write_text("d /srv/x - - - 10d\n")
    files[1].write_text("d /srv/x/own 0700\nx /srv/x/kept\n")
    draft = imported(list(map(str, files)))
    text = draft.valid(lambda text: problems_of(text, CONTEXT))
    assert re.findall("exclude: (.*)", text) == ["[kept, own]"] and not draft.left


def test_folders_of_a_user_are_not_those_of_the_system(tmp_path: Path) -> None:
    file = tmp_path / "user-tmpfiles.d" / "x.conf"
    file.parent.mkdir()
    file.write_text("d %t/a\nd %S/b\nd %C/c\nd %L/%%t\n")
    text, _ = spec_of(file)
    assert re.findall("path: (.*)", text) == [
        '"/run/user/{{ user.uid }}/a"',
        '"{{ user.home }}/.local/state/b"',
        '"{{ user.home }}/.cache/c"',
        '"{{ user.home }}/.local/state/log/%t"',
    ]
