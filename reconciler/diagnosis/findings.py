"""From what was seen to what is wrong, each with the command that mends it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.diagnosis.loglines import too_silent
from reconciler.diagnosis.wrong import Wrong
from reconciler.views.diagnosis import amount
from reconciler.views.status import span

Document = Mapping[str, Any]
Command = Callable[..., str]
"""The command line of ours with these words, on the same spec."""

_WEIGHTS = {"directory": 40, "permission": 41, "session": 50, "process": 60, "unit": 72,
            "cron": 80, "block": 82, "check": 85, "retention": 90}  # fmt: skip
_OTHER = 65
_SHOWN = 4
_HUNG = re.compile(r"(?:\S*/)?([\w.-]+) did not end within")
_ADVICE = re.compile(r"(?:can run|with|remove|install it, for example with): (.+)$")
_LITTLE = 2 * 2**20
_HOUR = 3600.0


def findings(document: Document, command: Command) -> list[Wrong]:
    """All that is wrong or worth a look, in no order."""
    seen = _Seen(document, command)
    return [
        *seen.machine(),
        *seen.disks(),
        *seen.store(),
        *seen.messages(),
        *seen.programs(),
        *seen.resources(),
        *seen.processes(),
        *seen.loop(),
        *seen.checks(),
        *seen.folders(),
        *seen.logs(),
        *seen.reboot(),
        *seen.conflicts(),
    ]


class _Seen:
    """One diagnosis, and what follows from it."""

    def __init__(self, document: Document, command: Command) -> None:
        self.document = document
        self.command = command
        self.by_id: dict[str, Document] = {one["id"]: one for one in document["resources"]}
        self.well = bool(document["loop"]["running"] and document["loop"]["healthy"])

    # -- what a thing may follow from

    def needs(self, ident: str) -> list[str]:
        """All that it needs, also by way of others; the nearest first."""
        found: list[str] = []
        todo = [ident]
        while todo:
            one = self.by_id.get(todo.pop(0))
            for need in one["needs"] if one is not None else ():
                if need not in found and need != ident:
                    found.append(need)
                    todo.append(need)
        return found

    def causes(self, ident: str) -> tuple[str, ...]:
        """What may be the reason that something is wrong with it."""
        needs = self.needs(ident)
        return (f"stopped {ident}", *needs, *(f"stopped {need}" for need in needs))

    def on_disks(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The file systems of these and of all that they need."""
        wanted = {*ids, *(need for ident in ids for need in self.needs(ident))}
        return tuple(
            f"disk {disk['mount']}"
            for disk in self.document["disks"]
            if wanted.intersection(disk["ids"])
        )

    # -- the host

    def machine(self) -> Iterator[Wrong]:
        host = self.document["host"]
        if not host:
            return
        memory, swap = host["memory"], host["swap"]
        if memory["total"] and memory["available"] < 0.03 * memory["total"]:
            words = f"memory is used up: {amount(memory['available'])} of {amount(memory['total'])}"
            if swap["free"] <= 0.05 * swap["total"]:
                yield Wrong("memory", f"{words} available, and no swap", 12,
                            "ps aux --sort=-rss | head", by="person")  # fmt: skip
        if host["clock"]:
            yield Wrong("clock", host["clock"], 20, _advised(host["clock"]), by="person")
        if host["load"][1] > 10 * host["cpus"]:
            words = f"the load is {host['load'][1]} on {host['cpus']} processors"
            yield Wrong("load", words, 95, "ps aux --sort=-pcpu | head", by="person",
                        certain=False)  # fmt: skip

    def disks(self) -> Iterator[Wrong]:
        for disk in self.document["disks"]:
            key, mount, ids = f"disk {disk['mount']}", disk["mount"], tuple(disk["ids"])
            if "reason" in disk:
                words = f"the file system {mount} {disk['reason']}"
                yield Wrong(key, words, 10, f"umount -l {mount}", by="person")
                continue
            held = _named(ids)
            find = f"du -xh {mount} | sort -h | tail -n 20"
            if disk["read_only"]:
                words = f"the file system {mount} is read only, with {held}"
                yield Wrong(key, words, 10, f"mount -o remount,rw {mount}", by="person")
            elif disk["free"] < min(_LITTLE, disk["total"] // 200):
                words = (
                    f"the file system {mount} is full: {amount(disk['free'])} of "
                    f"{amount(disk['total'])} free, with {held}"
                )
                yield Wrong(key, words, 10, find, by="person")
            elif disk["inodes"] and disk["inodes_free"] < min(100, disk["inodes"] // 200):
                words = (
                    f"the file system {mount} has no inodes left: {disk['inodes_free']} of "
                    f"{disk['inodes']}, with {held}"
                )
                yield Wrong(key, words, 10, f"du -x --inodes {mount} | sort -n | tail -n 20",
                            by="person")  # fmt: skip
            elif disk["free"] < 0.03 * disk["total"] and disk["free"] < 2 * 2**30:
                words = f"the file system {mount} is nearly full: {amount(disk['free'])} free"
                yield Wrong(key, words, 94, find, by="person", certain=False)

    def store(self) -> Iterator[Wrong]:
        past = self.document["past"]
        if past.get("aside"):
            yield Wrong("store", past["damage"], 25, past["aside"], by="person")
        elif past.get("damage"):
            words = f"{past['damage']}; the next pass mends it, or sets it aside and begins anew"
            yield Wrong("store", words, 25, self.command("--once"))

    def messages(self) -> Iterator[Wrong]:
        for one in self.document["past"].get("messages", ()):
            if one["tries"]:
                words = (
                    f"the target {one['target']} has not taken a message for "
                    f"{span(self.document['time'] - one['since'])}, after {one['tries']} attempts"
                )
                yield Wrong(f"target {one['target']}", words, 93, self.command("--notify-test"),
                            by="person", certain=False)  # fmt: skip

    def programs(self) -> Iterator[Wrong]:
        """A program that hangs because the one who should answer it is stopped."""
        hung = set()
        for one in self.document["resources"]:
            match = _HUNG.search(one["reason"]) if one["state"] == "unknown" else None
            hung |= {match[1]} if match is not None else set()
        for name in sorted(hung):
            for process in self.document["stopped"]:
                if process["name"].startswith(name):
                    words = (
                        f"{process['name']} (pid {process['pid']}) is stopped by a signal, so "
                        f"{name} does not answer"
                    )
                    yield Wrong(f"program {name}", words, 30, f"kill -CONT {process['pid']}",
                                by="person")  # fmt: skip
                    break

    # -- what the spec declares

    def resources(self) -> Iterator[Wrong]:
        asked = {one["id"] for one in self.document["checks"]}
        groups: dict[tuple[str, str, str], list[Document]] = {}
        for one in self.document["resources"]:
            kind, state = one["id"].partition(":")[0], one["state"]
            blocked = state == "skipped" and one["reason"].startswith("needs ")
            if state in ("ok", "failing") or (state == "skipped" and not blocked):
                if state == "failing" and one["id"] not in asked:
                    yield self._failing(one["id"], one["reason"])
                continue
            if state == "differs" and one["by_age"] and self.well:
                continue  # It has become due just now, and the next pass is about to see to it.
            clause = one["reason"].partition("; ")[0]
            if state in ("paused", "given up", "waits"):
                clause = one["id"]
            groups.setdefault((kind if state != "unknown" else "", state, clause), []).append(one)
        for (_, state, _), group in groups.items():
            yield self._group(state, group)

    def _group(self, state: str, group: Sequence[Document]) -> Wrong:
        ids = tuple(one["id"] for one in group)
        first = group[0]
        key = ids[0]
        reason = first["reason"] if len(group) == 1 else first["reason"].partition("; ")[0]
        because = tuple(dict.fromkeys(name for ident in ids for name in self.causes(ident)))
        weight = min(_WEIGHTS.get(ident.partition(":")[0], _OTHER) for ident in ids)
        evidence = f"; {first['evidence']}" if first.get("evidence") else ""
        named = _named(ids)
        once = self.command("--once")
        if state == "differs":
            if first.get("runs"):
                because = (*because, *self.on_disks(ids))  # It ails, such as by an old heartbeat.
            by_hand = " && ".join(first["by_hand"]) if first.get("denied") else ""
            words = f"{named}: {reason}{evidence}"
            if len(ids) > 1 and reason.startswith("it is "):
                words = f"{named} are {reason.removeprefix('it is ')}"
            return Wrong(key, words, weight, by_hand or once, ids, because,
                         "person" if by_hand else "program")  # fmt: skip
        if state == "paused":
            differs = first.get("differs")
            words = f"{named} is {reason}" + (f"; it would change: {differs}" if differs else "")
            return Wrong(key, words, 57, self.command("--resume", key), ids, because, "person",
                         bool(differs))  # fmt: skip
        if state in ("given up", "waits"):
            words = f"{named}: {reason}{evidence}"
            return Wrong(key, words, weight - 1, self.command("--repair"), ids,
                         (*because, *self.on_disks(ids)))  # fmt: skip
        if state == "skipped":
            return Wrong(key, f"{named}: {reason}", weight, once, ids, because)
        match = _HUNG.search(reason)
        mend = _advised(reason)
        if match is not None:
            because += (f"program {match[1]}",)
            mend = f"ps -e -o pid,stat,wchan:20,etime,args | grep {match[1]}"
        words = f"{named}: not known: {reason}"
        because += self.on_disks(ids)
        return Wrong(key, words, 31, mend, ids, because, "person")

    def _failing(self, ident: str, reason: str) -> Wrong:
        because = (*self.causes(ident), *self.on_disks([ident]))
        return Wrong(ident, f"{ident}: {reason}", _WEIGHTS["check"], self.command("--once"),
                     (ident,), because)  # fmt: skip

    def processes(self) -> Iterator[Wrong]:
        for one in self.document["processes"]:
            if one["id"] not in self.by_id:
                continue
            rows = [one, *one["children"]]
            held = [row["pid"] for row in rows if row["state"] == "T"]
            if held:
                who = "it is" if held[0] == one["pid"] else f"what it runs (pid {held[0]}) is"
                words = (
                    f"{one['id']} (pid {one['pid']}) hangs: {who} stopped by a signal, and goes on "
                    "when it is told to"
                )
                pids = " ".join(map(str, held))
                yield Wrong(f"stopped {one['id']}", words, 35, f"kill -CONT {pids}")
            elif one["state"] == "D":
                where = f" in {one['waits_in']}" if one.get("waits_in") else ""
                words = (
                    f"{one['id']} (pid {one['pid']}) waits in the kernel{where}, as for a disk or "
                    "a file system that does not answer"
                )
                yield Wrong(f"stopped {one['id']}", words, 36, f"cat /proc/{one['pid']}/stack",
                            by="person", certain=False,
                            because=self.on_disks([one["id"]]))  # fmt: skip

    def loop(self) -> Iterator[Wrong]:
        loop = self.document["loop"]
        expected = tuple(loop["expected_by"])
        because = (*expected, *(name for ident in expected for name in self.causes(ident)))
        if loop.get("unknown"):
            return
        if loop["running"]:
            rows = [one for one in self.document["processes"] if one["id"] == "loop"]
            pid = loop["pid"]
            if any(one["state"] == "T" for one in rows):
                words = f"the watchdog (pid {pid}) hangs: it is stopped by a signal"
                yield Wrong("loop", words, 70, f"kill -CONT {pid}", because=because)
            elif not loop["healthy"]:
                words = (
                    f"the watchdog (pid {pid}) hangs: it has not moved for {span(loop['moved'])}; "
                    "a pass ends it and takes over"
                )
                yield Wrong("loop", words, 70, self.command("--once"), because=because)
            return
        if expected:
            words = f"the watchdog does not run, although {_named(expected)} declares it"
            yield Wrong("loop", words, 70, self.command("--once"), because=because)
        elif not any(one["sort"] != "login" for one in self.document["reboot"].get("runners", ())):
            words = "nothing keeps it as declared: no loop runs, and nobody makes passes"
            yield Wrong("loop", words, 97, self.command("--loop"), by="person", certain=False)

    def checks(self) -> Iterator[Wrong]:
        for one in self.document["checks"]:
            ident = one["id"]
            if one["result"] == "failing":
                yield self._failing(ident, one["said"])
            elif one["result"] == "unanswered":
                before = self.by_id[ident]["state"] == "failing"
                because = (*self.causes(ident), *self.on_disks([ident]))
                yield Wrong(ident, f"{ident}: {one['said']}", _WEIGHTS["check"],
                            self.command("--once"), (ident,), because, certain=before)  # fmt: skip

    def folders(self) -> Iterator[Wrong]:
        for one in self.document["folders"]:
            resource = self.by_id.get(one["id"])
            if one.get("writable", True) or resource is None or resource["state"] != "ok":
                continue
            key = f"writable {one['path']}"
            words = f"{one['id']}: {one['path']} cannot be written to"
            mend = f"chmod u+rwx {one['path']}" if one["ours"] else f"ls -ld {one['path']}"
            yield Wrong(key, words, 40, mend, because=self.on_disks([one["id"]]), by="person",
                        certain=bool(one["ours"]))  # fmt: skip

    def logs(self) -> Iterator[Wrong]:
        now = self.document["time"]
        for one in self.document["logs"]:
            if "silent" not in one:
                continue
            ids = tuple(one["ids"])
            because = tuple(n for ident in ids for n in (ident, *self.causes(ident)))
            rhythm = one["stamped"], one["covers"], one["longest_gap"], one["silent"]
            if too_silent(*rhythm):
                words = (
                    f"the log {one['path']} is silent for {span(one['silent'])}; in the "
                    f"{span(one['covers'])} before it never was for longer than "
                    f"{span(one['longest_gap'])}"
                )
                yield Wrong(f"silent {one['path']}", words, 92, f"tail -n 20 {one['path']}",
                            because=(*because, "loop", *self.on_disks(ids)),
                            by="person")  # fmt: skip
            fresh = [
                kind
                for kind in one["kinds"]
                if kind["level"] == "error" and now - (kind["last"] or one["changed"]) < _HOUR
            ]
            if fresh:
                last = max(fresh, key=lambda kind: kind["last"] or 0.0)
                number = sum(kind["count"] for kind in fresh)
                words = (
                    f"{number} errors in {one['path']}, the last within the hour: {last['sample']}"
                )
                yield Wrong(f"errors {one['path']}", words, 93, f"grep -i error {one['path']}",
                            because=because, by="person", certain=False)  # fmt: skip

    # -- what comes after a reboot, and other people

    def reboot(self) -> Iterator[Wrong]:
        reboot = self.document["reboot"]
        if not reboot:
            return
        lines = [one["id"] for one in self.document["resources"]
                 if one["id"].startswith("cron:") and one["state"] != "skipped"
                 and not one.get("absent")]  # fmt: skip
        if lines and not reboot["cron_runs"]:
            start = "systemctl enable --now cron" if reboot["systemd"] else "service cron start"
            start = start if reboot["cron_installed"] else "apt-get install cron"
            words = f"no cron daemon runs, so nothing runs {_named(lines)}"
            yield Wrong("cron daemon", words, 79, start, by="person")
        elif lines and reboot["cron_enabled"] is False:
            words = "the cron daemon would not start at boot"
            yield Wrong("cron daemon", words, 79, "systemctl enable cron", by="person")
        for one in reboot["differences"]:
            if one["matters"]:
                yield self._elsewhere(one)
        runners = reboot["runners"]
        safe = any(one["works"] and one["at_boot"] for one in runners)
        mine = any(one["sort"] == "user unit" and one["works"] for one in runners)
        if mine and not reboot["lingers"]:
            words = f"units of {reboot['user']} start at the first login only"
            yield Wrong(
                "linger", words, 81, f"loginctl enable-linger {reboot['user']}",
                by="person", certain=not safe,
            )  # fmt: skip
        if reboot["lost"] and not safe:
            words = f"after a reboot nothing brings back {_named(reboot['lost'])}"
            idle = [f"{one['what']}: {one['why']}" for one in runners if not one["works"]]
            words += f" ({idle[0]})" if idle else ""
            units = tuple(ident for ident in self.by_id if ident.startswith(("unit:", "cron:")))
            yield Wrong(
                "reboot", words, 96, None, because=("cron daemon", "linger", *units),
                by="person", certain=False,
            )  # fmt: skip

    def _elsewhere(self, one: Document) -> Wrong:
        here = self.document["reboot"]["here"]
        words = [
            f"{row['name']} {row['there'] or 'unset'} instead of {row['here'] or 'unset'}"
            for row in one["environ"]
            if row["name"] == "TMUX_TMPDIR"
        ]
        if one["state_dir"] is not None:
            words.insert(0, f"state in {one['state_dir']} instead of {here['state_dir']}")
        return Wrong(f"surroundings {one['what']}",
                     f"{one['what']} comes to other places than this shell: {', '.join(words)}; "
                     "give both the same", 26, None, by="person")  # fmt: skip

    def conflicts(self) -> Iterator[Wrong]:
        for one in self.document["conflicts"]:
            words = f"{one['with']} {one['words']}: {one['id']} ({one['path']})"
            yield Wrong(f"conflict {one['with']} {one['path']}", words, 95,
                        f"grep -n {one['path']} {one['with']}", by="person",
                        certain=False)  # fmt: skip


def _named(ids: Sequence[str]) -> str:
    """Some names: all of a few, else the first and how many more."""
    shown = ", ".join(ids[:_SHOWN])
    more = len(ids) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _advised(reason: str) -> str | None:
    """The command that the words themselves end in."""
    match = _ADVICE.search(reason)
    return match[1] if match is not None else None
