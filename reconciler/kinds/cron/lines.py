"""A line for cron: how ours is written, and how any may be shown. Pure.

It must not show the value of a variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from reconciler.base.digests import blake2b
from reconciler.base.records import dataclass
from reconciler.base.values import Secret

LONGEST = 998
"""Bytes of a command, from its first word to the end of the line: entry.c of Debian's cron."""
_SHELL = b" /bin/sh%"
_EXPORT = r"(?:export ((?:[A-Za-z_][A-Za-z0-9_]*='(?:[^']|'\"'\"')*' ?)+)\n)?(exec .* </dev/null)"
_ASSIGNMENT = r"([A-Za-z_][A-Za-z0-9_]*)='((?:[^']|'\"'\"')*)'"
_SETTING = rb"[ \t]*(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\1[ \t]*=[ \t]*(.*)"

_TIMES = r"(@\S+|(?:\S+[ \t]+){4}\S+)[ \t]+"
_JOB = re.compile(_TIMES + r"()(\S.*)")
_JOB_OF_FILE = re.compile(_TIMES + r"(\S+)[ \t]+(\S.*)")

Environment = tuple[tuple[str, Secret], ...]


@dataclass(frozen=True, slots=True)
class CronJob:
    """A line as crontab(5) has it; only those of a file have a ``user``."""

    schedule: str
    user: str
    command: str


def job_in(line: str, of_file: bool) -> CronJob | None:
    """What a line has cron run; None for a comment, a variable, and what cannot be read."""
    line = line.strip(" \t")
    found = (_JOB_OF_FILE if of_file else _JOB).fullmatch(line)
    if found is None or line.startswith("#") or setting(os.fsencode(line)) is not None:
        return None
    return CronJob(re.sub(r"[ \t]+", " ", found[1]), found[2], found[3])


def quoted(value: str) -> str:
    """A word for sh(1), always in quotes."""
    return "'" + value.replace("'", "'\"'\"'") + "'"


def words(argv: tuple[str, ...]) -> str:
    """Arguments as one line for sh(1)."""
    return " ".join(
        one if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", one) and (at or "=" not in one)
        else quoted(one)
        for at, one in enumerate(argv)
    )  # fmt: skip


def rendered(schedule: str, command: tuple[str, ...], variables: Mapping[str, str]) -> bytes:
    """The line for cron. A value stands in no argument of a process, other than in one of cron's.

    ``%`` ends the command, and what follows is its standard input, each further ``%`` a new
    line: crontab(5). There ``\\%`` is a percent sign and every other backslash stays; in the
    command itself Debian's cron turns two backslashes into one, others do not, so that a command
    with such is handed over on standard input too.
    """
    text = command[2] if _is_script(command) else words(command)
    escaped = text.replace("%", "\\%")
    if not variables and "\\\\" not in escaped:
        return os.fsencode(f"{schedule} {escaped}")
    script = ""
    if variables:
        pairs = (f"{name}={quoted(value)}" for name, value in variables.items())
        script = f"export {' '.join(pairs)}\n"
    # With a standard input of its own: the rest of this one is the script.
    script += f"exec {words(command) if not _is_script(command) else _through_shell(text)}"
    script += " </dev/null"
    fed = script.replace("%", "\\%").replace("\n", "%")
    return os.fsencode(schedule) + _SHELL + os.fsencode(fed)


def misread(line: bytes, of_file: bool = False) -> bool:
    """Does python-crontab find anything but one command in a line of ours, or another command?"""
    text = os.fsdecode(line)
    job = job_in(text, of_file)
    if job is None or "\n" in text:
        return True
    # It knows fewer schedules than cron does, which are checked elsewhere.
    some = f"{job.user} {job.command}".strip()
    found = _read(text, of_file) or _read(f"* * * * * {some}", of_file)
    if found is None:
        return True
    said, _, given = os.fsdecode(_decoded(os.fsencode(job.command))).partition("\n")
    if "#" in job.command:  # It takes it for a comment, which cron does not.
        return found.user != (job.user or None) or not said.startswith(found.command)
    return (found.user or "", found.command, found.stdin or "") != (job.user, said.strip(), given)


def _read(text: str, of_file: bool) -> Any:
    """The one job that python-crontab reads in a line; None where it reads something else."""
    import logging

    from crontab import CronTab

    logging.getLogger("crontab").setLevel(logging.CRITICAL)  # It says on standard error what fails.
    try:
        read = CronTab(tab=f"{text}\n", user=False if of_file else None)
    except Exception:  # Some schedules, such as fri-7, it does not even refuse.
        return None
    jobs = list(read)
    return jobs[0] if len(jobs) == 1 and not read.env and jobs[0].is_valid() else None


def _through_shell(text: str) -> str:
    return f"/bin/sh -c {quoted(text)}"


def _is_script(command: tuple[str, ...]) -> bool:
    # A list of just these words says the same: cron hands every line to sh -c.
    return len(command) == 3 and command[:2] == ("sh", "-c")


def shown(line: bytes, secret: bool) -> tuple[str, dict[str, str]]:
    """A line for people, and the values of its variables, which stand as ``…`` in the first.

    ``secret``: nothing is shown of a line that we could not have written, since the values may
    stand anywhere in it. What another line hands over on standard input is never shown.
    """
    line = line.rstrip(b"\n")
    head, shell, rest = line.partition(_SHELL)
    if shell:
        try:
            script = _decoded(rest).decode()
        except UnicodeDecodeError:
            script = ""
        found = re.fullmatch(_EXPORT, script, re.S)
        pairs = dict(re.findall(_ASSIGNMENT, found[1] or "")) if found else {}
        values = {name: value.replace("'\"'\"'", "'") for name, value in pairs.items()}
        export = "export " + " ".join(f"{n}={quoted(v)}" for n, v in values.items()) + "\n"
        if found and (not found[1] or script.startswith(export)):
            goal = os.fsdecode(head + _SHELL)
            if values:
                goal += "export " + " ".join(f"{name}=…" for name in values) + "%"
            return goal + found[2].replace("%", "\\%").replace("\n", "%"), values
    if secret:
        return "a line that was edited by hand", {}
    visible, percent, _ = _first_percent(line)
    return os.fsdecode(visible) + ("%…" if percent else ""), {}


def shown_line(line: bytes, secret: bool) -> tuple[str, str]:
    """A line from a template as it may be shown, and its digest."""
    digest = blake2b(line, digest_size=8).hexdigest()
    return (shown_text(os.fsdecode(line)) if secret else shown(line, False)[0]), digest


def shown_text(text: str) -> str:
    """What is shown of a text that holds a secret."""
    digest = blake2b(os.fsencode(text), digest_size=6).hexdigest()
    return f"(not shown: it holds a value of the environment; digest {digest})"


def _first_percent(line: bytes) -> tuple[bytes, bytes, bytes]:
    found = re.match(rb"((?:[^%\\]|\\.|\\$)*)(%?)(.*)", line, re.S)
    return (found[1], found[2], found[3]) if found else (line, b"", b"")


def _decoded(data: bytes) -> bytes:
    return re.sub(rb"\\%|%", lambda found: b"%" if len(found[0]) == 2 else b"\n", data)


def bare(line: bytes) -> bytes:
    """A line without its end. Debian's crontab -l shows a carriage return as two characters."""
    end = len(line.rstrip(b"\r\n"))
    while line.endswith(b"\\r", 0, end):
        end -= 2
        while line.endswith(b"\r", 0, end):
            end -= 1
    return line[:end]


def setting(line: bytes) -> tuple[bytes, bytes] | None:
    """Name and value of a line that sets a variable for those below it, crontab(5)."""
    found = re.fullmatch(_SETTING, bare(line).rstrip(b" \t\r"), re.S)
    if found is None or line.lstrip(b" \t").startswith(b"#"):
        return None
    value = found[3]
    if len(value) > 1 and value[:1] in (b"'", b'"') and value[:1] == value[-1:]:
        value = value[1:-1]
    return found[2], value
