"""A part of a spec is planned as it is in the plan of the whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from support import Machine, until

from reconciler import kinds

SPEC = """
directories:
  tree: {{path: {base}/t/tree, mode: "0755"}}
  parent: {{path: {base}/t/parent, state: absent}}
  child: {{path: {base}/t/parent/child, state: absent}}
  going: {{path: {base}/t/tree/going, state: absent}}
permissions:
  glob: {{path: "{base}/t/tree/*", mode: "0700"}}
  all: {{path: {base}/t/deep, recursive: true, file_mode: "0640"}}
  one: {{path: {base}/t/tree/f, mode: "0600"}}
  linked: {{path: {base}/t/hard/f, mode: "0644"}}
files:
  whole: {{path: {base}/t/tree/whole, content: x, mode: "0600", on_change: ["run true"]}}
links:
  link: {{path: {base}/t/link, target: tree}}
blocks:
  a: {{path: {base}/t/tree/rc, content: a}}
  b: {{path: {base}/t/tree/rc, content: b}}
retention:
  old: {{path: {base}/t/tree, match: ["*.log"], older_than: 1h, action: move, to: {base}/t/out}}
  moved: {{path: {base}/t/out, keep_last: 1, action: delete}}
sessions:
  s: {{windows: [{{name: w, panes: [{{command: sleep 90950}}]}}]}}
processes:
  p: {{command: [sleep, '90951'], needs: ['permission:one']}}
  q: {{command: [sleep, '90952']}}
  r: {{command: [sleep, '90953'], session: s}}
cron:
  first: {{schedule: '@daily', command: [/bin/true, '1']}}
  middle: {{schedule: '@daily', command: [/bin/true, '2'], env: {{MAILTO: me}}}}
  last: {{schedule: '@daily', command: [/bin/true, '3']}}
  gone: {{schedule: '@daily', command: [/bin/true, '4'], state: absent}}
units:
  x.service:
    scope: user
    content: "[Service]\\nExecStart=/bin/true\\n"
  x.timer: {{scope: user, content: "[Timer]\\nOnBootSec=1h"}}
  i@.service: {{scope: user, content: "[Service]\\nExecStart=/bin/true\\n"}}
  i@1.service: {{scope: user, active: true}}
checks:
  c: {{command: [/bin/false], every: 1s, on_failure: [restart: process:q]}}
"""


def damage(machine: Machine) -> None:
    """Change each thing that was made, as somebody may."""
    top = machine.base / "t"
    (top / "tree/rc").write_text("# only mine\n")
    (top / "tree/whole").write_text("mine")
    (top / "link").unlink()
    (top / "tree").chmod(0o777)
    for file in ("tree/f", "deep/er/f"):
        (top / file).chmod(0o777)
    os.utime(top / "tree/x.log", (1, 1))
    units = machine.home / ".config/systemd/user"
    (units / "x.timer").write_text((units / "x.timer").read_text() + "# mine\n")
    # A line of a person's stands in our block, and one of ours is gone: not its last.
    lines = machine.crontab.read_text().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if "/bin/true 1" in line)
    lines[at - 1 : at + 1] = ["0 1 * * * /bin/mine\n"]
    machine.crontab.write_text("".join(lines))
    for command in ("sleep 90951", "sleep 90953"):
        for pid in machine.running(command):
            os.kill(pid, 9)
        until(lambda gone=command: not machine.running(gone))


def ids_of(machine: Machine, spec: Path) -> list[str]:
    """All resources of the spec, by what is said of them."""
    status = json.loads(machine.reconcile("--status", spec, "--json").stdout)
    return [one["id"] for one in status["resources"]]


PLANS = """
import contextlib, io, sys
from reconciler.cli.main import main
for only in sys.argv[4:]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["--plan", *sys.argv[1:4], "--json", *(["--only", only] if only else [])])
    print(out.getvalue().replace(chr(10), ""))
"""


def steps(machine: Machine, spec: Path, patterns: list[str]) -> dict[str, dict[str, Any]]:
    """By pattern the steps of a plan by their ids, without the words that tell the time."""
    argv = (machine.bin / "python", "-c", PLANS, spec, "--state-dir", machine.state, *patterns)
    done = machine.run(*argv)
    found = {}
    for pattern, line in zip(patterns, done.stdout.splitlines(), strict=True):
        found[pattern] = {step["id"]: step for step in json.loads(line)["steps"]}
        for step in found[pattern].values():
            del step["why"]
    return found


def test_every_step_of_a_part_is_in_the_whole(machine: Machine) -> None:
    top = machine.base / "t"
    for folder in ("tree/going", "parent/child", "out", "hard", "deep/er"):
        (top / folder).mkdir(parents=True)
    for file in ("tree/f", "tree/g", "tree/x.log", "deep/er/f", "out/y", "out/z"):
        (top / file).touch(0o600)
    os.utime(top / "out/y", (1, 1))
    os.link(top / "tree/f", top / "hard/f")
    spec = machine.spec(SPEC.format(base=machine.base))
    ids = ids_of(machine, spec)
    assert {ident.partition(":")[0] for ident in ids} == set(kinds.names())

    for world in ("nothing is made", "made", "damaged"):
        if world == "made":
            machine.reconcile("--once", spec)
        elif world == "damaged":
            damage(machine)
        parts = steps(machine, spec, ["", *ids, *(f"{kind}:*" for kind in kinds.names())])
        whole = parts.pop("")
        assert len(whole) > 5 or world == "made", world
        for only, part in parts.items():
            for ident, step in part.items():
                assert whole.get(ident) == step, (world, only)


def test_what_contradicts_another_one_is_left_alone_in_a_part_too(machine: Machine) -> None:
    top = machine.base / "t"
    for name in ("a", "b"):
        (top / name).mkdir(parents=True)
    (top / "a/f").touch(0o666)
    os.link(top / "a/f", top / "b/f")
    spec = machine.spec(
        "permissions:\n"
        f"  a: {{path: {top}/a/f, mode: '0600'}}\n"
        f"  b: {{path: {top}/b/f, mode: '0640'}}\n"
    )
    plan = machine.plan(spec, "--only", "permission:a")
    assert plan["steps"] == []
    (unknown,) = plan["unknown"]
    assert unknown["id"] == "permission:a" and "permission:b" in unknown["reason"]


def test_status_and_history_are_about_the_part_alone(machine: Machine) -> None:
    names = [f"d{number}" for number in range(8)]
    paths = "".join(f"  {name}: {{path: {machine.base}/{name}}}\n" for name in names)
    spec = machine.spec(f"directories:\n{paths}")
    machine.once(spec)
    status = json.loads(
        machine.reconcile("--status", spec, "--only", "directory:d1", "--json").stdout
    )
    assert [one["id"] for one in status["resources"]] == ["directory:d1"]
    assert [one["id"] for one in status["last"]] == ["directory:d1"]
    named = machine.reconcile("--status", spec, "--only", "d1")
    assert named.returncode == 64 and "did you mean 'directory:d1'?" in named.stderr
    told = machine.reconcile("--history", spec, "--only", "directory:nowhere").stdout
    assert told.endswith("no such actions are recorded\n")
