"""Completion in bash, zsh and fish, by argcomplete.

The scripts ask the installed program, by its absolute path. They must not run what the line names:
nobody has pressed Enter yet.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NoReturn

SHELLS = ("bash", "zsh", "fish")

Values = Callable[[str, argparse.Namespace, str], Iterable[str]]
"""What could stand for a value, from what is written of it, the options, and whose value it is."""


def script(name: str, path: str, shell: str) -> str:
    """The script for one of SHELLS. Raises ValueError where a shell would change the path."""
    from argcomplete.shell_integration import shellcode

    if not re.fullmatch(r"[\w./@%+=:,-]+", path):
        raise ValueError(f"{path} has characters that shells change; install it elsewhere")
    return shellcode([name], shell=shell, argcomplete_script=path, complete_arguments=())


def answer(
    parser: argparse.ArgumentParser,
    values: Mapping[str, Values],
    options: bool = False,
    hidden: Collection[str] = (),
) -> NoReturn:
    """Answer a script, and end. ``values`` are by metavar.

    ``options``: options are offered where nothing is written yet; ``hidden`` are not offered.
    """
    from argcomplete.completers import SuppressCompleter
    from argcomplete.finders import CompletionFinder

    for action in _actions(parser):
        found = values.get(str(action.metavar))
        if found is not None:
            action.completer = _completer(found)  # type: ignore[attr-defined]
    CompletionFinder()(
        parser, always_complete_options=options, exclude=hidden,
        default_completer=SuppressCompleter(),
    )  # fmt: skip
    os._exit(1)


def folders(prefix: str, *_: object) -> Iterator[str]:
    """The folders that a path could go on with, each with a slash at its end."""
    return (path for path in _paths(prefix) if path.endswith("/"))


def specs(prefix: str, *_: object) -> Iterator[str]:
    """Folders and YAML files."""
    return (path for path in _paths(prefix) if path.endswith(("/", ".yaml", ".yml")))


def _paths(prefix: str) -> Iterator[str]:
    head, _, start = prefix.rpartition("/")
    head = f"{head}/" if "/" in prefix else ""
    try:
        with os.scandir(os.path.expanduser(head) or ".") as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                if start.startswith(".") or not entry.name.startswith("."):
                    yield f"{head}{entry.name}" + ("/" if entry.is_dir() else "")
    except OSError:
        return


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)


def _completer(found: Values) -> Callable[..., Iterable[str]]:
    def complete(
        prefix: str, action: argparse.Action, parsed_args: argparse.Namespace, **_: object
    ) -> Iterable[str]:
        try:
            return [one for one in found(prefix, parsed_args, action.dest) if one.isprintable()]
        except Exception:
            return []  # Nobody has asked for anything yet, so nothing is told.

    return complete
