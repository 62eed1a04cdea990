"""A plan in a file: done exactly, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support import LONG, Machine, late

from reconciler.base.errors import HostError
from reconciler.cli import saved_plan
from reconciler.cli.context import Context
from reconciler.cli.main import main
from reconciler.cli.options import parsed
from reconciler.cli.saved_plan import SavedPlan, save
from reconciler.host import program


class Saved:
    """A spec with a plan for it: two files and a directory are made, and an old file goes."""

    def __init__(self, machine: Machine, fields: str = "mode: '0640'") -> None:
        self.machine = machine
        self.base = machine.base / "made"
        old = machine.base / "old"
        old.mkdir(exist_ok=True)
        (old / "a").write_text("x")
        os.utime(old / "a", (0, 0))
        self.there = self.base / "there"
        self.base.mkdir(exist_ok=True)
        self.there.write_text("before\n")
        self.spec = machine.spec(
            f"directories: {{d: {{path: {self.base}/d, mode: '0750'}}}}\n"
            f"files:\n  a: {{path: {self.base}/d/a, content: a, {fields}}}\n"
            f'  b: {{path: {self.there}, content: "after\\n"}}\n'
            f"retention: {{r: {{path: {old}, older_than: 1d, action: delete}}}}\n"
        )
        self.file = machine.base / "plan.json"

    def save(self, *options: str | Path) -> dict[str, object]:
        done = self.machine.reconcile("--plan", self.spec, "--out", self.file, *options)
        assert done.returncode == 0, done.stderr
        document: dict[str, object] = json.loads(self.file.read_text())
        return document

    def do(self, *options: str | Path, status: int = 0) -> str:
        done = self.machine.reconcile("--once", "--from", self.file, *options)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr

    def untouched(self) -> bool:
        made = (self.base / "d").exists()
        return not made and self.there.read_text() == "before\n"


def test_a_saved_plan_is_done_once(machine: Machine) -> None:
    saved = Saved(machine)
    document = saved.save()
    assert stat.S_IMODE(saved.file.stat().st_mode) == 0o600
    plan = document["plan"]
    assert isinstance(plan, dict)
    schema = json.loads(machine.reconcile("--schema", "saved-plan").stdout)
    Draft202012Validator(schema).validate(document)
    assert [one["id"] for one in plan["steps"]] == [
        one["id"] for one in machine.plan(saved.spec)["steps"]
    ]
    assert saved.untouched()
    saved.do()
    machine.converged(saved.spec)
    assert (saved.base / "d/a").read_text() == "a"
    assert not (machine.base / "old/a").exists()
    # It was made for a host on which that was still to be done.
    assert "is not as it was: no step is due now" in saved.do(status=1)


def test_the_variables_of_one_that_is_refused_are_not_remembered(machine: Machine) -> None:
    saved = Saved(machine)
    saved.spec.write_text(saved.spec.read_text() + "vars: {other: x}\n")
    saved.spec.write_text(saved.spec.read_text().replace("content: a,", "content: '{{ other }}',"))
    saved.save("--set", "other=y")
    assert "its variables are" in saved.do("--set", "other=z", status=1)
    assert "variables" not in machine.plan(saved.spec)["spec"]
    saved.do("--set", "other=y")
    assert machine.plan(saved.spec)["spec"]["variables"] == {"other": "y"}


def edited(saved: Saved) -> None:
    saved.there.write_text("a person's\n")


def chmodded(saved: Saved) -> None:
    saved.there.chmod(0o600)
    saved.spec.write_text(
        saved.spec.read_text().replace('"after\\n"}', '"after\\n", mode: "0644"}')
    )


def another_spec(saved: Saved) -> None:
    saved.spec.write_text(saved.spec.read_text().replace("content: a,", "content: b,"))


def another_old_file(saved: Saved) -> None:
    (saved.machine.base / "old/b").write_text("y")
    os.utime(saved.machine.base / "old/b", (0, 0))


def made_already(saved: Saved) -> None:
    (saved.base / "d").mkdir(mode=0o700)


@pytest.mark.parametrize(
    ("move", "what"),
    [
        (edited, "file:b is not as it was: content differs"),
        (another_spec, "spec is another one"),
        (chmodded, "spec is another one"),
        (another_old_file, "retention:r is not as it was: 2 files"),
        (made_already, "directory:d is not as it was"),
    ],
)
def test_what_has_moved_is_named_and_nothing_is_done(
    machine: Machine, move: Callable[[Saved], None], what: str
) -> None:
    saved = Saved(machine)
    saved.save()
    move(saved)
    there = saved.there.read_text()
    said = saved.do(status=1)
    assert what in said and "nothing is done" in said
    assert saved.there.read_text() == there
    assert (machine.base / "old/a").exists() and not (saved.base / "d/a").exists()


def key_of(saved: Saved) -> Path:
    return saved.machine.state / "demo/plan-key"


def cut(saved: Saved) -> None:
    saved.file.write_text(saved.file.read_text()[:-30])


def changed(saved: Saved) -> None:
    saved.file.write_text(saved.file.read_text().replace("0750", "0777"))


def newer(saved: Saved) -> None:
    saved.file.write_text(json.dumps({**json.loads(saved.file.read_text()), "format": 2}))


def of_another(saved: Saved) -> None:
    shutil.rmtree(saved.machine.state)
    saved.machine.plan(saved.spec, "--out", str(saved.machine.base / "other.json"))


def linked_key(saved: Saved) -> None:
    """The right key, but whoever has made the link chooses it."""
    moved = key_of(saved).rename(saved.machine.base / "key")
    key_of(saved).symlink_to(moved)


def of_another_name(saved: Saved) -> None:
    document = json.loads(saved.file.read_text())
    document["plan"]["spec"]["name"] = "../../demo"
    saved.file.write_text(json.dumps(document))


def put_into_a_folder_of_all(saved: Saved) -> None:
    saved.machine.base.chmod(0o777)


def replaced_by_a_fifo(saved: Saved) -> None:
    saved.file.unlink()
    os.mkfifo(saved.file, 0o600)


DAMAGES: tuple[tuple[Callable[[Saved], object], str], ...] = (
    (cut, "no whole saved plan"),
    (changed, "was changed since"),
    (newer, "a newer version"),
    (of_another_name, "no whole saved plan (no name of a spec)"),
    (linked_key, "was not made here"),
    (lambda saved: key_of(saved).chmod(0o640), "was not made here"),
    (lambda saved: key_of(saved).unlink(), "was not made here"),
    (lambda saved: key_of(saved).write_bytes(b""), "was not made here"),
    (lambda saved: saved.file.chmod(0o644), "chmod 600"),
    (lambda saved: saved.file.unlink(), "cannot read"),
    (lambda saved: saved.file.write_text(""), "no whole saved plan"),
    (lambda saved: saved.file.write_text("[" * 100_000), "no whole saved plan"),
    (lambda saved: saved.file.write_text("[]"), "no whole saved plan"),
    (replaced_by_a_fifo, "is no file"),
    (put_into_a_folder_of_all, "everybody may write to"),
    (of_another, "was not made here"),
)


def test_what_is_not_sealed_is_not_done(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = Saved(machine)
    saved.save()
    kept = {path: path.read_bytes() for path in (saved.file, key_of(saved))}
    argv = ["--once", "--from", str(saved.file), "--state-dir", str(machine.state)]
    for damage, words in DAMAGES:
        for path, data in kept.items():
            path.unlink(missing_ok=True)
            path.write_bytes(data)
            path.chmod(0o600)
        machine.base.chmod(0o700)
        damage(saved)
        status, said = main(argv), capsys.readouterr().err
        assert (status, words in said) == (1, True), said
        assert "Traceback" not in said and "internal error" not in said
        assert saved.untouched()


def test_no_byte_of_it_can_be_another(machine: Machine) -> None:
    saved = Saved(machine)
    saved.save("--only", "file:b")
    data, argv = saved.file.read_bytes(), ["--once", "--state-dir", str(machine.state)]
    context = Context(parsed(argv))
    SavedPlan(context, str(saved.file), None)
    damaged = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))]
    damaged += [data[:at] for at in range(0, len(data) - 1, 7)]
    for one in damaged:
        saved.file.write_bytes(one)
        with pytest.raises(HostError):
            SavedPlan(context, str(saved.file), None)


@pytest.mark.root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
def test_it_is_for_this_host_though_the_state_was_copied(machine: Machine) -> None:
    saved = Saved(machine)
    saved.save()
    argv = machine.argv("--once", "--from", saved.file)
    done = machine.run("unshare", "--uts", "sh", "-c", 'hostname other && exec "$@"', "-", *argv)
    assert done.returncode == 1, done.stderr
    assert "the plan was made on another host than other" in done.stderr
    assert saved.untouched()


def test_it_is_for_this_program(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Saved(machine)
    context = Context(parsed(["--plan", str(saved.spec), "--state-dir", str(machine.state)]))
    look = context.look(loaded := context.load(complete=True), context.host(loaded))
    save(context, look, str(saved.file), None)
    assert SavedPlan(context, str(saved.file), None).moved(context, look) == []
    another = machine.base / "program"
    shutil.copytree(program._PACKAGE, another, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(program, "_PACKAGE", str(another))
    assert SavedPlan(context, str(saved.file), None).moved(context, look) == []
    with (another / "core/plan.py").open("a") as file:
        file.write("# another one\n")
    (words,) = SavedPlan(context, str(saved.file), None).moved(context, look)
    assert words == "the program is another one: its files have changed"


def test_nothing_else_is_lost_for_it(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    saved = Saved(machine)
    text = saved.spec.read_text()
    argv = ["--plan", str(saved.spec), "--state-dir", str(machine.state), "--out"]
    assert main([*argv, str(saved.spec)]) == 1
    assert "is no saved plan; name another file" in capsys.readouterr().err
    saved.spec.chmod(0o644)
    assert main(["--once", "--from", str(saved.spec), "--state-dir", str(machine.state)]) == 1
    assert "is no saved plan; make one with" in capsys.readouterr().err
    saved.file.symlink_to(saved.spec)
    assert main([*argv, str(saved.file)]) == 1
    assert saved.spec.read_text() == text
    saved.file.unlink()
    assert main([*argv, str(saved.file)]) == main([*argv, str(saved.file)]) == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_it_is_nobody_elses_to_read(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    saved = Saved(machine)
    his = machine.base / "his"
    his.mkdir()
    for file in (his / "plan", his / "plan.sig"):
        file.write_text('"seal": "')
        os.chown(file, 64331, 64331)
    os.chown(his, 64331, 64331)
    argv = ["--plan", str(saved.spec), "--state-dir", str(machine.state), "--out"]
    assert main([*argv, str(his / "plan")]) == 1
    assert "belongs to user 64331" in capsys.readouterr().err
    assert (his / "plan").read_text() == '"seal": "', "he can read it, whatever its mode is"
    (his / "plan").unlink()
    assert main([*argv, str(his / "plan")]) == 0
    status = (his / "plan").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)


def test_a_key_that_somebody_has_just_made_is_the_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b"k" * 64

    def urandom(length: int) -> bytes:
        (machine.state / "demo/plan-key").write_bytes(made)
        (machine.state / "demo/plan-key").chmod(0o600)
        return b"x" * length

    monkeypatch.setattr(saved_plan.os, "urandom", urandom)
    assert saved_plan._key(str(machine.state / "demo"), make=True) == made


def test_beside_a_loop_nothing_of_it_is_done(machine: Machine, looping: Callable[..., Any]) -> None:
    saved = Saved(machine)
    saved.save()
    looping(saved.spec).up()
    argv = ("--plan", saved.spec, "--out", saved.file)
    assert "the plan is refused beside it" in machine.reconcile(*argv).stdout
    assert "nothing of the saved plan is done beside it" in saved.do(status=75)


def test_of_two_at_once_one_does_it(machine: Machine) -> None:
    """They have one key, though both are the first to want one."""
    ran = machine.base / "ran"
    saved = Saved(machine, f"on_change: ['run sh -c \"sleep 1; echo x >> {ran}\"']")
    files = [machine.base / "one.json", machine.base / "two.json"]

    def both(*options: str) -> list[tuple[int, str]]:
        argvs = [machine.argv(*options, file) for file in files]
        begun = [
            subprocess.Popen(
                argv, env=machine.environ, cwd=machine.base, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
            for argv in argvs
        ]  # fmt: skip
        said = [one.communicate(timeout=LONG)[1] for one in begun]
        return [(one.returncode, words) for one, words in zip(begun, said, strict=True)]

    assert [status for status, _ in both("--plan", str(saved.spec), "--out")] == [0, 0]
    found = sorted(both("--once", "--from"))
    assert found[0][0] == 0 and found[1][0] in (1, 75), found
    assert "is not as it was" in found[1][1] or "beside it" in found[1][1]
    assert ran.read_text() == "x\n"
    machine.converged(saved.spec)


def test_no_secret_is_in_it(machine: Machine) -> None:
    saved = Saved(machine, "secret: true")
    (machine.base / "word").write_text("pass-4712-word")
    text = saved.spec.read_text().replace("content: a,", 'content: "{{ w }}",')
    saved.spec.write_text(f"{text}vars: {{w: ''}}\n")
    saved.save("--set-file", f"w={machine.base}/word")
    assert "pass-4712" not in saved.file.read_text()
    saved.do("--set-file", f"w={machine.base}/word")
    assert (saved.base / "d/a").read_text() == "pass-4712-word"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_only_what_was_signed_is_done(machine: Machine) -> None:
    saved = Saved(machine)
    for name in ("ours", "theirs"):
        made = machine.run(
            "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(machine.base / name)
        )
        assert made.returncode == 0, made.stderr
    signers = machine.base / "signers"
    signers.write_text(f"ops {(machine.base / 'ours.pub').read_text()}")
    saved.save()
    assert "is not signed: there is no" in saved.do("--signers", signers, status=1)
    saved.save("--sign", machine.base / "theirs")
    assert "is not signed by one of" in saved.do("--signers", signers, status=1)
    saved.save("--sign", machine.base / "ours")
    text = saved.file.read_text()
    saved.save()  # The signature is of the one before.
    assert "is not signed by one of" in saved.do("--signers", signers, status=1)
    assert saved.untouched()
    saved.file.write_text(text)
    saved.do("--signers", signers)
    machine.converged(saved.spec)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_signatures_that_count_and_those_that_do_not(machine: Machine) -> None:
    saved = Saved(machine)
    base, signers = machine.base, machine.base / "signers"
    machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(base / "key"))
    public = (base / "key.pub").read_text()
    saved.save("--sign", base / "key")
    context = Context(parsed(["--once", "--state-dir", str(machine.state)]))

    def refused(words: str, by: Path = signers) -> None:
        with pytest.raises(HostError, match=words):
            SavedPlan(context, str(saved.file), str(by))

    for line in (
        f'ops valid-before="20200101" {public}',
        f'ops valid-after="20990101" {public}',
        f'ops namespaces="git" {public}',
        "",
        "ops ssh-ed25519 AAAA\n",
    ):
        signers.write_text(line)
        refused("is not signed by one of")
    # One that others could write themselves into.
    signers.write_text(f"ops {public}")
    signers.chmod(0o666)
    refused("everybody may write to")
    signers.chmod(0o644)
    refused("there is no", base / "nobody")
    # Of that key, but for something else.
    signature = Path(f"{saved.file}.sig")
    right = signature.read_bytes()
    signature.unlink()
    machine.run("ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(base / "key"), str(saved.file))
    refused("is not signed by one of")
    signature.write_bytes(b"-----BEGIN SSH SIGNATURE-----\n")
    refused("is not signed by one of")
    signature.write_bytes(right)
    signers.write_text(f'*@example.com,ops namespaces="git,reconcile-plan" {public}')
    saved.do("--signers", signers)
    machine.converged(saved.spec)


def test_options_that_belong_together(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    saved = Saved(machine)
    saved.save()
    spec, file = str(saved.spec), str(saved.file)
    for argv, words in (
        (("--plan", spec, "--sign", "x"), "give both"),
        (("--once", spec, "--signers", "x"), "give both"),
        (("--once", "--from", file, "--only", "file:a"), "as a whole"),
        (("--once", spec, "--out", "x"), "--out is for --plan"),
    ):
        status, said = main([*argv, "--state-dir", str(machine.state)]), capsys.readouterr().err
        assert (status, words in said) == (64, True), said


def test_a_part_of_a_spec(machine: Machine) -> None:
    saved = Saved(machine)
    saved.save("--only", "file:b")
    saved.do()
    assert saved.there.read_text() == "after\n"
    assert (machine.base / "old/a").exists()


def test_what_stays_as_it_is_counts_as_the_same(machine: Machine) -> None:
    """Of all kinds: what was seen of them is the same thing in the next look."""
    saved = Saved(machine)
    with saved.spec.open("a") as spec:
        spec.write(
            "processes: {w: {command: [sleep, '41734'], limits: {memory: 1GiB}}}\n"
            f"sessions: {{s: {{command: [sleep, '41735']}}}}\n"
            "cron: {c: {schedule: '@daily', command: [/bin/true]}}\n"
            f"blocks: {{b: {{path: {machine.base}/rc, content: x}}}}\n"
            f"permissions: {{p: {{path: '{machine.base}/old/*', mode: '0600'}}}}\n"
            f"checks: {{k: {{command: 'true', every: 1s}}}}\n"
            f"links: {{l: {{path: {machine.base}/link, target: x}}}}\n"
        )
    machine.once(saved.spec)
    saved.there.write_text("drift\n")
    saved.save()
    saved.do()
    assert saved.there.read_text() == "after\n"
    machine.converged(saved.spec)
    # A process that was started anew meanwhile is another one.
    saved.there.write_text("drift\n")
    saved.save()
    os.kill(machine.only("41734"), 9)
    machine.once(saved.spec, "--only", "process:w")
    assert "process:w is not as it was" in saved.do(status=1)


def test_very_many_steps_are_written_and_checked_in_a_moment(machine: Machine) -> None:
    """Beside the look at the host, that is; thrice as many as can be noticed here."""
    many = 3000
    lines = (f"  l{at}: {{path: {machine.base}/l{at}, target: /x}}\n" for at in range(many))
    spec = machine.spec("links:\n" + "".join(lines))
    context = Context(parsed(["--plan", str(spec), "--state-dir", str(machine.state)]))
    look = context.look(loaded := context.load(complete=True), context.host(loaded))
    assert len(look.plan.steps) == many
    took = []
    for _ in range(3):  # One may meet what else the machine does just then.
        begin = time.monotonic()
        save(context, look, str(machine.base / "plan.json"), None)
        saved = SavedPlan(context, str(machine.base / "plan.json"), None)
        assert saved.moved(context, look) == []
        took.append(time.monotonic() - begin)
    assert not late(min(took), 0.3), took
