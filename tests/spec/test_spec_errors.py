"""Bad specs: each problem at its place, in words that say what to write, all at once."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
from ruamel.yaml import YAML
from support import within

from reconciler.config import yaml
from reconciler.config.errors import Problem, SpecError

HEAD = "version: 1\nname: demo\n"
F = HEAD + "folders:\n  a:\n"  # what follows is on line 5

CASES: dict[str, tuple[str | bytes, str, str]] = {
    # name: (text, line:column, fragment of message or hint)
    "unknown key": (F + "    pth: /x\n    path: /a\n", "5:5", "did you mean 'path'?"),
    "key of another section": (F + "    path: /a\n    command: x\n", "6:5", "under workers"),
    "key only the program fills in": (F + "    path: /a\n    born: x\n", "6:5", "no field 'born'"),
    "unknown section": (HEAD + "folder:\n  a: {path: /a}\n", "3:1", "did you mean 'folders'?"),
    "duplicate key": (F + "    path: /a\n    path: /b\n", "6:5", "first on line 5"),
    "duplicate resource": (HEAD + "folders:\n  a: {path: /a}\n  a: {path: /b}\n", "5:3", "twice"),
    "mode without quotes": (F + "    path: /a\n    mode: 755\n", "6:11", 'write "0755"'),
    "octal mode without quotes": (F + "    path: /a\n    mode: 0755\n", "6:11", 'write "0755"'),
    "mode with a nine": (F + '    path: /a\n    mode: "0999"\n', "6:11", "octal digits"),
    "mode with a kind's default": (F + "    path: /a\n    mode:\n", "6:5", "is empty"),
    "missing field": (F, "4:3", "needs 'path'"),
    "missing field beside others": (F + '    mode: "0755"\n', "4:3", "folder 'a' needs 'path'"),
    "relative path": (F + "    path: a/b\n", "5:11", "'a/b' is not absolute"),
    "path with dots": (F + "    path: /a/../b\n", "5:11", "'..'"),
    "another's home": (F + "    path: ~bob/x\n", "5:11", "home of another user"),
    "list for a path": (F + "    path: [/a]\n", "5:11", "not a list"),
    "scalar for fields": (HEAD + "folders:\n  a: /a\n", "4:6", "needs fields"),
    "list for a section": (HEAD + "folders:\n  - path: /a\n", "4:3", "needs a name"),
    "flag": (F + "    path: /a\n    recursive: yes\n", "6:16", "neither true nor false"),
    "template without quotes": (F + "    path: {{ home }}/x\n", "5:11", 'write "{{ home }}/x"'),
    "template without quotes alone": (F + "    path: {{ home }}\n", "5:11", 'write "{{ home }}"'),
    "template without quotes in a list": (
        HEAD + "workers:\n  w:\n    command: [a, {{ b }}, c]\n", "5:18", 'write "{{ b }}"'),
    "template in a name": (HEAD + 'folders:\n  "{{ x }}": {path: /a}\n', "4:3", "for_each"),
    "undefined variable": (
        HEAD + "vars: {home: /h}\nfolders:\n  a:\n    path: '{{ hme }}/x'\n", "6:15",
        "did you mean 'home'?"),
    "undefined environment": (F + "    path: '{{ env.NOPE }}'\n", "5:15", "NOPE is not set"),
    "field of what is undefined": (F + "    path: '{{ a.b.c }}'\n", "5:15", "'a' is not defined"),
    "escape of no character": (F + '    path: "/a\\ud800"\n', "5:16", "no character"),
    "unknown fact": (F + "    path: '{{ user.hme }}'\n", "5:15", "did you mean 'home'?"),
    "unknown filter": (F + "    path: '{{ \"/a\" | uper }}'\n", "5:15", "did you mean 'upper'?"),
    "template never closed": (F + "    path: '/a/{{ x'\n", "5:11", "not closed"),
    "template syntax": (F + "    path: '/a/{{ 1 + }}'\n", "5:18", "as an expression"),
    "null in text": (HEAD + "vars: {x: }\n" + F[len(HEAD):] + "    path: '/a/{{ x }}'\n", "6:18",
        "is null"),
    "list in text": (HEAD + "vars: {x: [1]}\n" + F[len(HEAD):] + "    path: '/a{{ x }}'\n", "6:17",
        "is a list"),
    "empty start of a path": (
        HEAD + "vars: {x: ''}\n" + F[len(HEAD):] + "    path: '{{ x }}/logs'\n", "6:11",
        "'/logs'"),
    "empty middle of a path": (
        HEAD + "vars: {x: ''}\n" + F[len(HEAD):] + "    path: '/srv/{{ x }}'\n", "6:11",
        "is empty"),
    "tab as indentation": (HEAD + "folders:\n\ta: {path: /a}\n", "4:1", "a tab"),
    "tab behind a colon": (F + "    path:\t/a\n", "5:10", "a tab"),
    "tab behind a value": (F + "    path: /a\t\n", "5:13", "a tab"),
    "tab in plain text": (F + "    path: /a\tb\n", "5:13", "a tab"),
    "second document": (F + "    path: /a\n---\nb: 1\n", "6:1", "second document"),
    "document after an end": (F + "    path: /a\n...\nb: 1\n", "7:1", "second document"),
    "yaml directive": ("%YAML 1.2\n---\n" + HEAD, "1:1", "directives"),
    "tag directive": ("%TAG ! tag:x\n---\n" + HEAD, "1:1", "directives"),
    "unknown directive": ("%FOO x\n---\n" + HEAD, "1:1", "directives"),
    "tag": (F + "    path: !!str /a\n", "5:11", "tags"),
    "unknown tag": (F + "    path: !x!y /a\n", "5:11", "tags"),
    "empty file": ("", "1:1", "empty"),
    "file of comments": ("# nothing\n\n", "1:1", "empty"),
    "file with null": ("~\n", "1:1", "empty"),
    "list at the top": ("- a\n", "1:1", "not a list"),
    "scalar at the top": ("hello\n", "1:1", "not a single value"),
    "unknown alias": (F + "    path: *x\n", "5:11", '"*x"'),
    "asterisk": (F + "    path: *.log\n", "5:11", '"*.log"'),
    "recursive alias": (HEAD + "vars: {a: &a [*a]}\n", "3:15", "inside what it names"),
    "list as key": (HEAD + "? [a]\n: b\n", "3:3", "a key must be"),
    "merge of a scalar": (F + "    <<: 1\n    path: /a\n", "5:5", "'<<'"),
    "control character": (F + "    path: /a\x01\n", "5:13", "U+0001"),
    "next line character": (F + "    path: /a\x85\n", "5:13", "U+0085"),
    "bidi survives, escaped": (F + "    pth\u202e: /a\n    path: /a\n", "5:5", "no field"),
    "latin-1": (b"version: 1\nname: caf\xe9\n", "2:10", "0xe9"),
    "utf-16": ("\ufeffversion: 1\n".encode("utf-16-le"), "1:1", "save it as UTF-8"),
    "utf-16 without mark": (HEAD.encode("utf-16-be"), "1:1", "UTF-16"),
    "binary": (b"\x7fELF\x02\x01\x01\0\0\0", "1:8", "binary"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "1:1", "binary"),
    "colon without space": ("version:1\nname: x\n", "1:8", "no space after"),
    "second colon": (F + "    path: a: b\n", "5:12", 'quotes: "a: b"'),
    "quote never closed": (F + "    path: '/a\n", "5:11", "never closed"),
    "quote closed too late": (F + '    path: "/a\n    mode: "0755"\n', "5:11", "closed only on"),
    "text after quotes": (F + '    path: "/a" b\n', "5:16", "after the closing quote"),
    "bad escape": (F + '    path: "/a\\q"\n', "5:14", "single quotes"),
    "bracket not closed": (HEAD + "include: [a.yaml\nvars: {}\n", "3:10", "not closed"),
    "at sign": (F + "    path: @a\n", "5:11", "cannot begin with"),
    "wrong indentation": (F + "     path: /a\n    mode: x\n", "6:5", "indented by 4"),
    "deeper key": (F + "    path: /a\n      mode: x\n", "6:7", "indented deeper"),
    "line without colon": (HEAD + "foo\nvars: {}\n", "3:1", "no ':'"),
    "list on the line": (HEAD + "include: - a\n", "3:10", "list cannot begin"),
    "no version": ("name: demo\n", "1:1", "'version' is missing"),
    "version 2": ("version: 2\nname: demo\n", "1:10", "write version: 1"),
    "no name": ("version: 1\n", "1:1", "'name' is missing"),
    "bad name": ("version: 1\nname: Demo X\n", "2:7", "a to z"),
    "long number as version": (f"version: {'1' * 5000}\nname: demo\n", "1:10", "is 1"),
    "long number as mode": (F + f"    path: /a\n    mode: {'7' * 5000}\n", "6:11", "octal"),
    "long number as number": (
        HEAD + f"workers:\n  w:\n    command: x\n    count: {'1' * 5000}\n", "6:12", "whole"),
    "long number in vars": (HEAD + f"vars: {{a: {'1' * 5000}}}\n", "3:11", "5,000"),
    "leading zero in vars": (HEAD + "vars: {a: 0755}\n", "3:11", 'write "0755"'),
    "long number in a template": (F + f"    path: '{{{{ {'1' * 5000} }}}}'\n", "5:15", "longer"),
    "negative duration": (HEAD + "loop: {every: -1s}\n", "3:15", "not a duration"),
    "nan duration": (HEAD + "loop: {every: nan}\n", "3:15", "not a duration"),
    "endless duration": (HEAD + "loop: {every: 1e9s}\n", "3:15", "not a duration"),
    "no duration": (HEAD + "loop: {every: 0s}\n", "3:15", "longer than zero"),
    "number without unit": (HEAD + "loop: {every: 30}\n", "3:15", "unit"),
    "unknown loop field": (HEAD + "loop: {evry: 30s}\n", "3:8", "did you mean 'every'?"),
    "field of a nested thing": (
        HEAD + "workers:\n  w:\n    command: x\n    match: {cmdlin: x}\n", "6:13", "'cmdline'"),
    "value of a nested thing": (
        HEAD + "workers:\n  w:\n    command: x\n    parts:\n      - {label: a, cwd: b}\n", "7:25",
        "parts[0].cwd: 'b' is not"),
    "missing in a nested thing": (
        HEAD + "workers:\n  w:\n    command: x\n    parts:\n      - {cwd: /b}\n", "7:9",
        "parts[0] needs 'label'"),
    "scalar for a nested thing": (
        HEAD + "workers:\n  w: {command: x, match: abc}\n", "4:26", "match: needs fields"),
    "scalar for a list": (
        HEAD + "workers:\n  w: {command: x, parts: abc}\n", "4:26", "parts: needs a list"),
    "null for a list": (HEAD + "workers:\n  w: {command: x, parts: }\n", "4:19", "is empty"),
    "number too large": (HEAD + "workers:\n  w: {command: x, count: 101}\n", "4:26", "1 to 100"),
    "bad regex": (HEAD + "workers:\n  w: {command: x, match: {cmdline: '('}}\n", "4:36", "regular"),
    "environment name": (HEAD + "workers:\n  w: {command: x, env: {1A: b}}\n", "4:25", "'1A'"),
    "rule of a kind": (HEAD + "grants:\n  g: {path: /a}\n", "4:13", "nothing is asked for /a"),
    "link to nothing": (HEAD + "workers:\n  w: {command: x, folder: b}\n", "4:27", "no folder 'b'"),
    "state": (F + "    path: /a\n    state: absnt\n", "6:12", "did you mean 'absent'?"),
    "needs nothing known": (
        F + "    path: /a\n    needs: [folder:b]\n  bb: {path: /b}\n", "6:13",
        "did you mean 'folder:bb'?"),
    "needs without a kind": (
        F + "    path: /a\n    needs: [b]\n  b: {path: /b}\n", "6:13", "'folder:b'"),
    "needs as text": (F + "    path: /a\n    needs: folder:b\n", "6:12", "[folder:b]"),
    "needs itself": (F + "    path: /a\n    needs: [folder:a]\n", "6:13", "resource itself"),
    "cycle": (
        F + "    path: /a\n    after: [folder:b]\n  b: {path: /b, needs: [folder:a]}\n", "4:3",
        "folder:a -> folder:b -> folder:a"),
    "cycle with a found need": (
        F + "    path: /a\n    needs: [folder:b]\n  b: {path: /a/b}\n", "4:3", "in a circle"),
    "same path twice": (
        F + "    path: /a\n  b: {path: /x/../a}\n  c: {path: /a/}\n", "6:13", "'..'"),
    "same path twice, spelled differently": (
        F + "    path: /a\n  c: {path: //a/.}\n", "6:3", "both manage the path '/a'"),
    "asks for different things": (
        F + "    path: /a\n    mode: '0755'\ngrants:\n  g: {path: /a, mode: '0700'}\n", "8:3",
        "'0700' for the path '/a', but folder:a"),
    "absent but needed": (
        F + "    path: /a\n    state: absent\n  b: {path: /a/b}\n", "4:3", "folder:b"),
    "name with brackets": (HEAD + "folders:\n  'a[b]': {path: /a}\n", "4:3", "for_each"),
    "name with a blank": (HEAD + "folders:\n  ' a': {path: /a}\n", "4:3", "blank"),
    "name too long": (HEAD + f"folders:\n  {'a' * 201}: {{path: /a}}\n", "4:3", "200"),
    "name with a line break": (HEAD + 'folders:\n  "a\\nb": {path: /a}\n', "4:3", "control"),
    "when is undefined": (F + "    path: /a\n    when: host.sytemd\n", "6:11", "'systemd'"),
    "when with braces inside": (F + "    path: /a\n    when: '{{ a }} and b'\n", "6:11", "itself"),
    "when is empty": (F + "    path: /a\n    when:\n", "6:10", "needs an expression"),
    "for_each of text": (F + "    path: /a\n    for_each: abc\n", "6:15", "needs a list"),
    "for_each of a number": (F + "    path: /a\n    for_each: '{{ 3 }}'\n", "6:15", "a list"),
    "for_each twice the same": (
        F + "    path: '/{{ each }}'\n    for_each: [x, x]\n", "6:19", "'x' twice"),
    "variable with a fixed name": (HEAD + "vars: {env: 1}\n", "3:8", "fixed meaning"),
    "variable with a bad name": (HEAD + "vars: {a-b: 1}\n", "3:8", "letters, digits"),
    "variables in a circle": (
        HEAD + "vars: {a: '{{ b }}', b: '{{ a }}'}\n", "3:8", "use one another"),
    "vars as a list": (HEAD + "vars: [a]\n", "3:7", "names with values"),
    "include as text": (HEAD + "include: a.yaml\n", "3:10", "include: [other.yaml]"),
    "missing include": (HEAD + "include: [no.yaml]\n", "3:11", "does not exist"),
    "power": (F + "    path: '/{{ 9**9**9 }}'\n", "5:16", "not allowed"),
    "huge text": (F + "    path: '/{{ \"a\" * 1000000000000 }}'\n", "5:16", "more than"),
    "huge range": (F + "    path: '/{{ range(1000000000) | list }}'\n", "5:16", "100,000"),
    "escape from the sandbox": (F + "    path: '{{ \"\".__class__ }}'\n", "5:15", "has no"),
    "NUL by an escape": (F + '    path: "/a\\0"\n', "5:11", "NUL"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_spec(name: str, room: Any, told: Any) -> None:
    text, place, fragment = CASES[name]
    with within(2):
        problems = room.fails(text)
    lines = [told(problem) for problem in problems]
    assert any(line.startswith(f"{place} ") and fragment in line for line in lines), lines
    if name not in ("template in a name", "same path twice", "unknown tag"):
        assert len(lines) == 1, lines


def test_bad_specs_without_the_faster_parser(room: Any, told: Any, monkeypatch: Any) -> None:
    # Where ruamel.yaml.clib is not installed, ruamel parses by itself.
    monkeypatch.setattr(yaml, "YAML", partial(YAML, pure=True))
    elsewhere = {"escape of no character", "yaml directive", "when is empty"}
    for name, (text, place, fragment) in CASES.items():
        if name == "unknown directive":
            continue  # It is passed over.
        lines = [told(problem) for problem in room.fails(text)]
        begin = "" if name in elsewhere else f"{place} "
        assert any(line.startswith(begin) and fragment in line for line in lines), (name, lines)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("[" * 1_000, "50 levels"),
        ("[" * 1_000_000, "50 levels"),
        ("- " * 1_000_000, "50 levels"),
        ("{a: " * 100_000, "50 levels"),
        ("? " * 1_000_000, "50 levels"),
        (HEAD + "vars:\n a: " + "[" * 1000 + "]" * 1000 + "\n", "50 levels"),
        (HEAD + "vars:\n" + "".join(f"{'  ' * i} a:\n" for i in range(1000)), "50 levels"),
        (
            HEAD + "vars:\n a0: &a0 [x]\n"
            + "".join(f" a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 1000)),
            "50 levels",
        ),
        (
            HEAD + "vars:\n a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f" a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
            "aliases followed",
        ),
        (
            HEAD + "vars:\n a0: &a0 {x: 1}\n"
            + "".join(
                f" a{i}: &a{i} {{k{i}: {{<<: [{', '.join([f'*a{i - 1}'] * 20)}]}}}}\n"
                for i in range(1, 12)
            ),
            "aliases followed",
        ),
        ("- x\n" * 600_000, "500,000"),
        ("a" * 3_000_000, "single value"),
        ('"' + "a\n" * 1_000_000, "never closed"),
        ("\t" * 1_000_000, "a tab"),
        ("\x01" * 1_000_000, "U+0001"),
        ("x: {{ a }}\n" * 100_000, "needs quotes"),
        ("x: 1\n" * 200_000, "written twice"),
        (HEAD + "folders:\n" + "".join(f"  d{i}: {{pth: /a}}\n" for i in range(20_000)), "'path'"),
    ],
    ids=lambda value: value[:24].replace("\n", " ") if isinstance(value, str) else None,
)  # fmt: skip
def test_exhausting_spec_is_refused_fast(text: str, fragment: str, room: Any) -> None:
    room.write(text)
    with within(15):
        with pytest.raises(SpecError) as caught:
            room.load()
        shown = str(caught.value)
    assert fragment in shown
    assert shown.startswith(str(room.base))
    assert len(shown) < 50 * 1000


def test_all_problems_at_once(room: Any, told: Any) -> None:
    text = (
        "version: 1\nname: Demo\nfoldrs: {}\nvars: {env: 1}\nfolders:\n"
        "  a: {pth: /a}\n  b: {path: '{{ nope }}', mode: 755}\n  c: {path: x, state: gone}\n"
        "workers:\n  w: {command: [], needs: [folder:zz]}\n"
    )
    lines = [told(problem).split(" =")[0] for problem in room.fails(text)]
    assert [line.split(" ")[0] for line in lines] == [
        "2:7", "3:1", "4:8", "6:3", "6:7", "7:17", "7:33", "8:13", "8:23", "10:16", "10:28",
    ]  # fmt: skip


def test_problems_are_counted_past_fifty(room: Any) -> None:
    text = HEAD + "folders:\n" + "".join(f"  d{i}: {{path: x{i}}}\n" for i in range(80))
    with pytest.raises(SpecError) as caught:
        room.load(text)
    assert len(caught.value.problems) == 80
    shown = str(caught.value)
    assert shown.endswith("... and 30 more")
    assert shown.count("error:") == 50


def test_looks_like_a_compiler(room: Any) -> None:
    room.write(F + "    path: /a\n    mode: 755\n    ownr: x\n")
    with pytest.raises(SpecError) as caught:
        room.load(path=os.path.relpath(room.base / "spec.yaml"))
    where = os.path.relpath(room.base / "spec.yaml")
    assert (
        str(caught.value)
        == f"""\
{where}:6:11: error: folder 'a': mode: a mode needs quotes: write "0755" (YAML reads 755 as the \
decimal number 755)
    6 |     mode: 755
      |           ^~~
{where}:7:5: error: folder 'a' has no field 'ownr'
    7 |     ownr: x
      |     ^~~~
      = did you mean 'owner'?"""
    )


def test_caret_lines_up_behind_what_is_escaped_or_wide() -> None:
    line = "a\t日本\x1b: bad"
    problem = Problem("f\x1b.yaml", 3, 8, 3, "b\x9bad", line, "so\u202e", line.index("bad"))
    assert problem.render() == (
        "f\\x1b.yaml:3:8: error: b\\x9bad\n"
        "    3 | a\\t日本\\x1b: bad\n"
        "      |              ^~~\n"
        "      = so\\u202e"
    )


def test_long_lines_are_cut_around_the_caret(room: Any) -> None:
    text = HEAD + f"vars: {{a: {'x' * 5000}, env: 1, b: {'y' * 5000}}}\n"
    (problem,) = room.fails(text)
    assert problem.column == text.splitlines()[2].index("env") + 1
    lines = problem.render().splitlines()
    assert len(lines[1]) < 120
    assert lines[1][lines[2].index("^") :].startswith("env")
    assert "..." in lines[1]


def test_places_with_crlf_and_bom(room: Any, told: Any) -> None:
    text = "\ufeff" + (F + "    path: /a\n    ownr: x\n").replace("\n", "\r\n")
    (problem,) = room.fails(text)
    assert told(problem).startswith("6:5 ")
    assert problem.source_line == "    ownr: x"
    text = "\ufeff" + (F + "    path: /ä€𝄞\n    mode: 'ä'\n").replace("\n", "\r")
    (problem,) = room.fails(text)
    assert told(problem).startswith("6:11 ")


def test_crlf_and_bom_are_accepted(room: Any) -> None:
    text = "\ufeff" + (F + "    path: /a\n").replace("\n", "\r\n")
    assert [r.want.path for r in room.load(text).resources] == ["/a"]


def test_tabs_inside_scalars_and_comments_are_text(room: Any) -> None:
    text = (
        "workers:\n  w: # a\tb\n    command:\n      - \"a\tb\"\n      - 'c\td' #\te\n"
        "    note: |\n      x\ty\n        # no\tcomment\n"
    )
    want = room.body(text)["worker:w"].want
    assert want.command == ("a\tb", "c\td")
    assert want.note == "x\ty\n  # no\tcomment\n"


def _touched(path: str) -> str:
    open(path, "wb").close()
    return path


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: os.mkdir(path), "is a directory"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: os.symlink("/dev/zero", path), "not a regular file"),
        (lambda path: os.symlink(path, path), ""),
        (lambda path: os.truncate(_touched(path), 100 * 1024 * 1024), "too large: 104,857,600"),
    ],
    ids=["missing", "directory", "fifo", "endless", "link to itself", "100 MB"],
)
def test_what_is_no_file_is_refused_without_waiting(make: Any, fragment: str, room: Any) -> None:
    path = str(room.base / "spec.yaml")
    make(path)
    with within(1), pytest.raises(SpecError) as caught:
        room.load()
    assert str(caught.value).startswith(f"{path}: error: ")
    assert fragment in str(caught.value)


def test_nul_in_the_name_of_a_spec(room: Any) -> None:
    with pytest.raises(SpecError, match="NUL"):
        room.load(path="a\0b")


def test_document_for_machines(room: Any) -> None:
    from reconciler.config.errors import document

    with pytest.raises(SpecError) as caught:
        room.load(F + "    pth: /a\n    path: /a\n")
    assert document(caught.value) == [
        {
            "file": str(room.base / "spec.yaml"),
            "line": 5,
            "column": 5,
            "message": "folder 'a' has no field 'pth'",
            "hint": "did you mean 'path'?",
        }
    ]
