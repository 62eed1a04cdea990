"""Whole files and symlinks on a real file system."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Machine, until

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other owners")
NOBODY = 65534


def one(machine: Machine, fields: str, more: str = "") -> Path:
    path = machine.base / "etc/file"
    return machine.spec(f"files: {{x: {{path: {path}, {fields}}}}}\n{more}")


def file_of(machine: Machine) -> Path:
    return machine.base / "etc/file"


def test_the_plan_shows_a_diff_and_does_it(machine: Machine) -> None:
    file = file_of(machine)
    spec = one(machine, 'content: "one\\ntwo\\n", mode: "0640"')
    machine.once(spec)
    machine.converged(spec)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("one\ntwo\n", 0o640)
    file.write_text("one\nthree\n")
    os.setxattr(file, "user.kept", b"yes") if _has_attributes(file) else None
    shown = machine.reconcile("--plan", spec).stdout
    assert re.search(r"\n +one\n +-three\n +\+two\n", shown)
    (step,) = machine.plan(spec)["steps"]
    assert step["changes"] == [{"field": "content", "have": "one\nthree\n", "want": "one\ntwo\n"}]
    machine.once(spec)
    assert file.read_text() == "one\ntwo\n"
    if _has_attributes(file):
        assert os.getxattr(file, "user.kept") == b"yes"
    assert list(file.parent.iterdir()) == [file]
    # A mode alone is set without writing the file anew.
    inode = file.stat().st_ino
    file.chmod(0o600)
    machine.once(spec)
    assert (file.stat().st_ino, stat.S_IMODE(file.stat().st_mode)) == (inode, 0o640)


def _has_attributes(path: Path) -> bool:
    try:
        os.setxattr(path, "user.try", b"x")
    except OSError:
        return False
    os.removexattr(path, "user.try")
    return True


def test_a_template_with_its_variables(machine: Machine) -> None:
    (machine.base / "site.conf").write_text(
        "{% for port in ports %}\nlisten {{ port }};\n{% endfor %}\n{{ on }} <{{ text }}>\n"
    )
    spec = one(machine, "template: site.conf, vars: {ports: [80, 81], on: true, text: 'a & b'}")
    machine.once(spec)
    machine.converged(spec)
    assert file_of(machine).read_text() == "listen 80;\nlisten 81;\ntrue <a & b>\n"
    done = machine.reconcile("--check", one(machine, "template: site.conf, vars: {prts: [80]}"))
    assert done.returncode == 65
    assert "does not use 'prts'" in done.stderr and "did you mean 'ports'" in done.stderr


def test_a_source_is_copied_byte_for_byte(machine: Machine) -> None:
    source, file = machine.base / "blob", file_of(machine)
    source.write_bytes(bytes(range(256)) * 9000)
    spec = one(machine, "source: blob")
    machine.once(spec)
    machine.converged(spec)
    assert file.read_bytes() == source.read_bytes()
    source.write_text("a\nb\n")
    file.write_text("a\nc\n")
    assert re.search(r"\n +-c\n +\+b\n", machine.reconcile("--plan", spec).stdout)
    machine.once(spec)
    machine.converged(spec)
    source.unlink()
    (unknown,) = machine.plan(spec)["unknown"]
    assert f"there is no {source}" in unknown["reason"]
    assert file.read_text() == "a\nb\n"


MEASURED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=2)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_a_large_source_is_compared_in_little_memory(machine: Machine) -> None:
    file = file_of(machine)
    file.parent.mkdir()
    for path in (machine.base / "blob", file):
        with path.open("wb") as large:
            large.truncate(100 << 20)
    spec = one(machine, "source: blob")
    machine.converged(spec)
    done = machine.run(sys.executable, "-c", MEASURED, *machine.argv("--once", spec))
    assert int(done.stdout) < 60 << 10, done.stderr  # KiB
    with file.open("r+b") as large:
        large.seek(-1, os.SEEK_END)
        large.write(b"x")
    done = machine.run(sys.executable, "-c", MEASURED, *machine.argv("--plan", spec))
    assert int(done.stdout) < 60 << 10 and "content differs" in done.stderr


@pytest.mark.parametrize("form", ['[grep, -q, good, "{}"]', '"grep -q good {}"'])
def test_what_is_not_valid_is_not_put_into_place(machine: Machine, form: str) -> None:
    file = file_of(machine)
    machine.once(one(machine, f"content: good, validate: {form}"))
    report = machine.once(one(machine, f"content: bad, validate: {form}"), status=1)
    assert "the new one is refused: run " in report["steps"][0]["error"]
    assert file.read_text() == "good"
    assert list(file.parent.iterdir()) == [file]


def test_a_secret_is_in_no_output_and_no_note(machine: Machine) -> None:
    words = "pass-4711-word"
    validate = f"cat {{}} >&2 && test ! -e {machine.base}/no"
    fields = f'content: "{words}", secret: true, validate: "{validate}"'
    spec = one(machine, fields)
    said = [machine.reconcile(*argv, spec) for argv in (("--plan",), ("--plan", "--json"))]
    (machine.base / "no").touch()
    said += [machine.reconcile("--once", spec), machine.reconcile("--once", spec, "--json")]
    (machine.base / "no").unlink()
    said += [machine.reconcile("--once", spec, "--json")]
    assert stat.S_IMODE(file_of(machine).stat().st_mode) == 0o600
    file_of(machine).write_text(f"old-{words}")
    file_of(machine).chmod(0o644)
    said += [machine.reconcile(*argv, spec) for argv in (("--plan",), ("--once", "--json"))]
    assert file_of(machine).read_text() == words
    assert stat.S_IMODE(file_of(machine).stat().st_mode) == 0o600
    said += [machine.reconcile("--history", spec, "--json"), machine.reconcile("--status", spec)]
    assert words not in "".join(one.stdout + one.stderr for one in said)
    (notes,) = machine.state.rglob("files")
    assert words.encode() not in notes.read_bytes()


def test_what_follows_a_change(machine: Machine) -> None:
    out = machine.base / "out"
    process = "processes: {w: {command: [sleep, '41733']}}"
    fields = f"on_change: [restart process:w, 'run echo x >> {out} && test ! -e {out}.no']"
    machine.once(one(machine, f"content: a, {fields}", process))
    before = machine.only("41733")
    machine.converged(one(machine, f"content: a, {fields}", process))
    assert out.read_text() == "x\n"
    Path(f"{out}.no").touch()
    spec = one(machine, f"content: b, {fields}", process)
    report = machine.once(spec, status=1)
    assert "the file is written, but run" in report["steps"][0]["error"]
    until(lambda: machine.running("41733") not in ([], [before]))
    # What failed is done by the next pass, though the file is right by now.
    assert machine.plan(spec)["steps"][0]["why"] == "what follows its change was not done"
    Path(f"{out}.no").unlink()
    machine.once(spec)
    machine.converged(spec)
    assert out.read_text() == "x\n" * 3


def test_what_follows_waits_for_what_is_not_known(machine: Machine) -> None:
    """A process of which nothing can be said is not one that does not run."""
    number = machine.base / "pid"
    process = f"processes: {{w: {{command: [sleep, '41734'], match: {{pidfile: {number}}}}}}}"
    machine.once(one(machine, "content: a, on_change: [restart process:w]", process))
    before = machine.only("41734")
    number.mkdir()
    spec = one(machine, "content: b, on_change: [restart process:w]", process)
    (step,) = machine.once(spec, status=1)["steps"]
    assert f"restart process:w failed: cannot read {number}" in step["error"]
    number.rmdir()
    machine.once(spec)
    assert machine.only("41734") != before
    machine.converged(spec)


def test_only_what_we_have_written_is_removed(machine: Machine) -> None:
    file = machine.base / "sub/0"

    def spec(content: str, state: str) -> Path:
        return machine.spec(f"files: {{x: {{path: {file}, content: {content}, state: {state}}}}}\n")

    machine.once(spec("ours", "present"))
    # It may be declared otherwise by now: the bytes are those that were written.
    machine.once(spec("other", "absent"))
    assert not file.exists()
    machine.converged(spec("other", "absent"))
    machine.once(spec("ours", "present"))
    file.write_text("a person's")
    (unknown,) = machine.plan(spec("ours", "absent"))["unknown"]
    assert "holds what was not written here" in unknown["reason"]
    machine.once(spec("ours", "absent"), status=1)
    assert file.read_text() == "a person's"


def test_a_file_that_was_there_before_is_not_ours_to_remove(machine: Machine) -> None:
    file = file_of(machine)
    file.parent.mkdir()
    file.write_text("same")
    machine.converged(one(machine, "content: same"))
    machine.once(one(machine, "content: same"))
    machine.once(one(machine, "content: same, state: absent"), status=1)
    assert file.read_text() == "same"


@pytest.mark.parametrize("sort", ["directory", "fifo", "dangling"])
def test_what_is_no_file_is_left(machine: Machine, sort: str) -> None:
    file = file_of(machine)
    file.parent.mkdir()
    if sort == "directory":
        file.mkdir()
    elif sort == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to("nowhere")
    (unknown,) = machine.plan(one(machine, "content: x"))["unknown"]
    assert str(file) in unknown["reason"]
    machine.once(one(machine, "content: x"), status=1)
    assert not file.is_file()


# ------------------------------------------------------------------------------ links


def link(machine: Machine, target: str, state: str = "present") -> Path:
    path = machine.base / "made/link"
    return machine.spec(f"links: {{x: {{path: {path}, target: {target}, state: {state}}}}}")


@pytest.mark.parametrize("target", ["/nowhere", "../spec.yaml"])
def test_a_link_is_made_changed_and_removed(machine: Machine, target: str) -> None:
    path = machine.base / "made/link"
    machine.once(link(machine, target))
    machine.converged(link(machine, target))
    assert os.readlink(path) == target
    report = machine.once(link(machine, "other"))
    assert report["steps"][0]["why"] == f"target is {target}, should be other"
    assert os.readlink(path) == "other"
    assert os.listdir(path.parent) == ["link"]
    (step,) = machine.once(link(machine, target, "absent"), status=1)["unknown"]
    assert step["reason"] == f"{path} leads to other, not to {target}, so it is left"
    assert os.readlink(path) == "other"
    machine.once(link(machine, "other", "absent"))
    machine.converged(link(machine, "other", "absent"))
    assert os.listdir(path.parent) == []


def test_a_link_that_goes_takes_no_part_in_what_it_leads_to(machine: Machine) -> None:
    text = f"files: {{f: {{path: {machine.base}/f, content: x}}}}\n"
    text += f"links: {{l: {{path: {machine.base}/l, target: f"
    machine.once(machine.spec(f"{text}}}}}"))
    spec = machine.spec(f"{text}, state: absent}}}}")
    machine.once(spec)
    machine.converged(spec)
    assert not (machine.base / "l").is_symlink() and (machine.base / "f").is_file()


@pytest.mark.parametrize("sort", ["file", "directory"])
@pytest.mark.parametrize("state", ["present", "absent"])
def test_what_is_no_link_is_left(machine: Machine, sort: str, state: str) -> None:
    path = machine.base / "made/link"
    path.parent.mkdir()
    path.write_text("mine") if sort == "file" else path.mkdir()
    (unknown,) = machine.plan(link(machine, "x", state))["unknown"]
    assert unknown["reason"] == f"{path} is a {sort}, not a link; move it away"
    machine.once(link(machine, "x", state), status=1)
    assert not path.is_symlink() and path.exists()


# ------------------------------------------------------------------------------ the spec


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("files: {x: {path: /x}}", "needs one of content, template, source"),
        ("files: {x: {path: /x, content: a, source: b}}", "write only one of"),
        ("files: {x: {path: /x, source: spec.yml}}", "did you mean 'spec.yaml'"),
        ("files: {x: {path: /x, content: a, vars: {a: b}}}", "are for a template"),
        ("files: {x: {path: /x, content: a, validate: [true]}}", "holds no {}"),
        ("files: {x: {path: /x, content: a, validate: [bash, -c, 'a {}']}}", "a part of it"),
        ("files: {x: {path: /x, content: a, on_change: [reload nginx]}}", "is not understood"),
        ("files: {x: {path: /x, content: a, on_change: [restart process:y]}}", "no process:y"),
        ("files: {x: {path: /x, content: a}, y: {path: /x, content: b}}", "both manage"),
        ("files: {x: {path: /x, contnt: a}}", "did you mean 'content'"),
        ("links: {x: {path: /x}}", "target"),
        ("links: {x: {path: /x, target: ~/y}}", "write {{ user.home }}/y"),
        ("links: {x: {path: /a/x, target: ../a/x}}", "leads to the link itself"),
    ],
)
def test_what_makes_no_sense(refused: Callable[[str], str], text: str, complaint: str) -> None:
    said = refused(text)
    assert re.search(r"spec\.yaml:\d+:\d+: error: ", said)
    assert complaint in said


# ------------------------------------------------------------------------------ under fire

CALLS = (
    "mkdir,mkdirat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,write,fsync,"
    "fchmod,fchown,symlinkat,vfork,clone,clone3"
)


def killed(machine: Machine, step: int) -> int:
    """Kills a pass that changes a file and a link at every ``step``-th change; how often."""
    folder, out = machine.base / "f", machine.base / "out"
    file, linked = folder / "file", folder / "link"
    spec = machine.spec(
        f"files: {{x: {{path: {file}, content: new, validate: [grep, -q, new, '{{}}'], "
        f"on_change: ['run cp {file} {out}']}}}}\nlinks: {{l: {{path: {linked}, target: new}}}}"
    )

    def make() -> None:
        folder.mkdir(exist_ok=True)
        out.unlink(missing_ok=True)
        file.write_text("old")
        linked.unlink(missing_ok=True)
        linked.symlink_to("old")

    def traced(*options: str) -> tuple[int, str]:
        trace = machine.base / "trace"
        done = machine.run(
            "strace", "-qq", "-e", f"trace={CALLS}", *options, "-o", trace,
            *machine.argv("--once", spec),
        )  # fmt: skip
        return done.returncode, trace.read_text(errors="replace")

    make()
    machine.once(spec)
    make()
    status, trace = traced()
    assert status == 0
    names = [match[1] for line in trace.splitlines() if (match := re.match(r"(\w+)\(", line))]
    number_killed = 0
    for at in range(0, len(names), step):
        make()
        number = names[: at + 1].count(names[at])
        status, _ = traced("-e", f"inject={names[at]}:signal=KILL:when={number}")
        number_killed += status != 0
        until(lambda: not machine.ours())  # What it had run may act a moment longer.
        assert file.read_text() in ("old", "new")
        assert os.readlink(linked) in ("old", "new")
        machine.once(spec)
        machine.converged(spec)
        assert (file.read_text(), os.readlink(linked), out.read_text()) == ("new", "new", "new")
        assert sorted(os.listdir(folder)) == ["file", "link"]
    return number_killed


def test_killed_at_some_changes(machine: Machine, one_process: None) -> None:
    assert killed(machine, 5) >= 1


@pytest.mark.slow
def test_killed_at_every_change(machine: Machine, one_process: None) -> None:
    assert killed(machine, 1) > 20


@pytest.mark.root
@ROOT
@pytest.mark.parametrize("trap", ["symlink", "hard link", "his own", "his link"])
def test_a_folder_of_another_leads_nowhere_else(machine: Machine, trap: str) -> None:
    his, victim = machine.base / "his", machine.base / "victim"
    his.mkdir()
    victim.write_text("secret of root\n")
    victim.chmod(0o600)
    file = his / "file"
    if trap == "symlink":
        file.symlink_to(victim)
        os.lchown(file, NOBODY, NOBODY)
    elif trap == "hard link":
        os.link(victim, file)
    elif trap == "his own":
        file.write_text("his\n")
        os.chown(file, NOBODY, NOBODY)
    else:
        (his / "link").symlink_to("/tmp")
        os.lchown(his / "link", NOBODY, NOBODY)
    machine.base.chmod(0o755)
    his.chmod(0o777)
    spec = machine.spec(
        f"files: {{x: {{path: {file}, content: ours, owner: root}}}}\n"
        f"links: {{l: {{path: {his}/link, target: x}}}}"
    )
    done = machine.reconcile("--plan", spec)
    assert "secret of root" not in done.stdout + done.stderr
    done = machine.reconcile("--once", spec, "--json")
    assert victim.read_text() == "secret of root\n"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    json.loads(done.stdout)
    if trap == "his own":
        assert file.read_text() == "his\n"
    if trap == "his link":
        assert os.readlink(his / "link") == "/tmp"


@pytest.mark.root
@ROOT
def test_a_source_of_another_is_refused(machine: Machine) -> None:
    his = machine.base / "his"
    his.mkdir()
    (his / "source").write_text("his")
    os.chown(his / "source", NOBODY, NOBODY)
    os.chown(his, NOBODY, NOBODY)
    file_of(machine).parent.mkdir()
    file_of(machine).write_text("x")
    (unknown,) = machine.plan(one(machine, f"source: {his}/source"))["unknown"]
    assert "nobody" in unknown["reason"] or "65534" in unknown["reason"]
    file_of(machine).unlink()
    machine.once(one(machine, f"source: {his}/source"), status=1)
    assert not file_of(machine).exists()


def test_what_looks_cost_grows_with_their_number(machine: Machine) -> None:
    """In a pass without changes a file takes a few calls more than a directory, a link none."""
    forms = {
        "directories": 'mode: "0755"', "files": 'content: "hello\\n", mode: "0644"',
        "links": "target: /nowhere",
    }  # fmt: skip
    calls: dict[tuple[str, int], int] = {}
    for section, fields in forms.items():
        for number in (10, 70):
            some = ", ".join(
                f"x{at}: {{path: {machine.base}/{section}/{at}, {fields}}}" for at in range(number)
            )
            spec = machine.spec(f"version: 1\nname: {section}\n{section}: {{{some}}}", "n.yaml")
            machine.once(spec)
            machine.once(spec)
            trace = machine.traced("all", *machine.argv("--once", spec))
            calls[section, number] = len(trace.splitlines())
    grown = {section: (calls[section, 70] - calls[section, 10]) / 60 for section in forms}
    assert grown["links"] <= grown["directories"] + 2
    assert grown["files"] <= grown["directories"] + 6


def test_a_plan_of_somebody_without_rights_writes_nothing(machine: Machine) -> None:
    spec = one(machine, "content: x")
    machine.once(spec)
    (notes,) = machine.state.rglob("files")
    before = notes.read_bytes()
    file_of(machine).write_text("y")
    subprocess.run([*map(str, machine.argv("--plan", spec))], check=True, capture_output=True)
    assert notes.read_bytes() == before


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("blocks: {b: {path: PATH, content: x}}", "is also in 'files', which would take the block"),
        ("directories: {d: {path: PATH}}", "wants type 'a directory' for the path"),
    ],
)
def test_two_owners_of_one_path_are_an_error(machine: Machine, other: str, words: str) -> None:
    path = str(machine.base / "x")
    spec = machine.spec(
        f"files: {{f: {{path: {path}, content: a}}}}\n{other.replace('PATH', path)}\n"
    )
    done = machine.reconcile("--check", spec)
    assert done.returncode == 65 and words in done.stderr
