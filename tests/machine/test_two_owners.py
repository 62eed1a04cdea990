"""Two resources that are about one path: the nearer one counts, or neither is done."""

from __future__ import annotations

import json
import stat
from getpass import getuser
from pathlib import Path

import pytest
from support import Machine


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


@pytest.fixture
def top(machine: Machine) -> Path:
    """A folder with a folder and a file in it, and another folder in that."""
    folder = machine.base / "d"
    (folder / "x" / "y").mkdir(parents=True)
    (folder / "f").touch(0o600)
    return folder


@pytest.mark.parametrize("wide", ["path: {top}, recursive: true", "path: '{top}/*'"])
@pytest.mark.parametrize("single", ["directories", "permissions"])
def test_what_is_declared_by_itself_is_left_out(
    machine: Machine, top: Path, wide: str, single: str
) -> None:
    sections = {
        "permissions": [f"w: {{{wide.format(top=top)}, mode: '0700'}}"],
        "directories": [],
    }
    sections[single].append(f"x: {{path: {top}/x, mode: '0711'}}")
    spec = machine.spec(
        "".join(f"{name}: {{{', '.join(all_of)}}}\n" for name, all_of in sections.items())
    )
    assert machine.reconcile("--check", spec).returncode == 0
    (note,) = machine.plan(spec)["notes"]
    assert note == {
        "id": "permission:w",
        "reason": f"left to what is declared by itself: {top}/x (mode)",
    }
    machine.once(spec)
    assert (mode(top / "x"), mode(top / "f")) == ("0711", "0700")
    if "recursive" in wide:
        assert mode(top / "x/y") == "0700"
    machine.converged(spec)


@pytest.mark.parametrize("form", ["content: two", "source: two", "template: two"])
def test_two_texts_for_one_file_are_refused(machine: Machine, top: Path, form: str) -> None:
    """By way of a symlink; of two hard links each becomes a file of its own."""
    (machine.base / "link").symlink_to(top)
    for beside in (machine.base, machine.base / "templates"):
        beside.mkdir(exist_ok=True)
        (beside / "two").write_text("two")
    spec = machine.spec(
        f"files:\n  a: {{path: {top}/f, content: one}}\n"
        f"  b: {{path: {machine.base}/link/f, {form}}}\n"
    )
    refused = machine.reconcile("--once", spec)
    assert refused.returncode == 1
    assert f"file:a and file:b want different things (text) for {top}/f" in refused.stdout
    assert (top / "f").read_bytes() == b""
    (machine.base / "link").unlink()
    (machine.base / "link").mkdir()
    (machine.base / "link/f").hardlink_to(top / "f")
    machine.once(spec)
    assert [(folder / "f").read_text() for folder in (top, machine.base / "link")] == ["one", "two"]
    machine.converged(spec)


def test_no_text_of_a_file_stands_in_what_two_want(machine: Machine) -> None:
    spec = machine.spec(
        "files: {a: {path: /etc/cron.d/zzz, content: '# word-of-mine'}}\n"
        "cron: {c: {file: zzz, content: '1 1 * * * root true'}}\n"
    )
    refused = machine.reconcile("--check", spec)
    assert refused.returncode == 65
    assert "wants content 'lines for cron'" in refused.stderr
    assert "wants 'all of it'" in refused.stderr
    assert "word-of-mine" not in refused.stderr + refused.stdout


@pytest.mark.parametrize("mode", ["", ", mode: '0700'"])
def test_one_makes_what_another_takes_away(machine: Machine, top: Path, mode: str) -> None:
    """By way of a symlink: they would do so by turns, for ever."""
    (machine.base / "link").symlink_to(top)
    (top / "z").mkdir()
    spec = machine.spec(
        f"directories:\n  here: {{path: {top}/z{mode}}}\n"
        f"  gone: {{path: {machine.base}/link/z, state: absent}}\n"
    )
    report = machine.once(spec, status=1)
    assert report["steps"] == [] and (top / "z").is_dir()
    assert [one["id"] for one in report["unknown"]] == ["directory:here", "directory:gone"]
    assert "want different things (state)" in report["unknown"][0]["reason"]


def test_only_what_is_declared_by_itself_is_left_out(machine: Machine, top: Path) -> None:
    """Of other fields the pattern counts."""
    spec = machine.spec(
        f"directories: {{x: {{path: {top}/x}}}}\n"
        f"permissions: {{w: {{path: '{top}/*', mode: '0700'}}}}"
    )
    machine.once(spec)
    assert mode(top / "x") == "0700"
    machine.converged(spec)


EQUALS = {
    "two paths": (
        "directories: {a: {path: T/x, mode: '0711'}}\npermissions: {b: {path: T/x, mode: '0700'}}",
        ("directory:a", "permission:b"),
    ),
    "two trees": (
        "permissions: {a: {path: T, recursive: true, file_mode: '0600'},\n"
        "  b: {path: T/x, recursive: true, file_mode: '0640'}}",
        ("permission:a", "permission:b"),
    ),
    "two patterns": (
        "permissions: {a: {path: 'T/*', mode: '0711'},\n  b: {path: 'T/x*', mode: '0700'}}",
        ("permission:a", "permission:b"),
    ),
}


@pytest.mark.parametrize("case", EQUALS)
def test_two_that_count_the_same_are_refused_and_the_others_done(
    machine: Machine, top: Path, case: str
) -> None:
    text, names = EQUALS[case]
    text = text.replace("T", str(top))
    other = machine.base / "other"
    text += f"\nblocks: {{o: {{path: {other}, content: hi}}}}"
    spec = machine.spec(text)
    done = machine.reconcile("--check", "--json", spec)
    assert done.returncode != 0
    (error,) = json.loads(done.stdout)["errors"]
    for name in names:
        assert name in error["message"]
    # One place is the error's own, the other one is in its words.
    assert error["line"] and ", line " in error["message"]
    before = mode(top / "x"), mode(top / "f")
    for _ in range(2):
        report = machine.once(spec, status=1)
        assert sorted(one["id"] for one in report["unknown"]) == sorted(names)
        assert {one["id"] for one in report["steps"]} <= {"block:o"}
    assert other.exists()
    assert (mode(top / "x"), mode(top / "f")) == before


HIDDEN = {
    "two paths": "directories: {a: {path: T/x, mode: '0711'}, b: {path: L/x, mode: '0700'}}",
    "a pattern": (
        "directories: {a: {path: L/x, mode: '0711'}}\npermissions: {b: {path: 'T/*', mode: '0700'}}"
    ),
    "a tree": (
        "directories: {a: {path: T/x, mode: '0711'}}\n"
        "permissions: {b: {path: L, recursive: true, mode: '0700'}}"
    ),
    "two patterns": (
        "permissions: {a: {path: 'T/x*', mode: '0711'}, b: {path: 'T/*x', mode: '0700'}}"
    ),
}


@pytest.mark.parametrize("case", HIDDEN)
@pytest.mark.parametrize("now", ["0700", "0711"])
def test_what_only_the_host_shows_is_unknown_for_both(
    machine: Machine, top: Path, case: str, now: str
) -> None:
    (machine.base / "link").symlink_to(top)
    (top / "x").chmod(int(now, 8))
    (top / "f").chmod(0o700)
    (top / "x/y").chmod(0o700)
    top.chmod(0o700)
    text = HIDDEN[case].replace("T", str(top)).replace("L", f"{machine.base}/link")
    spec = machine.spec(text)
    assert machine.reconcile("--check", spec).returncode == 0
    report = machine.once(spec, status=1)
    assert len(report["unknown"]) == 2
    for one in report["unknown"]:
        assert "want different things (mode) for" in one["reason"]
    assert report["steps"] == []
    assert mode(top / "x") == now


@pytest.mark.parametrize("wide", [False, True])
def test_two_names_of_one_file_are_one(machine: Machine, top: Path, wide: bool) -> None:
    (top / "x/g").hardlink_to(top / "f")
    (top / "other").touch(0o644)
    second = f"{top}/x/*" if wide else f"{top}/x/g"
    (top / "x/y").chmod(0o700)
    spec = machine.spec(
        f"permissions: {{a: {{path: {top}/f, mode: '0600'}}, b: {{path: '{second}', mode: '0700'}},"
        f" c: {{path: {top}/other, mode: '0600'}}}}"
    )
    report = machine.once(spec, status=1)
    assert [one["id"] for one in report["unknown"]] == ["permission:a", "permission:b"]
    for one in report["unknown"]:
        assert "(a hard link)" in one["reason"]
    assert (mode(top / "f"), mode(top / "other")) == ("0600", "0600")


@pytest.mark.parametrize("now", ["0600", "0700"])
@pytest.mark.parametrize("first", ["path: '{top}/*'", "path: {top}/f"])
@pytest.mark.parametrize("second", ["path: '{other}/*'", "path: {other}, recursive: true"])
def test_whoever_differs_first_two_names_of_one_file_are_one(
    machine: Machine, top: Path, first: str, second: str, now: str
) -> None:
    """Below two patterns neither of which is about the name of the other."""
    other = machine.base / "other"
    (other / "deep").mkdir(parents=True)
    (other / "deep" if "recursive" in second else other).joinpath("g").hardlink_to(top / "f")
    (top / "f").chmod(int(now, 8))
    (top / "x").rename(machine.base / "x")
    spec = machine.spec(
        f"permissions: {{a: {{{first.format(top=top)}, mode: '0600'}},"
        f" b: {{{second.format(other=other)}, file_mode: '0700'}}}}"
    )
    report = machine.once(spec, status=1)
    assert [one["id"] for one in report["unknown"]] == ["permission:a", "permission:b"]
    for one in report["unknown"]:
        assert "(a hard link)" in one["reason"]
    assert mode(top / "f") == now
    assert machine.plan(spec)["steps"] == []


def test_two_names_of_one_file_may_ask_the_same(machine: Machine, top: Path) -> None:
    (top / "g").hardlink_to(top / "f")
    spec = machine.spec(
        f"permissions: {{a: {{path: {top}/f, mode: '0640'}}, b: {{path: {top}/g, mode: '0640'}}}}"
    )
    machine.once(spec)
    assert mode(top / "f") == "0640"
    machine.converged(spec)


APART = {
    "one that is not about it": "permissions: {b: {path: 'L/y*', mode: '0700'}}",
    "one that asks something else": f"permissions: {{b: {{path: L/x, owner: {getuser()}}}}}",
    "one that is left out": "permissions: {b: {path: L/x, mode: '0700', when: '1 == 2'}}",
    "one that is unknown": "permissions: {b: {path: L/x, mode: '0700', owner: no-such-user}}",
    "two that are held": (
        "permissions: {b: {path: L/x, recursive: true, dir_mode: '0700', file_mode: '0600'},"
        " c: {path: L, recursive: true, file_mode: '0640'}}"
    ),
}


@pytest.mark.parametrize("case", APART)
def test_who_does_not_act_there_is_in_nobodys_way(machine: Machine, top: Path, case: str) -> None:
    (machine.base / "link").symlink_to(top)
    text = APART[case].replace("T", str(top)).replace("L", f"{machine.base}/link")
    spec = machine.spec(f"directories:\n  a: {{path: {top}/x, mode: '0711'}}\n{text}")
    done = machine.reconcile("--once", spec, "--json")
    assert "directory:a" not in [one["id"] for one in json.loads(done.stdout)["unknown"]]
    assert mode(top / "x") == "0711"


def test_another_name_that_is_declared_by_itself_is_left_out(machine: Machine, top: Path) -> None:
    (top / "x/g").hardlink_to(top / "f")
    (top / "f").chmod(0o644)
    spec = machine.spec(
        f"permissions: {{a: {{path: {top}/f, mode: '0600'}}, b: {{path: {top}/x/g, mode: '0600'}},"
        f" c: {{path: '{top}/x/*', mode: '0700'}}}}"
    )
    machine.once(spec)
    assert mode(top / "f") == "0600"
    machine.converged(spec)
