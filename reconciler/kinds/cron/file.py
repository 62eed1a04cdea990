"""A whole file of lines in /etc/cron.d, as cron(8) wants it: root's, and nobody else may write it.

It must not touch a file that this spec has not made.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, Remedy, UnknownState
from reconciler.base.records import dataclass
from reconciler.core.model import Action, Observation, Resource, not_known
from reconciler.host.managed_file import LIMIT, managed_file, mark, ours
from reconciler.host.remedy import file_of_root, remedy
from reconciler.host.rewrite import replace_file
from reconciler.kinds.cron.actions import remarks
from reconciler.kinds.cron.lines import job_in, misread, setting
from reconciler.kinds.cron.resource import FOLDER, Cron

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.host import Host


@dataclass(frozen=True, slots=True)
class CronFileState:
    """The file as it may be shown, its mode and owner; ``text`` is for the actions."""

    content: str
    mode: str | None = None
    owner: str | None = None
    text: str | None = None


def expected(want: Cron) -> CronFileState:
    """One that holds a secret is not for everybody."""
    return CronFileState(want.shown(str(want.text)), "0600" if want.secret else "0644", "root")


def look(resource: Resource[Cron], host: Host, idle: bool) -> Observation[CronFileState]:
    """What there is of it. ``idle``: no cron daemon runs."""
    want, path = resource.want, resource.want.path
    denied = "only root may change files in /etc/cron.d" if os.geteuid() != 0 else None
    try:
        file = managed_file(path)
        mine = file is not None and file.link is None and ours(file.text, host.owner)
        if not resource.present:
            if file is None or not mine:
                left = f"{path} was not made by this spec, so it is left alone" if file else None
                return Observation(None, note=left)
            return Observation(CronFileState("", text=file.text), denied=denied)
        _refuse(want, host)
        if file is not None and not mine:
            raise UnknownState(
                f"{path} is there but was not made by this spec, so it is left alone; rename "
                f"yours, or hand it over by putting this line at its top: {mark(host.owner)}"
            )
    except UnknownState as error:
        return not_known(error)
    state = None
    if file is not None:
        owner = "root" if file.uid == 0 else host.users.user_name(file.uid)
        state = CronFileState(want.shown(file.text), f"{file.mode:04o}", owner, file.text)
    return Observation(state, note="; ".join(_notes(want, host, idle)) or None, denied=denied)


def _refuse(want: Cron, host: Host) -> None:
    """Raises UnknownState where cron would pass over the file."""
    if not os.path.isdir(FOLDER):
        raise UnknownState(
            f"there is no {FOLDER} on this host", remedy=remedy("apt-get", "install", "cron")
        )
    for user in dict.fromkeys(job.user for job in want.jobs()):
        try:
            host.users.uid(user)
        except HostError as error:
            words = f"{error}; cron would pass over the whole file {want.path}"
            raise UnknownState(words) from None


def _notes(want: Cron, host: Host, idle: bool) -> Sequence[str]:
    found: dict[str, None] = {}
    if idle:
        found["no cron daemon runs, so nothing will run it; start cron"] = None
    elif host.crontabs.busybox:
        found[f"busybox's crond reads no files in {FOLDER}"] = None
    settings: dict[bytes, bytes] = {}
    for line in str(want.text).split("\n"):
        pair = setting(line.encode("utf-8", "surrogateescape"))
        job = job_in(line, True)
        if pair is not None:
            settings[pair[0]] = pair[1]
        elif job is not None:
            found |= dict.fromkeys(remarks(("sh", "-c", job.command), settings, None))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class WriteCronFile:
    """Write the file, and read it back."""

    path: str
    text: str
    seen: str | None
    mode: str
    secret: bool

    def describe(self) -> str:
        return f"write {self.path} (mode {self.mode})"

    def shell(self) -> Remedy:
        return file_of_root(self.path, self.text, self.mode, self.secret)

    def run(self, host: Host) -> None:
        host.marks.add("cron", self.path)
        if self.seen == self.text:
            host.files.set_attributes(self.path, int(self.mode, 8), 0, 0, False)
        else:
            seen = None if self.seen is None else os.fsencode(self.seen)
            mode = int(self.mode, 8)
            replace_file(self.path, os.fsencode(self.text), seen, LIMIT, host.state_dir, mode, 0, 0)
        back = managed_file(self.path)
        lines = back.text.split("\n") if back is not None else []
        if (
            back is None
            or back.text != self.text
            or any(job_in(line, True) and misread(os.fsencode(line), True) for line in lines)
        ):
            raise HostError(f"{self.path}: what was written is not what came back")


@dataclass(frozen=True, slots=True)
class RemoveCronFile:
    """Remove the file."""

    path: str
    seen: str

    def describe(self) -> str:
        return f"remove {self.path}"

    def shell(self) -> Remedy:
        return remedy("rm", "-f", self.path)

    def run(self, host: Host) -> None:
        replace_file(self.path, None, os.fsencode(self.seen), LIMIT, host.state_dir)
        host.marks.remove("cron", self.path)


def actions(resource: Resource[Cron], have: CronFileState | None) -> Sequence[Action]:
    """What makes it as declared."""
    want = resource.want
    seen = have.text if have is not None else None
    if not resource.present:
        return (RemoveCronFile(want.path, str(seen)),)
    mode = str(expected(want).mode)
    return (WriteCronFile(want.path, str(want.text), seen, mode, want.secret),)


def orphans(declared: set[str], host: Host) -> list[Resource[Cron]]:
    """Files of this spec that it declares no more."""
    found = []
    for path in host.marks.of("cron"):
        name = path.removeprefix(f"{FOLDER}/")
        if name == path or name in declared:
            continue
        want = Cron(file=name)
        here = look(Resource(f"cron:{path}", want, present=False), host, idle=False)
        if here.unknown is not None or here.state is not None:
            found.append(Resource(f"cron:{path}", want, present=False, orphan=True))
    return found
