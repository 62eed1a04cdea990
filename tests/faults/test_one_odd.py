"""One odd resource of each kind beside a good one: its trouble is its own, in every mode."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from support import Machine, until

from reconciler import kinds

UNIT = "[Timer]\nOnBootSec=1h\n"
ODDITIES = ("file", "fifo", "loop", "dangling", "socket", "file/below", "loop/below")
"""What may stand where something is declared, below a folder of each kind's own."""
HOOK = """
import os, reconciler.cli.main as cli
run = cli._run
def later(*given, **more):
    from reconciler import kinds
    done = []
    for name in kinds.names():
        owner = type(kinds.get(name))
        if not hasattr(owner, os.environ["BROKEN"]):
            continue
        done.append(owner)
        def broken(self, *given, meant=getattr(owner, os.environ["BROKEN"]), **more):
            if "peculiar" in repr(given):
                raise RuntimeError("broken")
            return meant(self, *given, **more)
        setattr(owner, os.environ["BROKEN"], broken)
    assert done, "no kind has it"
    return run(*given, **more)
cli._run = later
"""


def good(base: Path) -> dict[str, dict[str, Any]]:
    """One good resource of each kind, and what they are about."""
    top = base / "good"
    (top / "old").mkdir(parents=True)
    (top / "file").touch(0o600)
    (top / "old/file").touch()
    os.utime(top / "old/file", (1, 1))
    return {
        "directories": {"good": {"path": f"{top}/made"}},
        "permissions": {"good": {"path": f"{top}/file", "mode": "0640"}},
        "blocks": {"good": {"path": f"{top}/block", "content": "ours"}},
        "files": {"good": {"path": f"{top}/whole", "content": "ours"}},
        "links": {"good": {"path": f"{top}/link", "target": "whole"}},
        "retention": {"good": {"path": f"{top}/old", "older_than": "1d", "action": "delete"}},
        "sessions": {"good": {"windows": [{"name": "w", "panes": [{"command": "sleep 90980"}]}]}},
        "processes": {"good": {"command": ["sleep", "90981"]}},
        "cron": {"good": {"schedule": "@daily", "command": ["/bin/true"]}},
        "units": {"good.timer": {"scope": "user", "content": UNIT}},
        "checks": {"good": {"command": ["/bin/true"], "every": "1s"}},
    }


def undone(machine: Machine) -> set[str]:
    """Of the good ones, those that are not as declared."""
    top = machine.base / "good"
    found = {
        "directory": (top / "made").is_dir(),
        "permission": (top / "file").stat().st_mode & 0o777 == 0o640,
        "block": (top / "block").exists() and "ours" in (top / "block").read_text(),
        "file": (top / "whole").exists() and (top / "whole").read_text() == "ours",
        "link": (top / "link").is_symlink(),
        "retention": not any((top / "old").iterdir()),
        "session": bool(machine.running("sleep 90980")),
        "process": bool(machine.running("sleep 90981")),
        "cron": b"/bin/true" in (machine.crontab_text() or b""),
        "unit": (machine.home / ".config/systemd/user/good.timer").exists(),
        "check": True,
    }
    assert set(found) == set(kinds.names())
    return {kind for kind, well in found.items() if not well}


def strange(base: Path, kind: str) -> dict[str, str]:
    """Paths at which something odd stands, for that kind alone, each by its name."""
    top = base / "odd" / kind
    top.mkdir(parents=True)
    (top / "file").write_text("x")
    os.mkfifo(top / "fifo")
    (top / "loop").symlink_to("loop")
    (top / "dangling").symlink_to("nowhere")
    os.mknod(top / "socket", 0o600 | stat.S_IFSOCK)
    return {name: f"{top}/{name}" for name in ODDITIES}


def odd(machine: Machine) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[str, str]]]:
    """Odd resources of each kind, and by id how they end and what must be said of them."""
    spec: dict[str, dict[str, Any]] = {}
    ends: dict[str, tuple[str, str]] = {}

    def add(section: str, kind: str, name: str, fields: Any, end: str, said: str) -> None:
        spec.setdefault(section, {})[name] = fields
        ends[f"{kind}:{name}"] = end, said

    none = "no user 'nobody-at-all'"
    for kind, section, right, fields in (
        ("directory", "directories", (), {}),
        ("permission", "permissions", ("file", "fifo", "socket"), {"mode": "0640"}),
        ("block", "blocks", ("file",), {"content": "c"}),
        ("file", "files", ("file",), {"content": "c"}),
        ("link", "links", ("loop", "dangling"), {"target": "x"}),
        ("retention", "retention", ("dangling",), {"older_than": "1d", "action": "delete"}),
    ):
        for name, path in strange(machine.base, kind).items():
            # Below a symlink or a file it is that which is named.
            shown = path.removesuffix("/below")
            if name not in right:
                add(
                    section,
                    kind,
                    name.replace("/", "-"),
                    {"path": path, **fields},
                    "unknown",
                    shown,
                )
    top = strange(machine.base, "others")
    owner = {"path": f"{machine.base}/odd/owned", "owner": "nobody-at-all"}
    add("directories", "directory", "owner", owner, "unknown", none)
    add("permissions", "permission", "owner", {**owner, "path": top["file"]}, "unknown", none)

    def process(name: str, end: str, said: str, **fields: Any) -> None:
        add("processes", "process", name, {"command": ["sleep", "90982"], **fields}, end, said)

    process("program", "failed", "/no/program", command=["/no/program"])
    process("word", "failed", "no-program-at-all", command=["no-program-at-all"])
    folder = f"{machine.base}/odd"
    process("folder", "failed", f"{folder}: it is a directory", command=[folder])
    process("cwd", "failed", top["dangling"], cwd=top["dangling"])
    process("log", "failed", top["loop"], log=top["loop"])
    process("pidfile", "unknown", top["fifo"], match={"pidfile": top["fifo"]})
    process("ends", "failed", "", command=["sh", "-c", "exit 3"])

    def session(name: str, end: str, said: str, **fields: Any) -> None:
        pane = {"command": "sleep 90983", **fields.pop("pane", {})}
        add("sessions", "session", name, {"windows": [{"panes": [pane]}], **fields}, end, said)

    sockets = machine.sockets / f"tmux-{os.geteuid()}"
    sockets.mkdir(mode=0o700, exist_ok=True)
    (sockets / "file").touch()
    (sockets / "loop").symlink_to("loop")
    session("cwd", "failed", top["dangling"], pane={"cwd": top["dangling"]})
    for name in ("file", "loop"):
        session(name, "unknown", f"{sockets}/{name}", socket=name)

    line = {"schedule": "@daily", "command": ["/bin/true", "x"], "user": "nobody-at-all"}
    add("cron", "cron", "user", line, "unknown", none)

    units = machine.home / ".config/systemd/user"
    units.mkdir(parents=True)
    (units / "theirs.timer").write_text(UNIT)
    (units / "folder.timer").mkdir()
    os.mkfifo(units / "fifo.timer")
    (units / "loop.timer").symlink_to("loop.timer")
    os.truncate(os.open(units / "huge.timer", os.O_CREAT | os.O_WRONLY), 2**31)
    (units / "bytes.timer").write_bytes(bytes(range(256)))
    for path in sorted(units.iterdir()):
        fields = {"scope": "user", "content": UNIT}
        add("units", "unit", path.name, fields, "unknown", str(path))

    def check(name: str, said: str, **fields: Any) -> None:
        add("checks", "check", name, {"every": "1s", **fields}, "failing", said)

    check("program", "/no/program", command=["/no/program"])
    check("user", none, command=["/bin/true"], user="nobody-at-all")
    check("hangs", "did not end within 1 s", command=["sleep", "90984"], timeout="1s")
    check("queue", top["file"], queue={"path": top["file"], "max_count": 1})
    check("log", top["fifo"], log={"path": top["fifo"], "match": "x"})
    check("disk", top["loop"], disk={"path": top["loop"], "min_free": "1MiB"})
    return spec, ends


def written(machine: Machine, sections: dict[str, dict[str, Any]]) -> Path:
    lines = [f"{section}: {json.dumps(each)}\n" for section, each in sections.items()]
    return machine.spec("loop: {every: 2s}\n" + "".join(lines))


def both(machine: Machine) -> tuple[Path, dict[str, tuple[str, str]]]:
    """The spec with good ones and odd ones, and how the odd ones end."""
    sections, ends = odd(machine)
    assert {ident.partition(":")[0] for ident in ends} == set(kinds.names())
    for section, each in good(machine.base).items():
        sections[section] = {**sections.get(section, {}), **each}
    return written(machine, sections), ends


def no_fault(text: str) -> None:
    assert not re.search(r"internal error|Traceback|Errno", text), text


def test_the_trouble_of_each_is_its_own(machine: Machine) -> None:
    spec, ends = both(machine)
    unknown = {ident for ident, (end, _) in ends.items() if end == "unknown"}
    plan = machine.plan(spec)
    assert {one["id"] for one in plan["unknown"]} == unknown

    done = machine.reconcile("--once", spec, "--json")
    no_fault(done.stdout + done.stderr)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    until(lambda: undone(machine) == set())  # What is in a pane is seen a moment later.
    found = {step["id"]: (step["result"], step.get("error") or "") for step in report["steps"]}
    found |= {one["id"]: ("unknown", one["reason"]) for one in report["unknown"]}
    found |= {one["id"]: ("failing", one["reason"]) for one in report["failing"]}
    for ident, (end, said) in ends.items():
        assert found[ident][0] == end and said in found[ident][1], (ident, found[ident])
    others = {ident: result for ident, (result, _) in found.items() if ident not in ends}
    assert set(others.values()) == {"done"}, others

    done = machine.reconcile("--status", spec, "--json")
    no_fault(done.stdout + done.stderr)
    states = {one["id"]: one["state"] for one in json.loads(done.stdout)["resources"]}
    assert {ident for ident, state in states.items() if state != "ok"} == set(ends)

    done = machine.reconcile("--diagnose", spec)
    no_fault(done.stdout + done.stderr)
    assert done.returncode == 1 and "directory:file" in done.stdout


def test_a_loop_keeps_what_is_well(machine: Machine, looping: Any) -> None:
    spec, _ = both(machine)
    loop = looping(spec).up(60)
    until(lambda: not undone(machine))
    (pid,) = machine.running("sleep 90981")
    os.kill(pid, 9)
    (machine.base / "good/made").rmdir()
    until(lambda: not undone(machine) and machine.running("sleep 90981") != [pid])
    no_fault(loop.output.read_text() + loop.errors.read_text())


@pytest.mark.parametrize(
    "method",
    [
        "observe", "changes", "actions", "words", "stages", "stale", "left", "spared",
        "freed", "touched", "watch", "shows", "evidence",
    ],
)  # fmt: skip
def test_a_fault_in_what_is_said_of_one_is_confined_to_it(
    machine: Machine, tmp_path: Path, method: str
) -> None:
    """In each kind that is asked it, of the one resource with a name that makes it fail."""
    sections = good(machine.base)
    top = machine.base / "peculiar"
    (top / "old").mkdir(parents=True)
    (top / "file").touch(0o600)
    (top / "old/file").touch()
    text = json.dumps(sections).replace(str(machine.base / "good"), str(top))
    more = json.loads(re.sub(r'"good(\.timer)?": ', r'"peculiar\1": ', text))
    more["cron"]["peculiar"]["command"] = ["/bin/true", "peculiar"]
    sections = {name: {**each, **more[name]} for name, each in sections.items()}
    spec = written(machine, sections)
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    machine.environ |= {"PYTHONPATH": str(tmp_path), "BROKEN": method}
    for mode in ("--once", "--status", "--diagnose"):
        done = machine.reconcile(mode, spec)
        # A diagnosis names what is wrong alone, below what it says of the host.
        expected = "host:" if mode == "--diagnose" else "directory:"
        assert expected in done.stdout and "reconcile: " not in done.stderr, done.stderr
    del machine.environ["PYTHONPATH"]
    until(lambda: undone(machine) == set())


PROGRAMS = {
    "crontab hangs": ("crontab", "sleep 90985; :", "cron", "did not end within"),
    "crontab is killed": ("crontab", "kill -9 $$; :", "cron", "crontab -l failed"),
    "crontab never ends": ("crontab", "yes; :", "cron", "printed more than"),
    "tmux refuses": ("tmux", "echo no such version >&2; exit 1; :", "session", "no such version"),
    "tmux prints anything": ("tmux", "head -c 99999 /dev/urandom; exit 0; :", "session", ""),
}


@pytest.mark.parametrize(("program", "does", "kind", "said"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_of_the_host_that_is_broken_is_the_trouble_of_its_kind(
    machine: Machine, program: str, does: str, kind: str, said: str
) -> None:
    sections = good(machine.base)
    # Root handles this one by hand, if at all.
    sections["cron"]["more"] = {"schedule": "@daily", "command": ["/bin/echo", "%"]}
    spec = written(machine, sections)
    calls = machine.base / "calls"
    machine.fake(program, f"echo >>{calls}; {does}")
    done = machine.reconcile("--once", spec, "--json")
    no_fault(done.stdout + done.stderr)
    report = json.loads(done.stdout)
    assert done.returncode == 1
    until(lambda: undone(machine) == {kind})
    amiss = {one["id"]: one["reason"] for one in report["unknown"]}
    amiss |= {one["id"]: one["error"] for one in report["steps"] if one["result"] != "done"}
    assert {ident.partition(":")[0] for ident in amiss} == {kind}
    assert all(said in words for words in amiss.values()), amiss
    if said.startswith("did not end"):
        # It is waited for once.
        assert len(calls.read_text().splitlines()) == 1


@pytest.mark.namespaces
@pytest.mark.root
def test_programs_that_are_not_there_are_the_trouble_of_their_kinds(machine: Machine) -> None:
    spec = written(machine, good(machine.base))
    machine.environ["PATH"] = machine.real_path
    (machine.base / "none").touch(0o600)
    script = f"""
        for name in crontab tmux systemctl systemd-analyze; do
            for folder in /usr/bin /usr/sbin /bin /sbin /usr/local/bin; do
                [ ! -e "$folder/$name" ] || mount --bind {machine.base}/none "$folder/$name"
            done
        done
        exec "$@"
    """
    command = machine.argv("--once", spec, "--json")
    namespace = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh")
    done = machine.run(*namespace, *command)
    no_fault(done.stdout + done.stderr)
    report = json.loads(done.stdout)
    assert undone(machine) == {"cron", "session"} and done.returncode == 1
    amiss = {one["id"]: one["reason"] for one in report["unknown"]}
    amiss |= {one["id"]: one["error"] for one in report["steps"] if one["result"] != "done"}
    assert set(amiss) == {"cron:good", "session:good"}
    assert all("not installed" in words or "no tmux" in words for words in amiss.values()), amiss
