"""What a person needs to know at three in the morning: all that can be seen, and what is wrong.

It must not change anything, nor wait for what hangs: each look is taken in a child that is
killed when its time is over, and what did not answer is said.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import Remedy
from reconciler.base.text import HIDDEN, redacted_json
from reconciler.base.values import strings
from reconciler.core.kind import Ageing, Probed, Supervised
from reconciler.core.model import Observation, Past, Plan, Spec
from reconciler.diagnose import probes
from reconciler.diagnose.looking import LOOK, Looking
from reconciler.diagnose.wrong import ordered
from reconciler.host.child import Children
from reconciler.host.remedy import remedy
from reconciler.host.spec_files import known_as, names
from reconciler.output.data import FORMAT
from reconciler.state.heartbeat import about_loop

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.core.observe import Snapshot
    from reconciler.state.heartbeat import WatchdogHeartbeat

_PROBE = 4.5
"""Seconds for a check; with the grace for it, and the look before it, all ends within ten."""


def diagnose(context: Context, spec: Spec | None = None, probe: float = _PROBE) -> dict[str, Any]:
    """Look at everything, and say what is wrong, as a JSON value. Takes ten seconds at most.

    Each check has ``probe`` seconds, unless it may take less; with more than the usual ones all
    of it may take longer.

    Raises SpecError, and Usage, when there is no ``spec`` and it cannot be loaded.
    """
    if spec is None:
        spec = context.load()
    if not spec.complete:
        spec = context.load(complete=True)  # To ask its checks, and to know its secrets.
    with Children() as children:
        return _Diagnosing(context, spec, children, probe).diagnosis()


class _Diagnosing(Looking):
    """One diagnosis under way."""

    def diagnosis(self) -> dict[str, Any]:
        """All of it."""
        from reconciler.core.isolated import begin_all, gathered, with_found
        from reconciler.core.observe import judged, observe

        children = self.children
        watched = begin_all(children, self.spec, kinds.get, self.host, LOOK)
        self.begin()
        children.wait({*watched, "past", "loop", "stopped"})
        self.spec, seen = with_found(self.spec, *gathered(children, watched))
        past, self.host.said, remembered = children.answers.get("past", (Past(), {}, {}))
        resources = self.spec.resources
        # Of what is probed a pass sees only what was said, which was not known before.
        probed = [one for one in resources if isinstance(kinds.get(one.kind), Probed)]
        seen |= observe(probed, kinds.get, self.host, fresh=False)
        plan, judgement = judged(self.spec, resources, seen, kinds.get, self.host, past)
        seen = dict(judgement)
        rows = _rows(self.spec, plan, seen)
        self.begin_period(seen)
        self.begin_again(rows, seen)
        broken = {
            one["id"]: one["state"] if one["state"] != "differs" else one["reason"]
            for one in rows
            if one["state"] not in ("ok", "failing", "skipped")
            and not (one["state"] == "differs" and (one["by_age"] or one.get("runs")))
        }
        asked, rest = probes.begin(children, resources, broken, kinds.get, self.host, self.probe)
        children.wait()
        last = {deed["id"]: deed for deed in remembered.get("deeds", ())}
        for one in rows:
            evidence = children.answers.get(f"evidence {one['id']}")
            if not evidence and one["state"] in ("waits", "given up", "differs"):
                evidence = last.get(one["id"], {}).get("error")  # It may not have begun at all.
            one["evidence"] = evidence and "; ".join(dict.fromkeys(evidence.split("; ")))
        checks = [*probes.gathered(children, asked), *rest]
        return self._told(plan, rows, checks, remembered)

    def _told(
        self,
        plan: Plan,
        rows: list[dict[str, Any]],
        checks: list[dict[str, Any]],
        remembered: dict[str, Any],
    ) -> dict[str, Any]:
        from reconciler.diagnose.findings import findings

        answers = self.children.answers
        document: dict[str, Any] = {
            "format": FORMAT,
            "spec": self.context.about(self.spec),
            "host_name": plan.host,
            "uid": os.geteuid(),
            "time": round(time.time(), 3),
            "host": answers.get("host", {}),
            "disks": self._disks(),
            "resources": rows,
            "processes": answers.get("processes", []),
            "stopped": answers.get("stopped", []),
            "sessions": self._sessions(),
            "folders": answers.get("folders", []),
            "logs": answers.get("logs", []),
            "checks": checks,
            "loop": self._loop(),
            "past": remembered,
            "period": self._period(),
            "restarts": self._restarts(remembered),
            "kernel": answers.get("kernel", {}).get("deaths"),
            "reboot": self._reboot({row["id"]: row for row in rows}),
            "conflicts": answers.get("conflicts", []),
            "readable": self._readable(),
            "unseen": self._unseen(),
        }
        told = findings(document, self._command)
        for name, certain in (("wrong", True), ("doubts", False)):
            ones = ordered([one for one in told if one.certain is certain])
            document[name] = [one.document(follows) for one, follows in ones]
        document["healthy"] = not document["wrong"]
        document["seconds"] = round(time.monotonic() - self.began, 3)
        redacted: dict[str, Any] = redacted_json(document)
        return redacted

    def _disks(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name, words in self.children.silent.items():
            if name.startswith("disk "):
                mount = name.removeprefix("disk ")
                ids = [
                    i for p, i in self.paths.items() if f"{p}/".startswith(f"{mount.rstrip('/')}/")
                ]
                found[mount] = {"mount": mount, "reason": words, "ids": ids}
        for name, disks in self.children.answers.items():
            for disk in disks if name.startswith("disk ") else ():
                known = found.setdefault(disk["mount"], disk)
                if known is not disk and "reason" not in known:
                    known["ids"] += disk["ids"]
        return [found[mount] for mount in sorted(found)]

    def _period(self) -> dict[str, Any] | None:
        """What a report would say of the last day."""
        found: dict[str, Any] | None = self.children.answers.get("period")
        if found is not None:
            found["folders"] = [
                {"id": one["id"], "path": one["path"], "files": one["files"],
                 "new": one["changed_last_day"], "bytes": one["bytes"],
                 "complete": one["complete"]}
                for one in self.children.answers.get("folders", ())
                if one.get("match", "") is None
            ]  # fmt: skip
        return found

    def _sessions(self) -> list[dict[str, Any]]:
        answers = self.children.answers
        return [one for name in answers if name.startswith("tmux ") for one in answers[name]]

    def _loop(self) -> dict[str, Any]:
        expected = _keepers(self.spec)
        loop = self.children.answers.get("loop")
        if loop is None:
            unknown = self.children.silent.get("loop")
            return {**about_loop(None), "unknown": unknown, "expected_by": expected}
        return {**about_loop(loop), "expected_by": expected}

    def _restarts(self, remembered: dict[str, Any]) -> list[dict[str, Any]]:
        from reconciler.diagnose.past import told_causes

        answers = self.children.answers
        names = {
            one.id: [os.path.basename(str(word))[:15] for word in command[:1]]
            for one in self.declared
            if isinstance(command := getattr(one.want, "command", None), tuple)
        }
        booted = answers.get("host", {}).get("booted", 0.0)
        deaths = answers.get("kernel", {}).get("deaths", ())
        begun = remembered.get("begun", {})
        return told_causes(remembered.get("deeds", ()), booted, deaths, names, begun)

    def _reboot(self, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        from reconciler.host.persistence import differences, runs, setup

        look = self.children.answers.get("reboot")
        if look is None:
            return {}
        keepers = [
            {**rows[one.id], "scope": getattr(one.want, "scope", None)}
            for one in self.declared
            if runs("\n".join(strings(one.want)), self.spec.path)
        ]
        lost = [
            one.id
            for one in self.declared
            if isinstance(kinds.get(one.kind), Supervised)
            or any(key.sort == "tmux session" for key in self.claims[one.id])
        ]
        return {
            **look,
            "setup": setup(look, keepers, self._command("--once")),
            "differences": differences(look, bool(self.sockets())),
            "lost": lost,
        }

    def _readable(self) -> list[dict[str, Any]]:
        """The secrets of targets that somebody else may read."""
        if not self.spec.notify.addressed:
            return []
        from reconciler.notify.outbox import readable

        return [
            {"id": ident, "reason": words, "remedy": command}
            for ident, words, command in readable(self.spec.notify)
        ]

    def _unseen(self) -> list[dict[str, str]]:
        """What could not be looked at, and why."""
        found = [
            {"what": name, "reason": words}
            for name, words in self.children.silent.items()
            if not name.startswith(("observe ", "disk ", "check "))
        ]
        for words in self.children.answers.get("reboot", {}).get("unseen", ()):
            found.append({"what": "reboot", "reason": words})
        for kind in ("folders", "logs"):
            for one in self.children.answers.get(kind, ()):
                if "reason" in one:
                    found.append({"what": one["path"], "reason": one["reason"]})
        for one in self.children.answers.get("processes", ()):
            if one["open_files"] is None:
                words = "its open files may not be counted"
                found.append({"what": f"{one['id']} (pid {one['pid']})", "reason": words})
        return found

    def _command(self, *words: str) -> Remedy:
        return command_line(self.context, self.spec.path, *words)


def _rows(spec: Spec, plan: Plan, seen: Mapping[str, Observation[Any]]) -> list[dict[str, Any]]:
    """Each resource with its state and why; ``differs`` what a paused one would change."""
    from reconciler.core.plan import difference, drift
    from reconciler.output.data import standing

    words = standing(plan)
    steps = {step.id: step for step in plan.steps}
    notes = {remark.id: remark.reason for remark in plan.notes}
    remedies = {remark.id: remark.remedy for remark in plan.unknown}
    found = []
    for resource in spec.resources:
        kind = kinds.get(resource.kind)
        state, reason = words.get(resource.id, ("ok", ""))
        row: dict[str, Any] = {
            "id": resource.id, "state": state, "reason": reason, "needs": list(resource.needs),
            "after": list(resource.after),
            "by_age": isinstance(kind, Ageing), "note": notes.get(resource.id),
        }  # fmt: skip
        step = steps.get(resource.id)
        if step is not None:
            row |= {"verb": step.verb, "denied": step.denied, "by_hand": list(step.by_hand)}
        if resource.present and isinstance(kind, Probed):
            acts = kind.rhythm(resource.want).acts
            row |= {"acts": acts, "inspect": kind.inspect(resource.want)}
        if state == "unknown":
            row["remedy"] = remedies.get(resource.id)
        if not resource.present:
            row["absent"] = True
        observation = seen.get(resource.id)
        if state == "paused" and observation is not None:
            row["differs"] = drift(kind, difference(resource, observation, kind)) or None
        found.append(row)
    return found


def _keepers(spec: Spec) -> list[str]:
    """What it declares that runs a loop of it."""
    declared = (one for one in spec.resources if one.present and one.skip is None)
    return [one.id for one in declared if keeps(one.want, spec.path)]


def seen_wrong(
    context: Context, look: Snapshot, loop: WatchdogHeartbeat | None, evidence: Mapping[str, str]
) -> list[dict[str, Any]]:
    """What is certainly wrong by a look alone, without all else that a diagnosis looks at.

    ``evidence`` is what else is known of why, by id.
    """
    from reconciler.diagnose.findings import Declared

    rows = _rows(look.spec, look.plan, look.seen)
    document = {
        "resources": [{**row, "evidence": evidence.get(row["id"])} for row in rows],
        "loop": {**about_loop(loop), "expected_by": _keepers(look.spec)},
        "checks": [], "processes": [], "disks": [], "reboot": {},
    }  # fmt: skip
    told = Declared(document, partial(command_line, context, look.spec.path)).wrong()
    ones = ordered([one for one in told if one.certain])
    return [one.document(follows) for one, follows in ones]


def command_line(context: Context, path: str, *words: str) -> Remedy:
    """The command line of ours with that mode, on the spec at ``path``, in this state directory."""
    from reconciler.config.scope import is_secret_setting

    options = context.options
    here = os.path.join(context.facts().bin, "reconcile")
    found = shutil.which("reconcile")
    program = "reconcile" if found and os.path.realpath(found) == os.path.realpath(here) else here
    more = ["--state-dir", context.state_dir] if options.state_dir else []
    for setting in options.set:
        name, _, value = setting.partition("=")
        more += ["--set", f"{name}={HIDDEN}" if is_secret_setting(name, value) else setting]
    for name in options.unset if {"--plan", "--once"}.intersection(words[:1]) else ():
        more += ["--unset", name]
    for setting in options.set_file:
        name, _, file = setting.partition("=")
        more += ["--set-file", f"{name}={os.path.abspath(context.users.expanded(file))}"]
    for uid in options.trust:
        more += ["--trust", str(uid)]
    return remedy(program, *words, known_as(path), *more)


def keeps(want: Any, path: str) -> bool:
    """Does what it declares run a loop of the spec at ``path``?"""
    text = "\n".join(strings(want))
    return "--loop" in text and "reconcile" in text and names(text, path)
