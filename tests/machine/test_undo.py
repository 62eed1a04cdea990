"""``--undo`` takes a pass back, and leaves what somebody has changed since."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from machine.test_undo_worlds import tree
from support import Machine, until

HEAD = "version: 1\nname: demo\nloop: {every: 1s}\n"


def files(machine: Machine, more: str = "") -> Path:
    top = machine.base / "top"
    return machine.spec(
        HEAD + f"directories: {{d: {{path: {top}/d, mode: '0750'}}}}\n"
        f"files: {{f: {{path: {top}/d/f, content: new}}, g: {{path: {top}/g, content: other}}}}\n"
        f"links: {{l: {{path: {top}/d/l, target: f}}}}\n"
        f"permissions: {{p: {{path: {top}/old, mode: '0600'}}}}\n"
        f"blocks: {{b: {{path: {top}/rc, content: alias x=y}}}}\n" + more
    )


@pytest.fixture
def top(machine: Machine) -> Path:
    made = machine.base / "top"
    made.mkdir()
    (made / "old").write_text("old\n")
    (made / "old").chmod(0o644)
    (made / "g").write_bytes(b"before\xff\0")
    (made / "g").chmod(0o640)
    (made / "rc").write_text("mine")
    return made


def undo(machine: Machine, spec: Path, *options: str, status: int = 0) -> dict[str, Any]:
    done = machine.reconcile("--undo", *options, spec, "--json")
    assert done.returncode == status, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def history(machine: Machine, spec: Path) -> list[dict[str, Any]]:
    done = machine.reconcile("--history", spec, "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)["history"]
    return found


def test_it_is_done_and_undone_and_done_again(machine: Machine, top: Path) -> None:
    spec = files(machine)
    before = tree(top)
    machine.once(spec)
    after = tree(top)
    planned = undo(machine, spec, "--plan")
    assert tree(top) == after
    assert [one["id"] for one in planned["steps"]][::-1] == [
        "directory:d", "file:f", "file:g", "link:l", "permission:p", "block:b",
    ]  # fmt: skip
    done = undo(machine, spec)
    assert tree(top) == before
    assert [one["verb"] for one in done["steps"]] == [one["verb"] for one in planned["steps"]]
    # No pass does it again until it is resumed.
    assert machine.once(spec)["steps"] == []
    assert tree(top) == before
    assert set(done["undo"]["paused"]) == {one["id"] for one in planned["steps"]}
    # The second time there is nothing to do, and it says how to go on.
    said = machine.reconcile("--undo", spec)
    assert (said.returncode, tree(top) == before) == (0, True)
    assert "pass 1 was taken back by pass 2" in said.stdout
    assert "--undo 2 " in said.stdout
    again = undo(machine, spec, "2")
    assert tree(top) == after
    assert (again["undo"]["undoes"], again["undo"]["paused"]) == (1, [])
    assert machine.once(spec)["steps"] == []
    assert [one for one in machine.plan(spec)["skipped"] if "paused" in one["reason"]] == []


def test_the_command_that_resumes_it_works_when_pasted(machine: Machine, top: Path) -> None:
    spec = files(machine)
    machine.once(spec)
    after = tree(top)
    said = machine.reconcile("--undo", spec).stdout
    (command,) = re.findall("manage it again with: (.*)", said)
    assert machine.run("sh", "-c", command).returncode == 0
    machine.once(spec)
    assert tree(top) == after


def test_what_somebody_has_changed_since_is_left_and_named(machine: Machine, top: Path) -> None:
    spec = files(machine)
    before = tree(top)
    machine.once(spec)
    (top / "g").write_text("edited")
    (top / "d/mine").write_text("mine")
    (top / "rc").write_text((top / "rc").read_text() + "export A=b\n")
    done = undo(machine, spec, status=1)
    told = {one["id"]: one["reason"] for one in done["unknown"]}
    assert "changed since pass 1" in told.pop("file:g")
    assert "is not empty" in told.pop("directory:d")
    assert told == {}
    assert (top / "g").read_text() == "edited"
    assert [path.name for path in (top / "d").iterdir()] == ["mine"]
    # Beside what is ours in a file, a person may write what he likes.
    assert (top / "rc").read_text() == "mine\nexport A=b\n"
    assert stat.S_IMODE((top / "old").stat().st_mode) == 0o644
    assert "file:g" not in done["undo"]["paused"]
    assert tree(top / "old") == {key: one for key, one in before.items() if key.endswith("/old")}


@pytest.mark.parametrize("since", ["nothing", "tightened", "exchanged"])
def test_a_mode_is_given_back_to_what_it_was_taken_from(
    machine: Machine, top: Path, since: str
) -> None:
    (top / "f").write_text("same")
    (top / "f").chmod(0o644)
    spec = machine.spec(
        HEAD + f"files: {{f: {{path: {top}/f, content: same, mode: '0640'}}}}\n"
        f"permissions: {{p: {{path: {top}/old, mode: '0640'}}}}\n"
    )
    machine.once(spec)
    for path in (top / "f", top / "old"):
        if since == "tightened":
            path.chmod(0o600)
        elif since == "exchanged":
            (top / "new").write_text("a secret")
            (top / "new").chmod(0o640)
            (top / "new").replace(path)
    done = undo(machine, spec, status=int(since != "nothing"))
    assert [stat.S_IMODE((top / name).stat().st_mode) for name in ("f", "old")] == [
        {"nothing": 0o644, "tightened": 0o600, "exchanged": 0o640}[since]
    ] * 2
    told = [one["reason"] for one in done["unknown"]]
    assert all("changed" in one for one in told)
    assert len(told) == (0 if since == "nothing" else 2)


def test_a_name_that_would_be_a_pattern_gets_its_mode_back(machine: Machine, top: Path) -> None:
    path = top / "f[1]*?.txt"
    path.write_text("a")
    path.chmod(0o600)
    machine.once(
        spec := machine.spec(f"{HEAD}files: {{f: {{path: '{path}', content: a, mode: '0640'}}}}\n")
    )
    assert undo(machine, spec)["unknown"] == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_folders_with_any_names_come_back(machine: Machine, top: Path) -> None:
    """Also those that are no text."""
    folder = Path(os.fsdecode(os.fsencode(top) + b"/logs/\xff/a\nb"))
    folder.mkdir(parents=True)
    (folder / "x").touch()
    os.utime(folder / "x", (1e9, 1e9))
    before = tree(top)
    machine.once(
        spec := machine.spec(
            f"{HEAD}retention: {{r: {{path: {top}/logs, recursive: true, remove_empty: true, "
            f"action: move, to: {top}/to, older_than: 1d}}}}\n"
        )
    )
    assert os.listdir(top / "logs") == []
    undo(machine, spec)
    assert tree(top) == before


def test_a_folder_goes_in_which_a_killed_pass_has_left_a_draft(machine: Machine, top: Path) -> None:
    spec = machine.spec(
        HEAD + f"directories: {{d: {{path: {top}/a/b}}}}\n"
        f"files: {{f: {{path: {top}/a/b/f, content: new}}}}\n"
    )
    before = tree(top)
    machine.once(spec)
    (top / "a/b/.f.reconcile.d").mkdir(mode=0o700)
    assert [one["result"] for one in undo(machine, spec)["steps"]] == ["done"] * 3
    assert tree(top) == before


def test_what_got_another_name_where_it_was_moved_gets_its_own_back(
    machine: Machine, top: Path
) -> None:
    for name, text in (("logs/x", "ours"), ("to/x", "theirs"), ("to/x.1", "theirs")):
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text(text)
    os.utime(top / "logs/x", (1e9, 1e9))
    before = tree(top)
    machine.once(
        spec := machine.spec(
            f"{HEAD}retention: {{r: {{path: {top}/logs, older_than: 1d, "
            f"action: move, to: {top}/to}}}}\n"
            f"permissions: {{p: {{path: '{top}/logs/*', mode: '0600'}}}}\n"
        )
    )
    assert (top / "to/x.2").read_text() == "ours"
    assert undo(machine, spec)["unknown"] == []
    assert tree(top) == before


def test_what_somebody_has_made_in_place_of_what_was_removed_is_left(
    machine: Machine, top: Path
) -> None:
    link = top / "l"
    for state in ("", ", state: absent"):
        spec = machine.spec(f"{HEAD}links: {{l: {{path: {link}, target: f{state}}}}}\n")
        machine.once(spec)
    link.symlink_to("mine")
    done = machine.reconcile("--undo", spec)
    assert "was changed since pass 2, and is left" in done.stdout, done.stdout
    assert os.readlink(link) == "mine"


def test_an_earlier_pass_and_a_part_of_it(machine: Machine, top: Path) -> None:
    spec = files(machine)
    machine.once(spec)
    spec.write_text(spec.read_text() + f"cron: {{c: {{schedule: '@daily', command: {top}/x}}}}\n")
    machine.write_crontab(b"MAILTO=me\n1 1 * * * mine\n")
    assert [one["id"] for one in machine.once(spec)["steps"]] == ["cron:c"]
    assert {one["pass"] for one in history(machine, spec)} == {1, 2}
    undo(machine, spec, "1", "--only", "file:*")
    assert (top / "g").read_bytes() == b"before\xff\0"
    assert (top / "d/l").is_symlink() and not (top / "d/f").exists()
    undo(machine, spec, "2")
    assert machine.crontab_text() == b"MAILTO=me\n1 1 * * * mine\n"
    wrong = machine.reconcile("--undo", "77", spec)
    word = machine.reconcile("--undo", "abc", spec)
    assert (word.returncode, "the number of a pass" in word.stderr) == (64, True)
    assert (wrong.returncode, "pass 77 is not recorded" in wrong.stderr) == (64, True)
    both = machine.reconcile("--undo", "--once", spec)
    assert both.returncode == 64


def test_what_was_taken_back_in_part_is_taken_back_by_the_next(machine: Machine, top: Path) -> None:
    """So is what was done again in part; of that no more is managed again."""
    spec = files(machine)
    before = tree(top)
    machine.once(spec)
    after = tree(top)
    undo(machine, spec, "--only", "file:*")
    assert tree(top) not in (before, after)
    undo(machine, spec)
    assert tree(top) == before
    number = str(max(one["pass"] for one in history(machine, spec)))
    undo(machine, spec, number, "--only", "block:*")
    assert (top / "rc").read_text() != "mine"
    assert machine.once(spec)["steps"] == []
    undo(machine, spec)
    assert tree(top) == after
    assert machine.once(spec)["skipped"] == []


def test_beside_a_loop_it_stays_undone(machine: Machine, top: Path, looping: Any) -> None:
    spec = files(machine, "processes: {p: {command: [sleep, '90733']}}\n")
    before = tree(top)
    loop = looping(spec).up()
    loop.full_pass()
    until(lambda: not machine.steps(spec))
    assert machine.running("sleep 90733")
    # A loop may make two passes at the same time, over different parts.
    for number in sorted({one["pass"] for one in history(machine, spec)}):
        undo(machine, spec, str(number))
    assert tree(top) == before
    assert machine.running("sleep 90733") == []
    loop.full_pass()
    loop.full_pass()
    assert tree(top) == before
    assert machine.running("sleep 90733") == []
    # What was undone beside it is noted as well.
    last = max(one["pass"] for one in history(machine, spec))
    done = undo(machine, spec, str(last))
    assert {one["result"] for one in done["steps"]} == {"done"}


def test_a_process_runs_from_what_it_ran_before(machine: Machine) -> None:
    def with_command(number: int) -> Path:
        return machine.spec(HEAD + f"processes: {{p: {{command: [sleep, '{number}']}}}}\n")

    machine.once(with_command(90741))
    machine.once(with_command(90742))
    # It has only ended, and is started again: nothing to take back.
    os.kill(machine.only("sleep 90742"), 9)
    until(lambda: not machine.running("sleep 90742"))
    spec = with_command(90742)
    assert [one["verb"] for one in machine.once(spec)["steps"]] == ["start"]
    done = undo(machine, spec)
    assert done["undo"]["pass"] == 2
    assert machine.only("sleep 90741") and not machine.running("sleep 90742")
    assert machine.once(spec)["steps"] == []
    undo(machine, spec, "2")  # Nothing differs any more.
    undo(machine, spec, "1")
    assert not machine.running("sleep 9074")


def test_sessions_are_closed_and_made_again(machine: Machine) -> None:
    text = HEAD + "sessions: {s: {windows: [{name: w, panes: [{command: [sleep, '90761']}]}]}}\n"
    spec = machine.spec(text)
    machine.once(spec)
    undo(machine, spec)
    assert "no server" in machine.tmux("list-sessions") or not machine.tmux("list-sessions")
    machine.reconcile("--resume", "*", spec)
    machine.once(spec)
    machine.spec(text.replace("{windows", "{state: absent, windows"))
    machine.once(spec)
    assert not machine.running("sleep 90761")
    undo(machine, spec)
    assert machine.only("sleep 90761")


def test_what_cannot_be_undone_is_said_before(machine: Machine, top: Path) -> None:
    (top / "logs").mkdir()
    (top / "logs/a").write_text("a")
    os.utime(top / "logs/a", (1, 1))
    (top / "big").write_bytes(b"x" * (1 << 20) + b"y")
    (top / "key").write_text("old key")
    spec = machine.spec(
        HEAD + f"retention: {{r: {{path: {top}/logs, action: delete, older_than: 1d}}}}\n"
        f"files: {{big: {{path: {top}/big, content: small}},\n"
        f"  key: {{path: {top}/key, content: s3cret-key, secret: true}}}}\n"
        f"directories: {{d: {{path: {top}/d}}}}\n"
    )
    marks = {one["id"]: one.get("cannot_be_undone") for one in machine.plan(spec)["steps"]}
    assert marks == {
        "retention:r": "1 file deleted", "directory:d": None,
        "file:big": f"{top}/big is larger than 1 MiB, and is not kept",
        "file:key": "its content is secret, and is not kept",
    }  # fmt: skip
    assert "      cannot be undone: 1 file deleted\n" in machine.reconcile("--plan", spec).stdout
    machine.once(spec)
    done = undo(machine, spec, status=1)
    assert {one["id"] for one in done["unknown"]} == {"retention:r", "file:big", "file:key"}
    assert not (top / "d").exists()
    assert (top / "key").read_text() == "s3cret-key"


def test_no_secret_is_in_the_journal_which_is_private(machine: Machine, top: Path) -> None:
    machine.environ["APP_TOKEN"] = "tOk3n-of-the-app"
    token = "{{ env.APP_TOKEN }}"
    text = (
        HEAD + f"files:\n  a: {{path: {top}/a, content: \"token={token} OF\"}}\n"
        f"  s: {{path: {top}/s, content: whole-s3cret-OF, secret: true}}\n"
        f"blocks: {{b: {{path: {top}/rc, content: \"x={token} OF\"}}}}\n"
        f"cron: {{c: {{schedule: '@daily', command: [true, \"{token}\", OF]}}}}\n"
        f"processes: {{p: {{command: [sleep, '90751'], env: {{T: \"{token}\", V: v-OF}}}}}}\n"
    )  # fmt: skip
    for word in ("one", "two"):
        spec = machine.spec(text.replace("OF", word))
        done = machine.once(spec)
        assert len(done["steps"]) == 5
    absent = re.sub(r"\{(path|sch|comm)", r"{state: absent, \1", text.replace("OF", "two"))
    machine.once(machine.spec(absent))
    state = machine.state / "demo"
    stored = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    stored += unpacked(state / "store.db")
    for secret in (b"tOk3n-of-the-app", b"whole-s3cret", b"v-one", b"v-two"):
        assert secret not in stored
    assert stat.S_IMODE((state / "store.db").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    # What was made can still be taken away.
    undo(machine, spec, "1", status=1)


def unpacked(store: Path) -> bytes:
    import zlib

    with sqlite3.connect(store) as base:
        rows = base.execute(
            "SELECT data FROM journal UNION SELECT data FROM definitions"
        ).fetchall()
    base.close()
    return b"".join(data if data[:1] == b"{" else zlib.decompress(data) for (data,) in rows)


def test_a_policy_holds_for_it_too(machine: Machine, top: Path) -> None:
    spec = files(machine)
    machine.once(spec)
    after = tree(top)
    spec.write_text(spec.read_text() + f"policy: {{protect: ['{top}/d/*']}}\n")
    done = undo(machine, spec, status=1)
    assert any("refused by the policy" in one["reason"] for one in done["unknown"])
    assert tree(top) == after


def test_two_at_once(machine: Machine, top: Path) -> None:
    spec = files(machine)
    before = tree(top)
    machine.once(spec)
    script = (
        f'for i in 1 2 3 4; do "{machine.bin}/reconcile" --undo "{spec}" '
        f'--state-dir "{machine.state}" >/dev/null 2>&1 & pids="$pids $!"; done; '
        'for pid in $pids; do wait "$pid"; echo "$?"; done'
    )
    statuses = machine.run("sh", "-c", script).stdout.split()
    assert set(statuses) <= {"0", "75"} and "0" in statuses
    assert tree(top) == before


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_in_its_midst_it_is_gone_on_with(machine: Machine, top: Path, every: int) -> None:
    spec = files(machine)
    before = tree(top)
    calls = "rmdir,unlink,unlinkat,rename,renameat2,chmod,fchmod,fchmodat,fdatasync"
    machine.once(spec)
    trace = machine.traced(f"trace={calls}", *machine.argv("--undo", spec))
    assert tree(top) == before
    made = re.findall(rf"^(?:\[?\d+\]? +)?({calls.replace(',', '|')})\(", trace, re.MULTILINE)
    places = [(name, made[: at + 1].count(name)) for at, name in enumerate(made)]
    assert len(places) > 10
    for name, number in places[::every]:
        assert machine.reconcile("--resume", "*", spec).returncode == 0
        machine.once(spec)
        machine.traced(
            f"trace={calls}", *machine.argv("--undo", spec),
            options=("-e", f"inject={name}:signal=KILL:when={number}"),
        )  # fmt: skip
        # A pass beside it does nothing again of what is taken back, then it goes on.
        done = machine.reconcile("--undo", spec)
        assert done.returncode == 0, done.stdout + done.stderr
        assert tree(top) == before, (name, number)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what others may not")
def test_what_another_user_may_have_put_there_is_not_kept(machine: Machine, top: Path) -> None:
    """He gives the name that is watched to a file of root's, which no undo may hand to him."""
    secret, his = top / "secret", top / "his"
    secret.write_text("for-root-alone")
    secret.chmod(0o600)
    his.mkdir()
    os.link(secret, his / "f")
    os.chown(his, 65534, 65534)
    spec = machine.spec(HEAD + f"files: {{f: {{path: {his}/f, content: new}}}}\n")
    (step,) = machine.plan(spec)["steps"]
    assert "is not kept" in step["cannot_be_undone"]
    machine.reconcile("--once", spec)
    assert b"for-root-alone" not in (machine.state / "demo/store.db").read_bytes()
    machine.reconcile("--undo", spec)
    assert b"for-root-alone" not in b"".join(
        path.read_bytes() for path in his.iterdir() if path.stat().st_ino != secret.stat().st_ino
    )
    # Nor is a folder followed that he exchanges for a link.
    made = machine.spec(HEAD + f"directories: {{d: {{path: {his}/d}}}}\n")
    machine.once(made)
    (his / "d").rmdir()
    (top / "mine").mkdir()
    (his / "d").symlink_to(top / "mine")
    left = machine.reconcile("--undo", made)
    assert left.returncode == 1, left.stdout
    assert (top / "mine").is_dir()
