"""What a shell needs to complete a command line, read from an argparse parser.

It must not know any program: kinds of values go by their metavar (``ID``, ``DIR``, ``SPEC``), and
a help that begins with ``--word: `` is that of an option that only such words have. The scripts
ask the installed program for ids, with ``--completion-ids`` and the words of the line. They must
not run what the line names: nobody has pressed Enter yet.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

SHELLS = ("bash", "zsh", "fish")
ASK = "--completion-ids"
"""How a script asks: behind it stands the rest of the line, as far as it is written."""


class Option(NamedTuple):
    """An option; ``value`` is its metavar, or empty where it takes none."""

    names: tuple[str, ...]
    words: str
    value: str
    choices: tuple[str, ...] = ()
    repeated: bool = False


class CompletedCommand(NamedTuple):
    """A subcommand or a mode, with the options that only it has.

    ``option`` is the mode as an option, None for a subcommand. ``value`` is the metavar of the
    words that may follow.
    """

    name: str
    words: str
    options: tuple[Option, ...]
    value: str
    option: Option | None = None


class CompletedProgram(NamedTuple):
    """All that can be completed. ``specs`` are the names of specs that are no files.

    ``path`` is the absolute path of the program that is asked for ids.
    """

    name: str
    path: str
    commands: tuple[CompletedCommand, ...]
    options: tuple[Option, ...]
    specs: tuple[str, ...]

    def special(self) -> dict[Option, list[str]]:
        """The options that only some modes have, each with the names of those."""
        found: dict[Option, list[str]] = {}
        for command in self.commands:
            for option in command.options if command.option is not None else ():
                found.setdefault(option, []).append(command.name)
        return found

    def all_options(self) -> Iterable[Option]:
        """Every option, once for each place where it stands."""
        yield from self.options
        for command in self.commands:
            yield from command.options
            if command.option is not None:
                yield command.option


def program(parser: argparse.ArgumentParser, path: str, specs: Sequence[str]) -> CompletedProgram:
    """What the parser takes: its subcommands, or the modes of which one is given.

    ``path`` is where the program is installed.
    """
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return _of_subparsers(parser, action, path, tuple(specs))
    modes = parser._mutually_exclusive_groups[0]._group_actions
    value = next((str(one.metavar) for one in parser._actions if not one.option_strings), "")
    plain: list[Option] = []
    special: dict[str, list[Option]] = {}
    for action in parser._actions:
        if action in modes or not action.option_strings:
            continue
        head, colon, rest = (action.help or "").partition(": ")
        if colon and head.startswith("--"):
            for mode in head.split(", "):
                special.setdefault(mode, []).append(_option(action, rest))
        else:
            plain.append(_option(action))
    commands = [
        CompletedCommand(
            mode.names[0], mode.words, tuple(special.get(mode.names[0], ())), value, mode
        )
        for mode in map(_option, modes)
    ]
    return CompletedProgram(parser.prog, path, tuple(commands), tuple(plain), tuple(specs))


def script(shell: str, made: CompletedProgram) -> str:
    """The script that completes the program in that shell, one of SHELLS."""
    from reconciler.output.completion import bash, fish, zsh

    return {"bash": bash.script, "zsh": zsh.script, "fish": fish.script}[shell](made)


def function_of(made: CompletedProgram) -> str:
    """The program's name as a part of the names of a shell's functions."""
    return made.name.replace("-", "_")


def filled(script: str, made: CompletedProgram, values: Mapping[str, str]) -> str:
    """The script with each ``@NAME@`` in it replaced, also by what all shells need."""
    text = script.lstrip("\n")
    known = {"NAME": made.name, "FUNCTION": function_of(made), "ASK": ASK}
    for name, value in {**values, **known}.items():
        text = text.replace(f"@{name}@", value)
    return text


def _of_subparsers(
    parser: argparse.ArgumentParser,
    found: argparse._SubParsersAction[argparse.ArgumentParser],
    path: str,
    specs: tuple[str, ...],
) -> CompletedProgram:
    commands = []
    for choice in found._choices_actions:
        below = found.choices[choice.dest]
        options = [_option(one) for one in below._actions if one.option_strings]
        values = [one for one in below._actions if not one.option_strings]
        value = str(values[0].metavar) if values else ""
        commands.append(CompletedCommand(choice.dest, choice.help or "", tuple(options), value))
    options = [_option(one) for one in parser._actions if one.option_strings]
    return CompletedProgram(parser.prog, path, tuple(commands), tuple(options), specs)


def _option(action: argparse.Action, words: str | None = None) -> Option:
    value = ""
    if action.nargs != 0:
        value = str(action.metavar or action.dest.upper())
    text = (action.help or "") if words is None else words
    return Option(
        tuple(action.option_strings),
        text % {"prog": "", "default": action.default},
        value,
        tuple(map(str, action.choices or ())),
        isinstance(action, argparse._AppendAction),
    )


def asked(words: Sequence[str], valued: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The words of an unfinished line: those that are no options, and the options with values.

    ``valued`` are the options that take one. Never raises.
    """
    takes = set(valued)
    plain: list[str] = []
    options: list[tuple[str, str]] = []
    rest = iter(map(_meant, words))
    for word in rest:
        name, equals, value = word.partition("=")
        if name in takes:
            options.append((name, value if equals else next(rest, "")))
        elif not word.startswith("-"):
            plain.append(word)
    return plain, options


def _meant(word: str) -> str:
    """A word as the shell would pass it on; no variable is looked up."""
    import os
    import shlex

    try:
        parted = shlex.split(word)
    except ValueError:
        return word
    return os.path.expanduser(parted[0]) if len(parted) == 1 else word
