"""Random worlds: a host with files of several owners and ages, and a valid spec over it.

A world is made from its seed alone, so that one that went wrong can be made again. It must not
judge; that is in ``test_worlds``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from support import Machine, until

DAY = 86400
PEOPLE = b"# kept by a person\nexport EDITOR=vi\n\n\ttabs and  blanks \xff\n"
LAYOUTS = ("even-horizontal", "even-vertical", "tiled", "main-vertical")


class World:
    """A host and a spec for it, as its seed says."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.dice = random.Random(seed)
        self.root = machine.base / "world"
        self.foreign = machine.base / "foreign"
        self.sections: dict[str, dict[str, Any]] = {}
        self.people: list[Path] = []
        self._made = 0
        self.root.mkdir()
        self._tree(self.foreign, 2)
        if self.dice.random() < 0.7:
            machine.write_crontab(b"MAILTO=me\n#a\n17 * * * *  cd / && true\n")
        kinds = [
            self._directory, self._permission, self._age_rule, self._rotation, self._block,
            self._whole, self._cron, self._daemon, self._session, self._nested,
        ]  # fmt: skip
        for _ in range(self.dice.randint(3, 9)):
            self.dice.choice(kinds)()
        self.spec = self._written()

    def _written(self) -> Path:
        lines = [f"{section}: {json.dumps(these)}" for section, these in self.sections.items()]
        return self.machine.spec("\n".join(lines))

    # What there is

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"{kind}{self._made}"

    def _declare(self, section: str, name: str, /, **fields: Any) -> None:
        self.sections.setdefault(section, {})[name] = fields

    def _file(self, path: Path, *, days: int | None = None, size: int | None = None) -> None:
        """A file with some bytes, an age in days, a mode, and as root somebody's."""
        dice = self.dice
        path.write_bytes(dice.randbytes(dice.choice((0, 1, 300, 9000)) if size is None else size))
        path.chmod(dice.choice((0o644, 0o600, 0o640, 0o755)))
        if os.geteuid() == 0:
            os.chown(path, dice.choice((0, 0, 1, 2)), dice.choice((0, 1)))
        # Half a day beside every limit, so that no answer depends on the moment of asking.
        age = DAY * (dice.randint(0, 40) if days is None else days) + DAY // 2
        os.utime(path, (time.time() - age,) * 2)

    def _tree(self, top: Path, depth: int) -> None:
        top.mkdir()
        for name in self.dice.sample(["a.log", "b b.log", "c.txt", "-d", "e\n.log", "ü.gz"], 4):
            self._file(top / name)
        if depth:
            for name in self.dice.sample(["x", "y z", ".h"], self.dice.randint(0, 2)):
                self._tree(top / name, depth - 1)
        if self.dice.random() < 0.3:
            (top / "link").symlink_to(self.dice.choice([str(self.foreign), "nowhere"]))
        top.chmod(self.dice.choice((0o755, 0o750, 0o700)))

    def _mode(self, *modes: str) -> str:
        return self.dice.choice(modes)

    def _owner(self) -> dict[str, str]:
        if os.geteuid() or self.dice.random() < 0.6:
            return {}
        return {"owner": self.dice.choice(("root", "daemon", "bin"))}

    # What is declared

    def _directory(self) -> None:
        name = self._name("dir")
        path = self.root / name / "deep" if self.dice.random() < 0.5 else self.root / name
        if self.dice.random() < 0.4:
            path.mkdir(parents=True)
            path.chmod(0o711)
        fields = {"path": str(path), "mode": self._mode("0755", "0750", "2755", "1755", "0700")}
        self._declare("directories", name, **fields, **self._owner())

    def _nested(self) -> None:
        """A directory of its own below a recursive permission, which leaves it alone."""
        name = self._name("nest")
        self._tree(self.root / name, 2)
        self._declare(
            "permissions", name, path=str(self.root / name), recursive=True,
            file_mode=self._mode("0640", "0600"), dir_mode="0750",
        )  # fmt: skip
        self._declare("directories", name, path=str(self.root / name / "own"), mode="0755")

    def _permission(self) -> None:
        name = self._name("perm")
        top = self.root / name
        self._tree(top, 2)
        fields = self.dice.choice((
            {"path": str(top), "recursive": True, "file_mode": "0644", "dir_mode": "0755"},
            {"path": str(top), "recursive": True, "mode": "0750", "exclude": ["*.log"]},
            {"path": f"{top}/*.log", "mode": "0600"},
            {"path": str(top), "mode": "0751"},
        ))  # fmt: skip
        self._declare("permissions", name, **fields, **self._owner())

    def _age_rule(self) -> None:
        name = self._name("age")
        top = self.root / name
        self._tree(top, 2)
        due = self.dice.choice((
            {"older_than": f"{self.dice.randint(1, 40)}d"}, {"keep_last": self.dice.randint(1, 5)},
            {"max_total": self.dice.choice(("1KiB", "4KiB", "20KiB"))},
            {"older_than": "10d", "keep_last": 2}, {"keep": {"daily": 3, "weekly": 2}},
        ))  # fmt: skip
        action = self.dice.choice((
            {"action": "delete"},
            {"action": "move", "to": str(self.root / f"{name}.moved")},
            {"action": "archive", "to": str(self.root / f"{name}.tar.gz")},
        ))  # fmt: skip
        match = self.dice.choice(({}, {"match": "*.log"}, {"exclude": ["*.txt", "x"]}))
        recursive = {"recursive": self.dice.random() < 0.5}
        if recursive["recursive"] and self.dice.random() < 0.3:
            recursive["remove_empty"] = True
        self._declare("retention", name, path=str(top), **due, **action, **match, **recursive)
        if self.dice.random() < 0.4:
            fields = {"path": str(top), "recursive": True, "file_mode": "0640"}
            self._declare("permissions", name, **fields)

    def _rotation(self) -> None:
        name = self._name("rot")
        top = self.root / name
        top.mkdir()
        for log in ("a.log", "b.log"):
            self._file(top / log, size=self.dice.choice((0, 4096, 30000, 200000)))
            if self.dice.random() < 0.5:
                self._file(top / f"{log}.1", size=5000)
        method = self.dice.choice((
            {}, {"method": "copytruncate"}, {"compress": False}, {"delay_compress": True},
            {"create": {"mode": "0640"}}, {"every": "day", "name": "%Y%m%d"}, {"every": "week"},
        ))  # fmt: skip
        self._declare(
            "retention", name, path=str(top), match="*.log", action="rotate",
            max_file=self.dice.choice(("10KiB", "100KiB")), keep=self.dice.randint(1, 4), **method,
        )  # fmt: skip
        if self.dice.random() < 0.5:
            fields = {"match": "*.log.*", "older_than": f"{self.dice.randint(1, 30)}d"}
            self._declare("retention", f"{name}_old", path=str(top), action="delete", **fields)

    def _block(self) -> None:
        name = self._name("rc")
        path = self.root / name
        there = self.dice.random() < 0.7
        if there:
            path.write_bytes(PEOPLE if self.dice.random() < 0.8 else PEOPLE + b"no end")
            self.people.append(path)
        lines = [f"alias {letter}='{name} %$'" for letter in "abc"[: self.dice.randint(1, 3)]]
        place = self.dice.choice(({}, {}, {"after": "^alias"}, {"before": "."}))
        place |= self.dice.choice(({}, {}, {"comment": ["<!--", "-->"]}))
        self._declare("blocks", name, path=str(path), content="\n".join(lines), **place)
        if there and self.dice.random() < 0.4:
            self._declare("blocks", f"{name}b", path=str(path), content="second\n")

    def _whole(self) -> None:
        name = self._name("whole")
        path = self.root / name
        if self.dice.random() < 0.5:
            self._file(path)
        extra = self.dice.choice(
            ({}, {"mode": "0600"}, {"validate": ["test", "-f", "{}"]}, {"on_change": ["run true"]})
        )
        self._declare("files", name, path=str(path), content=f"{name}\nü %", **extra)
        if self.dice.random() < 0.5:
            self._declare("links", name, path=f"{path}.link", target=name)

    def _cron(self) -> None:
        name = self._name("cron")
        when = self.dice.choice(("*/5 * * * *", "@reboot", "30 3 * * mon-fri", "@weekly"))
        command = self.dice.choice(
            (["/bin/true", name, "a%b", "it's"], f"cd / && true # {name}", ["/bin/ls", name])
        )
        extra = self.dice.choice(({}, {}, {"env": {"A": "b c", "Q": "\"'"}}))
        self._declare("cron", name, schedule=when, command=command, **extra)

    def _daemon(self) -> None:
        name = self._name("job")
        command = self.dice.choice(
            (["sleep", "86400"], "exec sleep 86401", ["sh", "-c", "sleep 86402; true", "a b"])
        )
        extra = self.dice.choice(
            ({}, {"instances": 2}, {"env": {"X": "y"}}, {"cwd": str(self.root)})
        )
        self._declare("processes", name, command=command, **extra)

    def _session(self) -> None:
        name = self._name("mux")
        windows = [
            {
                "name": f"w{at}",
                "layout": self.dice.choice(LAYOUTS),
                "panes": [{"command": "sleep 86403"} for _ in range(self.dice.randint(1, 3))],
            }
            for at in range(self.dice.randint(1, 3))
        ]
        self._declare("sessions", name, windows=windows)
        if self.dice.random() < 0.3:
            self._declare("processes", f"{name}_p", command=["sleep", "86404"], session=name)

    def retire(self) -> list[str]:
        """Some of what was declared is to be absent from now on; their names."""
        gone = []
        for section in ("directories", "blocks", "links", "cron", "sessions", "processes"):
            for name, fields in self.sections.get(section, {}).items():
                # With a session go the processes in it.
                if self.dice.random() < 0.5 or fields.get("session") in gone:
                    fields["state"] = "absent"
                    gone.append(name)
        self.spec = self._written()
        return gone

    # What happens to it

    def drift(self) -> list[str]:
        """Something changes, now and then much; what was done, in words."""
        deeds: list[Callable[[], str]] = [
            self._kill, self._chmod, self._lose_line, self._person, self._more, self._tmux,
            self._crontab,
        ]  # fmt: skip
        done = [self.dice.choice(deeds)() for _ in range(self.dice.randint(1, 5))]
        self.rest()
        return [deed for deed in done if deed]

    def rest(self) -> None:
        """Wait until nothing ends any more, and no shell has still to start its command."""
        seen: list[list[int]] = []

        def calm() -> bool:
            # What tmux has closed ends a moment later.
            lines = self.machine.ours()
            seen.append(sorted(self.machine.running("sleep 8640")))
            waits = any(
                "sleep 86402; true" in line and not has_child(pid) for pid, line in lines.items()
            )
            return not waits and len(seen) > 5 and seen[-1] == seen[-6]

        until(calm)

    def _kill(self) -> str:
        # What a shell waits for would end the shell a moment later.
        found = sorted(filter(leads_session, self.machine.running("sleep 8640")))
        if not found:
            return ""
        pid = self.dice.choice(found)
        with suppress(ProcessLookupError):  # It has just been started anew.
            os.kill(pid, signal.SIGKILL)
        return f"killed {pid}"

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if not path.is_symlink())

    def _chmod(self) -> str:
        paths = self._paths()
        if not paths:
            return ""
        path = self.dice.choice(paths)
        path.chmod(0o700 if path.is_dir() else 0o604)
        return f"chmod {path}"

    def _lose_line(self) -> str:
        blocks = [path for path in self._paths() if path.name.startswith("rc")]
        if not blocks:
            return ""
        path = self.dice.choice(blocks)
        path.write_bytes(path.read_bytes().replace(b"alias a=", b"alias changed=", 1))
        return f"changed {path}"

    def _person(self) -> str:
        if not self.people:
            return ""
        path = self.dice.choice(self.people)
        path.write_bytes(b"new first line\n" + path.read_bytes())
        return f"wrote above {path}"

    def _more(self) -> str:
        tops = sorted(path for path in self.root.glob("age*") if path.is_dir())
        if not tops:
            return ""
        path = self.dice.choice(tops) / "later.log"
        self._file(path)
        return f"made {path}"

    def _tmux(self) -> str:
        if "sessions" not in self.sections:
            return ""
        name = self.dice.choice(sorted(self.sections["sessions"]))
        target = self.dice.choice((f"={name}:w0", f"={name}:"))
        self.machine.tmux(self.dice.choice(("kill-window", "kill-pane")), "-t", target)
        return f"killed {target}"

    def _crontab(self) -> str:
        text = self.machine.crontab_text()
        if text is None:
            return ""
        self.machine.write_crontab(b"5 5 * * * mine\n" + text.replace(b"/bin/", b"/sbin/", 1))
        return "changed the crontab"


def has_child(pid: int) -> bool:
    """Has that process started another? One that has ended has no more to start."""
    try:
        return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text())
    except OSError:
        return True


def leads_session(pid: int) -> bool:
    """Has that process a session of its own? Not one that has ended meanwhile."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def snapshot(*tops: Path) -> dict[str, tuple[object, ...]]:
    """Every entry below, with kind, mode, owner, bytes and time of change of its content."""
    found: dict[str, tuple[object, ...]] = {}
    for top in tops:
        for path in [top, *top.rglob("*")]:
            seen = path.lstat()
            content: object = None
            if stat.S_ISLNK(seen.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(seen.st_mode):
                content = path.read_bytes()
            mode, owner = stat.filemode(seen.st_mode), (seen.st_uid, seen.st_gid)
            changed = None if path.is_dir() else seen.st_mtime_ns
            found[str(path)] = (mode, owner, content, changed)
    return found
