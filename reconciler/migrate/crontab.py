"""crontab, /etc/crontab and /etc/cron.d: schedules, with the variables above them.

Lines are taken apart here: python-crontab takes every # in a command for a comment.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterator
from typing import NamedTuple

from reconciler.kinds.cron.lines import quoted, setting
from reconciler.migrate.document import Origin
from reconciler.migrate.draft import SpecDraft
from reconciler.migrate.original import Original

_FIELD = r"[0-9A-Za-z*][^\s]*"
_WHEN = rf"(?:@[a-z_]+(?:[ \t]+[0-9]+[smhd])?|-?[0-9*][^\s]*(?:[ \t]+{_FIELD}){{4}})"
_JOB = re.compile(rf"[ \t]*({_WHEN})[ \t]+(\S.*)")
CONTENT = re.compile(rf"^{_JOB.pattern}", re.MULTILINE)
NAMES = re.compile(r"(^|/)(crontab|cron)[^/]*$|/cron\.d/|/crontabs/|\.(cron|crontab)$")
_SYSTEM = re.compile(r"/etc/crontab$|/cron\.d/")

_OWN = {
    "CRON_TZ": "the times of what follows are those of this host's zone",
    "RANDOM_DELAY": "what follows runs without a delay",
    "LOGNAME": "cron sets it itself",
    "MAILFROM": "the sender of its mail is cron's own",
    "CONTENT_TYPE": "its mail is as cron sends it",
    "CONTENT_TRANSFER_ENCODING": "its mail is as cron sends it",
}
_NO_PROGRAMS = {"root", "www-data", "nobody"}
_PROGRAMS = {"daemon", "mail", "postgres", "backup", "git", "nginx", "man", "sync", "lp", "news"}
"""Accounts that hosts have: no command is called as the first ones are, and some as the others."""
_STARTERS = ("sudo", "env", "nice", "ionice", "timeout", "flock", "sh", "bash", "exec", "php",
             "python", "python3", "perl", "ruby", "node", "chronic", "time", "root")  # fmt: skip
_BEFORE = re.compile(
    r"\s*(?:(?:cd|test|\[|\[\[|command|source|\.)\s[^;&|]*(?:&&|;|\|\|)|[{(]|[A-Za-z_]\w*=\S*\s|!)"
)


class _Job(NamedTuple):
    origin: Origin
    when: str
    command: str
    variables: dict[str, str]
    comments: list[str]


def read(original: Original, draft: SpecDraft) -> None:
    """All its jobs. Raises NotImported."""
    jobs = list(_jobs(original, draft))
    words = [job.command.split(None, 1) for job in jobs]
    system = bool(_SYSTEM.search(original.path)) or _with_users(words)
    for job, (first, *rest) in zip(jobs, words, strict=True):
        if system and not rest:
            raise original.refused(job.origin.line, "there is no command behind the user")
        _add(job, rest[0] if system else job.command, first if system else None, draft)


def _with_users(words: list[list[str]]) -> bool:
    """Does each line have a user before its command, by the first word and the rest of each?"""
    firsts = {first for first, *rest in words if rest}
    if firsts & _NO_PROGRAMS:
        return True
    known = {one.pw_name for one in pwd.getpwall()} | _PROGRAMS
    return (
        bool(words) and firsts <= known and all(len(one) == 2 for one in words)
        and (not firsts <= _PROGRAMS or all(rest[0].startswith("/") for _, *rest in words))
    )  # fmt: skip


def _jobs(original: Original, draft: SpecDraft) -> Iterator[_Job]:
    variables: dict[str, str] = {}
    comments: list[str] = []
    for number, line in original.lines():
        text = line.strip()
        origin = original.at(number, text)
        if not text or text.startswith("#"):
            comments = [*comments, text.lstrip("# ")] if text.strip("# ") else []
            continue
        found = _JOB.fullmatch(line)
        pair = setting(line.encode()) if found is None else None
        if pair is not None:
            name, value = pair[0].decode(), pair[1].decode()
            if name in _OWN:
                draft.leave(draft.document, origin, _OWN[name])
            else:
                variables[name] = value
        elif found is not None:
            yield _Job(origin, found[1], found[2], variables.copy(), comments[-3:])
        else:
            raise original.refused(number, "neither NAME=VALUE nor a schedule with a command")
        comments = []


def _add(job: _Job, command: str, user: str | None, draft: SpecDraft) -> None:
    text, given = _parts(command.strip())
    block = draft.add("cron", _name(text), job.origin)
    for comment in job.comments:
        block.say(comment)
    variables = dict(job.variables)
    shell, home = variables.pop("SHELL", "/bin/sh"), variables.get("HOME")
    if given is not None:
        text = f"printf '%s\\n' {' '.join(map(quoted, given))} | {{ {text}; }}"
    if home is not None:
        text = f"cd {quoted(home)} || exit; {text}"
    if shell not in ("/bin/sh", "/usr/bin/sh", "sh"):
        block.put("command", [shell, "-c", text], job.origin)
    else:
        block.put("command", text, job.origin)
    block.put("schedule", " ".join(job.when.lstrip("-").split()), job.origin)
    if user is not None:
        block.put("user", user, job.origin)
    if variables:
        block.put("env", variables, job.origin)


def _parts(command: str) -> tuple[str, list[str] | None]:
    """The command, and the lines that cron gives it: what stands behind the first bare ``%``."""
    first, *lines = re.split(r"(?<!\\)((?:\\\\)*)%", command)
    joined = [first]
    for backslashes, text in zip(lines[::2], lines[1::2], strict=True):
        joined[-1] += backslashes
        joined.append(text)
    plain = [re.sub(r"\\([%\\])", r"\1", one) for one in joined]
    return plain[0].strip(), plain[1:] if len(plain) > 1 else None


def _name(command: str) -> str:
    """What the job is called: its program, without what only prepares it."""
    while found := _BEFORE.match(command):
        command = command[found.end() :]
    for word in command.split():
        base = word.strip("'\"/").rpartition("/")[2]
        if base in _STARTERS or not re.match(r"[A-Za-z_]", base) or "=" in base:
            continue
        return base.partition(".")[0] or base
    return "job"
