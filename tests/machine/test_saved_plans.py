"""A plan in a file: done exactly, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from support import Machine, within


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


@pytest.mark.parametrize("damage", ["cut", "edited", "of another", "newer", "readable", "gone"])
def test_what_is_not_sealed_is_not_done(machine: Machine, damage: str) -> None:
    saved = Saved(machine)
    document = saved.save()
    text = saved.file.read_text()
    if damage == "cut":
        saved.file.write_text(text[:-30])
    elif damage == "edited":
        saved.file.write_text(text.replace("0750", "0777"))
    elif damage == "newer":
        saved.file.write_text(json.dumps({**document, "format": 2}))
    elif damage == "readable":
        saved.file.chmod(0o644)
    elif damage == "of another":
        shutil.rmtree(machine.state)
        machine.plan(saved.spec, "--out", str(machine.base / "other.json"))
    else:
        saved.file.unlink()
    words = {
        "cut": "no whole saved plan", "edited": "was changed since", "newer": "a newer version",
        "readable": "chmod 600", "of another": "was not made here", "gone": "cannot read",
    }  # fmt: skip
    assert words[damage] in saved.do(status=1)
    assert saved.untouched()


def test_no_secret_is_in_it(machine: Machine) -> None:
    saved = Saved(machine, "secret: true")
    (machine.base / "word").write_text("pass-4712-word")
    text = saved.spec.read_text().replace("content: a,", 'content: "{{ w }}",')
    saved.spec.write_text(f"{text}vars: {{w: ''}}\n")
    saved.save("--set-file", f"w={machine.base}/word")
    assert "4712" not in saved.file.read_text()
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


def test_options_that_belong_together(machine: Machine) -> None:
    saved = Saved(machine)
    for argv, words in (
        (("--plan", saved.spec, "--sign", "x"), "give both"),
        (("--once", saved.spec, "--signers", "x"), "give both"),
        (("--once", "--from", saved.file, "--only", "file:a"), "as a whole"),
        (("--once", saved.spec, "--out", "x"), "--out is for --plan"),
    ):
        saved.save()
        done = machine.reconcile(*argv)
        assert (done.returncode, words in done.stderr) == (64, True), done.stderr


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
    from reconciler.cli.saved_plan import _digest, _seal

    step = ["link:x", "create", [("target", None, "/nowhere")], ["link /x to /nowhere"]]
    with within(1.0):
        digests = [_digest(b"k" * 64, [*step, number]) for number in range(10_000)]
        _seal(b"k" * 64, {"steps": digests})
    assert len(set(digests)) == 10_000
    assert time.monotonic() > 0
