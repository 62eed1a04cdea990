"""What a valid spec means: YAML, variables, templates, for_each, when, includes."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.base.values import Secret

HEAD = "version: 1\nname: demo\n"


def paths(resources: dict[str, Any]) -> dict[str, str]:
    return {name: resource.want.path for name, resource in resources.items()}


def test_smallest_spec(room: Any) -> None:
    spec = room.load(HEAD)
    assert (spec.name, spec.resources, spec.loop_every, spec.complete) == ("demo", (), 30.0, True)
    assert spec.path == str(room.base / "spec.yaml")


def test_empty_sections_are_fine(room: Any) -> None:
    assert room.load(HEAD + "folders:\nworkers: {}\nvars:\nloop:\ninclude:\n").resources == ()


def test_loop(room: Any) -> None:
    assert room.load(HEAD + "vars: {t: 2}\nloop: {every: '{{ t }}m'}\n").loop_every == 120.0


def test_every_sort_of_field(room: Any, values: Any) -> None:
    want = room.body(
        "workers:\n  w:\n    command: echo hi\n    title: 12\n    note: 0x10\n    every: 500ms\n"
        "    count: 7\n    env: {A: 1, B: 'x'}\n    match: {cmdline: 'a+', exe: /bin/a/}\n"
        "    parts:\n      - label: one\n        command: [ls, 3]\n      - {label: two}\n"
    )["worker:w"].want
    found = values(want)
    assert found.pop("parts") == (want.parts[0], want.parts[1])
    assert (want.parts[0].command, want.parts[1].label) == (("ls", "3"), "two")
    assert (want.match.cmdline, want.match.exe) == ("a+", "/bin/a")
    assert want.lead == want.parts[0]
    del found["match"], found["lead"]
    assert found == {
        "command": ("sh", "-c", "echo hi"),
        "title": "12",
        "note": "0x10",
        "every": 0.5,
        "count": 7,
        "env": (("A", Secret.of("1")), ("B", Secret.of("x"))),
    }
    assert want.env[0][1].reveal() == "1"


def test_defaults_follow_from_the_name(room: Any) -> None:
    assert room.body("workers: {w: {command: x}}\n")["worker:w"].want.title == "w"


def test_wants_hold_exact_strings(room: Any) -> None:
    resource = room.body("folders: {a: {path: ~/x, owner: bob, needs: []}}\n")["folder:a"]
    assert [type(s) for s in (resource.id, resource.want.path, resource.want.owner)] == [str] * 3


def test_anchors_aliases_and_merges(room: Any) -> None:
    resources = room.body(
        "vars:\n  one: &one {mode: '0700', owner: ann}\n  two: &two {owner: bob, recursive: true}\n"
        "folders:\n  a: {path: /a, <<: *one, mode: '0750'}\n  b: &b {<<: [*two, *one], path: /b}\n"
        "  c: {<<: *b, path: /c}\n"
    )
    found = {r.want.path: (r.want.mode, r.want.owner, r.want.recursive) for r in resources.values()}
    assert found == {
        "/a": ("0750", "ann", False),
        "/b": ("0700", "bob", True),
        "/c": ("0700", "bob", True),
    }


def test_flow_collections_as_in_yaml_1_2(room: Any) -> None:
    resources = room.body(
        "folders:\n  a: {path: /a}\n  b: {path: /b:c?d, needs: [folder:a]}\n"
        "workers:\n  w: {command: [x?, '?', a:b:c, 'http://h:8/?q=a:b', \"a:b?\", -?]}\n"
    )
    assert resources["folder:b"].needs == ("folder:a",)
    assert resources["folder:b"].want.path == "/b:c?d"
    assert resources["worker:w"].want.command == (
        "x?", "?", "a:b:c", "http://h:8/?q=a:b", "a:b?", "-?",
    )  # fmt: skip


def test_quoted_key_with_its_value_close(room: Any) -> None:
    assert paths(room.body('folders: {"a":{"path":"/a"}}\n')) == {"folder:a": "/a"}


def test_private_characters_survive(room: Any) -> None:
    text = "workers: {w: {command: ['\ue000:\ue001?', a:b]}}\n"
    assert room.body(text)["worker:w"].want.command == ("\ue000:\ue001?", "a:b")


def test_facts_in_templates(room: Any) -> None:
    text = (
        "workers:\n  w:\n    command: ['{{ user.name }} {{ user.uid }} {{ user.home }}', "
        "'{{ host.name }} {{ host.systemd }} {{ host.crontab }} {{ host.tmux }}', "
        "'{{ spec.name }} {{ spec.path }} {{ spec.dir }}', '{{ state_dir }}', '{{ env.LANG }}']\n"
    )
    want = room.body(text, environ={"LANG": "C"})["worker:w"].want
    base = room.base
    assert want.command == (
        "ann 1000 /home/ann",
        "box true false true",
        f"demo {base}/spec.yaml {base}",
        "/var/lib/x",
        "C",
    )


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ n + 1 }}", "9"),
        ("{{ 'a' ~ n }}", "a8"),
        ("{{ f }}", "1.10"),
        ("{{ f + 1 }}", "2.1"),
        ("{{ yes }}/{{ 1 > 2 }}", "true/false"),
        ("{{ text | regex_escape }}", r"a\.b"),
        ("{{ text | upper | replace('.', '-') }}", "A-B"),
        ("{{ list | join(',') }}", "1,two"),
        ("{{ list[1] }} {{ map.k.l }} {{ map['k'] | tojson }}", 'two 3 {"l": 3}'),
        ("{{ nope | default('d') }}", "d"),
        ("{{ env.NO | default('d') }}{{ env.E | default('e') }}", "d"),
        ("{{ env.E | default('e', true) }}", "e"),
        ("{{ '{{' }}", "{{"),
        ("a {{- n -}} b", "a8b"),
        ("{{ {'a': {'b': '}}'}}.a.b }}", "}}"),
        ("{% x %} {# y #} ${#z} }}", "{% x %} {# y #} ${#z} }}"),
        ("{{ 'x y' | quote }}", "'x y'"),
        ("{{ text.split('.') | last }}", "b"),
        ("{{ 'y' if yes else 'n' }}", "y"),
        ("line\n{{ n }}\n", "line\n8\n"),
        ("{{ '<&>' }}", "<&>"),
    ],
)
def test_templates(template: str, expected: str, room: Any) -> None:
    import json

    text = (
        "vars: {n: 8, f: 1.10, yes: true, text: a.b, list: [1, two], map: {k: {l: 3}}}\n"
        f"workers: {{w: {{command: x, note: {json.dumps(template)}}}}}\n"
    )
    assert room.body(text, environ={"E": ""})["worker:w"].want.note == expected


def test_a_value_never_changes_the_structure(room: Any) -> None:
    text = "folders:\n  a: {path: '/{{ env.X }}'}\n"
    resources = room.body(text, environ={"X": "a, mode: '0777'}{{ user.name }}"})
    assert paths(resources) == {"folder:a": "/a, mode: '0777'}{{ user.name }}"}


def test_a_template_behind_escapes_is_one(room: Any) -> None:
    resources = room.body('folders:\n  a: {path: "/\\x7b{ user.name }}"}\n')
    assert paths(resources) == {"folder:a": "/ann"}


def test_a_template_gives_a_quoted_value(room: Any) -> None:
    text = "vars: {m: '0750'}\nfolders: {a: {path: /a, mode: '{{ m }}'}}\n"
    assert room.body(text)["folder:a"].want.mode == "0750"


def test_variables_use_one_another_in_any_order(room: Any) -> None:
    text = (
        "vars: {c: '{{ b }}/c', b: '{{ a }}/b', a: /a, on: true, off: '{{ not on }}',\n"
        " names: [x, y], more: '{{ names + [\"z\"] }}'}\n"
        "folders:\n  f: {path: '{{ c }}', when: on}\n  g: {path: /g, when: off}\n"
        "  h: {path: '/h/{{ each }}', for_each: '{{ more }}'}\n"
    )
    resources = room.body(text)
    assert resources["folder:f"].want.path == "/a/b/c"
    assert [r.skip for r in resources.values()] == [None, "off", None, None, None]
    assert [r.want.path for r in resources.values()][2:] == ["/h/x", "/h/y", "/h/z"]


def test_settings_are_strings_as_they_are(room: Any) -> None:
    text = "vars: {a: 1, b: '{{ a }}/b'}\nfolders: {f: {path: '/{{ b }}'}}\n"
    assert paths(room.body(text, settings={"a": "{{ b }}"})) == {"folder:f": "/{{ b }}/b"}


def test_setting_an_unknown_variable(room: Any) -> None:
    (problem,) = room.fails(HEAD + "vars: {home: /h}\n", settings={"hme": "x"})
    assert problem.render() == (
        "--set hme: error: the spec has no variable 'hme'\n      = did you mean 'home'?"
    )


def test_a_setting_mends_a_variable_that_fails(room: Any) -> None:
    text = "vars: {a: '{{ env.NOPE }}'}\nfolders: {f: {path: '{{ a }}'}}\n"
    assert paths(room.body(text, settings={"a": "/x"})) == {"folder:f": "/x"}


def test_a_variable_that_fails_is_told_once(room: Any, told: Any) -> None:
    text = (
        HEAD + "vars: {a: '{{ nope }}', b: '{{ a }}'}\n"
        "folders: {f: {path: '{{ b }}'}, g: {path: '{{ a }}', when: a}}\n"
    )
    assert [told(p) for p in room.fails(text)] == ["3:15 'nope' is not defined"]


@pytest.mark.parametrize(
    ("setting", "skipped"), [("false", True), ("False", True), ("", True), ("no", False)]
)
def test_when_with_a_setting(setting: str, skipped: bool, room: Any) -> None:
    text = "vars: {debug: true}\nfolders: {f: {path: /f, when: debug}}\n"
    skip = room.body(text, settings={"debug": setting})["folder:f"].skip
    assert skip == ("debug" if skipped else None)


def test_when(room: Any) -> None:
    text = (
        "vars: {n: 3}\nfolders:\n  a: {path: /a, when: 'n > 2 and host.systemd'}\n"
        "  b: {path: /b, when: '{{ n > 3 }}'}\n  c: {path: /c, when: false}\n"
        "  d: {path: '/d/{{ each }}', for_each: [1, 5], when: each > n}\n"
    )
    skips = {name: r.skip for name, r in room.body(text).items()}
    assert skips == {
        "folder:a": None,
        "folder:b": "{{ n > 3 }}",
        "folder:c": "false",
        "folder:d[1]": "each > n",
        "folder:d[5]": None,
    }


def test_a_skipped_resource_is_still_validated(room: Any, told: Any) -> None:
    (problem,) = room.fails(HEAD + "folders: {a: {path: x, when: false}}\n")
    assert told(problem).startswith("3:21 ")


def test_for_each(room: Any) -> None:
    text = (
        "vars: {names: [a, b]}\nfolders:\n"
        "  list: {path: '/1/{{ each }}', for_each: [x, 2, '{{ 3 }}']}\n"
        "  var: {path: '/2/{{ each }}', for_each: '{{ names }}'}\n"
        "  maps:\n    path: '/3/{{ each.dir }}'\n    mode: '{{ each.mode }}'\n"
        "    for_each: [{name: n, dir: d, mode: '0700'}, {dir: e, mode: '0750'}]\n"
        "  none: {path: '/{{ each }}', for_each: []}\n"
        "  after: {path: /5, after: ['folder:list', 'folder:none', 'folder:var[b]']}\n"
    )
    resources = room.body(text)
    assert paths(resources) == {
        "folder:list[x]": "/1/x", "folder:list[2]": "/1/2", "folder:list[3]": "/1/3",
        "folder:var[a]": "/2/a", "folder:var[b]": "/2/b",
        "folder:maps[n]": "/3/d", "folder:maps[2]": "/3/e", "folder:after": "/5",
    }  # fmt: skip
    assert resources["folder:maps[2]"].want.mode == "0750"
    assert resources["folder:after"].after == (
        "folder:list[x]", "folder:list[2]", "folder:list[3]", "folder:var[b]",
    )  # fmt: skip


def test_each_is_out_of_scope_elsewhere(room: Any, told: Any) -> None:
    text = (
        HEAD + "folders:\n  a: {path: '/{{ each }}', for_each: [x]}\n  b: {path: '/{{ each }}'}\n"
    )
    assert [told(p) for p in room.fails(text)] == ["5:18 'each' is not defined"]


def test_home(room: Any) -> None:
    text = (
        "vars: {h: '~'}\nfolders:\n  a: {path: ~/x}\n  b: {path: '{{ h }}/y'}\n  c: {path: '~'}\n"
        "  d: {path: /a/~}\n"
        "workers: {w: {command: ~/x, match: {exe: ~/e}, parts: [{label: ~/l, cwd: ~/p}]}}\n"
    )
    resources = room.body(text)
    worker = resources.pop("worker:w").want
    assert list(paths(resources).values()) == ["/home/ann", "/home/ann/x", "/home/ann/y", "/a/~"]
    assert worker.command == ("sh", "-c", "~/x")
    assert (worker.match.exe, worker.parts[0].cwd) == ("/home/ann/e", "/home/ann/p")
    assert worker.parts[0].label == "~/l"


def test_includes(room: Any) -> None:
    room.write("vars: {a: '{{ main }}/a'}\nfolders: {one: {path: '{{ a }}'}}\ninclude: [c.yaml]\n",
               "sub/b.yaml")  # fmt: skip
    room.write("folders: {two: {path: '{{ a }}/2'}}\n", "sub/c.yaml")
    text = (
        "include: [sub/b.yaml, sub/c.yaml]\nvars: {main: /m}\n"
        "folders: {three: {path: '{{ a }}/3', needs: [folder:one]}}\n"
    )
    assert paths(room.body(text)) == {
        "folder:one": "/m/a", "folder:two": "/m/a/2", "folder:three": "/m/a/3",
    }  # fmt: skip
    assert paths(room.body(text, settings={"a": "/s"}))["folder:two"] == "/s/2"


@pytest.mark.parametrize(
    ("included", "fragment"),
    [
        ("version: 1\n", "b.yaml:1:1: error: 'version' belongs into the main file only"),
        ("loop: {every: 1s}\n", "b.yaml:1:1: error: 'loop' belongs into the main file only"),
        ("folders: {f: {path: /g}}\n", "b.yaml, line 1"),
        ("folders: {g: {path: /f}}\n", "b.yaml, line 1) both manage the path '/f'"),
        ("include: [spec.yaml]\n", "b.yaml:1:11: error: files include one another: "),
        ("include: [no.yaml]\n", "b.yaml:1:11: error: the included file "),
        ("", "b.yaml:1:1: error: the file is empty"),
        ("a: [\n", "b.yaml:2:1: error: the file ends where"),
    ],
)
def test_bad_includes(included: str, fragment: str, room: Any) -> None:
    room.write(included, "b.yaml")
    problems = room.fails(HEAD + "include: [b.yaml]\nvars: {v: 1}\nfolders: {f: {path: /f}}\n")
    assert len(problems) == 1
    assert fragment in problems[0].render()


def test_what_an_unreadable_file_would_declare_is_not_missed(room: Any, told: Any) -> None:
    room.write("vars: {v: 1}\nfolders: {f: {path: '/f}}\n", "b.yaml")
    text = HEAD + "include: [b.yaml]\nfolders: {g: {path: '/{{ v }}', needs: [folder:f]}}\n"
    assert [told(p) for p in room.fails(text)] == ["2:21 this quote is never closed"]


def test_what_is_certain_is_told_beside_files_that_cannot_be_read(room: Any) -> None:
    room.write("folders: {f: {path: '/f}}\n", "bad.yaml")
    room.write("folders: {h: {path: h, needs: [folder:f]}}\nfoldrs: {}\n", "good.yaml")
    text = (
        HEAD + "include: [bad.yaml, missing.yaml, good.yaml]\nvars: {}\n"
        "folders:\n  g: {path: g}\n  t: {path: '{{ v }}'}\n  w: {path: w, when: v}\n"
    )
    told = [problem.render().partition("\n")[0] for problem in room.fails(text)]
    for words in ("never closed", "missing.yaml", "folder 'h': path", "section 'foldrs'",
                  "folder 'g': path", "folder 'w': path"):  # fmt: skip
        assert sum(words in line for line in told) == 1, words
    assert len(told) == 6


def test_every_template_of_a_text_is_looked_at(room: Any) -> None:
    problems = room.fails(HEAD + "folders: {a: {path: '{{ homedirr }}/y/{{ zz }}/{{ zz }}'}}\n")
    assert [problem.message for problem in problems] == [
        "'homedirr' is not defined", "'zz' is not defined",
    ]  # fmt: skip
    assert [problem.column for problem in problems] == [25, 42]


def test_an_empty_include_is_not_asked_for_a_version(room: Any) -> None:
    room.write("", "b.yaml")
    (problem,) = room.fails(HEAD + "include: [b.yaml]\n")
    assert problem.message == "the file is empty" and "version" not in problem.hint


def test_a_circle_of_includes_is_named(room: Any) -> None:
    room.write("include: [c.yaml]\n", "b.yaml")
    room.write("include: [b.yaml]\n", "c.yaml")
    (problem,) = room.fails(HEAD + "include: [b.yaml]\n")
    base = room.base
    assert f"{base}/b.yaml -> {base}/c.yaml -> {base}/b.yaml" in problem.message


def test_includes_nested_too_deep(room: Any) -> None:
    for number in range(40):
        room.write(f"include: [f{number + 1}.yaml]\n", f"f{number}.yaml")
    (problem,) = room.fails(HEAD + "include: [f0.yaml]\n")
    assert "16 deep" in problem.message


CANARY = "s3cret-c4nary"


@pytest.mark.parametrize(
    "text",
    [
        "folders: {a: {path: '{{ env.TOKEN }}'}}\n",
        "folders: {a: {path: /a, mode: '{{ env.TOKEN }}'}}\n",
        "folders: {a: {path: /a, state: '{{ env.TOKEN }}'}}\n",
        "folders: {a: {path: /a, needs: ['{{ env.TOKEN }}']}}\n",
        "vars: {t: '{{ env.TOKEN }}', u: ['x{{ t }}']}\nfolders: {a: {path: '{{ u[0] }}'}}\n",
        "workers: {a: {command: x, count: '{{ env.TOKEN }}', every: '{{ env.TOKEN }}'}}\n",
        "workers: {a: {command: x, env: {A: '{{ env.TOKEN }}', 1B: x}}}\n",
        'workers: {a: {command: x, env: {A: "{{ env.TOKEN }}\\0"}}}\n',
        "workers: {a: {command: x, env: '{{ env.TOKEN }}'}}\n",
        "workers: {a: {command: x, match: {cmdline: '({{ env.TOKEN }}'}}}\n",
        "workers: {a: {command: x, folder: '{{ env.TOKEN }}'}}\n",
        "grants: {a: {path: '/{{ env.TOKEN }}'}}\n",
        "loop: {every: '{{ env.TOKEN }}'}\n",
        "folders: {a: {path: /a, when: env.TOKEN.nope}}\n",
        "folders: {a: {path: '/{{ {}[env.TOKEN] }}'}}\n",
        "folders: {a: {path: '/{{ env.TOKEN + 1 }}'}}\n",
        "folders: {a: {path: '~{{ env.TOKEN }}/x'}}\n",
    ],
)
def test_a_value_of_the_environment_is_in_no_message(text: str, room: Any) -> None:
    problems = room.fails(HEAD + text, environ={"TOKEN": CANARY})
    assert CANARY not in "".join(problem.render() for problem in problems) + repr(problems)
    assert "not shown" in repr(problems) or "env.TOKEN" in repr(problems)


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        ("{{ e }}/logs", True),
        ("/{{ e }}", True),
        ("/srv/{{ e }}", True),
        ("/srv/{{ e }}/logs", True),
        ("{{ e }}{{ b }}/logs", True),
        ("/srv/{{ e }}{{ b }}", True),
        ("{{ e }}/srv", True),
        ("/srv/{{ e }}{{ x }}", False),
        ("/srv/{{ x }}{{ e }}/y", False),
        ("/srv/{{ e }}a", False),
        ("/srv/a{{ e }}", False),
        ("{{ e }}{{ root }}/y", False),
        ("{{ root }}", False),
    ],
)
def test_no_template_may_empty_a_part_of_a_path(path: str, bad: bool, room: Any) -> None:
    text = f"vars: {{e: '', b: ' ', x: x, root: /r}}\nfolders: {{a: {{path: '{path}'}}}}\n"
    if bad:
        (problem,) = room.fails(HEAD + text)
        assert "is empty" in problem.message
    else:
        room.body(text)


def test_a_path_of_the_environment_is_no_secret(room: Any) -> None:
    (problem,) = room.fails(
        HEAD + "folders: {a: {path: '{{ env.AI_HOME }}/..'}}\n", environ={"AI_HOME": "/srv/ai"}
    )
    assert "/srv/ai/.." in problem.message


HOLLOW = {
    "by a variable": ("vars: {e: '', logs: '{{ e }}/logs'}", "{{ logs }}"),
    "by two": ("vars: {e: '', a: '{{ e }}', logs: '{{ a }}/logs'}", "{{ logs }}/x"),
    "joined": ("vars: {e: ''}", "{{ e ~ '/logs' }}"),
    "added": ("vars: {e: ''}", "{{ e + '/logs' }}"),
    "beside a constant": ("vars: {e: ''}", "{{ e }}{{ '/logs' }}"),
    "by the environment": ("vars: {logs: '{{ env.EMPTY }}/logs'}", "{{ logs }}"),
    "in a list": ("vars: {e: '', all: ['/x', '{{ e }}/logs']}", "{{ all[1] }}"),
    "in a mapping": ("vars: {e: '', all: {a: {b: '{{ e }}/logs'}}}", "{{ all.a.b }}"),
    "before a pattern": ("vars: {e: ''}", "/srv/{{ e }}*"),
    "within": ("vars: {e: '', x: '/srv/{{ e }}/y'}", "{{ x }}"),
    "in a loop": ("vars: {e: '', all: ['{{ e }}/logs']}", "{{ all | join('') }}"),
    "trimmed": ("vars: {e: ' ', logs: '{{ e | trim }}/logs'}", "{{ logs }}"),
}


@pytest.mark.parametrize(("head", "path"), HOLLOW.values(), ids=HOLLOW)
def test_an_empty_value_takes_no_part_of_a_path_by_any_way(head: str, path: str, room: Any) -> None:
    text = f'{head}\nfolders: {{a: {{path: "{path}"}}}}\n'
    (problem,) = room.fails(HEAD + text, environ={"EMPTY": ""})
    named = "env.EMPTY" if "EMPTY" in head else "e"
    assert f"{{{{ {named} }}}} is empty, which would make this '/" in problem.message


@pytest.mark.parametrize("loop", ["['{{ e }}/logs']", "'{{ all }}'"])
def test_nor_by_each(loop: str, room: Any) -> None:
    text = (
        "vars: {e: '', all: ['{{ e }}/logs']}\n"
        f"folders: {{a: {{for_each: {loop}, path: '{{{{ each }}}}'}}}}\n"
    )
    (problem,) = room.fails(HEAD + text)
    assert "{{ e }} is empty, which would make this '/logs'" in problem.message


def test_nor_by_what_is_set_from_outside(room: Any) -> None:
    text = "vars: {home: /x, logs: '{{ home }}/logs'}\nfolders: {a: {path: '{{ logs }}'}}\n"
    (problem,) = room.fails(HEAD + text, settings={"home": ""})
    assert "{{ home }} is empty" in problem.message


@pytest.mark.parametrize(
    ("head", "path", "made"),
    [
        ("vars: {e: ''}", "{{ e | default('/srv', true) }}/logs", "/srv/logs"),
        ("vars: {e: ''}", "{{ e or '/srv' }}/logs", "/srv/logs"),
        ("vars: {e: '', l: \"{{ (e | trim) or '/srv' }}/logs\"}", "{{ l }}", "/srv/logs"),
        ("vars: {e: '', l: \"{{ '/a' if e == '' else '/b' }}/x\"}", "{{ l }}", "/a/x"),
        ("vars: {e: '', l: \"{{ '/a' if e | length == 0 else '/b' }}/x\"}", "{{ l }}", "/a/x"),
        ("vars: {e: '', root: /r, l: '{{ e }}{{ root }}/y'}", "{{ l }}", "/r/y"),
        ("vars: {e: '', l: '/srv/app{{ e }}/y'}", "{{ l }}", "/srv/app/y"),
        ("vars: {e: '', l: '/srv/{{ e }}app*'}", "{{ l }}", "/srv/app*"),
        ("vars: {e: '', l: \"{{ e.replace('x', 'y') }}/y\", m: /m}", "{{ m }}", "/m"),
        ("vars: {e: '', d: {k: ''}, l: \"{{ d.get('k') or '/z' }}\"}", "{{ l }}", "/z"),
    ],
)
def test_an_empty_value_that_takes_nothing_is_fine(
    head: str, path: str, made: str, room: Any
) -> None:
    found = room.body(f'{head}\nfolders: {{a: {{path: "{path}"}}}}\n')
    assert found["folder:a"].want.path == made


def test_names_with_variables(room: Any) -> None:
    text = HEAD + "vars: {pre: my_, blank: ''}\nfolders:\n  '{{ pre }}a': {path: /a}\n"
    text += "  '{{ blank }}b': {path: /b, needs: ['folder:my_a']}\n"
    assert [one.id for one in room.load(text).resources] == ["folder:my_a", "folder:b"]
    (twice,) = room.fails(text + "  my_a: {path: /c}\n")
    assert "folder 'my_a' is defined twice" in twice.message
    (empty,) = room.fails(HEAD + "vars: {blank: ''}\nfolders: {'{{ blank }}': {path: /a}}\n")
    assert "a name has 1 to 200 characters" in empty.message
    secret = HEAD + "vars: {x: '{{ env.TOKEN }}'}\nfolders: {'{{ x }}': {path: /a}}\n"
    (shown,) = room.fails(secret, environ={"TOKEN": "canary"})
    assert "gives a value of the environment" in shown.message
    assert "canary" not in shown.message
