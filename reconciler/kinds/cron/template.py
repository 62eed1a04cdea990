"""From a template to lines for cron, each of which is checked before anything is installed. Pure.

What a value is in a line decides how it is escaped: a ``%`` has a meaning in a command alone, and
a list becomes words for the shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reconciler.base.records import replace
from reconciler.core.templating import BadValue, RenderedTemplate, Templates, Value
from reconciler.host.managed_file import header
from reconciler.kinds.cron.lines import LONGEST, job_in, misread, setting, words
from reconciler.kinds.cron.resource import Cron
from reconciler.kinds.cron.schedule import parse_schedule

_USER = r"[A-Za-z_][A-Za-z0-9_.-]*\$?"


def filled(want: Cron, templates: Templates) -> Cron:
    """``want`` with the lines of its template, if it has one. Raises BadValue."""
    field = "template" if want.template is not None else "content"
    if want.template is None and want.content is None:
        if want.file is not None:
            raise BadValue("file", None, "needs a template or content to be written")
        for name, value in (("schedule", want.schedule), ("command", want.command)):
            if value is None:
                raise BadValue(name, None, f"needs {name!r}, or else a template or content")
        return want
    rendered = templates.render(field)
    lines = []
    for line, at in _lines(rendered, field):
        if _is_job(line, at, field, want.file is not None) or want.file is not None:
            lines.append(line)
    if not any(job_in(line, want.file is not None) for line in lines):
        raise BadValue(field, None, "gives no line for cron")
    text = "".join(f"{line}\n" for line in lines)
    if want.file is not None:
        text = header(templates.spec, templates.id) + text
    return replace(want, text=text, secret=rendered.secret)


def _lines(rendered: RenderedTemplate, field: str) -> Iterator[tuple[str, int]]:
    """Each line, and where in the template it begins."""
    text, begins = "", 0
    for piece in rendered.pieces:
        if isinstance(piece, Value):
            text += _escaped(piece, text, field)
            begins = begins or piece.line
            continue
        for number, part in enumerate(piece.split("\n")):
            if number:
                yield text.rstrip(" \t"), begins or piece.line + number - 1
                text, begins = "", 0
            if part:
                text += part
                begins = begins or piece.line + number
    if text.strip():
        yield text.rstrip(" \t"), begins


def _escaped(value: Value, before: str, field: str) -> str:
    """What a value becomes behind ``before``, which is the line so far."""
    if isinstance(value.value, list):
        text = words(tuple(_plain(one, value.line, field) for one in value.value))
    else:
        text = _plain(value.value, value.line, field)
    command = not before.lstrip().startswith("#") and not setting(before.encode())
    if value.raw or not command:
        return text
    if "\\\\" in text:
        what = "a value holds two backslashes, which not every cron reads alike"
        raise BadValue(field, value.line, f"{what}; put it into a script")
    return text.replace("%", "\\%")


def _plain(value: object, line: int, field: str) -> str:
    if value is None or isinstance(value, (list, dict)):
        what = "null" if value is None else "a list in a list, or a mapping"
        raise BadValue(field, line, f"a value is {what}, and has no text")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise BadValue(field, line, "a value holds a line break or another control character")
    return text


def _is_job(line: str, at: int, field: str, of_file: bool) -> bool:
    """Does a line have cron run something? A variable and a comment do not. Raises BadValue."""

    def bad(message: str) -> BadValue:
        return BadValue(field, at, message)

    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line):
        raise bad("holds a control character")
    if not line.strip() or line.lstrip().startswith("#"):
        return False
    pair = setting(line.encode("utf-8", "surrogateescape"))
    if pair is not None:
        name = pair[0].decode()
        if name == "CRON_TZ":
            raise bad("CRON_TZ is not known to every cron, which then runs all at another time")
        if not of_file:
            raise bad(
                f"{name} would be set for the lines of others too; variables stand in a file alone"
            )
        return False
    job = job_in(line, of_file)
    if job is None:
        wanted = "a time, a user and a command" if of_file else "a time and a command"
        raise bad(f"is no line for cron, which has {wanted}: {line[:60]!r}")
    try:
        parse_schedule(job.schedule)
    except ValueError as error:
        raise bad(str(error)) from None
    if of_file and not re.fullmatch(_USER, job.user):
        raise bad(f"{job.user!r} is no user, and there is one before each command in /etc/cron.d")
    if len(job.command.encode("utf-8", "surrogateescape")) > LONGEST:
        raise bad(f"the command has more than {LONGEST} bytes, which cron does not take")
    if misread(line.encode("utf-8", "surrogateescape"), of_file):
        raise bad(f"python-crontab reads something else in it: {line[:60]!r}")
    return True
