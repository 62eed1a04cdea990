"""A spec from what is there on this host: which words name what, and what of it is taken.

It must not change anything.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from reconciler import kinds
from reconciler.base.errors import HostError
from reconciler.base.text import censored
from reconciler.host.managed_file import makers, managed_file
from reconciler.host.reading import PRIVATE, content, regular_file
from reconciler.host.walk import reported
from reconciler.kinds.cron.lines import job_in
from reconciler.kinds.cron.table import table
from reconciler.migrate.adopt_process import add_processes, leave
from reconciler.migrate.adopt_session import add_session
from reconciler.migrate.document import Origin, SpecBlock
from reconciler.migrate.draft import SpecDraft

if TYPE_CHECKING:
    from reconciler.host import Host

_MOST_TEXT = 256 * 1024


class NotAdopted(Exception):
    """What was named is not there, or nothing of it can be taken; the message says why."""


def adopted(words: list[str], host: Host) -> SpecDraft:
    """A draft with what these name. Raises NotAdopted."""
    draft = SpecDraft(
        os.uname().nodename,
        [
            f"From this host: {' '.join(words)}",
            "To have it kept by itself, add: include: [watchdog]",
        ],
    )
    for word in words:
        sort, colon, name = word.partition(":")
        if not colon or sort not in SORTS or not name:
            known = ", ".join(f"{one}:{value}" for one, (value, _) in SORTS.items())
            raise NotAdopted(f"{word}: is no ID; one is {known}")
        try:
            SORTS[sort][1](name, Origin("adopt", 1, word), draft, host)
        except HostError as error:
            raise NotAdopted(f"{word}: {error}") from None
    return draft


def _directory(path: str, origin: Origin, draft: SpecDraft, host: Host) -> None:
    status = _status(path, host)
    if not stat.S_ISDIR(status.st_mode):
        raise HostError("is no directory; name it as permission: or file:")
    made = draft.add("directories", _name(path), origin)
    made.put("path", path, origin)
    _rights(made, status, host)


def _permission(path: str, origin: Origin, draft: SpecDraft, host: Host) -> None:
    status = _status(path, host)
    made = draft.add("permissions", _name(path), origin)
    made.put("path", path, origin)
    _rights(made, status, host)


def _file(path: str, origin: Origin, draft: SpecDraft, host: Host) -> None:
    if "file" not in kinds.names():
        raise HostError("this version has no section files; name it as permission:")
    _status(path, host)
    with reported("cannot be read"), regular_file(host.files.real(path) or path) as (file, private):
        if private:
            raise HostError(f"is {PRIVATE}")
        data, status = content(file, _MOST_TEXT + 1), os.fstat(file)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text or len(data) > _MOST_TEXT:
        raise HostError("is no text of at most 256 KiB; copy it beside the spec, and write source")
    if censored(text, most=None) != text:
        raise HostError("holds what looks like a secret; write it as a template by hand")
    made = draft.add("files", _name(path), origin)
    made.put("path", path, origin)
    made.put("content", text, origin)
    _rights(made, status, host)


def _cron(user: str, origin: Origin, draft: SpecDraft, host: Host) -> None:
    text = host.crontabs.read(user)
    lines = sorted(table(text, host.owner, user).others()) if text is not None else []
    own = user == host.users.account(None).name
    count = 0
    section: SpecBlock | None = None
    for line in lines:
        shown = line.decode("utf-8", "surrogateescape")
        job = job_in(shown, False)
        if job is None:
            continue
        count += 1
        if censored(shown) != shown:
            reason = f"a line of the crontab of {user} looks as if it held a secret"
            leave(draft, section or draft.document, origin, reason)
            continue
        made = draft.add("cron", _command_name(job.command), origin)
        section = draft.document["cron"]
        made.put("schedule", job.schedule, origin)
        made.put("command", job.command.replace("\\%", "%"), origin)
        made.put("replaces", shown, origin)
        if not own:
            made.put("user", user, origin)
    if not count:
        raise HostError(f"the crontab of {user} has no line that is not a spec's already")


def _unit(name: str, origin: Origin, draft: SpecDraft, host: Host) -> None:
    unit = name if "." in name else f"{name}.service"
    path = f"{host.systemd.folder('system')}/{unit}"
    file = managed_file(path)
    if file is None or file.link is not None:
        raise HostError(
            f"there is no file {path}: a unit of the distribution is changed with drop_in, or "
            "named with enabled and active alone"
        )
    if makers(file.text):
        raise HostError(f"{path} is of the spec {makers(file.text)[0]} already")
    made = draft.add("units", unit.replace(".", "-"), origin)
    made.put("unit", unit, origin)
    made.put("adopt", True, origin)
    if censored(file.text, most=None) == file.text:
        made.put("content", file.text, origin)
    else:
        made.drop("adopt")
        made.say("its file holds what looks like a secret, and is left as it is")
    known = host.systemd.show("system", [unit])[unit] if not host.systemd.silent("system") else {}
    if known.get("UnitFileState") in ("enabled", "disabled"):
        made.put("enabled", known["UnitFileState"] == "enabled", origin)
    oneshot = known.get("Type") == "oneshot" and known.get("RemainAfterExit") != "yes"
    if known.get("ActiveState") in ("active", "inactive") and not oneshot:
        made.put("active", known["ActiveState"] == "active", origin)


def _status(path: str, host: Host) -> os.stat_result:
    if not path.startswith("/"):
        raise HostError("needs a whole path, which begins with /")
    status = host.files.status(path)
    if status is None:
        raise HostError("is not there")
    return status


def _rights(made: SpecBlock, status: os.stat_result, host: Host) -> None:
    made.put("mode", f"{stat.S_IMODE(status.st_mode):04o}")
    made.put("owner", host.users.user_name(status.st_uid))
    made.put("group", host.users.group_name(status.st_gid))


def _name(path: str) -> str:
    return os.path.basename(path.rstrip("/")) or "root"


def _command_name(command: str) -> str:
    found = re.findall(r"[^\s/=;&|<>()'\"]+(?=[\s;&|<>()]|$)", command)
    return found[0] if found else "job"


SORTS: dict[str, tuple[str, Callable[[str, Origin, SpecDraft, Host], None]]] = {
    "process": ("PID", add_processes),
    "session": ("NAME", add_session),
    "directory": ("PATH", _directory),
    "permission": ("PATH", _permission),
    "cron": ("USER", _cron),
    "unit": ("NAME", _unit),
    "file": ("PATH", _file),
}
