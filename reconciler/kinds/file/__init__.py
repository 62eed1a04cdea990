"""Whole files: what they hold, whose they are, and what follows when they change.

It must not show what a secret one holds, nor remove a file whose bytes are not ours.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from reconciler.base.errors import HostError, UnknownState
from reconciler.base.records import dataclass, field, replace
from reconciler.core.attributes import Attributes, SetAttributes
from reconciler.core.claims import Claim, Declarations, Key
from reconciler.core.fields import Command, Flag, Mode, Name, Path, Patterns, Text, Variables
from reconciler.core.kind import (
    Completed,
    Described,
    Kind,
    Templated,
)
from reconciler.core.model import (
    ABSENT,
    Action,
    Change,
    Observation,
    Resource,
    diff,
    in_words,
    not_known,
)
from reconciler.core.run_command import RunCommand
from reconciler.host.walk import closing, reason, sort_of

if TYPE_CHECKING:
    from reconciler.core.templating import Templates
    from reconciler.host import Host
    from reconciler.host.written import WrittenFile

_LONGEST = 1 << 30
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SECRET = "(secret)"
_FORMS = ("content", "template", "source")
_VERBS = {"restart process", "restart unit", "reload unit"}


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file that is ours as a whole: exactly one of ``content``, ``template`` and ``source``."""

    path: Path
    """The file."""
    content: Text | None = None
    """What it holds, to the last byte."""
    template: Name | None = field(default=None, metadata={"template": "file"})
    """The template that gives what it holds."""
    vars: Variables = field(default=(), metadata={"template": "values"})
    """Values for the template."""
    source: Name | None = None
    """A file beside the spec that it is a copy of, byte for byte."""
    mode: Mode | None = None
    """Permission bits in quotes, such as "0644"."""
    owner: Name | None = None
    """A user, by name or number."""
    group: Name | None = None
    """A group, by name or number."""
    validate: Command | None = None
    """A command that must accept the new file, {}, before it is in place."""
    on_change: Patterns = ()
    """What follows when it changes: "restart process:x", "reload unit:y", "run COMMAND"."""
    secret: Flag = field(default=False, metadata={"secret": True})
    """Nothing of it is shown; without a mode it is 0600."""
    text: str | None = field(default=None, metadata={"written": False})
    origin: str | None = field(default=None, metadata={"written": False})
    """The whole path of the source."""

    @property
    def data(self) -> bytes:
        """What it is to hold, where that is no copy."""
        text = self.content if self.text is None else self.text
        return (text or "").encode("utf-8", "surrogateescape")

    @property
    def shown(self) -> str:
        """The same as people see it."""
        if self.secret:
            return _SECRET
        if self.origin is not None:
            return f"(a copy of {self.source})"
        from reconciler.host.written import SHOWN, as_shown, digest_of

        text = self.content if self.text is None else self.text
        if text is not None and len(text) <= SHOWN:
            return as_shown(text)
        return f"({len(self.data):,} bytes, digest {digest_of(self.data)[:12]})"

    @property
    def attributes(self) -> Attributes:
        """What is asked of mode, owner and group."""
        return Attributes(self.mode or ("0600" if self.secret else None), self.owner, self.group)


@dataclass(frozen=True, slots=True)
class FileState:
    """What it holds, as it is shown: a text, or a digest. ``wanted`` is the same of what it should.

    ``written`` is ``finished`` unless something is still to follow its last change.
    """

    content: str
    mode: str | None = None
    owner: str | None = None
    group: str | None = None
    written: str | None = None
    wanted: str | None = None


@dataclass(frozen=True, slots=True)
class WriteFile:
    """Write the file beside, check it, and put it into place as a whole."""

    want: WholeFile
    wanted: str | None
    """What the source held when it was looked at, as it is shown."""

    def describe(self) -> str:
        want, words = self.want, self.want.attributes.describe()
        of = f" as a copy of {want.origin}" if want.origin else ""
        return f"write {want.path}{of}" + (f" ({words})" if words else "")

    def run(self, host: Host) -> None:
        from reconciler.core.run_command import filled_in
        from reconciler.host.place import write_all
        from reconciler.host.whole_file import WholeFileWriter, opened_source
        from reconciler.host.written import WrittenFiles, chunks, digest_of

        want, notes, digest = self.want, WrittenFiles(host.state_dir), ""

        def fill(handle: int) -> None:
            nonlocal digest
            if source is None:
                write_all(handle, want.data)
            else:
                for chunk in chunks(source):
                    write_all(handle, chunk)
            digest = digest_of(handle)

        def check(new: str) -> None:
            try:
                if want.validate is not None:
                    RunCommand(filled_in(want.validate, new)).run(host)
            except HostError as error:
                words = "what it says is not shown" if want.secret else str(error)
                words = f"{want.path} is left as it is, since the new one is refused: {words}"
                raise HostError(words) from None
            notes.note(want.path, digest, "begun")

        real = host.files.real(want.path) or want.path
        with nullcontext() if want.origin is None else opened_source(want.origin) as source:
            # A copy is opened to nobody who may not read its source.
            born = 0o644 if source is None else 0o644 & os.fstat(source).st_mode
            WholeFileWriter(real, fill, *want.attributes.numbers(host), born, check).write()
        if not want.on_change:
            notes.note(want.path, digest, "done")


@dataclass(frozen=True, slots=True)
class FinishFile:
    """Clear up beside a file, or a link itself, and note that all that follows is done."""

    path: str
    link: bool = False

    def describe(self) -> str:
        return f"note that the change of {self.path} is finished"

    def run(self, host: Host) -> None:
        from reconciler.host.whole_file import clear
        from reconciler.host.written import WrittenFiles

        notes = WrittenFiles(host.state_dir)
        clear(self.path if self.link else host.files.real(self.path) or self.path)
        if (note := notes.read().get(self.path)) is not None:
            notes.note(self.path, note.digests[-1], "done")


@dataclass(frozen=True, slots=True)
class RemoveFile:
    """Remove it, if it still holds what we have written."""

    path: str

    def describe(self) -> str:
        return f"remove {self.path}"

    def run(self, host: Host) -> None:
        from reconciler.host.rewrite import rewrite
        from reconciler.host.written import WrittenFiles, digest_of

        notes = WrittenFiles(host.state_dir)
        note = notes.read().get(self.path)

        def gone(held: bytes | None) -> None:
            if held is not None and (note is None or digest_of(held) not in note.digests):
                raise HostError(f"{self.path} has changed meanwhile, so it is left")

        rewrite(self.path, gone, _LONGEST, host.state_dir)
        notes.note(self.path, "-", "gone")


class FileKind(Kind[WholeFile, FileState], Completed, Templated, Described):
    """The section ``files``."""

    section = "files"
    resource = WholeFile

    @property
    def name(self) -> str:
        return "file"

    def check(self, want: WholeFile) -> Iterable[tuple[str, str]]:
        given = [form for form in _FORMS if getattr(want, form) is not None]
        if len(given) > 1:
            yield given[1], f"write only one of {', '.join(_FORMS)}"
        if want.vars and want.template is None:
            yield "vars", "are for a template, and there is none"
        if want.validate is not None:
            from reconciler.core.run_command import wrong_place

            if not any("{}" in word for word in want.validate):
                yield "validate", "holds no {}, which stands for the new file"
            elif (why := wrong_place(want.validate)) is not None:
                yield "validate", why
        for at, one in enumerate(want.on_change):
            verb, _, about = one.partition(" ")
            if (verb != "run" or not about) and f"{verb} {about.partition(':')[0]}" not in _VERBS:
                words = "write restart process:NAME, restart or reload unit:NAME, or run COMMAND"
                yield f"on_change[{at}]", f"{one!r} is not understood; {words}"

    def linked(self, want: WholeFile, declared: Declarations) -> WholeFile:
        for one in want.on_change:
            verb, _, about = one.partition(" ")
            if verb != "run" and about not in declared.wants:
                raise ValueError("on_change", f"there is no {about}; declare it")
        return want

    def rendered(self, want: WholeFile, templates: Templates) -> WholeFile:
        if want.template is not None:
            from reconciler.core.templating import as_text

            found = templates.render("template")
            secret = want.secret or found.secret
            return replace(want, text=as_text(found, "template"), secret=secret)
        if want.source is not None:
            return replace(want, origin=templates.beside("source"))
        if want.content is None:
            from reconciler.core.templating import BadValue

            raise BadValue("path", None, f"needs one of {', '.join(_FORMS)}")
        return want

    def claims(self, want: WholeFile) -> Iterable[Claim]:
        text = want.content if want.text is None else want.text
        # The text itself is compared alone, and shown to nobody.
        holds = {"content": "all of it", "text": want.origin or text or ""}
        asks = {"type": "a file", **holds, **want.attributes.asks()}
        return (Claim(Key("path", want.path), asks),)

    def uses(self, want: WholeFile) -> Iterable[Key]:
        return (Key("path", want.path.rpartition("/")[0] or "/"),)

    def expected(self, want: WholeFile) -> FileState:
        asked = want.attributes
        return FileState(want.shown, asked.mode, asked.owner, asked.group, "finished")

    def observe(
        self, resources: Sequence[Resource[WholeFile]], host: Host
    ) -> Sequence[Observation[FileState]]:
        from reconciler.host.written import last_notes

        notes = last_notes(host.state_dir)
        return [self._look(one, notes.get(one.want.path), host) for one in resources]

    def _look(
        self, resource: Resource[WholeFile], note: WrittenFile | None, host: Host
    ) -> Observation[FileState]:
        want = resource.want
        try:
            found = host.files.found(want.path)
            if found is None:
                want.attributes.numbers(host)  # Is there such an owner?
                return ABSENT
            status, real = found
            if not stat.S_ISREG(status.st_mode):
                what = f"{want.path} is {sort_of(status)} where a file should be; move it away"
                return Observation(unknown=what)
            with closing(os.open(real, _FLAGS)) as handle:
                now = os.fstat(handle)
                if not os.path.samestat(now, status):
                    return Observation(unknown=f"{want.path} has just been replaced")
                if not resource.present:
                    return _ours(want.path, real, handle, note)
                content, wanted = _compared(want, real, handle, now.st_size)
        except HostError as error:
            return not_known(error)
        except OSError as error:
            return Observation(unknown=f"cannot read {want.path}: {reason(error)}")
        try:
            have = want.attributes.seen(status, host)
        except UnknownState as error:
            return not_known(error)
        written = "unfinished" if note is not None and note.unfinished else "finished"
        return Observation(FileState(content, have.mode, have.owner, have.group, written, wanted))

    def changes(self, expected: FileState | None, have: FileState | None) -> tuple[Change, ...]:
        found = [one for one in diff(expected, have) if one.field != "written" or have]
        if have is not None and have.wanted is not None:
            found = [
                replace(one, want=have.wanted) if one.field == "content" else one for one in found
            ]
        return tuple(found)

    def words(self, changes: Sequence[Change]) -> str:
        if any(change.field == "state" for change in changes):
            return in_words(changes)
        told = []
        for change in changes:
            if change.field == "content":
                told.append("content differs")
            elif change.field == "written":
                told.append("what follows its change was not done")
            else:
                told.append(in_words((change,)))
        return "; ".join(told)

    def actions(
        self, resource: Resource[WholeFile], have: FileState | None, changes: Sequence[Change]
    ) -> Sequence[Action]:
        want, changed = resource.want, {change.field for change in changes}
        if not resource.present:
            return (RemoveFile(want.path),)
        found: list[Action] = []
        if have is None or "content" in changed:
            found.append(WriteFile(want, None if have is None else have.wanted))
        elif changed & {"mode", "owner", "group"}:
            found.append(SetAttributes(want.path, want.attributes, False))
        if "written" not in changed and not (want.on_change and changed & {"state", "content"}):
            return found
        for one in want.on_change:
            verb, _, about = one.partition(" ")
            if verb == "run":
                found.append(RunCommand(("sh", "-c", about), "the file is written"))
            else:
                from reconciler.kinds.file.follow_up import FollowUp

                found.append(FollowUp(verb, about))
        return (*found, FinishFile(want.path))


def _compared(want: WholeFile, real: str, handle: int, size: int) -> tuple[str, str | None]:
    """What the file holds, as it is shown, and what it should, where only the source knows."""
    from reconciler.host.written import same_bytes

    if want.origin is None and same_bytes(handle, size, want.data):
        return want.shown, None
    from reconciler.host.whole_file import opened_source, shown_bytes, shown_file

    wanted = None
    if want.origin is not None:
        with opened_source(want.origin) as source:
            if same_bytes(handle, size, source):
                return want.shown, None
            wanted = _SECRET if want.secret else shown_bytes(source)
    return "(another secret)" if want.secret else shown_file(real, handle), wanted


def _ours(path: str, real: str, handle: int, note: WrittenFile | None) -> Observation[FileState]:
    """What is seen of one that is to go: only one that holds what we wrote is there for us."""
    from reconciler.host.remedy import remedy
    from reconciler.host.whole_file import is_hollow
    from reconciler.host.written import digest_of

    digests = () if note is None or real != path or is_hollow(handle) else note.digests
    if digests and digest_of(handle) in digests:
        return Observation(FileState("what we have written"))
    what = f"{path} holds what was not written here, so it is left"
    return not_known(UnknownState(what, remedy=remedy("rm", path)))


KIND = FileKind()
