"""monitrc: processes with limits, and checks.

monit starts by a command that puts itself into the background, and knows the process by a pid file
or a pattern: that is ``match`` here.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from reconciler.kinds.cron.lines import quoted
from reconciler.migrate.document import SpecBlock
from reconciler.migrate.draft import SpecDraft, nested, size
from reconciler.migrate.monit_syntax import (
    MonitClause,
    MonitWord,
    clauses_of,
    connection,
    statements,
    without_cycles,
)
from reconciler.migrate.original import Original

CONTENT = re.compile(
    r"^[ \t]*(check[ \t]+(process|file|directory|filesystem|device|host|program|system|fifo"
    r"|network)[ \t]|set[ \t]+(daemon|httpd|alert|logfile|log|mailserver|eventqueue|idfile)\b)",
    re.MULTILINE | re.IGNORECASE,
)
NAMES = re.compile(r"(^|/)\.?monitrc[^/]*$|/monit(/[^/]+)*/[^/]+$")

_OF_A_PROTOCOL = ("protocol", "ssl", "status", "content", "request", "headers")
_WELL = [200, 201, 202, 203, 204, 206, 300, 301, 302, 303, 304, 307, 308]
"""What monit takes for an answer, where no status is asked for: all below 400."""
_USUAL = 60
_UNITS = {"second": "s", "minute": "m", "hour": "h", "day": "d"}
_GREATER = r"(?:>|>=|gt|greater|ge|more)"
_LESS = r"(?:<|<=|lt|less|le)"


def read(original: Original, draft: SpecDraft) -> None:
    """All its services. Raises NotImported."""
    said = list(statements(original, {os.path.realpath(original.path)}))
    every: int | None = None
    for one in said:
        if one[0].text.lower() == "set":
            seconds = MonitClause(one).after("daemon") if _second(one) == "daemon" else None
            if seconds and seconds.isdigit():
                every = int(seconds)
            if not seconds or len(one) > len(("set", "daemon", seconds)):
                shown = MonitClause(one).origin
                short = shown._replace(text=shown.text[:100])
                draft.leave(draft.document, short, "about monit itself")
    for one in said:
        if one[0].text.lower() == "check":
            _Service(one, every, draft).read()


def _second(words: Sequence[MonitWord]) -> str:
    return words[1].text.lower() if len(words) > 1 else ""


class _Service:
    """One ``check``, and what is made of it."""

    def __init__(self, words: Sequence[MonitWord], every: int | None, draft: SpecDraft) -> None:
        head, self.clauses = clauses_of(words)
        self.head = MonitClause(head)
        self.sort = _second(words)
        if len(words) < 3:
            raise words[0].original.refused(words[0].line, "check needs a sort and a name")
        self.name = words[2].text
        self.every = every
        """Seconds between two looks, where they are known."""
        self.draft = draft
        self.rest: list[str] = []
        """What the last connection is asked for, and no check can."""
        self.block: SpecBlock | None = None
        """The process, where it is one that can be started."""
        self.programs = {
            one.first: _as_user(next((word.text for word in one.words[1:] if word.quoted), ""), one)
            for one in self.clauses
            if one.first in ("start", "stop")
        }

    def read(self) -> None:
        for clause in self.clauses:
            if clause.first == "every":
                found = re.fullmatch(r"([0-9]+) cycles?", clause.plain())
                if found is None:
                    self._leave(clause, "it is asked at all times")
                else:
                    self.every = (self.every or _USUAL) * int(found[1])
        if self.sort == "process":
            self._process()
        made = 0
        for clause in self.clauses:
            if clause.first == "if":
                made += self._condition(clause)
            elif clause.plain() in ("active", "start") and clause.first in ("mode", "onreboot"):
                pass  # As it is here.
            elif clause.first not in ("start", "stop", "depends", "depend", "every"):
                self._leave(clause, "has no equivalent")
        before = self.draft.left[-1:]
        said = bool(before) and before[0].origin.line >= self.head.origin.line
        if not made and self.block is None and not said:
            self._leave(self.head, "nothing of it has an equivalent")

    def _leave(self, clause: MonitClause, reason: str) -> None:
        block = self.draft.document if self.block is None else self.block
        self.draft.leave(block, clause.origin, reason)

    def _process(self) -> None:
        start = next((one for one in self.clauses if one.first == "start"), None)
        if start is None:
            return
        block = self.block = self.draft.add("processes", self.name, self.head.origin)
        program = next((word.text for word in start.words[1:] if word.quoted), "")
        block.put("command", shlex.split(program), start.origin)
        if start.after("timeout") is not None:
            self._leave(start, "a start is not waited for so long; see ready")
        pidfile, pattern = self.head.after("pidfile"), self.head.after("matching", "match")
        if pidfile is not None:
            block.put("match", {"pidfile": pidfile}, self.head.origin)
        elif pattern is not None:
            block.put("match", {"cmdline": pattern}, self.head.origin)
        for key, name in (("user", "uid"), ("group", "gid")):
            value = start.after(name)
            if value is not None:
                block.put(key, value, start.origin)
        needs = [
            f"process:{one.text}" for clause in self.clauses
            if clause.first in ("depends", "depend") for one in clause.words[1:]
            if one.text.lower() != "on"
        ]  # fmt: skip
        if needs:
            origin = next(one.origin for one in self.clauses if one.first.startswith("depend"))
            block.put("needs", needs, origin)
        for clause in self.clauses:
            if clause.first == "stop":
                self._leave(clause, "it is stopped by a signal")

    def _condition(self, clause: MonitClause) -> bool:
        """One ``if``; returns whether it was taken."""
        text, cycles = without_cycles(clause.plain())
        self.rest = []
        action = clause.after("then") or "alert"
        try:
            if self.block is not None and self._limit(self.block, clause, text, cycles, action):
                return True
            fields = self._asked(clause, text)
            if fields is None:
                self._leave(clause, "has no equivalent")
                return False
            self._check(clause, fields, cycles, action)
        except ValueError as error:
            self._leave(clause, str(error))
            return False
        return True

    def _limit(
        self, block: SpecBlock, clause: MonitClause, text: str, cycles: int, action: str
    ) -> bool:
        """A limit of the process, its age, or how many starts may fail."""
        many = re.fullmatch(r"([0-9]+) restarts?(?: [0-9]+ cycles?)?", text)
        if many:
            nested(block, "restart").put("attempts", int(many[1]), clause.origin)
            if action not in ("unmonitor", "timeout", "stop", "alert"):
                self._leave(clause, f"{action}: only a message is sent")
            return True
        if re.match(r"(not exist|does not exist|doesn't exist)", text):
            return action in ("restart", "start")
        found = re.fullmatch(
            rf"(?:total ?)?(cpu|mem|memory|threads|filedescriptors|uptime)(?:\(.*\))? {_GREATER} "
            r"([0-9.]+) ?([a-z%]*)", text,
        )  # fmt: skip
        if found is None or action != "restart":
            return False
        name, number, unit = found.groups()
        value: str | int | None
        if name == "uptime":
            key, value = "age", f"{number}{_UNITS[unit.rstrip('s') or 'second']}"
        elif name == "cpu":
            key, value = "cpu", f"{number}%"
        elif unit == "%":
            raise ValueError("memory is limited in bytes")
        elif name in ("mem", "memory"):
            key, value = "memory", size(f"{number}{unit}")
        else:
            key, value = "threads" if name == "threads" else "open_files", int(float(number))
        limits = nested(block, "limits")
        if key in limits:
            raise ValueError(f"there is one limit of {key}, and it stands above")
        limits.put(key, value, clause.origin)
        time = f"{cycles * (self.every or _USUAL)}s"
        if name != "uptime" and limits.setdefault("for", time) != time:
            self._leave(clause, f"all limits of a process have one time, here {limits['for']}")
        return True

    def _asked(self, clause: MonitClause, text: str) -> dict[str, object] | None:
        """The form of a check, or None."""
        path = self.head.after("path")
        if text.startswith("failed") and re.search(r"\b(port|unixsocket|unix)\b", text):
            return self._connection(clause)
        if self.sort == "host" and re.match(r"failed (ping|icmp)", text):
            return self._ping(clause)
        if self.sort in ("file", "directory") and path:
            found = re.fullmatch(
                rf"(?:timestamp|mtime|modification time) {_GREATER} ([0-9]+) ?([a-z]+)", text
            )
            if found:
                unit = _UNITS[found[2].rstrip("s")]
                return {"fresh": {"path": path, "max_age": f"{found[1]}{unit}"}}
            found = re.fullmatch(r'(?:content|match) (?:=|==)? ?"(.*)"', text)
            if found:
                return {"log": {"path": path, "match": found[1]}}
        if self.sort in ("filesystem", "device") and path:
            return _disk(text, path)
        if self.sort == "program" and path and re.fullmatch(r"status (!=|>|ne) 0", text):
            return {"command": shlex.split(path)}
        return _host(text) if self.sort == "system" else None

    def _ping(self, clause: MonitClause) -> dict[str, object]:
        asked, self.rest = connection(clause)
        sort = f"-{found[1]}" if (found := re.search(r"\bping([46])\b", clause.plain())) else None
        count, wait = asked.get("count", "3"), asked.get("timeout", "5")
        options = ["-c", count, "-W", wait, *(["-s", asked["size"]] if "size" in asked else [])]
        address = asked.get("address") or self.head.after("address") or self.name
        command = ["ping", *([sort] if sort else []), *options, address]
        return {"command": command, "timeout": f"{int(count) + int(wait)}s"}

    def _connection(self, clause: MonitClause) -> dict[str, object]:
        """A check of a port, without what ``_check`` asks for. Raises ValueError."""
        asked, self.rest = connection(clause)
        if asked.get("type", "").lower() == "udp":
            raise ValueError("UDP is not asked")
        host = asked.get("host") or asked.get("address") or self.head.after("address")
        socket, port = asked.get("unixsocket"), asked.get("port")
        if asked.get("protocol") == "default":
            del asked["protocol"]
        protocol = asked.get("protocol", "").lower()
        if protocol not in ("http", "https"):
            self.rest += ["ssl"] * asked.get("type", "").lower().startswith("tcpssl")
            self.rest += [f"{name} {asked[name]}".rstrip() for name in _OF_A_PROTOCOL
                          if name in asked]  # fmt: skip
            return {"tcp": socket or f"{host or '127.0.0.1'}:{port}"}
        encrypted = "ssl" in asked or asked.get("type", "").lower().startswith("tcpssl")
        scheme = "https" if protocol == "https" or encrypted else "http"
        place = f"{host or '127.0.0.1'}:{port}" if port else host
        place = "localhost" if socket else place
        http: dict[str, object] = {"url": f"{scheme}://{place}{asked.get('request', '/')}"}
        http["status"] = int(asked["status"]) if "status" in asked else _WELL
        if "content" in asked:
            http["match"] = asked["content"]
        if "headers" in asked:
            pairs = re.findall(r"([\w-]+): *(.*?)(?= [\w-]+: |\]|$)", asked["headers"])
            http["headers"] = dict(pairs)
        if socket:
            http["unix"] = socket
        return {"http": http}

    def _check(
        self, clause: MonitClause, fields: dict[str, object], cycles: int, action: str
    ) -> None:
        form = next(iter(fields))
        block = self.draft.add("checks", f"{self.name}-{form}", clause.origin)
        for key, value in fields.items():
            block.put(key, SpecBlock(value) if isinstance(value, dict) else value, clause.origin)
        if self.every is not None:
            block.put("every", f"{self.every}s", clause.origin)
        waits = (self.head if self.sort == "program" else clause).after("timeout")
        if waits is not None and waits.isdigit() and (form != "command" or self.sort == "program"):
            block.put("timeout", f"{waits}s", clause.origin)
        if self.sort == "program" and (user := self.head.after("uid")) is not None:
            block.put("user", user, self.head.origin)
        if self.sort == "program" and self.head.after("gid") is not None:
            self.rest.append("gid")
        reasons = [f"is not asked for: {', '.join(self.rest)}"] if self.rest else []
        if cycles > 1:
            block.put("failures", cycles, clause.origin)
            if not re.search(rf"\b{cycles} cycles?$", clause.plain()):
                reasons.append(f"{cycles} in a row are counted")
        reactions = ["notify"]
        if action in ("restart", "start") and self.block is not None:
            name = next(name for name, one in self.draft.document["processes"].items()
                        if one is self.block)  # fmt: skip
            reactions = [f"restart process:{name}", "notify"]
        elif action == "exec":
            if f"repeat every {cycles} cycle" not in clause.origin.text:
                reasons.append("it is run again while it fails")
            reactions = [f"run {_as_user(clause.after('exec') or '', clause)}", "notify"]
        elif action in ("restart", "start") and "start" in self.programs:
            both = ("stop", "start") if action == "restart" else ("start",)
            run = [self.programs[one] for one in both if one in self.programs]
            reactions = [f"run {'; '.join(run)}", "notify"]
        elif action != "alert":
            reasons.append(f"{action}: only a message is sent")
        if reasons:
            self.draft.leave(block, clause.origin, "; ".join(reasons))
        block.put("on_failure", reactions, clause.origin)


def _as_user(command: str, clause: MonitClause) -> str:
    """It as the user, and with the group, that the clause names behind it."""
    user, group = clause.after("uid"), clause.after("gid")
    if user is None and group is None:
        return command
    words = [*(["-u", user] if user else []), *(["-g", group] if group else [])]
    return f"runuser {' '.join(map(quoted, words))} -- {command}"


def _disk(text: str, path: str) -> dict[str, object] | None:
    if path.startswith("/dev/"):
        raise ValueError("name the folder where it is mounted")
    found = re.fullmatch(rf"(?:space|inodes?) {_GREATER} ([0-9.]+) ?%", text)
    if found:
        return {"disk": {"path": path, "max_used": f"{found[1]}%"}}
    found = re.fullmatch(rf"(?:space|inodes?) free {_LESS} ([0-9.]+) ?([a-z%]+)", text)
    if found and found[2] == "%":
        return {"disk": {"path": path, "min_free": f"{found[1]}%"}}
    if found and text.startswith("space"):
        return {"disk": {"path": path, "min_free": size(f"{found[1]}{found[2]}")}}
    return None


def _host(text: str) -> dict[str, object] | None:
    found = re.fullmatch(rf"loadavg ?\(5min\) {_GREATER} ([0-9.]+)", text)
    if found:
        return {"load": {"max": found[1]}}
    found = re.fullmatch(rf"(memory|mem|swap|cpu) {_GREATER} ([0-9.]+) ?%", text)
    if found:
        return {found[1].replace("mem", "memory") if found[1] == "mem" else found[1]:
                {"max_used": f"{found[2]}%"}}  # fmt: skip
    return None
