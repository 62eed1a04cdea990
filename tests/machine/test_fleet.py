"""``--hosts``, with hosts that are this machine with another home each; see test_fleet_hosts.py."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from machine.screen import Screen
from support import CHECKOUT, Machine, until

from reconciler import __version__
from reconciler.base.errors import HostError
from reconciler.cli.main import main
from reconciler.fleet.run import HostResult, _complaint, _heard, _inventory, _working_folder
from reconciler.fleet.view import fleet_blocks, fleet_document, trouble_rows
from reconciler.host.environment import on_note
from reconciler.output.text import lines_of

pytest.importorskip("ansible_runner", reason="needs ansible-core and ansible-runner")
yaml = pytest.importorskip("yaml")
COLLECTION = CHECKOUT / "reconciler/fleet/collection/ansible_collections/reconcile/host"
MODULE = COLLECTION / "plugins/modules/reconcile.py"
ACTION = COLLECTION / "plugins/action/reconcile.py"
OLD = '#!/bin/sh\n[ "$1" != --version ] || { echo reconcile 0.0.1; exit; }\n'
OLD += "echo \"reconcile: unknown option '--as'\" >&2; exit 64\n"


needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh")


class Fleet:
    """Hosts that differ by their home, and by the program that they find."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.spec = machine.base / "web.yaml"
        (machine.base / "conf.d").mkdir()
        (machine.base / "conf.d/a.yaml").write_text(
            "files: {b: {path: ~/made/b, content: '{{ word }}'}}\n"
        )
        self.spec.write_text(
            "version: 1\nname: web\ninclude: [conf.d/*.yaml]\nvars: {word: one}\n"
            "directories: {d: {path: ~/made}}\n"
        )
        self.inventory = machine.base / "hosts.ini"
        self.inventory.write_text(
            "down ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n"
        )

    def add(self, name: str, program: str | None = None) -> Path:
        """A host; returns its home."""
        home = self.machine.base / name
        (home / "bin").mkdir(parents=True)
        real = f'#!/bin/sh\nexec {self.machine.bin}/reconcile "$@"\n'
        for path, text in (
            ("bin/reconcile", program or real),
            (
                "python",
                f'#!/bin/sh\nHOME={home} PATH={home}/bin:$PATH exec {sys.executable} "$@"\n',
            ),
        ):
            (home / path).write_text(text)
            (home / path).chmod(0o755)
        with self.inventory.open("a") as file:
            file.write(
                f"{name} ansible_connection=local ansible_python_interpreter={home}/python\n"
            )
        return home

    def run(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        place = [] if "--from" in argv else ["--as", "~/etc/web.yaml"]
        state = ["--state-dir", "$HOME/state"]
        return self.machine.run(
            self.machine.bin / "reconcile", *argv, "--hosts", self.inventory, *place, *state
        )


@pytest.fixture
def fleet(machine: Machine) -> Fleet:
    return Fleet(machine)


@needs_ssh
def test_one_table_for_all_hosts_what_is_wrong_first(fleet: Fleet) -> None:
    homes = [fleet.add("web2"), fleet.add("web10")]
    fleet.add("old", OLD)
    done = fleet.run("--plan", fleet.spec)
    assert (done.returncode, done.stderr) == (1, ""), done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{fleet.spec} on 4 hosts"
    assert [line.split()[:2] for line in lines[2:6]] == [
        ["old", "failed"], ["down", "unreachable"], ["web2", "differs"], ["web10", "differs"],
    ]  # fmt: skip
    assert f"runs version 0.0.1, and this is {__version__}; unknown option '--as'" in lines[2]
    assert lines[3].endswith("connect to host 127.0.0.1 port 1: Connection refused")
    # Their homes differ, and so does what would be done.
    assert [line for line in lines if line.startswith("would change on")] == [
        "would change on web2:", "would change on web10:",
    ]  # fmt: skip
    assert lines[-1] == "4 hosts: 1 failed, 1 unreachable, 2 differ."
    assert not any((home / "made").exists() or (home / "etc").exists() for home in homes)

    # Secrets are no argument of a process, and the values of --set no templates of Ansible's.
    word = fleet.machine.base / "word"
    word.write_text("{{ secret-wxyQ }}")
    done = fleet.run(
        "--once", fleet.spec, "--limit", "web*", "--set-file", f"word={word}", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wxyQ" not in done.stdout + done.stderr
    for home in homes:
        assert (home / "made/b").read_text() == "{{ secret-wxyQ }}"
        assert (home / "etc/conf.d/a.yaml").exists()
        assert not list((home / ".ansible/tmp").iterdir())
    document = json.loads(done.stdout)
    schema = json.loads(fleet.machine.reconcile("--schema", "fleet").stdout)
    Draft202012Validator(schema).validate(document)
    assert document["summary"] == {
        "hosts": 2, "failed": 0, "unreachable": 0, "differs": 0, "changed": 2, "ok": 0,
    }  # fmt: skip
    # Those of whoever else runs these tests go, too.
    until(lambda: not list(Path("/tmp").glob(f"reconcile-*/{fleet.spec.name}")))


def test_a_list_of_hosts_ends_in_a_comma(fleet: Fleet) -> None:
    environ = {"ANSIBLE_TRANSPORT": "local"}
    names = {"localhost,": ["localhost"], "web1,web2": ["web1", "web2"]}
    for given, hosts in names.items():
        argv = ("--status", fleet.spec, "--hosts", given, "--state-dir", "$HOME/state", "--json")
        done = fleet.machine.run(fleet.machine.bin / "reconcile", *argv, environ=environ)
        rows = json.loads(done.stdout)["hosts"]
        assert [row["host"] for row in rows] == hosts, rows
        assert all(row["state"] == "failed" for row in rows), rows


def test_one_whose_variables_are_wrong_fails_alone(fleet: Fleet) -> None:
    """It is the first one, over which the names of all are known."""
    fleet.inventory.write_text('a ansible_connection=local ansible_host="{{ nothing }}"\n')
    fleet.add("bare", "#!/bin/sh\nexit 3\n")
    argv = ("--status", fleet.spec, "--hosts", fleet.inventory, "--as", "~/etc/web.yaml", "--json")
    done = fleet.machine.run(fleet.machine.bin / "reconcile", *argv)
    rows = {row["host"]: row for row in json.loads(done.stdout)["hosts"]}
    assert list(rows) == ["a", "bare"] and {row["state"] for row in rows.values()} == {"failed"}
    assert "nothing" in rows["a"]["reason"], rows
    assert rows["bare"]["reason"] == "reconcile ended with status 3", rows


@needs_ssh
def test_all_hosts_fail(fleet: Fleet) -> None:
    fleet.add("bare", "#!/bin/sh\nexit 3\n")
    done = fleet.run("--status", fleet.spec, "-q")
    assert (done.returncode, done.stderr) == (1, "")
    rows = [line.split(None, 2) for line in done.stdout.splitlines()]
    assert rows[1] == ["bare", "failed", "reconcile ended with status 3"]
    assert rows[2][:2] == ["down", "unreachable"] and len(rows) == 3


@pytest.mark.parametrize(
    ("forks", "done", "last"),
    [
        ("32", 2, "differs "),
        pytest.param("1", 0, "unreachable           was not asked yet when it was interrupted",
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_one_that_hangs_is_named_and_ends_with_ctrl_c(
    fleet: Fleet, forks: str, done: int, last: str
) -> None:
    hang = fleet.machine.base / "hang"
    hang.write_text(f"#!/bin/sh\nexec sleep {fleet.machine.mark}\n")
    hang.chmod(0o755)
    fleet.inventory.write_text(f"bad ansible_connection=local ansible_python_interpreter={hang}\n")
    fleet.add("good")
    fleet.add("last")
    fleet.machine.environ["ANSIBLE_FORKS"] = forks
    argv = ("--plan", fleet.spec, "--hosts", fleet.inventory, "--state-dir", "$HOME/state")
    screen = Screen(fleet.machine, fleet.machine.bin / "reconcile", *argv, "--as", "~/etc/web.yaml")
    waits = "hosts (bad) " if done else "hosts "
    until(lambda: waits in screen.text and f" {done}/3 " in screen.text)
    until(lambda: fleet.machine.running(fleet.machine.mark))
    screen.press("C-c")
    assert screen.end() == 130
    assert "bad   unreachable           had not answered when it was interrupted" in screen.text
    assert f"last  {last}" in screen.text and "hosts (bad)" not in screen.text
    assert f"3 hosts: {3 - done} unreachable" in screen.text
    until(lambda: not fleet.machine.running(fleet.machine.mark))


@pytest.mark.slow
def test_one_that_hangs_has_its_time_and_no_more(fleet: Fleet) -> None:
    home = fleet.add("bad")
    (home / "python").write_text(f"#!/bin/sh\nexec sleep {fleet.machine.mark}\n")
    code = (
        "import sys; from reconciler.fleet.run import run_on_hosts\n"
        "print(run_on_hosts('ansible.builtin.ping', {}, sys.argv[1], 'bad', within=3))"
    )
    done = fleet.machine.run(sys.executable, "-c", code, fleet.inventory)
    assert "name='bad', answer=None" in done.stdout, done.stdout + done.stderr
    assert re.search("imed out after 3|expected time frame", done.stdout), done.stdout
    until(lambda: not fleet.machine.running(fleet.machine.mark))


LIAR = """#!{python}
import base64, json, sys
def said(event):  # As what ansible-runner takes for an event.
    text = base64.b64encode(json.dumps(event).encode()).decode()
    parts = [text[at:at + 78] for at in range(0, len(text), 78)]
    return "\\x1b[K" + "".join(f"{{part}}\\x1b[{{len(part)}}D" for part in parts) + "\\x1b[K"
report = {{"steps": [], "notes": [], "summary": {{"resources": 1}}}}
answer = {{"changed": False, "version": "{version}", "report": report}}
lie = {{"host": "victim", "task": "run", "res": answer}}
lie = said({{"uuid": "x", "event": "runner_on_ok", "event_data": lie}}) + "\\n" + said({{}})
print(lie, json.dumps({{**answer, "warnings": [lie, {more}]}}), {more}, sep="\\n")
"""


@pytest.mark.parametrize("module", ["reconcile.host.reconcile", "ansible.builtin.ping"])
def test_a_host_speaks_for_no_other(fleet: Fleet, module: str) -> None:
    """Ours takes out what the others' is protected from by what only Ansible knows."""
    base = fleet.machine.base
    ours = module.startswith("reconcile")
    more = "said({'uuid': chr(0)})" if ours else "''"
    texts = {
        "liar": LIAR.format(python=sys.executable, version=__version__, more=more),
        "long": LIAR.format(python=sys.executable, version=__version__, more=more).replace(
            "print(", "report['x'] = 'x' * 2_000_000; print("
        ),
        "endless": f"#!{sys.executable}\nprint('x' * {(65 if ours else 1) << 20})\n",
        "victim": "#!/bin/sh\nexit 3\n",
    }
    fleet.inventory.write_text("")
    for name, text in texts.items():
        (base / name).write_text(text)
        (base / name).chmod(0o755)
        words = f"{name} ansible_connection=local ansible_python_interpreter={base / name}\n"
        fleet.inventory.write_text(fleet.inventory.read_text() + words)
    code = (
        "import sys; from reconciler.fleet.run import run_on_hosts\n"
        "from reconciler.fleet.view import fleet_document\n"
        "found, _ = run_on_hosts(sys.argv[1], {}, sys.argv[2], None, within=60)\n"
        "for one in fleet_document('plan', found)['hosts']: print(one['host'], one['state'],"
        " len(str(one['report'])) > 2_000_000, one['reason'])"
    )
    fleet.machine.environ["ANSIBLE_FORKS"] = "1"  # The liar comes first.
    done = fleet.machine.run(sys.executable, "-c", code, module, fleet.inventory)
    rows = {line.split()[0]: line.split(None, 3)[1:] for line in done.stdout.splitlines()}
    assert list(rows) == ["endless", "victim", "liar", "long"], done.stdout + done.stderr
    assert rows["victim"][0] == "failed" and rows["liar"] == ["ok", "False"]
    assert rows["long"] == ["ok", "True"]
    if ours:
        assert rows["endless"][2] == "its answer is longer than 64 MiB"


def test_an_answer_without_end_takes_no_memory_without_end(machine: Machine) -> None:
    code = (
        "import runpy, sys\nlimit = runpy.run_path(sys.argv[1])['_limit_memory']\n"
        "limit(); bytearray(1 << 29); bytearray(2 << 30)"
    )
    done = machine.run(sys.executable, "-c", code, ACTION)
    assert done.stderr.endswith("\nMemoryError\n") and done.stderr.count("bytearray") < 2


def test_a_folder_of_others_is_not_where_ansible_is_told_what_to_do(
    free: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    monkeypatch.chdir(tmp_path)
    assert _working_folder("/private") == str(tmp_path)
    tmp_path.chmod(0o777)
    notes: list[str] = []
    on_note(notes.append)
    assert _working_folder("/private") == "/private"
    assert any("ansible.cfg of the current folder is ignored" in note for note in notes)
    tmp_path.chmod(0o755)
    (tmp_path / "ansible.cfg").chmod(0o666)
    assert _working_folder("/private") == "/private"


@pytest.mark.parametrize(
    "path", ["hosts", "group_vars/all.yml", "host_vars/a/b.yml", "more/sub/hosts", "linked/x.yml"]
)
def test_what_others_may_write_to_names_no_host_and_no_variable(
    free: None, tmp_path: Path, path: str
) -> None:
    inventory = tmp_path / "top"
    for name in ("hosts", "group_vars/all.yml", "host_vars/a/b.yml", "more/sub/hosts"):
        (inventory / name).parent.mkdir(parents=True, exist_ok=True)
        (inventory / name).write_text("")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/x.yml").write_text("")
    (inventory / "group_vars/web").symlink_to(tmp_path / "linked")
    (inventory / "group_vars/again").symlink_to(inventory / "group_vars")
    given = str(inventory / ("more" if path.startswith("more") else "hosts"))
    assert _inventory(given) == given
    open_file = (tmp_path if path.startswith("linked") else inventory) / path
    open_file.chmod(0o666)
    with pytest.raises(HostError, match=f"the inventory: .*{path}"):
        _inventory(given)


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("--plan", "{spec}", "--hosts", "{base}/none"), 1, "there is no inventory {base}/none"),
        (("--plan", "--hosts", "x,"), 64, "--hosts needs a SPEC"),
        (("--plan", "{spec}", "--hosts", "x,", "--sign", "k"), 64, "--sign is for one host"),
        (("--plan", "{base}/conf.d/a.yaml", "--hosts", "x,"), 65, "'version' is missing"),
        (("--check", "{spec}", "--hosts", "x,"), 64, "--hosts is for --plan, --once and --status"),
        (("--plan", "{spec}", "--hosts", "{base}/open"), 1, "the inventory: "),
        (("--plan", "{spec}", "--limit", "x"), 64, "--limit is about the hosts of --hosts"),
    ],
)
def test_what_asks_no_host(
    fleet: Fleet, capsys: pytest.CaptureFixture[str], argv: list[str], status: int, words: str
) -> None:
    base = fleet.machine.base
    (base / "open").write_text("x\n")
    (base / "open").chmod(0o666)
    names = {"spec": fleet.spec, "base": base}
    line = [word.format(**names) for word in argv]
    assert main([*line, "--state-dir", str(fleet.machine.state)]) == status
    said = capsys.readouterr()
    assert words.format(**names) in said.err and "Traceback" not in said.err
    assert said.out == ""


def test_without_ansible_it_says_what_to_install(fleet: Fleet) -> None:
    code = (
        "import sys; sys.modules['ansible_runner'] = None\n"
        "from reconciler.cli.main import entry; entry()"
    )
    argv = ["--plan", fleet.spec, "--hosts", "x,", "--state-dir", fleet.machine.state]
    done = fleet.machine.run(sys.executable, "-c", code, *argv)
    assert done.returncode == 1
    assert done.stderr.startswith("reconcile: --hosts needs ansible-core and ansible-runner; ")
    assert done.stderr.rstrip().endswith("-m pip install ansible-core ansible-runner")
    assert len(done.stderr.splitlines()) == 1


# -- what hosts say


def test_what_is_equal_is_shown_once_and_what_is_wrong_is_not_hidden() -> None:
    def step(content: str) -> dict[str, Any]:
        change = {"field": "content", "have": "a\n", "want": f"{content}\n"}
        return {"id": "file:x", "verb": "update", "changes": [change], "actions": [],
                "why": "content differs", "needs": []}  # fmt: skip

    def report(*steps: dict[str, Any]) -> dict[str, Any]:
        return {"steps": [*steps], "notes": [], "summary": {"resources": 2}}

    def said(name: str, *steps: dict[str, Any], why: str = "") -> HostResult:
        answer = {"changed": bool(steps), "version": __version__, "report": report(*steps)}
        return HostResult(name, answer, why)

    results = [said(f"web{number}", step("b")) for number in range(11)]
    results += [said("db", step("c"), why="process:x: exit status 1\x1b[31m"), said("same")]
    results += [HostResult("gone", None, "timed out", False)]
    document = fleet_document("plan", results)
    text = "\n".join(text for text, _ in lines_of(fleet_blocks(document, "web.yaml", False)))
    assert text.count("would change on") == 2
    assert "web0, web1, web2, web3, web4, web5, web6, web7 and 3 more (11 hosts):" in text
    assert "\x1b" not in text and text.count("+b") == 1 and text.count("+c") == 1
    assert text.endswith("14 hosts: 1 failed, 1 unreachable, 11 differ, 1 ok.")
    names = [one["host"] for one in document["hosts"]]
    assert (names[:2], names[-1]) == (["db", "gone"], "same")
    assert names[2:-1] == [f"web{number}" for number in range(11)]
    assert [row[0] for row in next(iter(trouble_rows(document))).rows] == [  # type: ignore[union-attr]
        ("db", "failed", "process:x: exit status 1\\x1b[31m"),
        ("gone", "unreachable", "timed out"),
    ]
    assert list(trouble_rows(fleet_document("plan", [said("same")]))) == []


@pytest.mark.parametrize(
    "report",
    ["x", {"steps": 1}, {"steps": [{}]}, {"steps": [1]}, {"resources": [{"id": 1}]},
     {"steps": [{"id": 3, "verb": [], "changes": [1], "actions": [{}], "why": None}], "notes": []},
     None, {}, {"steps": [], "x": float("nan")}],
)  # fmt: skip
def test_an_answer_that_is_none_is_the_trouble_of_that_host(report: Any) -> None:
    answer = {"changed": True, "version": __version__, "report": report}
    good = HostResult("good", {"report": {"steps": []}})
    document = fleet_document("plan", [HostResult("odd", answer), good])
    assert [(one["host"], one["state"]) for one in document["hosts"]] == [
        ("odd", "failed"), ("good", "ok"),
    ]  # fmt: skip
    assert document["hosts"][0]["reason"] == "its answer is not one of this program"
    assert list(lines_of(fleet_blocks(document, "x", True)))


def test_no_text_of_a_host_gets_to_the_terminal_as_it_is() -> None:
    """Whoever rules it could clear the screen, or draw a table of his own."""
    change = {"field": "mode", "have": "a", "want": "b"}
    step = {"id": "file:x", "verb": "update", "changes": [change], "actions": ["do"],
            "why": "differs", "denied": "", "by_hand": ["chmod"]}  # fmt: skip
    whole = {"version": "1", "changed": True, "report": {
        "steps": [step], "notes": [{"id": "a", "reason": "b"}], "summary": {"resources": 3},
        "resources": [{"id": "a", "state": "failed"}]}}  # fmt: skip
    text = json.dumps(whole)
    words = ["update", "mode", "chmod", "do", "differs", "file:x", "failed", "1"]
    words += ["a", "b", ""]
    seen = 0
    for word in words:
        hostile = json.loads(text.replace(json.dumps(word), json.dumps("\x1b[2J\nweb9  ok\x9b")))
        document = fleet_document("once", [HostResult("web1", hostile)])
        shown = [line for line, _ in lines_of(fleet_blocks(document, "x", True))]
        assert not re.search("[\0-\x1f\x7f-\x9f]", "".join(shown)), word
        assert not any(line.startswith("web9") for line in shown), word
        seen += "x1b[2J" in "".join(shown)
    assert seen >= 8


def test_what_ansible_says_becomes_the_reason() -> None:
    def heard(event: str, **res: Any) -> HostResult:
        found = _heard(event, {"host": "a", "res": res})
        assert found is not None
        return found

    msg = (
        "Task failed: Failed to connect to the host via ssh: ssh: connect to host a port 22: "
        "Connection timed out"
    )
    one = heard("runner_on_unreachable", msg=msg)
    assert (one.reached, one.why) == (False, "connect to host a port 22: Connection timed out")
    one = heard("runner_on_failed", msg="Module failed", module_stderr="x\nKeyError: 'y'\n", rc=1)
    assert (one.answer, one.why) == (None, "Module failed: KeyError: 'y'")
    one = heard("runner_on_failed", msg="a has moved\nreconcile: nothing is done\n", version="1")
    assert one.why == "a has moved; nothing is done"
    assert heard("runner_on_failed").why == "no reason was given"
    assert _heard("runner_on_ok", {"host": "a", "res": [1]}) == HostResult("a", {})
    assert _heard("playbook_on_stats", {}) is None
    assert "no host that matches x in" in _complaint("skipping: no hosts matched", "inv", "x")
    assert _complaint("", "inv", None).endswith("it has said nothing")


# -- the module


Module = Callable[..., dict[str, Any]]


@pytest.fixture
def module(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Module:
    """Runs it in this process, with these options; gives its answer."""
    testing = pytest.importorskip("ansible.module_utils.testing", reason="needs ansible-core 2.19")
    for name in ("HOME", "PATH"):
        monkeypatch.setenv(name, machine.environ[name])
    used: list[Path] = []

    def run(**options: Any) -> dict[str, Any]:
        used.append(machine.base / f"task{len(used)}")
        used[-1].mkdir(mode=0o700)
        given = {"executable": f"{machine.bin}/reconcile", "state_dir": str(machine.state),
                 "_ansible_tmpdir": str(used[-1])}  # fmt: skip
        with testing.patch_module_args({**given, **options}), pytest.raises(SystemExit):
            runpy.run_path(str(MODULE), run_name="__main__")
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    return run


def files(**texts: str) -> dict[str, str]:
    return {f"{name}.yaml": b64encode(text.encode()).decode() for name, text in texts.items()}


def test_the_module_plans_in_check_mode_and_is_done_once(machine: Machine, module: Module) -> None:
    place, made = machine.base / "etc/web.yaml", machine.base / "made"
    text = "version: 1\nname: web\nvars: {w: a}\n"
    text += f"files: {{f: {{path: {made}, content: '{{{{ w }}}}'}}}}\n"
    given = {"spec": str(place), "files": files(web=text), "vars": {"w": "b"}}
    found = module(**given, _ansible_check_mode=True, _ansible_diff=True)
    assert found["changed"] and not made.exists() and not place.exists()
    (difference,) = found["diff"]
    assert difference["before"] == "state: absent\n" and "content:\nb\n" in difference["after"]
    found = module(**given)
    assert found["changed"] and made.read_text() == "b" and found["version"] == __version__
    assert "diff" not in found and found["rc"] == 0
    # What is set is remembered, and null is the file's own value again.
    found = module(spec=str(place), vars={"w": None})
    assert found["changed"] and made.read_text() == "a"
    assert not module(spec=str(place))["changed"]
    # Nothing tells a secret, nor what the spec holds: neither the answer nor the log of the host.
    found = module(**{**given, "vars": {}}, secret_vars={"w": "pass-xyQw-word"})
    assert found["changed"] and made.read_text() == "pass-xyQw-word"
    assert "xyQw" not in json.dumps(found) and given["files"]["web.yaml"] not in json.dumps(found)


def test_the_module_does_a_saved_plan_or_nothing(machine: Machine, module: Module) -> None:
    made, saved = machine.base / "made", str(machine.base / "plan")
    spec = machine.spec(f"files: {{f: {{path: {made}, content: b}}}}\n")
    assert module(spec=str(spec), mode="plan", out=saved)["changed"] and not made.exists()
    assert module(**{"from": saved}, _ansible_check_mode=True)["changed"] and not made.exists()
    made.write_text("drift")
    found = module(**{"from": saved})
    assert found["failed"] and found["rc"] == 1 and not found["changed"]
    assert "file:f is not as it was" in found["msg"] and made.read_text() == "drift"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"files": {"x.yaml": ""}, "spec": "/a/b.yaml"}, "'files' lacks b.yaml"),
        ({"files": {"../x": "", "b": ""}, "spec": "/a/b"}, "'files' has ../x, which is not below"),
        ({"files": {"b": "?"}, "spec": "/a/b"}, "which is not in Base64"),
        ({"vars": {"x": [1]}, "spec": "x"}, "'x' is no text, number or truth value"),
        ({"from": "x", "mode": "plan"}, "'from' is for mode 'once', not for 'plan'"),
        ({"executable": "/nowhere"}, "the role reconcile.host.reconcile installs it"),
        ({"spec": "/nowhere.yaml"}, "/nowhere.yaml: error: the spec does not exist"),
        ({"spec": "of-a-name.yaml"}, "etc/reconcile/of-a-name.yaml: error: the spec does not"),
    ],
)
def test_the_module_says_why_it_failed(
    machine: Machine, module: Module, options: dict[str, Any], words: str
) -> None:
    found = module(**options)
    assert found["failed"] and words in found["msg"].replace(".config", "etc"), found
    assert "Traceback" not in json.dumps(found)


# -- the collection


def test_the_collection_has_the_version_of_the_program(machine: Machine) -> None:
    assert f"version: {__version__}\n" in (COLLECTION / "galaxy.yml").read_text()
    done = machine.run(sys.executable, "-m", "reconciler.fleet")
    assert Path(done.stdout.rstrip(), "galaxy.yml").is_file()


def test_its_documentation_names_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []

    def seen(**spec: Any) -> None:
        found.append(spec["argument_spec"])
        raise SystemExit

    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule", seen)
    with pytest.raises(SystemExit):
        runpy.run_path(str(MODULE), run_name="__main__")
    said = runpy.run_path(str(MODULE))
    documented = yaml.safe_load(said["DOCUMENTATION"])["options"]
    assert found[0].keys() == documented.keys()
    for name, option in found[0].items():
        assert option["type"] == documented[name]["type"], name
        assert option.get("default") == documented[name].get("default"), name
    assert all("reconcile.host.reconcile" in one for one in yaml.safe_load(said["EXAMPLES"]))
