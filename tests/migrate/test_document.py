"""What the writer writes, YAML reads as it was meant; what the checker refuses is taken out."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from reconciler.config.errors import Problem, Problems
from reconciler.config.nodes import Map, Node, Seq, Source, Text
from reconciler.config.yaml import load
from reconciler.migrate.document import Origin, SpecBlock, TemplateText, dump
from reconciler.migrate.draft import SpecDraft

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\ufffe\uffff"), max_size=30) | (
    st.text(st.sampled_from("ab: #-?'\"{}[],&*!|>%@`\\\n\t~/=0"), max_size=12)
)
KEYS = TEXTS.filter(lambda text: text != "<<")
VALUES = st.recursive(
    TEXTS | st.integers(0, 999) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4).map(SpecBlock)
    ),
    max_leaves=12,
)


def plain(node: Node | Any) -> Any:
    if isinstance(node, dict):
        is_read = isinstance(node, Map)
        return {str(key) if is_read else plain(key): plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(one) for one in node]
    text = str(node).lower() if isinstance(node, bool) else str(node)
    # A node is as it stands in the file.
    return text if isinstance(node, Text) else text.replace("{{", "{{ '{{' }}")


@settings(database=None, deadline=None, max_examples=60)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4).map(SpecBlock), TEXTS)
def test_what_is_written_is_read_again(value: SpecBlock, comment: str) -> None:
    value.say(comment)
    text, places = dump(value)
    problems = Problems()
    read = load(text.encode(), Source("x", "/x"), problems)
    assert not problems, problems.found
    assert isinstance(read, Map)
    assert plain(read) == plain(value)
    assert [place.line for place in places] == sorted({place.line for place in places})


WORDS = (
    "no on On YES y 1e3 1.5e+3 0777 0o17 0x1F 0b1 12:30 1:2:3 190:20:30 ~ null Null = << .inf "
    "-.inf .NaN +1 1_000 00 -0 1e 0. 2024-01-01 {{x}} !x &a *a %a @a ` a: [a] {a}"
)
ODD = [
    *WORDS.split(),
    "1,5", "-", "---", "?",
    "", " a", "a ", "\ta", "a\t", "# a", "a #b", "a: b", "- a", "? a", "| ", "> x", "'", '"', "\\",
    "a\nb", "a\n", "\na", "a\n\n", "a\n b\n", "\0", "\x1b[0m", "\x85", "\u2028", "\ufeff", "é",
    "😀", "\r", "a\r\nb", "x" * 500, "a b " * 100, "--- a", "2024-01-01 10:00:00", "a, b",
    "\U0010ffff",
]  # fmt: skip


def as_written(value: Any) -> Any:
    """With what stands for itself in a template."""
    if isinstance(value, dict):
        return {as_written(key): as_written(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_written(one) for one in value]
    return value.replace("{{", "{{ '{{' }}") if isinstance(value, str) else value


def reader_1_1(text: str) -> Any:
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)
    return reader.load(text)


@settings(database=None, deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(ODD) | TEXTS, min_size=1, max_size=6))
def test_every_reader_reads_what_was_meant(texts: list[str]) -> None:
    """ruamel, one of YAML 1.1, and PyYAML where it is there: no text becomes a number or a word."""
    inner = {text: text for text in texts if text != "<<"}
    block = SpecBlock(
        {
            "one": texts[0],
            "all": texts,
            "flow": inner,
            "block": SpecBlock(inner),
            "list": [SpecBlock({"x": text}) for text in texts],
            "on": True,
            "two": 2,
        }
    )
    text = dump(block)[0]
    readers = [YAML(typ="safe", pure=True).load, reader_1_1]
    with suppress(ImportError):
        readers.append(__import__("yaml").safe_load)
    for read in readers:
        assert read(text) == as_written(block)


def test_how_it_looks() -> None:
    window = SpecBlock(
        {"name": "edit", "panes": [SpecBlock({"command": "vi"}), SpecBlock({"type": "ls"})]}
    )
    window.say("a pane is left out", "panes")
    block = SpecBlock({
        "command": ["nginx", "-g", "daemon off;"], "env": {"A": "1", "B": "x y"}, "instances": 2,
        "mode": "0755", "text": "one\n two\n", "windows": [window], "cut": "a: b", "yes": "yes",
        "at": TemplateText("{{ user.home }}/x"), "go": "docker ps --format {{.Names}}", "none": [],
    })  # fmt: skip
    assert (
        dump(SpecBlock({"version": 1, "processes": SpecBlock({"web": block})}))[0]
        == """\
version: 1

processes:
  web:
    command: [nginx, -g, "daemon off;"]
    env: { A: "1", B: x y }
    instances: 2
    mode: "0755"
    text: |
      one
       two
    windows:
      - name: edit
        # a pane is left out
        panes:
          - command: vi
          - type: ls
    cut: "a: b"
    "yes": "yes"
    at: "{{ user.home }}/x"
    go: "docker ps --format {{ '{{' }}.Names}}"
    none: []
"""
    )


def test_what_is_refused_becomes_a_comment_at_its_place() -> None:
    draft = SpecDraft("My Host")
    for at, name in enumerate(("a", "b", "b"), 1):
        made = draft.add("processes", name, Origin("f", at, f"[{name}]"))
        made.put("command", name, Origin("f", at, f"command={name}"))
        made.put("log", SpecBlock({"path": "/x", "keep": 0}), Origin("f", at, "keep=0"))

    def problems_of(text: str) -> list[Problem]:
        refused = ("keep: 0", "command: a")
        return [
            Problem("x", at, 1, 1, f"process:p: a problem with {word}")
            for at, line in enumerate(text.split("\n"), 1)
            for word in refused
            if word in line and not line.lstrip().startswith("#")
        ] + [
            Problem("x", at, 1, 1, "needs 'command'")
            for at, line in enumerate(text.split("\n"), 1)
            if line == "  a:" and "    command: a\n" not in text
        ]

    assert YAML(typ="safe").load(draft.valid(problems_of)) == {
        "version": 1, "name": "my-host",
        "processes": {"b": {"command": "b", "log": {"path": "/x"}},
                      "b-2": {"command": "b", "log": {"path": "/x"}}},
    }  # fmt: skip
    text = draft.valid(problems_of)
    assert "    log:\n      path: /x\n      # f:2: keep=0: a problem with keep: 0\n" in text
    assert "# f:1: [a]: needs 'command'" in text
    assert len(draft.left) == 5


def test_what_is_wrong_with_a_mapping_is_not_its_first_key() -> None:
    draft = SpecDraft("x")
    made = draft.add("processes", "a", Origin("f", 1, "[a]"))
    made.put("command", "x", Origin("f", 2, "command=x"))
    made.put("match", SpecBlock({"cmdline": "a", "exe": "/b"}), Origin("f", 3, "match"))

    def problems_of(text: str) -> list[Problem]:
        lines = text.split("\n")
        return [
            Problem("x", at, 7, 1, "match needs exactly one of cmdline and exe")
            for at, line in enumerate(lines, 1) if line == "      cmdline: a"
        ]  # fmt: skip

    text = draft.valid(problems_of)
    assert YAML(typ="safe").load(text)["processes"] == {"a": {"command": "x"}}
    assert "# f:3: match: match needs exactly one of cmdline and exe" in text


def test_a_spec_of_which_nothing_is_valid_is_refused() -> None:
    with pytest.raises(Exception, match="no valid spec can be made of it: never"):
        SpecDraft("x").valid(lambda text: [Problem("x", 1, 1, 1, "never")])


def test_no_comment_becomes_more_than_a_comment() -> None:
    """Whoever wrote it: what YAML or a terminal takes for the end of a line is escaped."""
    block = SpecBlock({"a": "1"})
    block.say("x\x85b: 2\u2028c: 3\rd: 4\x1b[2J\ne: 5", "a")
    text, _ = dump(block)
    assert text == ('# x\\x85b: 2\\u2028c: 3\\rd: 4\\x1b[2J\n# e: 5\na: "1"\n')


def test_lists_of_lists_are_written_too() -> None:
    text, _ = dump(SpecBlock({"x": [["a", "b"], [], {"k": ["v"]}]}))
    read = load(text.encode(), Source("x", "/x"), Problems())
    assert isinstance(read, Map) and isinstance(read["x"], Seq)
    assert plain(read) == {"x": [["a", "b"], [], {"k": ["v"]}]}
