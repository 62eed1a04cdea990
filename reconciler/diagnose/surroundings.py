"""What is wrong with the host around what a spec declares, and with its logs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.base.errors import Remedy
from reconciler.base.text import amount
from reconciler.diagnose.loglines import too_silent
from reconciler.diagnose.wrong import HUNG, Document, Seen, Wrong, named
from reconciler.host.persistence import cron_daemon
from reconciler.host.remedy import piped, remedy
from reconciler.output.status import span

_LITTLE = 2 * 2**20
_HOUR = 3600.0


class Surroundings(Seen):
    """The host, its disks, what comes after a reboot, and other people."""

    def wrong(self) -> Iterator[Wrong]:
        """All of it, in no order."""
        yield from self.machine()
        yield from self.disks()
        yield from self.store()
        yield from self.messages()
        yield from self.readable()
        yield from self.programs()
        yield from self.folders()
        yield from self.logs()
        yield from self.reboot()
        yield from self.conflicts()

    def machine(self) -> Iterator[Wrong]:
        host = self.document["host"]
        if not host:
            return
        memory, swap = host["memory"], host["swap"]
        if memory["total"] and memory["available"] < 0.03 * memory["total"]:
            words = f"memory is used up: {amount(memory['available'])} of {amount(memory['total'])}"
            if swap["free"] <= 0.05 * swap["total"]:
                largest = piped(("ps", "aux", "--sort=-rss"), ("head",))
                words += " available, and no swap"
                yield Wrong("memory", words, 12, largest, by="person")
        if host["clock"]:
            yield Wrong("clock", host["clock"], 20, host.get("clock_remedy"), by="person")
        if host["load"][1] > 10 * host["cpus"]:
            words = f"the load is {host['load'][1]} on {host['cpus']} processors"
            busiest = piped(("ps", "aux", "--sort=-pcpu"), ("head",))
            yield Wrong("load", words, 95, busiest, by="person", certain=False)

    def disks(self) -> Iterator[Wrong]:
        for disk in self.document["disks"]:
            key, mount, ids = f"disk {disk['mount']}", disk["mount"], tuple(disk["ids"])
            if "reason" in disk:
                words = f"the file system {mount} {disk['reason']}"
                yield Wrong(key, words, 10, self._as_root("umount", "-l", mount), by="person")
                continue
            held = named(ids)
            last = ("tail", "-n", "20")
            find = piped(("du", "-xh", mount), ("sort", "-h"), last)
            if disk["read_only"]:
                words = f"the file system {mount} is read only, with {held}"
                yield Wrong(
                    key, words, 10, self._as_root("mount", "-o", "remount,rw", mount), by="person"
                )
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
                count = piped(("du", "-x", "--inodes", mount), ("sort", "-n"), last)
                yield Wrong(key, words, 10, count, by="person")  # fmt: skip
            elif disk["free"] < 0.03 * disk["total"] and disk["free"] < 2 * 2**30:
                words = f"the file system {mount} is nearly full: {amount(disk['free'])} free"
                yield Wrong(key, words, 94, find, by="person", certain=False)

    def store(self) -> Iterator[Wrong]:
        past = self.document["past"]
        if past.get("aside"):
            yield Wrong("store", past["damage"], 25, past["aside"], by="person")
        elif past.get("damage"):
            words = (
                f"{past['damage']}; the next pass repairs it, or sets it aside and begins a new one"
            )
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

    def readable(self) -> Iterator[Wrong]:
        for one in self.document.get("readable", ()):
            words = f"{one['id']}: {one['reason']}"
            yield Wrong(f"readable {one['id']}", words, 92, one["remedy"], by="person",
                        certain=False)  # fmt: skip

    def programs(self) -> Iterator[Wrong]:
        """A program that hangs because the one who should answer it is stopped."""
        hung = set()
        for one in self.document["resources"]:
            match = HUNG.search(one["reason"]) if one["state"] == "unknown" else None
            hung |= {match[1]} if match is not None else set()
        for name in sorted(hung):
            for process in self.document["stopped"]:
                if process["name"].startswith(name):
                    words = (
                        f"{process['name']} (pid {process['pid']}) is stopped by a signal, so "
                        f"{name} does not answer"
                    )
                    resume = remedy("kill", "-CONT", str(process["pid"]))
                    yield Wrong(f"program {name}", words, 30, resume, by="person")
                    break

    def folders(self) -> Iterator[Wrong]:
        for one in self.document["folders"]:
            resource = self.by_id.get(one["id"])
            if one.get("writable", True) or resource is None or resource["state"] != "ok":
                continue
            key = f"writable {one['path']}"
            words = f"{one['id']}: {one['path']} is not writable"
            command = ("chmod", "u+rwx") if one["ours"] else ("ls", "-ld")
            fix = remedy(*command, one["path"])
            yield Wrong(key, words, 40, fix, because=self.on_disks([one["id"]]), by="person",
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
                last_lines = remedy("tail", "-n", "20", one["path"])
                yield Wrong(f"silent {one['path']}", words, 92, last_lines,
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
                    f"{number} error{'' if number == 1 else 's'} in {one['path']}, the last within "
                    f"the hour: {last['sample']}"
                )
                errors = remedy("grep", "-i", "-e", "error", one["path"])
                yield Wrong(f"errors {one['path']}", words, 93, errors,
                            because=because, by="person", certain=False)  # fmt: skip

    def reboot(self) -> Iterator[Wrong]:
        reboot = self.document["reboot"]
        if not reboot:
            return
        lines = tuple(one["id"] for one in self.document["resources"]
                      if one["id"].startswith("cron:") and one["state"] != "skipped"
                      and not one.get("absent"))  # fmt: skip
        words, command = cron_daemon(reboot, self.document.get("uid", 0))
        if lines and command is not None:
            words += "" if reboot["cron_runs"] else f", so nothing runs {named(lines)}"
            yield Wrong("cron daemon", words, 79, command, lines, by="person")
        for one in reboot["differences"]:
            if one["matters"]:
                yield self._elsewhere(one)
        runners = reboot["runners"]
        safe = any(one["works"] and one["at_boot"] for one in runners)
        mine = any(one["sort"] == "user unit" and one["works"] for one in runners)
        if mine and not reboot["lingers"]:
            words = f"units of {reboot['user']} start at the first login only"
            yield Wrong(
                "linger", words, 81, remedy("loginctl", "enable-linger", reboot["user"]),
                by="person", certain=not safe,
            )  # fmt: skip
        if reboot["lost"] and not safe:
            words = f"nothing starts {named(reboot['lost'])} after a reboot"
            idle = [f"{one['what']}: {one['why']}" for one in runners if not one["works"]]
            words += f" ({idle[0]})" if idle else ""
            units = tuple(ident for ident in self.by_id if ident.startswith(("unit:", "cron:")))
            yield Wrong(
                "reboot", words, 96, None, because=("cron daemon", "linger", *units),
                by="person", certain=False,
            )  # fmt: skip

    def _as_root(self, *words: str) -> Remedy:
        """The command as the caller can give it."""
        return remedy(*words) if self.document.get("uid", 0) == 0 else remedy("sudo", *words)

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
                     f"{one['what']} would use other places than this shell: "
                     f"{', '.join(words)}; give both the same", 26, None, by="person")  # fmt: skip

    def conflicts(self) -> Iterator[Wrong]:
        for one in self.document["conflicts"]:
            words = f"{one['with']} {one['words']}: {one['id']} ({one['path']})"
            yield Wrong(f"conflict {one['with']} {one['path']}", words, 95,
                        remedy("grep", "-nF", "-e", one["path"], one["with"]), by="person",
                        certain=False)  # fmt: skip
