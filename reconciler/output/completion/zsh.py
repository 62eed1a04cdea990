"""The completion script for zsh: to be sourced, or as a file ``_NAME`` in a folder of $fpath.

It must not look anything up; the script does, when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconciler.output.completion import (
    CompletedCommand,
    CompletedProgram,
    Option,
    filled,
    function_of,
)

_SCRIPT = r"""
#compdef @NAME@
# Completion of @NAME@ for zsh. Made by: @NAME@ --completion zsh
_@FUNCTION@_ids() {
    local -a found
    found=(${(f)"$(@PATH@ @ASK@ "${(@)words[2,CURRENT-1]}" 2>/dev/null)"})
    compadd -a found
}
_@FUNCTION@_specs() {
    local -a shipped=(@SPECS@)
    _alternative 'shipped:shipped spec:compadd -a shipped' 'files:file:_files -g "*.(yaml|yml)"'
}
_@FUNCTION@() {
    local word mode=
    local -a commands=(
@COMMANDS@
    ) specs=(
@COMMON@
    )
    for word in "${(@)words[2,CURRENT-1]}"; do
        [[ -n ${(M)commands:#${word%%=*}:*} ]] && { mode=${word%%=*}; break }
    done
    case $mode in
@CASES@
    *)
        if [[ -z $words[CURRENT] || $words[CURRENT] != -* ]]; then
            _describe -o -t modes 'what to do' commands && return
        fi
        specs+=(@MODES@)
        ;;
    esac
    _arguments -S $specs
}
if [[ $funcstack[1] == _@FUNCTION@ ]]; then
    _@FUNCTION@ "$@"
else
    compdef _@FUNCTION@ @NAME@
fi
"""


def script(made: CompletedProgram) -> str:
    """The script."""
    function = function_of(made)
    values = {
        "PATH": _quoted(made.path),
        "COMMANDS": "\n".join(f"        {_quoted(_described(one))}" for one in made.commands),
        "COMMON": "\n".join(_specs(made.options, function)),
        "CASES": "\n".join(_cases(made, function)),
        "MODES": " ".join(
            one.strip()
            # As long as it is open which mode it will be, the options of any may stand there.
            for one in _specs(
                [*(one.option for one in made.commands if one.option), *made.special()], function
            )
        ),
        "SPECS": " ".join(made.specs),
    }
    return filled(_SCRIPT, made, values)


def _described(command: CompletedCommand) -> str:
    return f"{command.name}:{command.words}"


def _cases(made: CompletedProgram, function: str) -> Iterator[str]:
    for command in made.commands:
        specs = [one.strip() for one in _specs(command.options, function)]
        if command.option is not None:
            specs += [one.strip() for one in _specs([command.option], function)]
        kind = _kind(command.value, function)
        words = "'*:word:{}'" if command.option is None else "'1:spec:{}'"
        before = ""
        if command.option is None:
            # The subcommand itself is the first word, and its options are all there are.
            specs.append(_quoted(f"1:what to do:({command.name})"))
            before = "specs=() "
        if kind:
            specs.append(words.format(kind))
        yield f"    {command.name}) {before}specs+=({' '.join(specs)}) ;;"


def _specs(options: Iterable[Option], function: str) -> Iterator[str]:
    """The options as _arguments takes them, zshcompsys(1)."""
    for option in options:
        value = ""
        if option.choices:
            value = f":{option.value}:({' '.join(option.choices)})"
        elif option.value:
            value = f":{_plain(option.value)}:{_kind(option.value, function)}"
        for name in option.names:
            # Given in two ways: as the next word, or behind a =.
            sign = "=" if value and name.startswith("--") else ("+" if value else "")
            others = "" if option.repeated else f"({' '.join(option.names)})"
            star = "*" if option.repeated else ""
            yield f"        {_quoted(f'{others}{star}{name}{sign}[{_plain(option.words)}]{value}')}"


def _kind(value: str, function: str) -> str:
    return {
        "ID": f"_{function}_ids",
        "DIR": "_files -/",
        "SPEC": f"_{function}_specs",
        "COMMAND": "_command_names",
    }.get(value, "")


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:").replace("[", "\\[").replace("]", "\\]")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
