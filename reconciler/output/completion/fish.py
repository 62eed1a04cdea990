"""The completion script for fish: to be sourced, or as a file ``NAME.fish`` in its folder.

It must not look anything up; the script does, when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.output.completion import CompletedProgram, Option, filled, function_of

_SCRIPT = r"""
# Completion of @NAME@ for fish. Made by: @NAME@ --completion fish
function __@FUNCTION@_mode
    for word in (commandline -opc)[2..]
        set -l name (string split -m 1 = -- $word)[1]
        if contains -- $name @COMMANDS@
            echo $name
            return 0
        end
    end
    return 1
end
function __@FUNCTION@_is
    contains -- (__@FUNCTION@_mode) $argv
end
function __@FUNCTION@_ids
    set -l words (commandline -opc)
    @PATH@ @ASK@ $words[2..] 2>/dev/null
end
function __@FUNCTION@_specs
    string split ' ' -- @SPECS@
    __fish_complete_suffix .yaml
end
complete -c @NAME@ -f
@LINES@
"""


def script(made: CompletedProgram) -> str:
    """The script."""
    function = function_of(made)
    values = {
        "PATH": _quoted(made.path),
        "LINES": "\n".join(_lines(made, function)),
        "COMMANDS": " ".join(command.name for command in made.commands),
        "SPECS": _quoted(" ".join(made.specs)),
    }
    return filled(_SCRIPT, made, values)


def _lines(made: CompletedProgram, function: str) -> Iterator[str]:
    none = f"not __{function}_mode >/dev/null"
    for option in made.options:
        yield from _option(made, option, "" if made.commands[0].option else none, function)
    for option, names in made.special().items():
        # As long as it is open which mode it will be, the options of any may stand there.
        when = f"{none}; or __{function}_is {' '.join(names)}"
        yield from _option(made, option, when, function)
    for command in made.commands:
        inside = f"__{function}_is {command.name}"
        if command.option is None:
            yield _line(made, none, f"-a {command.name} -d {_quoted(command.words)}")
        else:
            again = f"{none}; or {inside}" if command.option.value else none
            yield from _option(made, command.option, again, function)
            first = f"{none}; and test -z (commandline -ct)"
            yield _line(made, first, f"-a {command.name} -d {_quoted(command.words)}")
        for option in command.options if command.option is None else ():
            yield from _option(made, option, inside, function)
        choices = command.option.choices if command.option is not None else ()
        values = "" if choices else _values(command.value, function)
        if values:
            yield _line(made, inside, values)


def _option(made: CompletedProgram, option: Option, when: str, function: str) -> Iterator[str]:
    names = []
    for name in option.names:
        names.append(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}")
    value = ""
    if option.choices:
        value = f" -x -a {_quoted(' '.join(option.choices))}"
    elif option.value:
        value = f" -x {_values(option.value, function)}".rstrip()
    yield _line(made, when, f"{' '.join(names)}{value} -d {_quoted(option.words)}")


def _values(value: str, function: str) -> str:
    found = {
        "ID": f"(__{function}_ids)",
        "DIR": "(__fish_complete_directories)",
        "SPEC": f"(__{function}_specs)",
        "COMMAND": "(__fish_complete_subcommand)",
    }.get(value)
    return f"-k -a '{found}'" if found else ""


def _line(made: CompletedProgram, when: str, rest: str) -> str:
    condition = f" -n {_quoted(when)}" if when else ""
    return f"complete -c {made.name}{condition} {rest}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
