"""Values in units: escaped for their place, or refused with the place where they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import compiled

from reconciler.config.errors import SpecError
from reconciler.core.model import Spec
from reconciler.core.templating import BadValue, RenderedTemplate, Value
from reconciler.kinds.unit.file import parted
from reconciler.kinds.unit.text import links, programs, settings, written


def unit(folder: Path, body: Any, head: str = "", **settings: str) -> Spec:
    return compiled(folder, f"{head}\nunits: {{x.service: {json.dumps(body)}}}\n", **settings)


def problems(folder: Path, body: Any, head: str = "") -> list[str]:
    with pytest.raises(SpecError) as caught:
        unit(folder, body, head)
    return [f"{Path(p.file).name}:{p.line} {p.message} = {p.hint}" for p in caught.value.problems]


def put(line: str, value: Any, raw: bool = False) -> str:
    """``line`` with the value in the place of its ``@@``."""
    before, _, after = line.partition("@@")
    pieces = (f"[Service]\n{before}", Value(value, raw, 2), f"{after}\n")
    return written("content", RenderedTemplate(pieces, False)).split("\n", 1)[1].removesuffix("\n")


@pytest.mark.parametrize(
    ("line", "value", "want"),
    [
        ("Description=@@", "50% \"x\" 'y' $z", "Description=50%% \"x\" 'y' $z"),
        ("CPUQuota=@@", "50%", "CPUQuota=50%"),
        ("Restart=@@", True, "Restart=true"),
        ("Nice=@@", -5, "Nice=-5"),
        ("ExecStart=/x @@", "a b", 'ExecStart=/x "a b"'),
        ("ExecStart=/x @@", "a$b", "ExecStart=/x a$$b"),
        ("ExecStart=/x a@@", "b c", "ExecStart=/x ab\\x20c"),
        ("ExecStart=/x @@b", "a;", "ExecStart=/x a\\x3bb"),
        ("ExecStart=/x @@", ";", 'ExecStart=/x ";"'),
        ("ExecStart=/x @@", "", 'ExecStart=/x ""'),
        ('ExecStart=/x "@@"', 'a"b', 'ExecStart=/x "a\\"b"'),
        ("ExecStart=/x '@@'", "a'b\\", "ExecStart=/x 'a\\'b\\\\'"),
        ("ExecStart=/x it's @@", "a b", 'ExecStart=/x it\'s "a b"'),
        ("ExecStart=:/x @@", "a$b", "ExecStart=:/x a$b"),
        ("ExecStart=:/x a ; /y @@", "a$b", "ExecStart=:/x a ; /y a$$b"),
        ("ExecStart=@@", ["/x", "a b"], 'ExecStart=/x "a b"'),
        ("ExecStart=-@@", ["/x", "$y"], "ExecStart=-/x $$y"),
        ("Environment=A=@@", "a b%", "Environment=A=a\\x20b%%"),
        ("Environment=@@", {"A": "a b", "C": 1}, 'Environment="A=a b" C=1'),
        ("ReadWritePaths=@@ /b", "/a b", 'ReadWritePaths="/a b" /b'),
        ("Wants=@@", ["a.service", "b.service"], "Wants=a.service b.service"),
        ("# @@", "100% [x]", "# 100% [x]"),
        ("X-@@=1", "Name", "X-Name=1"),
    ],
)
def test_escaped(line: str, value: Any, want: str) -> None:
    assert put(line, value) == want


@pytest.mark.parametrize(
    "line", ["Description=@@", "ExecStart=/x @@", "# @@", "[@@]", "@@", "@@=1"]
)
@pytest.mark.parametrize("value", ["a\nExecStart=/bin/evil", "a\rb", "a\x1bb", "a\x85b"])
@pytest.mark.parametrize("raw", [True, False])
def test_control_characters_are_refused_everywhere(line: str, value: str, raw: bool) -> None:
    with pytest.raises(BadValue) as caught:
        put(line, value, raw)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("line", "value", "said"),
    [
        ("Description=@@", "x\\", "backslash"),
        ("[@@]", "Service]\x20[Install", "name of a section"),
        ("@@", "ExecStart=/bin/evil", "name of a section or a key"),
        ("ExecStart=@@", "-/bin/x", "name of a program"),
        ("ExecStart=@@", "!!/bin/x", "name of a program"),
        ("ExecStart=@@", "", "name of a program"),
        ("ExecStart=/bin/@@", "$x", "cannot hold"),
        ("ExecStart=-@@", [], "list is empty"),
        ("ExecStart=/x a@@", ["b"], "between blanks"),
        ("ExecStart=/x @@b", ["b"], "between blanks"),
        ('ExecStart=/x "@@"', ["b"], "between blanks"),
        ("Description=@@", {"a": 1}, "a mapping, not text"),
        ("Description=@@", None, "null"),
        ("Description=@@", [["a"]], "a list, not text"),
        ("ReadWritePaths=-@@", "/a b", "blanks or quotes"),
    ],
)
def test_refused(line: str, value: Any, said: str) -> None:
    with pytest.raises(BadValue, match=said):
        put(line, value)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x17F), max_size=12))
def test_no_value_ends_its_line_or_its_word(value: str) -> None:
    for line in (
        "Description=@@",
        "ExecStart=/x a@@ b",
        "ExecStart=/x '@@' b",
        "Environment=@@ B=b",
    ):
        try:
            text = put(line, value)
        except BadValue:
            continue
        assert "\n" not in text
        assert len(list(settings(f"[Service]\n{text}\nNice=1"))) == 2
        if "@@ b" in line and not line.startswith("D"):
            assert text.endswith(" b")


def test_what_a_text_says() -> None:
    text = (
        "[Service]\nExecStart=-/gone \\\n# no\n  x\nExecStart=!/bin/echo ; \nExecStop=name\n"
        "ExecStartPre=/a%i\n[Install]\nWantedBy=a.target\nWantedBy=\nRequiredBy=b.target c.target\n"
    )
    assert programs(text) == ("/bin/echo", "name")
    assert links(text, "u") == ("b.target.requires/u", "c.target.requires/u")
    assert links("[Unit]\n", "u") is None
    assert links("[Install]\nAlias=v.service w.service\n", "u.service") == (
        "v.service",
        "w.service",
    )
    assert programs(text + "[Service]\nRootDirectory=/x\n") == ()


SERVICE = "[Service]\nExecStart=/bin/true\n"


def test_what_templates_see(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "t.service").write_text(
        "{# gone #}\n[Service]\n{% for word in words %}\n# {{ loop.index }} {{ word }} {{ each }}\n"
        "{% endfor %}\nExecStart=/x {{ port + 1 }} {{ spec.name }} {{ home }} {{ host.bin }}x "
        "{{ '%n' | raw }} {{ nope | default('d') }}\n"
    )
    body = {
        "for_each": ["a", "b"], "unit": "{{ each }}.service", "template": "t.service",
        "vars": {"words": "{{ list }}", "port": 80},
    }  # fmt: skip
    spec = unit(tmp_path, body, "vars: {list: [1, two], home: outer, port: 1}")
    texts = [resource.want.text.split("\n", 3)[3] for resource in spec.resources]
    for each, text in zip("ab", texts, strict=True):
        assert text == (
            f"[Service]\n# 1 1 {each}\n# 2 two {each}\nExecStart=/x 81 demo outer x %n d\n"
        )


def test_a_template_beside_the_spec_comes_first(tmp_path: Path) -> None:
    (tmp_path / "worker.service").write_text(SERVICE)
    assert SERVICE in unit(tmp_path, {"template": "worker.service"}).resources[0].want.text
    (tmp_path / "worker.service").unlink()
    shipped = {"template": "worker.service", "vars": {"command": ["/bin/x"]}}
    assert "Type=exec" in unit(tmp_path, shipped).resources[0].want.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Service]\nExecStart={{ comand }}\n", "t:2 'comand' is not defined (for unit:x.service"),
        ("a\n{% if x %}\n", "t:2 "),
        ("a\nb {{ 1 +\n", "t:2 "),
        ("{% include 'x' %}", "t:1 {% include %} is not for templates here"),
        ("\n{% set x %}a{% endset %}", "t:2 {% set without = %}"),
        ("[Service]\n\nNice={{ bad }}\n", "t:3 a value holds a line break"),
        ("a\n{{ 'x' | nope }}", "t:2 there is no filter named 'nope'"),
        ("\n{{ ''.__class__ }}", "t:2 "),
        (f"\n{'{% for a in range(90000) %}' * 2}{'{% endfor %}' * 2}", "t:2 "),
        (f"\n{'{% for a in r %}' * 3}{'{% endfor %}' * 3}", "t:2 "),
        ("{{ 'x' * 60000 }}" * 20, "t:1 "),
        ("\n{{ [1] | map('upper') | list | first | foo }}", "t:2 "),
    ],
)  # fmt: skip
def test_an_error_is_told_where_it_is(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t").write_text(text)
    head = 'vars: {bad: "a\\nb", r: "{{ range(999) }}"}'
    (found,) = problems(tmp_path, {"template": "t"}, head)
    assert found.startswith(said)
    assert "spec.yaml, line 4" in found
    (found,) = problems(tmp_path, {"content": text}, head)
    assert found.startswith(f"spec.yaml:4 unit 'x.service': content: line {said[2]}: ")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"template": "worker.servcie"}, "did you mean 'worker.service'?"),
        ({"template": "/nowhere"}, "there is no template '/nowhere'"),
        ({"template": "a", "content": "b"}, "either template or content"),
        ({"vars": {"a": "b"}, "active": True}, "for a template or content"),
        ({}, "nothing is asked for"),
        ({"drop_in": "x", "active": True}, "needs a template or content"),
        ({"drop_in": "x.conf", "content": SERVICE}, "without .conf"),
        ({"drop_in": "../x", "content": SERVICE}, "drop_in"),
        ({"unit": "x.mount", "active": True}, "does not end in .service"),
        ({"unit": "a b.service", "active": True}, "no name of a unit"),
        ({"unit": "../a.service", "active": True}, "no name of a unit"),
        ({"unit": "x@.service", "active": True}, "declare x@NAME.service"),
        ({"content": SERVICE, "enabled": True}, "no [Install] section"),
        ({"content": f"{SERVICE}Type=oneshot\n", "active": True}, "RemainAfterExit"),
        ({"content": SERVICE, "on_change": "reload"}, "ExecReload"),
        ({"content": SERVICE, "vars": {"env": 1}}, "every template knows"),
        ({"content": SERVICE, "vars": {"a-b": 1}}, "not a name that a template can use"),
        ({"content": SERVICE, "vars": {"a": {"b": 1}}}, "text, a number"),
        ({"content": SERVICE, "vars": {"a": "{{ nope }}"}}, "'nope' is not defined"),
        ({"content": " \n"}, "an empty file"),
    ],
)
def test_what_cannot_be(tmp_path: Path, body: Any, said: str) -> None:
    (tmp_path / "a").write_text("")
    assert said in " ".join(problems(tmp_path, body))


def test_two_of_one_unit(tmp_path: Path) -> None:
    both = {"a": {"unit": "x.service", "active": True}, "b": {"unit": "x.service", "enabled": True}}
    with pytest.raises(SpecError, match="both manage the unit"):
        compiled(tmp_path, f"units: {json.dumps(both)}")
    both["b"] |= {"drop_in": "x", "content": SERVICE}
    del both["b"]["enabled"]
    compiled(tmp_path, f"units: {json.dumps(both)}")


@pytest.mark.parametrize(
    ("line", "left", "moved"),
    [
        ("Environment=A=b", "", 'A="b"\n'),
        ('Environment="A=b c" D=e', "", 'A="b c"\nD="e"\n'),
        ("Environment=A=b\\x20c%%\\\\", "", 'A="b c%\\\\"\n'),
        ("Environment='A=it\\'s \"x\" $y `z`'", "", 'A="it\'s \\"x\\" \\$y \\`z\\`"\n'),
        ("Environment=A=b \\\n# no\n  C=d", "", 'A="b"\nC="d"\n'),
        ("Environment=H=%h A=b", "Environment=H=%h\n", 'A="b"\n'),
        ("Environment=", "Environment=\n", None),
        ("EnvironmentFile=/x\nEnvironment=A=b", "EnvironmentFile=/x\n", 'A="b"\n'),
        ("[Install]\nEnvironment=A=b", "[Install]\nEnvironment=A=b\n", None),
    ],
)
def test_the_environment_of_a_unit_is_parted_from_it(
    line: str, left: str, moved: str | None
) -> None:
    text, found = parted(f"[Service]\nType=exec\n{line}\nNice=1\n", "/e", "content")
    file = "EnvironmentFile=/e\n" if moved else ""
    assert (text, found) == (f"[Service]\nType=exec\n{file}{left}Nice=1\n", moved)
