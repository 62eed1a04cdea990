"""Units on a real systemd: what is declared comes true, stays so, and nobody else's is touched."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine.conftest import booted
from machine.disposable import SYSTEMD, DisposableHost
from machine.possible import PATH
from support import Machine, allowed

pytestmark = pytest.mark.root

CORPUS = Path(__file__).parent.parent / "golden" / "people" / "units"
ETC = "/etc/systemd/system"
SLEEPER = """
[Unit]
Description={description}
[Service]
ExecStart=/bin/sleep 1001
[Install]
WantedBy=multi-user.target
"""


class World:
    """A host with systemd, and reconcile in it."""

    def __init__(self, host: DisposableHost) -> None:
        self.host = host

    def spec(self, units: dict[str, Any], name: str = "demo", owner: str = "root") -> str:
        path = f"/srv/{owner}/{name}.yaml"
        document = {"version": 1, "name": name, "units": units}
        self.host.write(path, json.dumps(document), owner=owner)
        return path

    def reconcile(self, *argv: str, user: str = "root", **options: Any) -> Any:
        command = [self.host.bin / "reconcile", *argv, "--json"]
        done = self.host.run(*command, user=user, check=False, **options)
        assert done.stdout, done.stderr
        document = json.loads(done.stdout)
        document["status"] = done.returncode
        document["said"] = done.stderr
        return document

    def plan(self, spec: str, **options: Any) -> Any:
        return self.reconcile("--plan", spec, **options)

    def once(self, spec: str, status: int = 0, **options: Any) -> Any:
        report = self.reconcile("--once", spec, **options)
        errors = [step.get("error") for step in report.get("steps", ())]
        assert report["status"] == status, (errors, report.get("unknown"), report)
        return report

    def converged(self, spec: str, **options: Any) -> Any:
        plan = self.plan(spec, **options)
        assert (plan["steps"], plan["unknown"]) == ([], []), plan
        return plan

    def show(self, unit: str, name: str) -> str:
        return self.host.run(
            "systemctl", "show", "--value", f"--property={name}", unit
        ).stdout.strip()

    def sh(self, script: str, **options: Any) -> str:
        return self.host.run("sh", "-ec", script, **options).stdout.strip()


@pytest.fixture(scope="module")
def booted_host() -> Iterator[DisposableHost]:
    for host in booted(DisposableHost, SYSTEMD):
        # Where the interpreter is root's own, others must get to it too.
        host.run("chmod", "o+x", "/root")
        yield host


@pytest.fixture
def world(free: None, booted_host: DisposableHost) -> World:
    return World(booted_host)


def sleeper(description: str = "x", **fields: Any) -> dict[str, Any]:
    text = SLEEPER.format(description=description)
    made = {"content": text, "enabled": True, "active": True, **fields}
    return {name: value for name, value in made.items() if value is not None}


def test_a_unit_is_made_enabled_and_started_and_then_left_alone(world: World) -> None:
    spec = world.spec({"a.service": sleeper()})
    report = world.once(spec)
    assert [step["verb"] for step in report["steps"]] == ["create"]
    assert world.show("a.service", "ActiveState") == "active"
    assert world.show("a.service", "UnitFileState") == "enabled"
    assert world.sh(f"stat -c '%a %U' {ETC}/a.service") == "644 root"
    pid = world.show("a.service", "MainPID")
    world.converged(spec)
    assert world.once(spec)["steps"] == []
    assert world.show("a.service", "MainPID") == pid


DRIFTS = {
    "edited": "echo '# by hand' >> $F",
    "cut": ": > $F.new; head -n 4 $F > $F.new; cat $F.new > $F; rm $F.new",
    "mode": "chmod 600 $F",
    "owner": "chown 65534 $F",
    "disabled": "systemctl disable $U",
    "unlinked": "rm /etc/systemd/system/multi-user.target.wants/$U",
    "stopped": "systemctl stop $U",
    "masked": "rm $F; systemctl mask $U",
    "deleted": "rm $F",
    "forgotten": "systemctl stop $U; rm $F; systemctl daemon-reload",
    "killed": "systemctl kill -s KILL $U",
    "unread": "touch $F",
}


@pytest.fixture
def counted(world: World) -> dict[str, str]:
    """An environment in which every call of systemctl is written to /srv/calls."""
    script = '#!/bin/sh\necho "$@" >>/srv/calls\nexec /usr/bin/systemctl "$@"\n'
    world.host.write("/srv/counted/systemctl", script, mode=0o755)
    world.sh(": >/srv/calls")
    return {"PATH": "/srv/counted:/usr/bin:/bin:/usr/sbin:/sbin"}


def test_every_drift_is_seen_and_mended_with_one_reload(
    world: World, counted: dict[str, str]
) -> None:
    spec = world.spec({f"d-{name}.service": sleeper() for name in DRIFTS})
    world.once(spec, environ=counted)
    calls = world.host.read("/srv/calls").splitlines()
    assert sum("daemon-reload" in call for call in calls) == 1
    world.converged(spec)
    for name, script in DRIFTS.items():
        world.sh(f"U=d-{name}.service; F={ETC}/$U; {script}")
    world.host.until(lambda: world.show("d-killed.service", "ActiveState") == "failed")
    plan = world.plan(spec)
    assert [s["id"] for s in plan["steps"]] == [f"unit:d-{name}.service" for name in DRIFTS]
    why = {s["id"][7:-8]: s["why"] for s in plan["steps"]}
    assert why["edited"].startswith("content differs (1 line)")
    assert why["mode"] == "mode is 0600, should be 0644"
    assert why["owner"].startswith("owner is nobody, should be root")
    assert why["disabled"] == why["unlinked"] == "not enabled"
    assert why["stopped"] == why["killed"] == "not running"
    assert "masked" in why["masked"]
    assert why["forgotten"] == "missing"
    assert "not restarted" in why["unread"]
    world.sh(": >/srv/calls")
    world.once(spec, environ=counted)
    calls = world.host.read("/srv/calls").splitlines()
    assert sum("daemon-reload" in call for call in calls) == 1
    world.converged(spec)
    for name in DRIFTS:
        unit = f"d-{name}.service"
        assert world.show(unit, "ActiveState") == "active"
        assert world.show(unit, "UnitFileState") == "enabled"
        assert world.sh(f"stat -c '%a %U' {ETC}/{unit}") == "644 root"
    world.once(world.spec({f"d-{name}.service": {"state": "absent"} for name in DRIFTS}))


def test_what_runs_is_started_anew_when_its_file_changes(world: World) -> None:
    units = {
        "r.service": sleeper("one"),
        "none.service": sleeper("one", on_change="none"),
        "still.service": sleeper("one", active=None),
    }
    world.once(world.spec(units))
    before = {unit: world.show(unit, "MainPID") for unit in units}
    for fields in units.values():
        fields["content"] = fields["content"].replace("=one", "=two")
        fields["content"] = fields["content"].replace(".target", ".target rescue.target")
    spec = world.spec(units)
    report = world.once(spec)
    assert len(report["steps"]) == 3
    assert world.show("r.service", "MainPID") not in (before["r.service"], "0")
    assert world.show("r.service", "Description") == "two"
    assert world.host.exists(f"{ETC}/rescue.target.wants/r.service")
    assert world.show("none.service", "MainPID") == before["none.service"]
    assert world.show("still.service", "ActiveState") == "inactive"
    world.converged(spec)


def test_a_pass_that_was_killed_before_the_restart_is_made_good(world: World) -> None:
    spec = world.spec({"level.service": sleeper()})
    world.once(spec)
    pid = world.show("level.service", "MainPID")
    # What it leaves: the file is new, the manager has read it, the process is an old one.
    world.sh(f"touch {ETC}/level.service; systemctl daemon-reload")
    (step,) = world.plan(spec)["steps"]
    assert (step["verb"], step["actions"]) == ("restart", ["restart level.service"])
    world.once(spec)
    assert world.show("level.service", "MainPID") != pid
    world.converged(spec)
    world.sh(f"touch -d '+1 day' {ETC}/level.service; systemctl daemon-reload")
    plan = world.converged(spec)
    assert "lies in the future" in plan["notes"][0]["reason"]


def test_a_reload_is_a_reload(world: World) -> None:
    text = SLEEPER.format(description="x").replace("[Install]", "ExecReload=/bin/true\n[Install]")
    fields = sleeper(content=text, on_change="reload")
    world.once(world.spec({"re.service": fields}))
    pid = world.show("re.service", "MainPID")
    fields["content"] += "# more\n"
    spec = world.spec({"re.service": fields})
    (step,) = world.once(spec)["steps"]
    assert "reload re.service" in step["actions"]
    world.converged(spec)
    assert world.show("re.service", "MainPID") == pid


def test_one_that_is_absent_leaves_nothing(world: World) -> None:
    world.once(world.spec({"gone.service": sleeper()}))
    spec = world.spec({"gone.service": {"state": "absent"}})
    (step,) = world.once(spec)["steps"]
    assert (step["verb"], step["actions"]) == (
        "delete",
        [
            "stop gone.service",
            "disable gone.service",
            f"remove {ETC}/gone.service",
            "reload systemd",
        ],
    )
    world.converged(spec)
    assert world.show("gone.service", "LoadState") == "not-found"
    assert world.sh("find /etc/systemd -name '*gone*'") == ""


def test_a_persons_units_are_left_byte_for_byte(world: World) -> None:
    corpus = sorted(CORPUS.glob("*.*"))
    corpus = [path for path in corpus if path.suffix != ".md"]
    assert len(corpus) > 8
    for path in corpus:
        world.host.write(f"{ETC}/{path.name}", path.read_bytes())
    before = world.sh(f"cd {ETC}; sha256sum * 2>/dev/null || :; ls -lR --time-style=full-iso")
    spec = world.spec({path.name: {"content": "[Unit]\nDescription=ours\n"} for path in corpus})
    report = world.once(spec, status=1)
    assert report["steps"] == []
    assert [one["id"] for one in report["unknown"]] == [f"unit:{path.name}" for path in corpus]
    others = [
        one["reason"] for one in report["unknown"] if "# reconcile: demo" not in one["reason"]
    ]
    assert others == []
    spec = world.spec({path.name: {"state": "absent"} for path in corpus})
    report = world.once(spec)
    assert report["steps"] == []
    assert len(report["notes"]) == len(corpus)
    # Another spec of ours is somebody else, too.
    world.once(world.spec({"other.service": sleeper()}, name="other"))
    report = world.once(world.spec({"other.service": sleeper()}), status=1)
    assert "was not made by this spec" in report["unknown"][0]["reason"]
    world.once(world.spec({"other.service": {"state": "absent"}}, name="other"))
    after = world.sh(f"cd {ETC}; sha256sum * 2>/dev/null || :; ls -lR --time-style=full-iso")
    strip = [line for line in before.splitlines() if not line.startswith(("total", "drwx"))]
    assert [line for line in after.splitlines() if not line.startswith(("total", "drwx"))] == strip
    # Handing it over is one line.
    name = "crlf.service"
    world.sh(f"sed -i '1i # reconcile: demo' {ETC}/{name}")
    world.once(world.spec({name: sleeper(enabled=None, active=None)}))
    assert "ExecStart=/bin/sleep 1001" in world.host.read(f"{ETC}/{name}")
    world.sh(f"cd {ETC} && rm {' '.join(path.name for path in corpus)}; systemctl daemon-reload")


def test_what_is_installed_is_not_hidden_but_may_be_managed(world: World) -> None:
    vendor = "/usr/lib/systemd/system/vendor.service"
    world.host.write(vendor, SLEEPER.format(description="vendor"))
    world.sh("systemctl daemon-reload")
    report = world.once(world.spec({"vendor.service": sleeper()}), status=1)
    assert f"{vendor} is a unit of that name already" in report["unknown"][0]["reason"]
    assert not world.host.exists(f"{ETC}/vendor.service")
    only = {"vendor.service": {"enabled": True, "active": True}}
    spec = world.spec(only)
    world.once(spec)
    assert world.show("vendor.service", "ActiveState") == "active"
    world.converged(spec)
    world.sh("systemctl stop vendor; systemctl mask --runtime vendor")
    report = world.once(spec)
    assert "unmask vendor.service --runtime" in report["steps"][0]["actions"]
    world.converged(spec)
    limits = {
        "unit": "vendor.service",
        "drop_in": "10-more",
        "content": "[Unit]\nDescription=more\n",
    }
    pid = world.show("vendor.service", "MainPID")
    spec = world.spec({**only, "more": limits})
    world.once(spec)
    world.converged(spec)
    assert world.show("vendor.service", "Description") == "more"
    assert world.show("vendor.service", "MainPID") != pid
    world.host.write(f"{ETC}/vendor.service.d/20-mine.conf", "[Unit]\nDescription=mine\n")
    gone = {"more": {**limits, "state": "absent"}}
    spec = world.spec(gone)
    world.once(spec)
    world.converged(spec)
    assert world.show("vendor.service", "Description") == "mine"
    assert world.sh(f"ls {ETC}/vendor.service.d") == "20-mine.conf"
    world.sh(f"rm {ETC}/vendor.service.d/20-mine.conf")
    world.once(world.spec({"more": limits}))
    world.once(world.spec(gone))
    assert not world.host.exists(f"{ETC}/vendor.service.d")
    world.sh(f"systemctl disable --now vendor; rm {vendor}; systemctl daemon-reload")


def test_one_that_fails_says_why(world: World) -> None:
    text = """
[Service]
ExecStart=/bin/sh -c 'echo no tea left; exit 3'
Restart={restart}
RestartSec=30
"""
    units = {
        "once.service": {"content": text.format(restart="no"), "active": True},
        "again.service": {"content": text.format(restart="always"), "active": True},
        "good.service": sleeper(),
    }
    spec = world.spec(units)
    report = world.once(spec, status=1)
    results = {step["id"]: step for step in report["steps"]}
    for name in ("once", "again"):
        step = results[f"unit:{name}.service"]
        assert step["result"] == "failed"
        assert "exit status 3" in step["error"]
        assert "no tea left" in step["error"]
    assert results["unit:good.service"]["result"] == "done"
    plan = world.plan(spec)
    assert [step["actions"] for step in plan["steps"]] == [
        ["start once.service"],
        ["start again.service"],
    ]
    assert "no tea left" in plan["notes"][0]["reason"]
    world.once(world.spec({name: {"state": "absent"} for name in units}))


def test_a_file_that_systemd_refuses_is_not_installed(world: World) -> None:
    wrong = {
        "key.service": "[Service]\nExecStart=/bin/true\nNoEquals\n",
        "value.service": "[Service]\nExecStart=/bin/true\nRestart=perhaps\n",
        "program.service": "[Service]\nExecStart=/nowhere/program\n",
        "section.service": "[Servic]\nExecStart=/bin/true\n",
        "when.timer": "[Timer]\nOnCalendar=whenever\n",
        "t@.service": "[Service]\nExecStart=/bin/true\nNice=seven\n",
    }
    units: dict[str, Any] = {name: {"content": text} for name, text in wrong.items()}
    units["in"] = {"unit": "cron.service", "drop_in": "x", "content": "[Service]\nNice=seven\n"}
    report = world.once(world.spec(units), status=1)
    assert len(report["steps"]) == len(units)
    for step in report["steps"]:
        assert step["result"] == "failed"
        assert "not installed" in step["error"]
    said = {step["id"]: step["error"] for step in report["steps"]}
    assert "key.service:6: Missing '='" in said["unit:key.service"]
    assert "/nowhere/program" in said["unit:program.service"]
    assert "x.conf:" in said["unit:in"]
    (note,) = report["notes"]
    assert "/nowhere/program cannot be found" in note["reason"]
    assert world.sh(f"cd {ETC}; ls -d {' '.join(wrong)} cron.service.d 2>/dev/null || :") == ""


def test_values_reach_a_program_as_they_are(world: World) -> None:
    words = ["a b", "$HOME", "${HOME}", "%n 50%", 'it\'s "q"', "back\\slash\\", ";", "", "#x", "é"]
    content = (
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        "Environment=PLAIN={{ words | join(' ') }}\n"
        "Environment=\"QUOTED={{ words | join(' ') }}\" {{ pairs }}\n"
        "ExecStart=/usr/bin/python3 /srv/back.py {{ words }} \"{{ words | join(' ') }}\" "
        "'{{ words[4] }}' x{{ words[4] }}\n"
    )
    pairs = [f"P{at}={word}" for at, word in enumerate(words)]
    back = (
        "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], open('/srv/back', 'w'))"
    )
    world.host.write("/srv/back.py", back)
    unit = {"content": content, "active": True, "vars": {"words": words, "pairs": pairs}}
    spec = world.spec({"back.service": unit})
    world.once(spec)
    argv, environ = json.loads(world.host.read("/srv/back"))
    assert argv == [*words, " ".join(words), words[4], f"x{words[4]}"]
    assert environ["PLAIN"] == environ["QUOTED"] == " ".join(words)
    assert [environ[f"P{at}"] for at in range(len(words))] == words
    world.converged(spec)
    # The same program and words as a list of their own.
    unit["content"] = content.replace("/usr/bin/python3 /srv/back.py {{ words }}", "{{ all }}")
    unit["vars"]["all"] = ["/usr/bin/python3", "/srv/back.py", *words]
    world.once(world.spec({"back.service": unit}))
    assert json.loads(world.host.read("/srv/back"))[0] == argv


def test_timers_paths_and_sockets_do_their_work(world: World) -> None:
    def task(word: str) -> dict[str, Any]:
        command = ["/bin/sh", "-c", f"echo {word} >> /srv/done-{word}"]
        return {"template": "task.service", "vars": {"command": command}}

    on = {"enabled": True, "active": True}
    units = {
        "tick.timer": {"template": "every.timer", "vars": {"every": "1h"}, **on},
        "tick.service": task("tick"),
        "see.path": {"template": "watch.path", "vars": {"path_exists": "/srv/see"}, **on},
        "see.service": {**task("see"), "vars": {"command": ["/bin/rm", "/srv/see"]}},
        "hear.socket": {"template": "listen.socket", "vars": {"listen": "/run/hear"}, **on},
        "hear.service": sleeper(enabled=None, active=None),
    }
    spec = world.spec(units)
    world.once(spec)
    world.converged(spec)
    world.host.until(lambda: world.host.exists("/srv/done-tick"))
    world.sh("touch /srv/see")
    world.host.until(lambda: not world.host.exists("/srv/see"))
    world.sh("python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"/run/hear\")'")
    world.host.until(lambda: world.show("hear.service", "ActiveState") == "active")
    world.converged(spec)
    # A socket cannot be restarted while its service runs, unless both are.
    units["hear.socket"]["vars"]["description"] = "another"
    spec = world.spec(units)
    world.once(spec)
    world.converged(spec)
    assert world.show("hear.socket", "ActiveState") == "active"
    world.once(world.spec({name: {"state": "absent"} for name in units}))


def test_templates_and_instances(world: World) -> None:
    text = SLEEPER.format(description="{{ '%i' | raw }}")
    # In the order of their names the instance comes first.
    units = {
        "w@1.service": {"enabled": True, "active": True},
        "w@.service": {"content": text},
        "w@.timer": {"content": "[Timer]\nOnBootSec=1d\n[Install]\nWantedBy=timers.target\n"},
        "w@2.timer": {"enabled": True, "active": True},
    }
    spec = world.spec(units)
    report = world.once(spec)
    assert {step["result"] for step in report["steps"]} == {"done"} and len(report["steps"]) == 4
    world.converged(spec)
    assert world.show("w@1.service", "Description") == "1"
    for name in ("w@1.service", "w@2.timer"):
        assert world.show(name, "ActiveState") == "active"
        assert world.show(name, "UnitFileState") == "enabled"
    # The instance can be disabled only while its template is there.
    gone = world.spec({n: {**each, "state": "absent"} for n, each in reversed(units.items())})
    report = world.once(gone)
    assert {step["result"] for step in report["steps"]} == {"done"} and len(report["steps"]) == 4
    assert world.sh(f"find {ETC} /run/systemd -name 'w@*'") == ""
    assert world.show("w@1.service", "ActiveState") == "inactive"
    world.converged(gone)


def test_what_is_enabled_is_what_systemd_calls_so(world: World) -> None:
    install = "[Service]\nExecStart=/bin/sleep 1002\n[Install]\n"
    made = {
        "named.service": f"{install}WantedBy=multi-user.target\n",
        "also.service": f"{install}Also=by-also.socket\n",
        "by-also.socket": "[Socket]\nListenStream=/run/by\n[Install]\nWantedBy=sockets.target\n",
        "until-boot.service": f"{install}WantedBy=multi-user.target\n",
    }
    for name, text in made.items():
        world.host.write(f"{ETC}/{name}", text)
    world.sh(
        f"ln -s named.service {ETC}/another-name.service; systemctl daemon-reload;"
        "systemctl enable --runtime until-boot.service"
    )

    def state(unit: str) -> str:
        return world.sh(f"systemctl is-enabled {unit} || :")

    assert (state("named.service"), state("also.service")) == ("indirect", "indirect")
    units = {name: {"enabled": True} for name in made if name != "by-also.socket"}
    spec = world.spec({**units, "ours.service": {"content": made["also.service"], "enabled": True}})
    world.once(spec)
    world.converged(spec)
    assert state("named.service") == state("until-boot.service") == "enabled"
    assert state("by-also.socket") == "enabled"  # All that enabling the other one is about.
    spec = world.spec({name: {"enabled": False} for name in units})
    world.once(spec)
    world.converged(spec)
    assert state("until-boot.service") == state("by-also.socket") == "disabled"
    world.sh(f"find {ETC} /run/systemd/system -name 'named.service' -type l | grep . && exit 1; :")


def test_a_link_to_a_unit_of_somebody_else_is_never_removed(world: World) -> None:
    install = "[Service]\nExecStart=/bin/sleep 1003\n[Install]\nWantedBy=multi-user.target\n"
    world.host.write("/srv/theirs/linked.service", install)
    world.sh("systemctl link /srv/theirs/linked.service")
    spec = world.spec({"linked.service": {"enabled": True, "active": True}})
    world.once(spec)
    world.converged(spec)
    assert world.show("linked.service", "UnitFileState") == "enabled"
    spec = world.spec({"linked.service": {"enabled": False}})
    (unknown,) = world.plan(spec)["unknown"]
    assert "is a symlink to /srv/theirs/linked.service" in unknown["reason"]
    world.once(spec, status=1)
    world.once(world.spec({"linked.service": {"enabled": True, "state": "absent"}}))
    assert world.sh(f"readlink {ETC}/linked.service") == "/srv/theirs/linked.service"


def test_a_mask_of_the_running_system_is_taken_away(world: World) -> None:
    world.sh("systemctl mask --runtime hidden.service; systemctl mask both-masks.service;"
             "systemctl mask --runtime both-masks.service")  # fmt: skip
    spec = world.spec({"hidden.service": sleeper(), "both-masks.service": sleeper()})
    plan = world.plan(spec)
    assert plan["unknown"] == []
    assert all("masked" in step["why"] for step in plan["steps"])
    assert "unmask hidden.service --runtime" in plan["steps"][0]["actions"]
    world.once(spec)
    world.converged(spec)
    assert world.show("hidden.service", "ActiveState") == "active"
    assert world.show("both-masks.service", "ActiveState") == "active"
    # One that comes with the system is not ours to lift.
    world.sh("ln -s /dev/null /usr/lib/systemd/system/theirs.service; systemctl daemon-reload")
    (unknown,) = world.plan(world.spec({"theirs.service": {"active": True}}))["unknown"]
    assert "/lib/systemd/system/theirs.service masks it" in unknown["reason"]


def test_a_key_of_a_newer_systemd_is_a_note(world: World) -> None:
    text = "[Service]\nExecStart=/bin/sleep 1004\nKeyOfTomorrow=yes\n"
    base = "[Service]\nExecStart=/bin/sleep 1004\n"
    spec = world.spec(
        {
            "new-key.service": {"content": text, "active": True},
            "base.service": {"content": base},
            "dropped": {
                "unit": "base.service", "drop_in": "x", "content": "[Service]\nOfTomorrow=1\n",
            },
        }
    )  # fmt: skip
    report = world.once(spec)
    notes = {step["id"]: step.get("note") for step in report["steps"]}
    assert "new-key.service:6: Unknown key" in notes["unit:new-key.service"]
    assert "KeyOfTomorrow" in notes["unit:new-key.service"]
    assert "OfTomorrow" in notes["unit:dropped"] and notes["unit:base.service"] is None
    assert world.show("new-key.service", "ActiveState") == "active"
    world.converged(spec)


def test_a_oneshot_is_not_started_again_and_again(world: World) -> None:
    world.host.write(f"{ETC}/shot.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    world.sh("systemctl daemon-reload")
    plan = world.converged(world.spec({"shot.service": {"active": True}}))
    assert "RemainAfterExit" in plan["notes"][0]["reason"]
    report = world.once(world.spec({"nobody.service": {"active": True}}), status=1)
    assert "there is no unit nobody.service" in report["unknown"][0]["reason"]


def test_a_hung_systemctl_is_waited_for_with_an_end(world: World) -> None:
    world.host.write("/srv/hung/systemctl", "#!/bin/sh\nexec sleep 1002\n", mode=0o755)
    path = world.spec({"hung.service": sleeper()})
    more = json.loads(world.host.read(path)) | {"directories": {"d": {"path": "/srv/made"}}}
    world.host.write(path, json.dumps(more))
    environ = {"PATH": "/srv/hung:/usr/bin:/bin"}
    report = world.once(path, status=1, environ=environ)
    assert "did not end within" in report["unknown"][0]["reason"]
    assert [(s["id"], s["result"]) for s in report["steps"]] == [("directory:d", "done")]
    assert not world.host.exists(f"{ETC}/hung.service")
    assert not world.host.running("sleep 1002")


def test_one_that_restarts_itself_does_not_wait_for_its_own_end(
    world: World, counted: dict[str, str]
) -> None:
    text = (
        f"[Service]\nType=exec\nKillMode=process\nEnvironment=PATH={counted['PATH']}\n"
        "ExecStart=/bin/sh -c 'while [ ! -e /srv/go ]; do "
        f"sleep 0.05; done; rm /srv/go; {world.host.bin}/reconcile --once /srv/root/self.yaml "
        ">/srv/said 2>&1; echo ended; exec sleep 1003'\n# {{ word }}\n"
    )
    units = {"self.service": {"content": text, "active": True, "vars": {"word": "one"}}}
    world.spec(units, name="self")
    world.sh("rm -f /srv/go")
    spec = world.spec(units, name="self")
    world.once(spec)
    pid = world.show("self.service", "MainPID")
    units["self.service"]["vars"]["word"] = "two"
    world.spec(units, name="self")
    world.sh("touch /srv/go")
    world.host.until(lambda: world.show("self.service", "MainPID") not in (pid, "0"))
    world.host.until(lambda: " done, 0 failed" in world.host.read("/srv/said"))
    world.converged(spec)
    assert " restart --no-block -- self.service" in world.host.read("/srv/calls")
    world.once(world.spec({"self.service": {"state": "absent"}}, name="self"))


def test_who_may_not_is_told_what_root_can_run(world: World) -> None:
    world.sh("id ann >/dev/null 2>&1 || useradd -m ann")
    content = SLEEPER.format(description="it's {{ word }}").replace("1001", "{{ '1 0' }}")
    unit = sleeper(content=content, vars={"word": "50% $x `y` \\z"}, active=None)
    units = {"hand.service": unit}
    spec = world.spec(units, owner="ann")
    (step,) = world.plan(spec, user="ann")["steps"]
    assert step["denied"] == "only root may change units of the system"
    report = world.once(spec, status=1, user="ann")
    assert report["steps"][0]["result"] == "failed"
    for command in step["by_hand"]:
        assert "\n" not in command
        world.sh(command)
    world.converged(spec, user="ann")
    assert world.show("hand.service", "Description") == "it's 50% $x `y` \\z"
    unit["vars"]["word"] = "other"
    spec = world.spec(units, owner="ann")
    for command in world.plan(spec, user="ann")["steps"][0]["by_hand"]:
        world.sh(command)
    world.converged(spec, user="ann")
    spec = world.spec({"hand.service": {"state": "absent"}}, owner="ann")
    for command in world.plan(spec, user="ann")["steps"][0]["by_hand"]:
        world.sh(command)
    world.converged(spec, user="ann")
    assert not world.host.exists(f"{ETC}/hand.service")


def test_a_users_own_units(world: World) -> None:
    world.sh("id bob >/dev/null 2>&1 || useradd -m bob")
    text = SLEEPER.format(description="x").replace("multi-user", "default")
    unit = sleeper(content=text, scope="user")
    spec = world.spec({"mine.service": unit}, owner="bob")
    before = world.plan(spec, user="bob")
    assert "loginctl enable-linger bob" in before["unknown"][0]["reason"]
    world.sh("loginctl enable-linger bob")
    world.host.until(lambda: world.host.user_manager("bob") == "running")
    world.once(spec, user="bob")
    world.converged(spec, user="bob")
    file = "/home/bob/.config/systemd/user/mine.service"
    assert world.sh(f"stat -c '%a %U' {file}") == "644 bob"
    shown = world.host.run("systemctl", "--user", "is-active", "mine.service", user="bob")
    assert shown.stdout.strip() == "active"
    # From cron, which says nothing of the runtime folder, and from sudo -E, which says root's.
    world.sh("mkdir -p -m 700 /run/user/0")
    for told in ("LANG=C", "XDG_RUNTIME_DIR=/run/user/0"):
        bare = ["env", "-i", "HOME=/home/bob", "PATH=/usr/bin:/bin", told]
        plan = [world.host.bin / "reconcile", "--plan", spec, "--detailed-exitcode"]
        done = world.host.run(*bare, *plan, user="bob", check=False)
        assert done.returncode == 0, done.stdout
    world.sh("rm -f /var/lib/systemd/linger/bob")
    assert "enable-linger" in world.converged(spec, user="bob")["notes"][0]["reason"]
    spec = world.spec({"mine.service": {"state": "absent", "scope": "user"}}, owner="bob")
    world.once(spec, user="bob")
    assert not world.host.exists(file)


def test_after_a_reboot_it_runs(world: World) -> None:
    units = {"boot.service": sleeper(), "off.service": sleeper(enabled=False, active=False)}
    spec = world.spec(units)
    world.once(spec)
    world.host.reboot()
    assert world.show("boot.service", "ActiveState") == "active"
    assert world.show("off.service", "ActiveState") == "inactive"
    world.converged(spec)


def test_a_secret_of_the_environment_is_shown_to_nobody(world: World) -> None:
    unit = {
        "content": "[Service]\nExecStart=/bin/sh -c 'echo $$TOKEN > /run/told; exec sleep 1001'\n"
        "Environment=A=b TOKEN={{ env.THE_TOKEN }}\n[Install]\nWantedBy=multi-user.target\n",
        "active": True,
    }
    spec = world.spec({"token.service": unit})
    for value in ('tea %n "x" $HOME', "another"):
        world.once(spec, environ={"THE_TOKEN": value})
        world.converged(spec, environ={"THE_TOKEN": value})
        assert value not in world.host.run("systemctl", "show", "token.service").stdout
        assert value not in world.host.run("systemctl", "cat", "token.service").stdout
        # It was started anew with the new one.
        world.host.until(
            lambda new=f"{value}\n": (
                world.host.exists("/run/told") and world.host.read("/run/told") == new
            )
        )
        assert world.host.run("stat", "-c%a", "/etc/reconcile/env/token.service").stdout == "600\n"
    spec = world.spec({"token.service": {**unit, "state": "absent"}})
    world.once(spec, environ={"THE_TOKEN": "another"})
    assert not world.host.exists("/etc/reconcile/env/token.service")


def test_a_variable_that_is_named_as_secret_is_shown_to_nobody(world: World) -> None:
    value = "plain-1d7f"
    content = SLEEPER.format(description="x").replace(
        "[Install]", "Environment=TOKEN={{ token }}\n[Install]"
    )
    unit = {"content": content, "vars": {"token": value}, "secret": ["token"], "active": True}
    spec = world.spec({"unseen.service": unit}, "unseen")
    said = [world.plan(spec), world.once(spec), world.converged(spec)]
    said += [world.reconcile(mode, spec) for mode in ("--status", "--history", "--diagnose")]
    assert value not in json.dumps(said)
    assert value not in world.sh("systemctl show unseen.service; systemctl cat unseen.service")
    file = "/etc/reconcile/env/unseen.service"
    assert f'TOKEN="{value}"' in world.host.read(file)
    assert world.sh(f"stat -c%a {file}") == "600"
    assert world.sh(f"grep -rl {value} /var/lib/reconcile || true") == ""
    world.once(world.spec({"unseen.service": {**unit, "state": "absent"}}, "unseen"))
    assert not world.host.exists(file)


def test_a_name_that_systemd_escape_has_made(world: World) -> None:
    unit = "data-my\\x2ddisk.service"
    spec = world.spec({unit: {"content": SLEEPER.format(description="x"), "active": True}}, "esc")
    world.once(spec)
    world.converged(spec)
    assert world.show(unit, "ActiveState") == "active"


def test_a_missing_alias_is_drift(world: World) -> None:
    content = SLEEPER.format(description="x") + "Alias=other-name.service\n"
    spec = world.spec({"alias.service": {"content": content, "enabled": True}}, "alias")
    world.once(spec)
    world.converged(spec)
    world.sh(f"rm {ETC}/other-name.service; systemctl daemon-reload")
    world.once(spec)
    assert world.sh(f"readlink {ETC}/other-name.service").endswith("/alias.service")
    world.converged(spec)


def test_a_unit_of_which_systemd_tells_something_odd_hides_no_other(world: World) -> None:
    script = (
        "#!/bin/sh\n"
        '[ "$4" = show ] || exec /usr/bin/systemctl "$@"\n'
        "/usr/bin/systemctl \"$@\" | sed 's/^Names=strange.service/Names=something-else/'\n"
    )
    world.host.write("/srv/odd/systemctl", script, mode=0o755)
    spec = world.spec({"plain.service": sleeper(), "strange.service": sleeper()})
    report = world.once(spec, 1, environ={"PATH": "/srv/odd:/usr/bin:/bin:/usr/sbin:/sbin"})
    assert [(one["id"], one["result"]) for one in report["steps"]] == [
        ("unit:plain.service", "done")
    ]
    (unknown,) = report["unknown"]
    assert unknown["id"] == "unit:strange.service" and "instead of" in unknown["reason"]
    assert world.show("plain.service", "ActiveState") == "active"


def many(number: int, state: str = "present", **odd: str) -> dict[str, Any]:
    """So many units, of which some have an ``ExecStart`` of their own, by their number."""
    return {
        f"many{at}.service": {
            "content": SLEEPER.format(description=at).replace("/bin/sleep 1001", odd[str(at)])
            if str(at) in odd
            else SLEEPER.format(description=at),
            "enabled": True,
            "active": True,
            "state": state,
        }
        for at in range(number)
    }


def test_each_program_is_called_as_often_for_many_units(world: World) -> None:
    for name in ("systemctl", "systemd-analyze"):
        text = f'#!/bin/sh\necho {name} >>/run/calls\nexec /usr/bin/{name} "$@"\n'
        world.host.write(f"/srv/counted/{name}", text, mode=0o755)
    found = {}
    for number in (2, 20):
        for state in ("present", "absent"):
            world.sh("rm -f /run/calls")
            spec = world.spec(many(number, state), "many")
            world.once(spec, environ={"PATH": f"/srv/counted:{PATH}"})
            found[number, state] = Counter(world.host.read("/run/calls").split())
            running = world.sh("systemctl list-units --plain --no-legend 'many*' | wc -l")
            assert int(running) == (number if state == "present" else 0)
            world.converged(spec)
    assert found[2, "present"] == found[20, "present"]
    assert found[2, "absent"] == found[20, "absent"]
    assert found[20, "present"]["systemd-analyze"] == 1
    assert found[20, "present"]["systemctl"] <= 10  # One for the journal.


def test_a_look_at_many_sockets_takes_as_many_calls(world: World) -> None:
    text = '#!/bin/sh\necho systemctl >>/run/calls\nexec /usr/bin/systemctl "$@"\n'
    world.host.write("/srv/counted/systemctl", text, mode=0o755)
    found = []
    for number in (2, 20):
        units: dict[str, Any] = {}
        for at in range(number):
            units[f"ear{at}.socket"] = {"content": f"[Socket]\nListenStream=/run/ear{at}\n"}
            units[f"ear{at}.service"] = {"content": "[Service]\nExecStart=/bin/true\n"}
        spec = world.spec(units, "ears")
        world.once(spec)
        world.sh("rm -f /run/calls")
        world.reconcile("--plan", spec, environ={"PATH": f"/srv/counted:{PATH}"})
        found.append(len(world.host.read("/run/calls").split()))
    assert found == [1, 1]
    world.once(
        world.spec({name: {**unit, "state": "absent"} for name, unit in units.items()}, "ears")
    )


@pytest.mark.parametrize(
    ("odd", "says"),
    [("/bin/false", "exit status 1"), ("/no/such/program", "not executable"), ("", "verify")],
)
def test_a_unit_that_is_refused_or_fails_keeps_no_other_out(
    world: World, odd: str, says: str
) -> None:
    units = many(6, **{"3": odd})
    if odd == "/bin/false":
        for unit in units.values():
            unit["content"] = unit["content"].replace("[Service]", "[Service]\nType=exec")
        units["many3.service"]["content"] = units["many3.service"]["content"].replace(
            "Type=exec", "Type=oneshot\nRemainAfterExit=yes"
        )
    spec = world.spec(units, "many")
    report = world.once(spec, status=1)
    results = {step["id"]: step["result"] for step in report["steps"]}
    expected = {f"unit:{name}": "done" for name in units} | {"unit:many3.service": "failed"}
    assert results == expected, report
    (failed,) = (step for step in report["steps"] if step["result"] == "failed")
    assert says in failed["error"]
    for at in range(6):
        assert world.show(f"many{at}.service", "ActiveState") != "active" or at != 3
    world.once(world.spec(many(6, "absent"), "many"))


SAYS = """#!/bin/sh
echo said at once
# Each line another one: the journal may take two of them within one second.
number=0
while sleep 1; do number=$((number + 1)); echo "tick $number"; done
"""


def test_what_a_unit_says_is_shown_and_followed(world: World) -> None:
    """By ``--logs``, from the journal."""
    script = "/srv/says"
    world.host.write(script, SAYS)
    world.host.run("chmod", "755", script)
    content = SLEEPER.format(description="x").replace("/bin/sleep 1001", script)
    spec = world.spec({"u": {"unit": "says.service", "content": content, "active": True}})
    world.once(spec)

    def logs(*options: str) -> Any:
        argv = (world.host.bin / "reconcile", "--logs", "unit:u", spec, *options)
        return world.host.run(*argv, check=False)

    world.host.until(lambda: "said at once" in logs("--since", "1h").stdout)
    row = json.loads(logs("--json").stdout)["logs"][0]
    assert (row["id"], row["from"]) == ("unit:u", "system says.service")
    argv = [
        "timeout",
        "-s",
        "INT",
        f"{allowed(5.0):.0f}",
        str(world.host.bin / "reconcile"),
        "--logs",
        "unit:u",
        spec,
    ]
    lines = world.host.run(*argv, "-f", check=False).stdout.splitlines()
    ticks = [line for line in lines if re.search(r": tick \d+$", line)]
    assert len(ticks) >= 2
    assert len(lines) == len(set(lines)), "none is given twice"


def test_of_a_unit_that_fails_its_own_words_are_told(world: World) -> None:
    """Not what systemd logs of each start and end."""
    content = SLEEPER.format(description="x").replace(
        "/bin/sleep 1001", "/bin/sh -c 'sleep 0.3; echo no port; exit 3'"
    )
    unit = {"unit": "noport.service", "content": content, "active": True}
    spec = world.spec({"u": unit}, "noport")
    world.reconcile("--once", spec)
    world.host.until(lambda: world.show("noport.service", "ActiveState") == "failed")

    def why() -> str:
        done = world.host.run(world.host.bin / "reconcile", "--diagnose", spec, check=False)
        return " ".join(done.stdout.partition("\nwrong, most")[2].split())

    said = "unit:u: not running; result exit-code, exit status 3; it said last: no port reconcile"
    world.host.until(lambda: f"{said} --once" in why().replace(f"{world.host.bin}/", ""))
    world.once(world.spec({"u": {**unit, "state": "absent"}}, "noport"))


def test_a_secret_that_is_no_variable_is_an_error(machine: Machine) -> None:
    fields = "content: '{{ token }}', vars: {token: x}, secret: [tokn]"
    done = machine.reconcile("--check", machine.spec(f"units: {{a.service: {{{fields}}}}}\n"))
    assert done.returncode == 65
    assert "'tokn' is no variable of vars; did you mean 'token'?" in done.stderr


def test_what_was_done_about_units_is_undone(world: World) -> None:
    def seen() -> str:
        return world.sh(
            f"cd {ETC}; for u in a b; do cat $u.service 2>/dev/null || echo none; "
            "systemctl show --value -p ActiveState,UnitFileState $u.service; done; ls -R"
        )

    # What other tests have left.
    world.once(world.spec({f"{u}.service": {**sleeper(), "state": "absent"} for u in "ab"}))
    before = seen()
    spec = world.spec({"a.service": sleeper()})
    world.once(spec)
    made = seen()
    done = world.reconcile("--undo", spec)
    assert done["status"] == 0, [(one["result"], one["error"]) for one in done["steps"]] + done[
        "unknown"
    ]
    assert seen() == before
    assert world.once(spec)["steps"] == []
    again = world.reconcile("--resume", "*", spec)
    assert again["status"] == 0
    world.once(spec)
    assert seen() == made
    # Another text, and no longer enabled: with what waits for its first start.
    world.spec({"a.service": sleeper("y", enabled=False), "b.service": sleeper("z")})
    world.once(spec)
    assert "Description=y" in seen()
    done = world.reconcile("--undo", spec)
    assert (done["status"], done["unknown"]) == (0, [])
    assert seen() == made
    # One that did not come up is taken back as well, and an edited one is left.
    world.reconcile("--resume", "*", spec)
    broken = sleeper("broken").copy()
    broken["content"] = broken["content"].replace("/bin/sleep 1001", "/bin/false")
    world.spec({"a.service": sleeper(), "b.service": broken})
    world.once(spec, status=1)
    world.sh(f"echo '# by hand' >>{ETC}/b.service")
    left = world.reconcile("--undo", spec)
    assert (left["status"], [one["id"] for one in left["unknown"]]) == (1, ["unit:b.service"])
    world.sh(f"sed -i '$d' {ETC}/b.service")
    number = max(one["pass"] for one in world.reconcile("--history", spec)["history"]
                 if one["id"] == "unit:b.service" and one["verb"] == "create")  # fmt: skip
    assert world.reconcile("--undo", str(number), spec)["status"] == 0
    # systemd remembers that it has failed.
    assert seen().replace("failed", "inactive") == made
