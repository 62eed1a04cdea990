"""What is wrong, by what was seen, each with the command that fixes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.base.errors import Remedy
from reconciler.diagnose.surroundings import Surroundings
from reconciler.diagnose.wrong import CHECK, HUNG, Command, Document, Seen, Wrong, named
from reconciler.host.remedy import in_turn, piped, remedy
from reconciler.output.status import span

_WEIGHTS = {"directory": 40, "permission": 41, "session": 50, "process": 60, "unit": 72,
            "cron": 80, "block": 82, "check": CHECK, "retention": 90}  # fmt: skip
_OTHER = 65


def findings(document: Document, command: Command) -> list[Wrong]:
    """All that is wrong or worth a look, in no order."""
    return [*Surroundings(document, command).wrong(), *Declared(document, command).wrong()]


class Declared(Seen):
    """What the spec declares, and who keeps it so."""

    def wrong(self) -> Iterator[Wrong]:
        """All of it, in no order."""
        yield from self.resources()
        yield from self.processes()
        yield from self.loop()
        yield from self.checks()

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
                continue  # It has become due just now; the next pass does it.
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
        evidence = first.get("evidence") or ""
        evidence = f"; {evidence}" if len(group) == 1 and evidence not in reason else ""
        who = named(ids)
        once = self.command("--once")
        if state == "differs":
            if first.get("runs"):
                because = (
                    *because,
                    *self.on_disks(ids),
                )  # It is unhealthy, such as by an old heartbeat.
            by_hand = in_turn(*first["by_hand"]) if first.get("denied") else None
            return Wrong(key, f"{who}: {reason}{evidence}", weight, by_hand or once, ids, because,
                         "person" if by_hand else "program")  # fmt: skip
        if state == "paused":
            differs = first.get("differs")
            words = f"{who} is {reason}" + (f"; it would change: {differs}" if differs else "")
            return Wrong(key, words, 57, self.command("--resume", key), ids, because, "person",
                         bool(differs))  # fmt: skip
        if state in ("given up", "waits"):
            words = f"{who}: {reason}{evidence}"
            return Wrong(key, words, weight - 1, self.command("--resume", key), ids,
                         (*because, *self.on_disks(ids)))  # fmt: skip
        if state == "skipped":
            return Wrong(key, f"{who}: {reason}", weight, once, ids, because)
        match = HUNG.search(reason)
        fix = first.get("remedy")
        if match is not None:
            because += (f"program {match[1]}",)
            columns = "pid,stat,wchan:20,etime,args"
            fix = piped(("ps", "-e", "-o", columns), ("grep", "-e", match[1]))
        words = f"{who}: unknown: {reason}"
        because += self.on_disks(ids)
        return Wrong(key, words, 31, fix, ids, because, "person")

    def _failing(self, ident: str, reason: str) -> Wrong:
        # What it comes after may be what it is about.
        about = self.by_id[ident].get("after", ())
        because = (*self.causes(ident), *about, *self.on_disks([ident]))
        fix, who = self._answer(ident)
        return Wrong(ident, f"{ident}: {reason}", CHECK, fix, (ident,), because, who)

    def _answer(self, ident: str) -> tuple[Remedy, str]:
        """What to do about a check that fails, and who can."""
        row = self.by_id[ident]
        # One that only tells of it is fixed by nothing that we could do.
        if row.get("acts", True) or row.get("inspect") is None:
            return self.command("--repair"), "program"
        return row["inspect"], "person"

    def processes(self) -> Iterator[Wrong]:
        for one in self.document["processes"]:
            if one["id"] not in self.by_id:
                continue
            rows = [one, *one["children"]]
            held = [row["pid"] for row in rows if row["state"] == "T"]
            if held:
                who = "" if held[0] == one["pid"] else f"its child (pid {held[0]}) is "
                words = f"{one['id']} (pid {one['pid']}) hangs: {who}stopped by a signal"
                resume = remedy("kill", "-CONT", *map(str, held))
                yield Wrong(f"stopped {one['id']}", words, 35, resume)
            elif one["state"] == "D":
                where = f" in {one['waits_in']}" if one.get("waits_in") else ""
                words = (
                    f"{one['id']} (pid {one['pid']}) waits in the kernel{where}, as for a disk or "
                    "a file system that does not answer"
                )
                stack = remedy("cat", f"/proc/{one['pid']}/stack")
                yield Wrong(f"stopped {one['id']}", words, 36, stack,
                            by="person", certain=False,
                            because=self.on_disks([one["id"]]))  # fmt: skip

    def loop(self) -> Iterator[Wrong]:
        loop = self.document["loop"]
        expected = tuple(loop["expected_by"])
        because = (*expected, *(name for ident in expected for name in self.causes(ident)))
        if loop.get("unknown"):
            return
        if loop["running"]:
            pid = loop["pid"]
            if loop.get("stopped"):
                words = f"the watchdog (pid {pid}) hangs: stopped by a signal"
                yield Wrong("loop", words, 70, remedy("kill", "-CONT", str(pid)), because=because)
            elif not loop["healthy"]:
                words = (
                    f"the watchdog (pid {pid}) hangs: no heartbeat for {span(loop['moved'])}; a "
                    "pass ends it and takes over"
                )
                yield Wrong("loop", words, 70, self.command("--once"), because=because)
            return
        if expected:
            words = f"the watchdog is not running, although {named(expected)} declares it"
            yield Wrong("loop", words, 70, self.command("--once"), because=because)
        elif not any(one["sort"] != "login" for one in self.document["reboot"].get("runners", ())):
            words = "no watchdog is running, and nothing else makes passes"
            yield Wrong("loop", words, 97, self.command("--loop"), by="person", certain=False)

    def checks(self) -> Iterator[Wrong]:
        for one in self.document["checks"]:
            ident = one["id"]
            if one["result"] == "failing":
                yield self._failing(ident, one["said"])
            elif one["result"] == "unanswered":
                before = self.by_id[ident]["state"] == "failing"
                because = (*self.causes(ident), *self.on_disks([ident]))
                fix, who = self._answer(ident)
                yield Wrong(ident, f"{ident}: {one['said']}", CHECK, fix, (ident,), because, who,
                            certain=before)  # fmt: skip
