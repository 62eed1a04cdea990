"""Cron lines with a stand-in for crontab(1): every drift is seen and mended, and nothing else."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Machine, within

from reconciler.base.errors import HostError
from reconciler.host import crontab
from reconciler.host.clock import Clock
from reconciler.host.command import Result
from reconciler.host.crontab import Crontabs
from reconciler.host.users import Users
from reconciler.kinds.cron.table import CronEntry, changed, table

MINE = b"# mine\r\nMAILTO=ops\n0 0 * * * /bin/mine\n\xff\xfe\n"
SPEC = """
cron:
  a: {schedule: "*/5 * * * *", command: [/bin/echo, "50%"]}
  b: {schedule: "@daily", command: "/bin/true # x", env: {TOKEN: canary-4711, MAILTO: me@x.org}}
"""
CANARY = "canary-4711"
SPOOL = "/var/spool/cron/crontabs"


@pytest.fixture
def spec(machine: Machine) -> Path:
    machine.write_crontab(MINE)
    path = machine.spec(SPEC)
    machine.once(path)
    machine.converged(path)
    return path


def others(machine: Machine) -> bytes:
    """The crontab without what is between our markers, and without those."""
    text = machine.crontab_text() or b""
    head, _, rest = text.partition(b"# BEGIN reconcile demo")
    return head + rest.partition(b"# END reconcile demo\n")[2]


def edit(machine: Machine, old: bytes, new: bytes) -> None:
    text = machine.crontab_text() or b""
    assert old in text
    machine.write_crontab(text.replace(old, new, 1))


def tag(machine: Machine, name: bytes) -> bytes:
    lines = (machine.crontab_text() or b"").split(b"\n")
    return next(line for line in lines if line.startswith(b"# reconcile demo " + name)) + b"\n"


def test_lines_stand_between_markers_below_all_others(machine: Machine, spec: Path) -> None:
    text = machine.crontab_text() or b""
    assert text.startswith(MINE + b"# BEGIN reconcile demo")
    assert text.endswith(b"MAILTO=ops\n# END reconcile demo\n")
    assert b"\n*/5 * * * * /bin/echo 50\\%\n" in text
    assert b"MAILTO=me@x.org\n@daily /bin/sh%export TOKEN='canary-4711'%exec" in text
    assert (machine.state / "demo/marks/cron").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "theirs",
    [
        b"MAILTO=x\r\n1 1 * * * /bin/a\r\n",
        b'SHELL=/bin/sh\r\n MAILTO = "x" \r\r\n',
        b"MAILTO=x\\r\n",
        b"MAILTO=\r\n# BEGIN reconcile other\r\nMAILTO=y\r\n# END reconcile other\r\r\n",
        b"# no end behind it \r\b",
    ],
)
def test_a_crontab_of_dos_is_settled_after_one_pass(machine: Machine, theirs: bytes) -> None:
    machine.write_crontab(theirs)
    path = machine.spec(SPEC)
    machine.once(path)
    text = machine.crontab_text() or b""
    assert text.startswith(theirs)
    assert b"\r" not in text[len(theirs) :]
    plan = machine.plan(path)
    assert (plan["steps"], plan["unknown"]) == ([], [])
    assert "no POSIX shell" not in json.dumps(plan)
    machine.once(machine.spec("cron: {}"))
    assert machine.crontab_text() == theirs + (b"" if theirs.endswith(b"\n") else b"\n")


def test_a_folded_text_has_one_line(machine: Machine) -> None:
    """Behind a text that is folded or a block YAML has a line end; within it is another line."""
    path = machine.spec(
        "cron:\n  a:\n    schedule: >\n      30 3 * *\n      *\n"
        "    command: >\n      /bin/echo one\n      two\n"
        "    env:\n      MAILTO: |\n        me@x.org\n"
    )
    machine.once(path)
    assert b"\nMAILTO=me@x.org\n30 3 * * * /bin/echo one two\n" in (machine.crontab_text() or b"")
    machine.converged(path)
    two = machine.spec("cron:\n  a:\n    schedule: '@daily'\n    command: |\n      a\n      b\n")
    done = machine.reconcile("--check", two)
    assert done.returncode == 65
    assert "one line for each command" in done.stderr


DRIFTS = [
    (b"*/5 * * * * ", b"*/6 * * * * ", "line is '*/6 * * * * /bin/echo 50\\\\%', should be"),
    (b"/bin/echo 50\\%\n", b"/bin/echo 51\\%\n", "runs every fifth minute of every hour, next"),
    (b"TOKEN='canary-4711'", b"TOKEN='canary-4712'", "env differs: TOKEN as declared"),
    (b"TOKEN='", b"NAME='", "env differs: NAME, TOKEN as declared"),
    (b"TOKEN='", b"TOKEN= '", "line is 'a line that was edited by hand'"),
    (b"me@x.org", b"you@x.org", "env differs: MAILTO as declared"),
    (b"MAILTO=me@x.org\n", b"", "env differs: MAILTO as declared"),
    (b"MAILTO=ops\n# END", b"# END", "the block is damaged: its own lines were edited"),
    (b"# END reconcile demo\n", b"", "the block is damaged: a marker is missing"),
    (b"# END reconcile demo\n", b"# END reconcile demo\n# below\n", "the block must stand last"),
    (b"changes up to its", b"change what you like to its", "its own lines were edited"),
    (b"*/5 * * * * /bin/echo 50\\%\n", b"", "missing"),
    (b"*/5 * * * * /bin/echo 50\\%\n", b"*/5 * * * * /bin/echo 50\\%\n# in\n", "not ours"),
]  # fmt: skip


def test_every_drift_is_seen_and_mended(machine: Machine, spec: Path) -> None:
    whole = machine.crontab_text() or b""
    for old, new, why in DRIFTS:
        machine.write_crontab(whole)
        edit(machine, old, new)
        plan = machine.plan(spec)
        assert any(why in step["why"] for step in plan["steps"]), (why, plan["steps"])
        assert CANARY not in json.dumps(plan).replace("canary-4712", "")
        assert "canary" not in json.dumps(plan)
        machine.once(spec)
        machine.converged(spec)
        added = b"".join(line for line in (b"# below\n", b"# in\n") if line in new)
        assert others(machine) == MINE + added, why
        assert (machine.crontab_text() or b"") == whole.replace(MINE, MINE + added), why


def test_a_block_that_was_moved_goes_back(machine: Machine, spec: Path) -> None:
    text = machine.crontab_text() or b""
    ours = text.removeprefix(MINE)
    machine.write_crontab(ours + MINE)
    assert machine.steps(spec) == ["cron:a"]
    machine.once(spec)
    machine.converged(spec)
    assert machine.crontab_text() == text


@pytest.mark.parametrize("gone", ["entry", "tag", "begin", "all"])
def test_what_was_deleted_comes_back_once(machine: Machine, spec: Path, gone: str) -> None:
    text = machine.crontab_text() or b""
    line = b"*/5 * * * * /bin/echo 50\\%\n"
    if gone == "entry":
        edit(machine, tag(machine, b"cron:a") + line, b"")
    elif gone == "tag":
        edit(machine, tag(machine, b"cron:a"), b"")
    elif gone == "begin":
        edit(machine, text[text.index(b"# BEGIN") : text.index(b"# reconcile demo")], b"")
    else:
        machine.write_crontab(MINE)
    machine.once(spec)
    machine.converged(spec)
    assert machine.crontab_text() == text


def test_a_line_whose_tag_was_edited_is_a_stray(machine: Machine, spec: Path) -> None:
    text = machine.crontab_text()
    edit(machine, b"demo cron:a ", b"demo cron:other ")
    assert set(machine.steps(spec)) == {"cron:a", "cron:other"}
    machine.once(spec)
    machine.converged(spec)
    assert machine.crontab_text() == text


def test_absent_takes_only_ours_away(machine: Machine, spec: Path) -> None:
    machine.once(machine.spec(SPEC.replace("{schedule", "{state: absent, schedule")))
    assert machine.crontab_text() == MINE
    assert not (machine.state / "demo/marks").exists()


def test_a_crontab_that_was_not_there_goes_away_again(machine: Machine) -> None:
    machine.once(machine.spec(SPEC))
    assert machine.crontab.exists()
    machine.once(machine.spec("cron: {}"))
    assert not machine.crontab.exists()


@pytest.mark.parametrize("section", ["", "cron: {}\n", "cron:\n"])
def test_what_is_declared_no_more_is_taken_away(machine: Machine, spec: Path, section: str) -> None:
    machine.spec("directories: {}\n" + section)
    plan = machine.plan(spec)
    assert [(s["id"], s["verb"]) for s in plan["steps"]] == [
        ("cron:a", "delete"), ("cron:b", "delete"),
    ]  # fmt: skip
    assert plan["summary"] == {"resources": 0, "changes": 2, "unknown": 0, "skipped": 0}
    machine.once(spec)
    machine.converged(spec)
    assert machine.crontab_text() == MINE


def test_an_empty_section_needs_no_memory(machine: Machine, spec: Path) -> None:
    shutil.rmtree(machine.state)
    machine.converged(machine.spec("directories: {}"))
    machine.once(machine.spec("cron: {}"))
    assert machine.crontab_text() == MINE


def test_one_that_is_renamed_or_skipped_or_not_asked_for(machine: Machine, spec: Path) -> None:
    machine.spec(SPEC.replace("  a: {", '  a: {when: "false", ').replace("  b: {", "  c: {"))
    assert machine.steps(spec) == ["cron:c", "cron:b"]
    assert machine.steps(spec, "--only", "cron:c") == ["cron:c"]
    machine.once(spec)
    text = machine.crontab_text() or b""
    assert b"cron:a " in text
    assert b"cron:b " not in text
    machine.spec(SPEC.replace("  a: {", '  a: {when: "false", '))
    machine.once(spec)
    assert b"cron:a " in (machine.crontab_text() or b"")


def test_markers_alone_are_taken_away(machine: Machine, spec: Path) -> None:
    text = machine.crontab_text() or b""
    begin = text[text.index(b"# BEGIN") : text.index(b"# reconcile demo")]
    machine.write_crontab(MINE + begin + b"# END reconcile demo\n")
    machine.spec("cron: {}")
    assert machine.steps(spec) == ["cron:markers"]
    machine.once(spec)
    assert machine.crontab_text() == MINE


@pytest.mark.parametrize("fake", ["hang", "broken", "denied"])
def test_a_crontab_that_cannot_be_read_is_unknown_and_the_rest_is_done(
    machine: Machine, fake: str
) -> None:
    machine.environ["CRON_FAKE"] = fake
    spec = machine.spec(f"directories: {{d: {{path: {machine.base}/d}}}}\n{SPEC}")
    with within(20):
        report = machine.once(spec, status=1)
    assert (machine.base / "d").is_dir()
    assert [one["id"] for one in report["unknown"]] == ["cron:a", "cron:b"]
    reason = report["unknown"][0]["reason"]
    says = {"hang": "within 5 s", "broken": "Input/output error", "denied": "run the same pass"}
    assert says[fake] in reason
    assert CANARY not in reason
    assert not machine.crontab.exists()


def test_without_crontab_the_message_says_what_to_install(machine: Machine) -> None:
    machine.environ["PATH"] = str(machine.bin)
    spec = machine.spec(SPEC)
    # The system's own crontab is behind every PATH; there is none only where cron is missing.
    script = (
        "import sys, reconciler.host.command as c; c.SYSTEM_PATH = ''; "
        "from reconciler.cli.main import main; sys.exit(main())"
    )
    done = machine.run(sys.executable, "-c", script, "--plan", spec, "--state-dir", machine.state)
    assert done.returncode == 1
    assert "apt-get install cron" in done.stdout


def test_a_change_between_look_and_install_is_not_lost(machine: Machine) -> None:
    machine.write_crontab(MINE)
    machine.environ["CRON_FAKE"] = "race"
    spec = machine.spec(SPEC)
    report = machine.once(spec, status=1)
    assert {"has changed since" in (step["error"] or "") for step in report["steps"]} == {True}
    text = machine.crontab_text() or b""
    theirs = text.removeprefix(MINE)
    assert set(theirs.split(b"\n")) == {b"1 1 1 1 1 theirs", b""}
    del machine.environ["CRON_FAKE"]
    machine.once(spec)
    machine.converged(spec)
    assert others(machine) == MINE + theirs


def test_what_comes_behind_the_install_is_told_and_stays(machine: Machine) -> None:
    machine.write_crontab(MINE)
    machine.environ["CRON_FAKE"] = "behind"
    report = machine.once(machine.spec("cron: {a: {schedule: '@daily', command: x}}"), status=1)
    assert "what was written is not what came back" in report["steps"][0]["error"]
    assert b"theirs\n" in (machine.crontab_text() or b"")


class Waiting(Clock):
    """A clock that only waiting moves, and that tells of it."""

    def __init__(self, waits: Callable[[], None]) -> None:
        self.now, self.waits = 0.0, waits

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 1.0
        self.waits()


def test_one_pass_at_a_time_writes_crontabs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = [b"theirs\n"]
    monkeypatch.setattr(Crontabs, "_spool", lambda _: None)
    monkeypatch.setattr(Crontabs, "exact", lambda *_: text[0])
    monkeypatch.setattr(Crontabs, "_install", lambda _, user, new, seen: text.__setitem__(0, new))
    lock = os.open(tmp_path / "crontab.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    state = str(tmp_path / "state")
    given_up = Crontabs(Users(), Waiting(lambda: None), state)
    with pytest.raises(HostError, match="another pass is writing a crontab"):
        given_up.change("somebody", lambda _: b"ours\n")
    assert text == [b"theirs\n"]

    def ends() -> None:
        text[0] += b"of another pass\n"
        os.close(lock)

    Crontabs(Users(), Waiting(ends), state).change("somebody", lambda old: (old or b"") + b"ours\n")
    assert text == [b"theirs\nof another pass\nours\n"]


def test_only_a_crontab_that_takes_on_rights_writes_the_spool(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one may keep more than the file, as busybox does."""
    program = machine.base / "crontab"
    program.write_text("#!/bin/sh\necho BusyBox >&2\n")
    monkeypatch.setattr(crontab, "find", lambda _: str(program))
    monkeypatch.setattr(crontab, "_SPOOLS", (str(machine.base),))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for mode, busybox, spool in ((0o755, True, None), (0o4755, False, str(machine.base))):
        program.chmod(mode)
        crontabs = Crontabs(Users(), Clock(), str(machine.base / "state"))
        assert (crontabs.busybox, crontabs._spool()) == (busybox, spool)


@pytest.mark.parametrize(
    "done", [Result(1, b"", b"mount: permission denied\n"), Result(0, b"", b"")]
)
def test_where_crontab_cannot_be_given_another_folder_it_writes_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: Result
) -> None:
    monkeypatch.setattr(crontab, "find", lambda name: f"/bin/{name}")
    monkeypatch.setattr(crontab, "run", lambda *_, **__: done)
    monkeypatch.setattr(Crontabs, "exact", lambda *_: b"theirs\n")
    user = getpass.getuser()
    (tmp_path / "state").mkdir()
    (tmp_path / user).write_bytes(b"theirs\n")
    crontabs = Crontabs(Users(), Clock(), str(tmp_path / "state"))
    assert not crontabs._exchange(user, str(tmp_path), lambda text: b"ours\n")
    assert (tmp_path / user).read_bytes() == b"theirs\n"


def test_what_crontab_refuses_is_told_without_values(machine: Machine) -> None:
    machine.write_crontab(MINE)
    machine.environ["CRON_FAKE"] = "refuses"
    report = machine.once(machine.spec(SPEC), status=1)
    assert {"bad minute" in step["error"] for step in report["steps"]} == {True}
    assert CANARY not in json.dumps(report)
    assert machine.crontab_text() == MINE


def test_values_of_env_are_seen_nowhere_but_in_the_crontab(machine: Machine) -> None:
    machine.write_crontab(MINE)
    spec = machine.spec(SPEC)
    for mode in ("--plan", "--once"):
        trace = machine.traced("execve", *machine.argv(mode, spec, "--json"))
        assert trace.count("crontab") >= 2
        assert CANARY not in trace
    edit(machine, b"*/5", b"*/7")
    edit(machine, b"@daily", b"@weekly")
    for done in (machine.reconcile("--plan", spec, "-v"), machine.reconcile("--once", spec, "-v")):
        assert done.returncode == 0
        assert CANARY not in done.stdout + done.stderr
    assert CANARY.encode() in (machine.crontab_text() or b"")
    for path in machine.state.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes()


def test_a_pass_without_changes_loads_nothing_heavy_and_asks_once(
    machine: Machine, spec: Path
) -> None:
    trace = machine.traced("execve,openat", *machine.argv("--once", spec))
    assert trace.count(f'"{machine.base}/fakes/crontab", "-l"') == 1
    assert 'crontab", "-n' not in trace
    for heavy in ("pydantic", "ruamel", "jinja2", "datetime.py"):
        assert f"/{heavy}" not in trace


def test_what_was_seen_is_noted(machine: Machine) -> None:
    machine.write_crontab(b"SHELL=/usr/bin/fish\nPATH=/nowhere\n")
    spec = machine.spec(
        """
cron:
  a: {schedule: "@daily", command: nothing-like-that --x}
  b: {schedule: "@daily", command: [/no/such/program]}
  c: {schedule: "@daily", command: "A=b cd /tmp && nothing"}
  d: {schedule: "@daily", command: "$HOME/x"}
  e: {schedule: "@daily", command: sh, env: {PATH: /usr/bin:/bin}}
"""
    )
    for _ in range(2):
        notes = {one["id"]: one["reason"] for one in machine.plan(spec)["notes"]}
        assert "cron would not find 'nothing-like-that' in its PATH, /nowhere" in notes["cron:a"]
        assert "/no/such/program is missing or not executable" in notes["cron:b"]
        assert all("SHELL=/usr/bin/fish" in note for note in notes.values())
        for name in "cde":
            assert "PATH" not in notes[f"cron:{name}"]
            assert "not there" not in notes[f"cron:{name}"]
        machine.once(spec)


def test_commands_of_this_program_are_written_with_their_whole_path(machine: Machine) -> None:
    spec = machine.spec("cron: {x: {schedule: '@hourly', command: [reconcile, --once, executor]}}")
    machine.once(spec)
    line = f"@hourly {machine.bin}/reconcile --once executor\n".encode()
    assert line in (machine.crontab_text() or b"")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("schedule: '61 * * * *', command: x", "minute: '61' is not allowed; write 0-59"),
        ("schedule: '0 0 30 2 *', command: x", "never"),
        ('schedule: "@daily", command: "a\\nb"', "one line for each command"),
        ('schedule: "@daily", command: "=x"', "take this line for a variable"),
        (f"schedule: '@daily', command: {'x' * 999}", "at most 998"),
        ("schedule: '@daily', command: x, env: {SHELL: /bin/sh}", "SHELL cannot be set"),
        ("schedule: '@daily', command: x, env: {CRON_TZ: UTC}", "CRON_TZ cannot be set"),
        ("schedule: '@daily', command: x, env: {MAILTO: 'canary%\"'}", "MAILTO needs a plain"),
        (f"schedule: '@daily', command: x, env: {{A: canary{'x' * 999}}}", "put them into a scr"),
        ('schedule: "@daily", command: x, env: {A: "canary\\r"}', "carriage return"),
    ],
)
def test_what_cron_would_not_run_is_refused(
    refused: Callable[[str], str], body: str, says: str
) -> None:
    said = refused(f"cron: {{x: {{{body}}}}}")
    assert says in said
    assert "canary" not in said.replace(body, "").split("error:")[1].splitlines()[0]


def test_the_longest_command_is_taken(machine: Machine) -> None:
    machine.once(machine.spec(f"cron: {{x: {{schedule: '@daily', command: {'x' * 998}}}}}"))


def test_the_same_line_twice_is_refused(machine: Machine) -> None:
    line = "{schedule: '@daily', command: x}"
    done = machine.reconcile("--check", machine.spec(f"cron: {{a: {line}, b: {line}}}"))
    assert done.returncode == 65
    assert "both manage the cron line '@daily x'" in done.stderr


def test_an_unknown_user_is_unknown(machine: Machine) -> None:
    spec = machine.spec("cron: {x: {schedule: '@daily', command: x, user: nobody-like-that}}")
    (one,) = machine.plan(spec)["unknown"]
    assert "there is no user 'nobody-like-that'" in one["reason"]


def test_a_file_that_is_not_what_crontab_shows_is_not_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has installed another one since it was read."""
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "somebody").write_bytes(b"theirs\n")
    crontabs = Crontabs(Users(), Clock(), str(tmp_path / "state"))
    status = (spool / "somebody").stat()
    monkeypatch.setattr(crontabs, "exact", lambda user: b"another\n")
    monkeypatch.setattr(crontabs, "_as_written", lambda user, where, text: (text, status))
    assert not crontabs._exchange("somebody", str(spool), lambda text: (text or b"") + b"ours\n")
    assert (spool / "somebody").read_bytes() == b"theirs\n"
    monkeypatch.setattr(crontabs, "exact", lambda user: b"theirs\n")
    assert crontabs._exchange("somebody", str(spool), lambda text: (text or b"") + b"ours\n")
    assert (spool / "somebody").read_bytes() == b"theirs\nours\n"


@pytest.mark.namespaces
@pytest.mark.root
def test_with_busybox_a_note_tells_of_lines_that_fail_there(machine: Machine) -> None:
    """With its real crontab, on a spool of its own."""
    program = shutil.which("busybox")
    applets = machine.run(program, "--list").stdout.split() if program else []
    if program is None or "crontab" not in applets or not Path(SPOOL).is_dir():
        pytest.skip("no busybox with the applet crontab (busybox-static), or no spool, is here")
    crontab = machine.base / "fakes/crontab"
    crontab.unlink()
    shutil.copy(program, crontab)
    lines = {
        "plain": "[/bin/echo, a]",
        "percent": "[/bin/echo, '5%']",
        "env": "'echo $A', env: {A: b}",
    }
    body = "".join(f"  {n}: {{schedule: '@daily', command: {text}}}\n" for n, text in lines.items())
    spec = machine.spec(f"cron:\n{body}")
    gone = machine.spec(f"cron:\n{body.replace('{s', '{state: absent, s')}", "gone.yaml")
    script = f"""
        mount -t tmpfs tmpfs {SPOOL}
        echo '1 2 * * * /bin/mine' | crontab -
        reconcile --once "$1" --json --state-dir "$3" >"$4/once"
        crontab -l >"$4/table"
        reconcile --plan "$1" --json --state-dir "$3" >"$4/plan"
        reconcile --once "$2" --state-dir "$3" --take-over
        crontab -l >"$4/left"
    """
    namespace = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh")
    done = machine.run(*namespace, spec, gone, machine.state, machine.base)
    assert done.returncode == 0, done.stdout + done.stderr
    once, plan = (json.loads((machine.base / name).read_text()) for name in ("once", "plan"))
    assert {step["result"] for step in once["steps"]} == {"done"} and plan["steps"] == []
    noted = {one["id"] for one in plan["notes"] if "busybox's crond" in one["reason"]}
    assert noted == {"cron:percent", "cron:env"}
    table = (machine.base / "table").read_text().splitlines()
    runs = next(line for line in table if line.startswith("@daily /bin/echo a"))
    assert machine.run("sh", "-c", runs.removeprefix("@daily ")).stdout == "a\n"
    assert (machine.base / "left").read_text() == "1 2 * * * /bin/mine\n"


def test_other_crons_get_no_such_note(machine: Machine, spec: Path) -> None:
    assert "busybox" not in str(machine.plan(spec)["notes"])


def test_a_line_of_a_persons_that_is_the_same_as_ours_stays_beside_a_block_in_order() -> None:
    line, other = b"5 4 * * * echo a", b"6 4 * * * echo b"

    def put(text: bytes, *lines: bytes) -> bytes:
        made = changed(
            table(text, "demo", "ann"),
            {f"cron:{at}": CronEntry(one) for at, one in enumerate(lines)},
        )
        assert made is not None
        return made

    text = put(line + b"\n", line)
    assert text.count(line) == 2
    more = put(text, line, other)
    assert more.startswith(line + b"\n") and more.count(line) == 2
    # Where our markers were deleted, what is the same is ours, and stands there once.
    bare = b"".join(one for one in more.splitlines(keepends=True) if not one.startswith(b"#"))
    assert put(bare + b"# END reconcile demo\n", line).count(line) == 1


def test_what_a_test_has_left_running_reaches_no_crontab_of_this_machine(machine: Machine) -> None:
    """Its folder is gone then, and what stood in front of crontab(1) with it."""
    spec = machine.spec("cron: {c: {schedule: '0 0 1 1 *', command: 'true'}}\n")
    shutil.rmtree(machine.base / "fakes")
    report = machine.plan(spec)
    assert "CRON_SPOOL" in report["unknown"][0]["reason"]
    assert report["steps"] == []
