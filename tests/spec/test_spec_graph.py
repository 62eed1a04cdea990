"""Owners, needs and order of resources."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from support import compiled

from reconciler.config.errors import SpecError

HEAD = "version: 1\nname: demo\n"


def test_resources_stand_as_written_when_nothing_else_is_said(room: Any) -> None:
    text = "folders: {b: {path: /b}, a: {path: /a}}\nworkers: {w: {command: x}}\n"
    assert list(room.body(text)) == ["folder:b", "folder:a", "worker:w"]


def test_a_path_needs_its_nearest_ancestor(room: Any) -> None:
    resources = room.body(
        "workers: {w: {command: x, cwd: /srv/a/b/c/d}}\n"
        "folders:\n  deep: {path: /srv/a/b}\n  a: {path: /srv/a}\n  ab: {path: /srv/ab}\n"
        "grants: {g: {path: /srv/a/x, mode: '0700'}}\n"
    )
    assert list(resources) == ["folder:a", "folder:deep", "worker:w", "folder:ab", "grant:g"]
    assert {name: r.needs for name, r in resources.items()} == {
        "folder:a": (),
        "folder:deep": ("folder:a",),
        "worker:w": ("folder:deep",),
        "folder:ab": (),
        "grant:g": ("folder:a",),
    }


def test_a_permission_provides_nothing(room: Any) -> None:
    resources = room.body(
        "grants: {g: {path: /a, mode: '0700'}}\nfolders: {b: {path: /a/b}, a: {path: /a}}\n"
    )
    assert resources["grant:g"].needs == ("folder:a",)
    assert resources["folder:b"].needs == ("folder:a",)
    assert list(resources) == ["folder:a", "grant:g", "folder:b"]


def test_written_and_found_needs_go_together(room: Any) -> None:
    resources = room.body(
        "folders: {a: {path: /a}, b: {path: /a/b, needs: [worker:w, folder:a], after: [folder:c]}, "
        "c: {path: /c}}\nworkers: {w: {command: x}}\n"
    )
    assert resources["folder:b"].needs == ("worker:w", "folder:a")
    assert resources["folder:b"].after == ("folder:c",)
    assert list(resources) == ["folder:a", "folder:c", "worker:w", "folder:b"]


def test_a_need_by_id(room: Any) -> None:
    resources = room.body("workers: {w: {command: x, folder: f}}\nfolders: {f: {path: /f}}\n")
    assert resources["worker:w"].needs == ("folder:f",)


def test_absent_inside_goes_before_absent_outside(room: Any) -> None:
    resources = room.body(
        "folders: {a: {path: /a, state: absent}, b: {path: /a/b, state: absent}}\n"
    )
    assert list(resources) == ["folder:b", "folder:a"]
    # Nor is the outside removed where that fails.
    assert [r.needs for r in resources.values()] == [(), ("folder:b",)]
    assert not any(r.present for r in resources.values())


def test_absent_inside_present_has_no_order(room: Any) -> None:
    resources = room.body("folders: {b: {path: /a/b, state: absent}, a: {path: /a}}\n")
    assert list(resources) == ["folder:b", "folder:a"]
    assert [(r.needs, r.after) for r in resources.values()] == [((), ()), ((), ())]


def test_present_inside_absent_names_both(room: Any) -> None:
    (problem,) = room.fails(
        HEAD + "folders:\n  a: {path: /a, state: absent}\n  b: {path: /a/x/b}\n"
    )
    assert problem.message == (
        f"folder:a is to be absent, but folder:b ({room.base}/spec.yaml, line 5) needs it"
    )


def test_what_is_skipped_owns_and_provides_nothing(room: Any) -> None:
    resources = room.body(
        "folders:\n  a: {path: /a, when: false}\n  b: {path: /a, when: true}\n"
        "  c: {path: /c, when: false}\n  d: {path: /c/d, needs: [folder:c, folder:a]}\n"
        "  e: {path: /c/e, state: absent, when: false, needs: [folder:d]}\n"
    )
    assert resources["folder:d"].needs == ()
    assert resources["folder:e"].needs == ()
    assert list(resources) == ["folder:a", "folder:b", "folder:c", "folder:d", "folder:e"]


def test_different_sections_share_what_they_agree_on(room: Any) -> None:
    text = "folders: {a: {path: /a, mode: '0750'}}\ngrants: {g: {path: /a, mode: '750'}}\n"
    assert list(room.body(text)) == ["folder:a", "grant:g"]


def test_what_is_declared_by_itself_is_left_out_of_a_pattern_or_a_tree(tmp_path: Path) -> None:
    spec = compiled(
        tmp_path,
        "directories:\n"
        '  a: {path: /srv/d/x, mode: "0755"}\n'
        '  same: {path: /srv/d/y, mode: "0700"}\n'
        '  out: {path: /srv/d/out/z, mode: "0755"}\n'
        '  deeper: {path: /srv/d/y/z, mode: "0755"}\n'
        '  hidden: {path: /srv/d/.h, mode: "0755"}\n'
        '  gone: {path: /srv/d/gone, mode: "0755", state: absent}\n'
        "permissions:\n"
        '  glob: {path: "/srv/d/*", mode: "0700"}\n'
        '  tree: {path: /srv/e, recursive: true, dir_mode: "0750", file_mode: "0640",\n'
        "         exclude: [free]}\n"
        '  file: {path: /srv/e/f, mode: "0640"}\n'
        '  other: {path: /srv/e/s/t, mode: "0755"}\n'
        '  free: {path: /srv/e/s/free/g, mode: "0777"}\n'
        "  owner: {path: /srv/e/o, owner: root}\n",
    )
    wants = {resource.id: resource.want for resource in spec.resources}
    # Nothing at all is asked of what is to go.
    spared = (("/srv/d/gone", ()), ("/srv/d/x", ("mode",)))
    assert wants["permission:glob"].spared == spared
    assert wants["permission:tree"].spared == (("/srv/e/s/t", ("mode",)),)
    assert not any(resource.held for resource in spec.resources)


def test_two_trees_with_different_wishes_are_refused_at_both_places(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(
            tmp_path,
            "permissions:\n"
            '  outer: {path: /srv, recursive: true, file_mode: "0644"}\n'
            '  inner: {path: /srv/e, recursive: true, file_mode: "0600", owner: root}\n'
            '  beside: {path: /srv/f, recursive: true, dir_mode: "0755", owner: root}\n',
        )
    (problem,) = caught.value.problems
    assert problem.message.replace(f"{tmp_path}/", "") == (
        "permission:inner wants mode '0600' for the path '/srv/e', but permission:outer "
        "(spec.yaml, line 4) wants '0644' for all of '/srv'"
    )
    assert problem.hint == "exclude it there, such as with exclude: [e]"


def test_many_patterns_over_many_paths_are_quick(tmp_path: Path) -> None:
    lines = [f"  d{i}: {{path: /srv/{i}/x}}\n" for i in range(2000)]
    wide = [f"  p{i}: {{path: '/srv/{i}/*', mode: '0755'}}\n" for i in range(2000)]
    text = f"directories:\n{''.join(lines)}permissions:\n{''.join(wide)}"
    begin = time.process_time()
    whole = compiled(tmp_path, text)
    took = time.process_time() - begin
    assert len(whole.resources) == 4000
    # Each with each would be 8 million looks, which take longer than all the rest.
    begin = time.process_time()
    for _ in range(1_000_000):
        fnmatchcase("x", "*")
    assert took < 30 * (time.process_time() - begin)


def test_owners_are_named_across_files(room: Any) -> None:
    room.write("folders:\n  x: {path: /a}\n", "b.yaml")
    (problem,) = room.fails(HEAD + "include: [b.yaml]\nfolders:\n  y: {path: /a}\n")
    assert problem.message == (
        f"folder:y and folder:x ({room.base}/b.yaml, line 2) both manage the path '/a'"
    )


def test_a_circle_is_named_with_all_its_members(room: Any) -> None:
    (problem,) = room.fails(
        HEAD + "folders:\n  a: {path: /a, needs: [folder:b]}\n  b: {path: /b, after: [worker:w]}\n"
        "workers: {w: {command: x, cwd: /a/x}}\n"
    )
    assert "folder:a -> folder:b -> worker:w -> folder:a" in problem.message


def test_each_circle_is_told_also_beside_other_errors(room: Any, told: Any) -> None:
    text = (
        HEAD + "folders:\n  a: {path: /a, needs: [folder:b]}\n  b: {path: /b, needs: [folder:a]}\n"
        "  c: {path: /c, after: [folder:d]}\n  d: {path: /d, needs: [folder:c]}\n"
        "  e: {path: e}\n"
    )
    lines = [told(problem) for problem in room.fails(text)]
    assert [line.partition(" ")[0] for line in lines] == ["4:3", "6:3", "8:13"]
    assert "folder:a -> folder:b -> folder:a" in lines[0]
    assert "folder:c -> folder:d -> folder:c" in lines[1]


def test_references_are_told_also_beside_other_errors(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        compiled(
            tmp_path,
            "processes: {p: {command: x, session: nope}, q: {command: x, instances: 0}}\n"
            "retention: {r: {path: /x, action: rotate, max_file: 1MB, signal: HUP process:zz}}\n"
            "checks: {c: {command: x, on_failure: [restart process:nope]}}\n",
        )
    told = [problem.message for problem in caught.value.problems]
    assert len(told) == 4
    for words in ("instances", "no session 'nope'", "no process 'zz'", "no process 'nope'"):
        assert any(words in message for message in told), words


def test_errors_in_fields_do_not_make_up_others(room: Any, told: Any) -> None:
    text = (
        HEAD + "folders:\n  a: {path: x}\n  b: {path: /b, needs: [folder:a]}\n"
        "workers: {w: {command: x, folder: a, cwd: /a, needs: [folder:b]}}\n"
    )
    assert [told(p)[:4] for p in room.fails(text)] == ["4:13"]


def test_ten_thousand_needs_are_quick(room: Any) -> None:
    lines = "".join(f"  d{i}: {{path: /a/{i}, needs: ['folder:d{i + 1}']}}\n" for i in range(9999))
    resources = room.body(f"folders:\n{lines}  d9999: {{path: /a/9999}}\n")
    assert next(iter(resources)) == "folder:d9999"


def test_a_long_circle_does_not_exhaust_the_stack(room: Any) -> None:
    lines = "".join(
        f"  d{i}: {{path: /a/{i}, needs: ['folder:d{(i + 1) % 3000}']}}\n" for i in range(3000)
    )
    try:
        room.body(f"folders:\n{lines}")
    except SpecError as error:
        assert "in a circle" in str(error)
        assert len(str(error)) < 2000
    else:
        raise AssertionError("a circle was accepted")
