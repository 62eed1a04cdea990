"""A line for cron: how ours is written, and how any may be shown. Pure.

It must not show the value of a variable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from reconciler.base.values import Secret

LONGEST = 998
"""Bytes of a command, from its first word to the end of the line: entry.c of Debian's cron."""
_SHELL = b" /bin/sh%"
_EXPORT = r"(?:export ((?:[A-Za-z_][A-Za-z0-9_]*='(?:[^']|'\"'\"')*' ?)+)\n)?(exec .* </dev/null)"
_ASSIGNMENT = r"([A-Za-z_][A-Za-z0-9_]*)='((?:[^']|'\"'\"')*)'"
_SETTING = rb"[ \t]*(['\"]?)([A-Za-z_][A-Za-z0-9_]*)\1[ \t]*=[ \t]*(.*)"

Environment = tuple[tuple[str, Secret], ...]


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
        return _bytes(f"{schedule} {escaped}")
    script = ""
    if variables:
        pairs = (f"{name}={quoted(value)}" for name, value in variables.items())
        script = f"export {' '.join(pairs)}\n"
    # With a standard input of its own: the rest of this one is the script.
    script += f"exec {words(command) if not _is_script(command) else _through_shell(text)}"
    script += " </dev/null"
    return _bytes(schedule) + _SHELL + _bytes(script.replace("%", "\\%").replace("\n", "%"))


def misread(line: bytes) -> bool:
    """Does python-crontab find anything but one command in a line of ours, or another command?"""
    import logging

    from crontab import CronTab

    # It knows fewer schedules than cron does, and says so on standard error.
    logging.getLogger("crontab").setLevel(logging.CRITICAL)
    text = _text(line)
    read = CronTab(tab=f"{text}\n")
    jobs = list(read)
    if read.env or len(jobs) > 1 or "\n" in text:
        return True
    if not jobs or "#" in text:  # It takes every # for a comment, which cron does not.
        return False
    command = text.split(" ", 1 if text.startswith("@") else 5)[-1]
    said, _, given = _text(_decoded(_bytes(command))).partition("\n")
    return (jobs[0].command, jobs[0].stdin or "") != (said.strip(), given)


def _through_shell(text: str) -> str:
    return f"/bin/sh -c {quoted(text)}"


def _is_script(command: tuple[str, ...]) -> bool:
    # A list of just these words says the same: cron hands every line to sh -c.
    return len(command) == 3 and command[:2] == ("sh", "-c")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


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
            goal = _text(head + _SHELL)
            if values:
                goal += "export " + " ".join(f"{name}=…" for name in values) + "%"
            return goal + found[2].replace("%", "\\%").replace("\n", "%"), values
    if secret:
        return "a line that was edited by hand", {}
    visible, percent, _ = _first_percent(line)
    return _text(visible) + ("%…" if percent else ""), {}


def _first_percent(line: bytes) -> tuple[bytes, bytes, bytes]:
    found = re.match(rb"((?:[^%\\]|\\.|\\$)*)(%?)(.*)", line, re.S)
    return (found[1], found[2], found[3]) if found else (line, b"", b"")


def _decoded(data: bytes) -> bytes:
    return re.sub(rb"\\%|%", lambda found: b"%" if len(found[0]) == 2 else b"\n", data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def bare(line: bytes) -> bytes:
    """A line without its end. Debian's crontab -l shows a carriage return as two characters."""
    line = line.rstrip(b"\r\n")
    while line.endswith(b"\\r"):
        line = line[:-2].rstrip(b"\r")
    return line


def setting(line: bytes) -> tuple[bytes, bytes] | None:
    """Name and value of a line that sets a variable for those below it, crontab(5)."""
    found = re.fullmatch(_SETTING, bare(line).rstrip(b" \t\r"), re.S)
    if found is None or line.lstrip(b" \t").startswith(b"#"):
        return None
    value = found[3]
    if len(value) > 1 and value[:1] in (b"'", b'"') and value[:1] == value[-1:]:
        value = value[1:-1]
    return found[2], value
