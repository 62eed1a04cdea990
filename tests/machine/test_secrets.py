"""Where the values of the environment and of --set-file may stand, and where they never do."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import stat
import zlib
from pathlib import Path

import pytest
from support import Machine

SECRET = "Q17-zz-sEcret"


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def texts(folder: Path) -> bytes:
    """All the texts in there. The bytes of a number may be any, and so may what is compressed:
    that is looked at as it was before."""
    data = everything(folder)
    with sqlite3.connect(folder / "demo/store.db") as base:
        rows = base.execute("SELECT data FROM journal UNION SELECT data FROM definitions")
        whole = [bytes(one) if isinstance(one, bytes) else one.encode() for (one,) in rows]
    base.close()
    packed = [one for one in whole if one[:1] not in (b"{", b"[")]
    for one in packed:
        data = data.replace(one, b"\0")
    data = b"\0".join([data, *map(zlib.decompress, packed)])
    return b"\n".join(re.findall(rb"[ -~]{6,}", data))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_block_with_a_secret_is_made_for_nobody_else(machine: Machine) -> None:
    new, there = machine.base / "new.conf", machine.base / "there.conf"
    there.write_text("mine\n")
    there.chmod(0o640)
    blocks = "".join(
        f"  {path.stem}: {{path: {path}, content: 'pw={{{{ env.PW_TOKEN }}}}'}}\n"
        for path in (new, there)
    )
    plain = machine.base / "plain.conf"
    spec = machine.spec(f"blocks:\n{blocks}  plain: {{path: {plain}, content: x}}\n")
    machine.environ["PW_TOKEN"] = SECRET
    machine.once(spec)
    assert SECRET in new.read_text() and SECRET in there.read_text()
    assert (mode(new), mode(plain)) == (0o600, 0o644)
    assert mode(there) == 0o640
    assert machine.plan(spec)["summary"]["changes"] == 0
    assert SECRET.encode() not in everything(machine.state)


def test_a_secret_that_is_replaced_is_not_shown_either(machine: Machine) -> None:
    made = machine.base / "made.conf"
    content = "host=h\\npw={{ env.PW_TOKEN }}\\n"
    spec = machine.spec(f'blocks: {{b: {{path: {made}, content: "{content}"}}}}\n')
    machine.environ["PW_TOKEN"] = SECRET
    machine.once(spec)
    machine.environ["PW_TOKEN"] = "another-" + SECRET[::-1]
    said = ""
    for words in (["--plan", "-v"], ["--plan", "--json"], ["--diagnose"], ["--once", "-v"],
                  ["--history"], ["--status"]):  # fmt: skip
        done = machine.reconcile(words[0], spec, *words[1:])
        said += done.stdout + done.stderr
    assert "line 2 of its content is '(not shown: it may hold a secret; digest" in said
    assert SECRET not in said
    assert SECRET.encode() not in everything(machine.state)
    assert f"pw=another-{SECRET[::-1]}" in made.read_text()
    assert machine.plan(spec)["summary"]["changes"] == 0


def test_a_value_from_a_file_is_used_and_not_shown(machine: Machine) -> None:
    value, made = machine.base / "value", machine.base / "made.conf"
    value.write_text(f"{SECRET}\n")
    value.chmod(0o600)
    spec = machine.spec(
        "vars: {a: x}\n"
        f"blocks: {{b: {{path: {made}, content: 'a={{{{ a }}}}'}}}}\n"
        "checks: {c: {command: [sh, -c, 'echo no: $1; exit 1', sh, '{{ a }}'], every: 1s}}\n"
    )
    done = machine.reconcile("--once", spec, "-v", "--set-file", f"a={value}")
    assert f"a={SECRET}" in made.read_text()
    assert mode(made) == 0o600
    said = done.stdout + done.stderr
    for words in (["--history"], ["--status", "-v"], ["--diagnose"], ["--diagnose", "--json"],
                  ["--plan", "-v"]):  # fmt: skip
        done = machine.reconcile(words[0], spec, *words[1:], "--set-file", f"a={value}")
        said += done.stdout + done.stderr
    assert "no: ***" in said
    assert f"--set-file a={value}" in said
    assert SECRET not in said
    assert SECRET.encode() not in everything(machine.state)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--set", "a=***"], "--set a: *** stands for a value that is not shown"),
        (["--set", "a=json://***@h"], "--set-file a=FILE"),
        (["--set-file", "a=/nonexistent"], "--set-file: the file /nonexistent does not exist"),
        (["--set-file", "a"], "--set-file takes NAME=FILE"),
    ],
)
def test_a_value_that_is_none_is_refused(machine: Machine, given: list[str], said: str) -> None:
    done = machine.reconcile("--plan", machine.spec("vars: {a: x}\n"), *given)
    assert done.returncode == 64
    assert said in done.stderr


def test_a_file_that_somebody_else_may_write_gives_no_value(machine: Machine) -> None:
    value = machine.base / "value"
    value.write_text("x")
    value.chmod(0o666)
    done = machine.reconcile("--plan", machine.spec("vars: {a: x}\n"), "--set-file", f"a={value}")
    assert done.returncode == 64
    assert f"fix it with: chmod o-w {value}" in done.stderr or "chmod go-w" in done.stderr


def test_remedies_hide_a_variable_by_its_name_and_its_place(machine: Machine) -> None:
    spec = machine.spec(
        "vars: {hook: x, api_token: x, plain: x}\n"
        "notify: {targets: {s: {url: 'json://127.0.0.1:9/{{ hook }}', on: [failed]}}}\n"
    )
    done = machine.reconcile("--diagnose", spec, "--json", "--set", "hook=H-00K17", "--set",
                       "api_token=T0k", "--set", "plain=P1a1n-value")  # fmt: skip
    document = json.loads(done.stdout)
    mends = [one["mend"] for one in document["wrong"] + document["doubts"] if one["mend"]]
    assert any("--set 'hook=***' --set 'api_token=***' --set plain=P1a1n-value" in m for m in mends)
    assert "H-00K17" not in done.stdout and "T0k" not in done.stdout


def test_a_url_that_others_may_read_is_noted(machine: Machine) -> None:
    folder = machine.base
    url = folder / "url"
    url.write_text("json://127.0.0.1:9/\n")
    url.chmod(0o644)
    text = (
        f"notify: {{targets: {{f: {{url_file: {url}, on: [failed]}},\n"
        "  e: {url: '{{ env.HOOK_URL }}', on: [failed]},\n"
        "  w: {url: 'json://127.0.0.1:9/', on: [failed]}}}\n"
    )
    spec = machine.spec(text)
    spec.chmod(0o644)
    machine.environ["HOOK_URL"] = "json://127.0.0.1:9/x"

    def said(*words: str) -> str:
        return " ".join(machine.reconcile(*words).stdout.split())

    # Whether anybody can reach it at all is up to the folders above.
    closed = [one for one in (folder, *folder.parents) if not mode(one) & 0o001]
    if closed and os.geteuid() != 0:
        pytest.skip(f"{closed[0]} is closed to others")
    opened = [(one, mode(one)) for one in closed]
    try:
        for one, before in opened:
            one.chmod(before | 0o001)
        for words in (["--check"], ["--once", "-v"], ["--diagnose"]):
            found = said(words[0], str(spec), *words[1:])
            assert "notify:f" in found and f"stands in {url}, which is readable by" in found, words
            assert f"stands in {spec}" in found, words
            assert "notify:e" not in found, words
    finally:
        for one, before in opened:
            one.chmod(before)
    url.chmod(0o600)
    spec.chmod(0o600)
    assert "readable" not in said("--check", str(spec))


PIECES = """
notify: {targets: {s: {url: "json://127.0.0.1:9/", on: [failed, gave_up, changed]}}}
sessions: {s: {session: pieces}}
processes:
  cut: {command: [/bin/sh, -c, "printf %s \\"$A\\"; printf %02040d 0; exit 5"],
        env: {A: "{{ env.CUT_TOKEN }}"}, restart: {attempts: 1}}
  wrap: {session: s, command: [/bin/sh, -c, "printf %060d 0; echo $B; exit 6"],
         env: {B: "{{ env.WRAP_TOKEN }}"}, restart: {attempts: 1}}
  line: {command: [/bin/sh, -c, "echo \\"$C\\" | sed -n 2p; exit 5"],
         env: {C: "{{ env.LINES_TOKEN }}"}, restart: {attempts: 1}}
  form: {command: [/bin/sh, -c, "echo curl -u me:F0rm-Pw1 failed; exit 5"],
         restart: {attempts: 1}}
  runs: {command: [/bin/sh, -c, "sleep 60; echo curl -u me:F0rm-Pw1 failed"]}
checks:
  arg: {command: [/bin/sh, -c, "printf %0270d 0; echo $1; exit 1", sh, "{{ env.ARG_TOKEN }}"],
        every: 1s}
  env: {command: [/bin/sh, -c, "printf %0270d 0; echo $D; exit 1"],
        env: {D: "{{ env.ENV_TOKEN }}"}, every: 1s}
  big: {command: [/bin/sh, -c, "printf '%01048540d\\\\n' 0; echo $E; exit 1"],
        env: {E: "{{ env.BIG_TOKEN }}"}, every: 1s}
"""


@pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is missing")
def test_no_piece_of_a_secret_is_left_anywhere(machine: Machine) -> None:
    def value(name: str) -> str:
        return f"Zq{name}-0123456789abcdefghijklmnopqrstuvwxyz-{name}qZ"

    for name in ("CUT", "ARG", "ENV", "BIG"):
        machine.environ[f"{name}_TOKEN"] = value(name)
    machine.environ["WRAP_TOKEN"] = f"ZqWRAP-{'q' * 200}-WRAPqZ"
    machine.environ["LINES_TOKEN"] = f"-----BEGIN\n{value('LINES')}\n-----END"
    spec = machine.spec(PIECES)
    said = ""
    for mode in ("once", "status", "history", "diagnose", "plan"):
        for option in ("-v", "--json"):
            done = machine.reconcile(f"--{mode}", spec, option)
            assert done.returncode in (0, 1), done.stderr
            said += done.stdout + done.stderr
    shutil.rmtree(machine.state / "demo" / "log")  # What a process writes there is its own.
    kept = texts(machine.state)
    assert "me:***" in said and said.count("***") > 8
    for piece in ("Zq", "qZ", "qqqqqq", "0123456789abc", "F0rm"):
        assert piece not in said, said[said.index(piece) - 60 :][:200]
        assert piece.encode() not in kept, piece


def test_a_variable_that_is_a_secret_by_its_place_is_not_remembered(machine: Machine) -> None:
    spec = machine.spec(
        "vars: {hook: x, word: x}\n"
        "notify: {targets: {s: {url: 'json://127.0.0.1:9/{{ hook }}', on: [failed]}}}\n"
        "directories: {d: {path: '~/{{ word }}'}}\n"
    )
    done = machine.reconcile("--once", spec, "--set", f"hook={SECRET}", "--set", "word=plain")
    assert done.returncode == 0, done.stderr
    assert "word=plain" in machine.reconcile("--status", spec).stdout
    assert SECRET.encode() not in everything(machine.state)


TOLD_ONCE = """
vars: {a: plain, b: plain}
blocks: {b: {path: MADE, content: "user=me\\npw={{ a }}\\nurl=x://me:{{ b }}@h/\\n"}}
cron: {c: {schedule: "@daily", command: "true {{ a }}"}}
processes:
  p: {command: [/bin/sh, -c, "echo ERROR $B; exit 5"], env: {B: "{{ b }}"}, log: LOG,
      restart: {attempts: 1}}
checks: {l: {log: {path: LOG, match: ERROR, within: 1h}, every: 1s}}
"""


def test_a_pass_that_is_not_told_a_secret_does_not_show_it(machine: Machine) -> None:
    """As a loop has it from its --set-file, and nobody gives it to --plan."""
    made, log = machine.base / "made.conf", machine.base / "log"
    spec = machine.spec(TOLD_ONCE.replace("MADE", str(made)).replace("LOG", str(log)))
    told = []
    for name, value in (("a", f"{SECRET} and more"), ("b", "s1" + SECRET)):
        file = machine.base / name
        file.write_text(value)
        file.chmod(0o600)
        told += ["--set-file", f"{name}={file}"]
    machine.reconcile("--once", spec, *told)
    assert f"user=me\npw={SECRET} and more\nurl=x://me:s1{SECRET}@h/\n" in made.read_text()
    assert SECRET.encode() in (machine.crontab_text() or b"")
    assert f"ERROR s1{SECRET}\n" in log.read_text()
    assert mode(machine.state / "demo" / "secrets") == 0o600
    said = ""
    for words in (["--plan", "-v"], ["--plan", "--json"], ["--status", "-v"], ["--diagnose"],
                  ["--diagnose", "--json"], ["--history"], ["--once", "-v"]):  # fmt: skip
        done = machine.reconcile(words[0], spec, *words[1:])
        assert done.returncode in (0, 1), done.stderr
        said += done.stdout + done.stderr
    assert "line 2 of its content is 'pw=***', should be 'pw=plain'" in said
    assert "true ***" in said and "ERROR ***" in said
    assert SECRET not in said, said[said.index(SECRET) - 200 :][:300]
    assert SECRET.encode() not in everything(machine.state)
    assert "user=me\npw=plain\n" in made.read_text(), "the pass has done what it said"
