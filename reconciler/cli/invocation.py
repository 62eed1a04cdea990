"""What one command line names (spec, variables, state directory), and how it is answered.

It must not load the spec, nor change anything. It stays light, since a call that is answered by the
watchdog needs nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reconciler.base.digests import blake2b
from reconciler.base.errors import CHANGED, DONE, INVALID, TROUBLE, USAGE
from reconciler.base.text import HIDDEN, FromFile, hide, printable
from reconciler.base.values import Remembered
from reconciler.host import trust
from reconciler.host.users import Users
from reconciler.output.terminal import Terminal

if TYPE_CHECKING:
    import argparse

    from reconciler.base.values import Facts
    from reconciler.cli.context import Context
    from reconciler.config.cache import Compiled, Inputs
    from reconciler.config.errors import SpecError
    from reconciler.core.model import Spec
    from reconciler.output.text import Line


_MARGIN = "  "


class InvalidUsage(Exception):
    """The command line asks for something that cannot be; the message says what and why."""


class Invocation:
    """The options of one call, and what they name."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        for uid in options.trust:
            trust.trust_owner(uid)
        self.terminal = Terminal(options.color, to_errors=options.json, whole=options.verbose)
        self.users: Users = Users()
        self._trusted: set[str] = set()
        self._not_set: set[str] = set()
        self._path: str | None = None
        """The spec that takes over the state of its name."""
        self._guest = False
        """Is it a file that only takes away, beside the one whose state it is?"""

    @cached_property
    def state_dir(self) -> str:
        """Where state is kept. Raises Usage."""
        from reconciler.host.users import state_directory

        try:
            return state_directory(self.options.state_dir, self.users)
        except ValueError as error:
            raise InvalidUsage(str(error)) from None

    def facts(self) -> Facts:
        """What templates may ask about this host, as it is now."""
        from reconciler.host import facts

        return facts(self.users, self.state_dir)

    def inputs(self) -> Inputs:
        """What the spec is compiled from, besides its files. Raises InvalidUsage."""
        from reconciler.config.cache import Inputs

        return Inputs(self.spec_path(), self.facts(), self.settings(), os.environ)

    def compiled(self) -> Compiled | None:
        """What is known of the compiled spec, where it would be compiled to the same again."""
        from reconciler.config import cache

        inputs = self.inputs()
        return cache.unchanged(cache.file_name(self.state_dir, inputs), inputs)

    def say(self, *lines: Line) -> None:
        """Print lines for people, unless they asked for quiet."""
        if not self.options.quiet:
            self.terminal.write(lines)

    def about(self, spec: Spec | Compiled) -> dict[str, Any]:
        """Which spec it is, and how it was called, as a JSON value.

        ``variables`` are those that were set, now or before, to something else than the file
        says; ``trusts`` are the accounts that ``--trust`` names.
        """
        found: dict[str, Any] = {"name": spec.name, "path": spec.path}
        found |= {"variables": dict(spec.variables)} if spec.variables else {}
        return {**found, "trusts": self.options.trust} if self.options.trust else found

    def folder(self, spec: Spec) -> str:
        """The state directory of that spec. Raises HostError where others could change it."""
        return self.folder_of(spec.name)

    def folder_of(self, name: str) -> str:
        """That of the spec of that name."""
        from reconciler.state.folder import refuse_folder

        folder = os.path.join(self.state_dir, name)
        if folder not in self._trusted:
            refuse_folder(folder)
            self._trusted.add(folder)
        return folder

    def spec_path(self) -> str:
        """The file named, or the first of the usual places where there is one."""
        from reconciler.host.spec_files import FOUND_HERE, copy_of, find_spec, lies_elsewhere

        home = self.users.account(None).home
        path, tried = find_spec(self.options.spec, os.environ, home)
        if path is None:
            kept = ", ".join(map(printable, self._kept_specs()))
            words = f" (kept here: {kept})" if kept else ""
            raise InvalidUsage(f"no spec: name one{words}, or make one of {', '.join(tried)}")
        if "/" not in path and not os.path.isfile(path):
            path = self._kept_as(path) or path
        if self.options.spec is None and path == FOUND_HERE:
            self._refuse_found(path)
        if self.options.placed is not None:
            place = os.path.dirname(self.options.placed)
            lies_elsewhere(place, os.path.dirname(os.path.abspath(path)))
        copy = copy_of(path, os.environ, home)
        if os.path.exists(copy or ""):
            from reconciler.host.environment import note

            note(f"this is the spec that comes with the program; {copy} is used when it is named")
        return path

    def _kept_specs(self) -> list[str]:
        """The specs whose states are kept here: a path, or the name of a shipped one."""
        from reconciler.state.folder import known_spec

        try:
            names = sorted(os.listdir(self.state_dir))
        except OSError:
            return []
        return list(filter(None, (known_spec(os.path.join(self.state_dir, n)) for n in names)))

    def _kept_as(self, name: str) -> str | None:
        """The path of the spec of that name whose state is kept here."""
        import re

        from reconciler.base.errors import HostError
        from reconciler.host.spec_files import NAME, path_of
        from reconciler.state.folder import known_spec

        known = None
        if re.fullmatch(NAME, name):
            with suppress(HostError):  # Others could have changed it.
                known = known_spec(self.folder_of(name))
        return None if known is None else path_of(known)

    def _refuse_found(self, path: str) -> None:
        """Raise Usage where the current folder, in which a spec was found, is somebody else's.

        Only a spec that was named is believed there.
        """
        notes: list[trust.Untrusted] = []
        try:
            trust.refuse_untrusted(path, "the spec", notes=notes)
        except (trust.Untrusted, OSError):
            return  # Who reads it says so.
        here = os.getcwd()
        for note in notes:
            if f"{note.path}/".startswith(f"{here}/"):
                raise InvalidUsage(
                    f"found {os.path.join(here, path)}, which nobody has named, but {note.reason}; "
                    "name the spec that you mean"
                )

    def settings(self) -> Mapping[str, str]:
        """The variables of the last pass, and those of ``--set`` and ``--set-file`` instead.

        Raises Usage.
        """
        found: dict[str, str] = dict(self._remembered())
        for name in self.options.unset:
            if found.pop(name, None) is None and name not in self._not_set:
                self._not_set.add(name)
                tell(f"--unset {name}: no value is remembered for it")
        found.update(self.given_settings())
        return found

    def given_settings(self) -> Mapping[str, str]:
        """The variables of ``--set`` and ``--set-file`` alone. Raises Usage."""
        found: dict[str, str] = {}
        for word in self.options.set:
            name, equals, value = word.partition("=")
            if not name or not equals:
                raise InvalidUsage(f"--set takes NAME=VALUE, not {name!r}")
            if value == HIDDEN or f"://{HIDDEN}" in value:
                raise InvalidUsage(
                    f"--set {name}: {HIDDEN} stands for a value that is not shown; write the value "
                    f"instead, or put it into a file and give --set-file {name}=FILE"
                )
            # No shell expands the ~ of --set home=~/x, and people mean it.
            found[name] = self.users.expanded(value)
        for word in self.options.set_file:
            name, equals, path = word.partition("=")
            if not name or not path:
                raise InvalidUsage(f"--set-file takes NAME=FILE, not {name!r}")
            found[name] = self._from_file(self.users.expanded(path))
        hide(value for value in found.values() if isinstance(value, FromFile))
        return found

    def _remembered(self) -> Mapping[str, Remembered]:
        """The variables of the last pass over this spec."""
        from reconciler.state.folder import variables, with_variables

        folders = with_variables(self.state_dir)
        path = os.path.abspath(self.spec_path())
        folder = self._folder_of(path, folders) if folders else None
        path = self.options.placed or path
        if folder is None or self._before(folder, path) is not None:
            return {}
        return {name: Remembered(value) for name, value in variables(folder).items()}

    def _folder_of(self, path: str, folders: Collection[str]) -> str | None:
        """Which of these is the state directory of the spec in that file, not yet compiled."""
        from reconciler.host.spec_files import ReadError, known_as, name_in, read
        from reconciler.state.folder import known_spec

        try:
            name = name_in(read(path))
        except ReadError:
            return None  # Who compiles it says so.
        if name is not None:
            folder = os.path.join(self.state_dir, name)
            return folder if folder in folders else None
        # It is being written just now, or is written as JSON.
        return next((one for one in folders if known_spec(one) == known_as(path)), None)

    def _from_file(self, path: str) -> FromFile:
        """The value of a variable, without the line break at its end. Raises Usage."""
        from reconciler.host.spec_files import ReadError, read

        try:
            data = read(path, f"the file {path}")
            value = FromFile(data.decode().removesuffix("\n"))
        except ReadError as error:
            hint = f"; fix it with: {error.hint}" if error.hint else ""
            raise InvalidUsage(f"--set-file: {error.message}{hint}") from None
        except UnicodeDecodeError:
            raise InvalidUsage(f"--set-file: the file {path} is not UTF-8 text") from None
        value.path, value.digest = path, blake2b(data, digest_size=32).digest()
        return value

    def _before(
        self, folder: str, path: str, say: Callable[[str], None] = lambda words: None
    ) -> str | None:
        """The other spec whose state that folder holds. None: none that is still there."""
        from reconciler.host.spec_files import known_as, path_of
        from reconciler.state.folder import is_gone, known_spec

        known = known_spec(folder)
        if known is None or known == known_as(path):
            return None
        before, name = path_of(known), os.path.basename(folder)
        try:
            if os.path.samefile(before, path):
                say(f"{name} is known as {before}, which is the same file as {path}")
                return None
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.lexists(before) and is_gone(folder, known):
                say(f"the spec {name} was {before}, which is gone; now it is {path}")
                self._path = path
                return None
        except OSError:
            pass  # That it cannot be looked at does not say that it is gone.
        return before

    def claim(self, spec: Spec) -> None:
        """Raise Usage where the state of that name is another file's, unless it is taken over.

        Two specs of one name would take each other's work away. One that declares nothing but what
        is to be absent is done once, and nothing besides what it names.
        """
        from reconciler.host.environment import note

        before = self._before(self.folder(spec), spec.path, note)
        if before is None:
            return
        if self.options.take_over:
            self._path = spec.path
            return
        if self.options.mode == "once" and not any(one.present for one in spec.resources):
            note(f"only what is to be absent is declared; the state stays that of {before}")
            self._guest = True
            return
        missing = "" if os.path.lexists(before) else "The other file is not to be seen: mount it. "
        raise InvalidUsage(
            f"the state of {spec.name!r} is that of {before}, and this is {spec.path}; nothing was "
            f"done. {missing}Name the other file, give this one a name of its own, or, to go on "
            "with this one instead, add: --take-over"
        )


def no_such(pattern: str, spec: Spec) -> str:
    """What to say of a pattern that matches nothing."""
    from difflib import get_close_matches

    ids = [resource.id for resource in spec.resources]
    near = [one for one in ids if one.endswith(f":{pattern}")]
    near = near or get_close_matches(pattern, ids, 1)
    hint = f"; did you mean {near[0]!r}?" if near else "; ids look like directory:pending"
    return f"{pattern!r} matches no resource of {spec.path}{hint}"


def exit_status(trouble: bool, changes: bool, options: argparse.Namespace) -> int:
    """The status of a plan or a pass."""
    if trouble:
        return TROUBLE
    return CHANGED if changes and options.detailed_exitcode else DONE


def complain(message: str, status: int) -> int:
    """Say what went wrong; the status that was given."""
    tell(message, "" if status == USAGE else _MARGIN)
    return status


def tell(message: str, margin: str = _MARGIN) -> None:
    """Say something to people, whatever they asked for.

    What follows the first line has a margin: a name of others, which may hold a line break, must
    not look as if it were a message of its own.
    """
    lines = [printable(line, 4000) for line in message.splitlines()]
    sys.stderr.write("reconcile: " + f"\n{margin}".join(lines) + "\n")


def invalid(context: Context, error: SpecError) -> int:
    """All that is wrong with the spec."""
    from reconciler.config.errors import document
    from reconciler.output.data import FORMAT
    from reconciler.output.terminal import Terminal

    Terminal(context.options.color, to_errors=True).write(error.lines())
    if context.options.json:
        context.print_json({"format": FORMAT, "valid": False, "errors": document(error)})
    return INVALID
