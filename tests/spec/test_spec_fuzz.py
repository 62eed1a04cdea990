"""Whatever the bytes are: a Spec or a SpecError, soon, and the same one from the cache."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import within

from reconciler.config.errors import SpecError
from reconciler.core.model import Spec

VALID = """\
# A comment
version: 1
name: demo
vars:
  home: &home "{{ env.HOME | default('/h') }}"
  names: [a, b, 3]
  base: &base {mode: "0750", owner: ann}
loop: {every: 30s}
folders:
  top: {path: *home, <<: *base}
  each:
    path: "{{ home }}/{{ each }}"
    for_each: "{{ names }}"
    when: each != 3
workers:
  w:
    command:
      - sh
      - -c
      - |
        echo "${#x}" > 'y'
    env: {TOKEN: "{{ env.HOME }}", B: plain:text}
    cwd: ~/x
    parts:
      - {label: one, command: [a, b?]}
    needs: [folder:top]
"""
FEW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TOKENS = ["{{", "}}", "{%", "*home", "&a ", "<<: ", "[", "]", "{", "}", "'", '"', "|", ">", "\t",
          "- ", ": ", "? ", "!", "%", "#", "\n", "\r", "\x00", "\x85", "\u2028", "\ufeff", "é",
          "---\n", "...", "{{ 9**9 }}", "{{ each }}", "{{ names }}", "~", "null", "/..", "0755",
          "needs: [folder:w]", "\ud7ff", "\ue000", "\\", "@", "`", ","]  # fmt: skip


def survives(room: Any, content: bytes) -> Spec | None:
    with within(2):
        try:
            spec: Spec = room.load(content, environ={"HOME": "/home/x"})
        except SpecError as error:
            assert error.problems
            assert str(error).replace("\n", "").isprintable()
            return None
    return spec


@FEW
@given(st.binary(max_size=300))
def test_any_bytes(room: Any, content: bytes) -> None:
    survives(room, content)


@FEW
@given(st.text(max_size=200))
def test_any_text(room: Any, content: str) -> None:
    survives(room, content.encode("utf-8", "surrogatepass"))


@FEW
@given(st.lists(st.sampled_from(TOKENS), max_size=60))
def test_any_signs(room: Any, tokens: list[str]) -> None:
    survives(room, "".join(tokens).encode())


@FEW
@given(st.text(alphabet="{}[]()'\"|~.*+-%,: a1_\\\n", max_size=60))
def test_any_expression(room: Any, code: str) -> None:
    import json

    value = json.dumps("{{" + code + "}}")
    survives(room, f"version: 1\nname: a\nworkers: {{w: {{command: {value}}}}}\n".encode())
    survives(room, f"version: 1\nname: a\nvars: {{w: {value}}}\n".encode())


@pytest.mark.parametrize("seed", range(20))
def test_mutations_of_a_valid_spec(seed: int, room: Any) -> None:
    dice = random.Random(seed)
    assert survives(room, VALID.encode()) is not None
    for _ in range(20):
        text = VALID
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(text) + 1)
            length = dice.choice((0, 0, 1, 1, 5, 30))
            text = text[:at] + dice.choice([*TOKENS, "", ""]) + text[at + length :]
        content = text.encode("utf-8", "surrogatepass")
        spec = survives(room, content)
        if spec is None:
            continue
        options = {"environ": {"HOME": "/home/x"}, "complete": False}
        room.cached(content, **options)
        second, compiled = room.cached(content, **options)
        if not compiled and second.complete:
            assert second == spec
        assert [r.id for r in second.resources] == [r.id for r in spec.resources]


def test_the_valid_spec_means_what_it_says(room: Any) -> None:
    spec = survives(room, VALID.encode())
    assert spec is not None
    assert [(r.id, r.skip, r.needs) for r in spec.resources] == [
        ("folder:top", None, ()),
        ("folder:each[a]", None, ("folder:top",)),
        ("folder:each[b]", None, ("folder:top",)),
        ("folder:each[3]", "each != 3", ()),
        ("worker:w", None, ("folder:top",)),
    ]
