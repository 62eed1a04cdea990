"""The completion script for bash, which needs nothing but bash 4.4.

It must not look anything up; the script does, when it is used.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from reconciler.output.completion import CompletedProgram, filled

# Bash parts words at the characters of COMP_WORDBREAKS, among them : and =, which ids and
# options are full of; so the words are put together again, and of what is found only the part
# behind the last such character is handed over.
_SCRIPT = r"""
# Completion of @NAME@ for bash. Made by: @NAME@ --completion bash
_@FUNCTION@() {
    local rest=${COMP_LINE:0:COMP_POINT} cur='' mode='' option='' word glued i
    local -a words=()
    for ((i = 0; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]} glued=
        [[ $rest == [[:space:]]* || $i == 0 ]] || glued=1
        rest=${rest#"${rest%%[![:space:]]*}"}
        rest=${rest#"$word"}
        if [[ $glued ]]; then words[-1]+=$word; else words+=("$word"); fi
    done
    cur=${rest#"${rest%%[![:space:]]*}"}
    if [[ $rest == "$cur" && ${#words[@]} -gt 1 ]]; then
        cur=${words[-1]}$cur
        unset 'words[-1]'
    fi

    local valued=' @VALUED@ ' commands=' @COMMANDS@ ' prefix='' value=$cur
    for ((i = 1; i < ${#words[@]}; i++)); do
        word=${words[i]}
        if [[ $commands == *" ${word%%=*} "* && ! $mode ]]; then mode=${word%%=*}; fi
        option=
        if [[ $valued == *" $word "* ]]; then
            option=$word
            ((i++))
            [[ $i -lt ${#words[@]} ]] && option=
        fi
    done
    if [[ ! $option && $cur == --*=* && $valued == *" ${cur%%=*} "* ]]; then
        option=${cur%%=*} prefix=${cur%%=*}= value=${cur#*=}
    fi

    local kind='' choices='' options=''
    case $mode in
@CASES@
    esac
    if [[ $option ]]; then
        case $option in
@KINDS@
        esac
    elif [[ $cur == -* || (! $option && ! $mode) ]]; then
        kind=choices choices=$options
    fi

    local -a found=()
    local head='' breaks='' one
    case $kind in
        choices) mapfile -t found < <(compgen -W "$choices" -- "$value") ;;
        ids)
            while IFS= read -r one; do
                [[ $one == "$value"* ]] && found+=("$(printf %q "$one")")
            done < <(@PATH@ @ASK@ "${words[@]:1}" 2>/dev/null)
            ;;
        dir)
            compopt -o filenames 2>/dev/null
            mapfile -t found < <(compgen -d -- "$value")
            ;;
        spec)
            compopt -o filenames 2>/dev/null
            mapfile -t found < <(
                compgen -W '@SPECS@' -- "$value"
                compgen -d -- "$value"
                compgen -f -X '!*.yaml' -- "$value"
                compgen -f -X '!*.yml' -- "$value"
            )
            ;;
        commands) mapfile -t found < <(compgen -c -- "$value") ;;
    esac
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=:
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+==
    if [[ $breaks && $cur == *[$breaks]* ]]; then head=${cur%"${cur##*[$breaks]}"}; fi
    COMPREPLY=()
    for one in "${found[@]}"; do
        one=$prefix$one
        COMPREPLY+=("${one#"$head"}")
    done
}
complete -F _@FUNCTION@ @NAME@
"""


def script(made: CompletedProgram) -> str:
    """The script, to be sourced."""
    values = {
        "PATH": shlex.quote(made.path),
        "SPECS": " ".join(made.specs),
        "VALUED": " ".join(_unique(n for o in made.all_options() if o.value for n in o.names)),
        "COMMANDS": " ".join(command.name for command in made.commands),
        "CASES": "\n".join(_cases(made)),
        "KINDS": "\n".join(_kinds(made)),
    }
    return filled(_SCRIPT, made, values)


def _cases(made: CompletedProgram) -> Iterator[str]:
    """For each command its options, and what its words are."""
    common = [name for option in made.options for name in option.names]
    for command in made.commands:
        names = [name for option in command.options for name in option.names]
        if command.option is not None:
            names += common
            if command.option.repeated:
                names.append(command.name)
        kind = _kind(command.value) if command.option is None or not command.option.choices else ""
        yield f"        {command.name}) options='{' '.join(_unique(names))}' kind={kind} ;;"
    # As long as it is open which mode it will be, the options of any may stand there.
    special = [name for option in made.special() for name in option.names]
    names = [command.name for command in made.commands] + common + special
    yield f"        *) options='{' '.join(names)}' ;;"


def _kinds(made: CompletedProgram) -> Iterator[str]:
    for option in made.all_options():
        if option.value:
            what = f"kind={_kind(option.value)}"
            if option.choices:
                what = f"kind=choices choices='{' '.join(option.choices)}'"
            yield f"            {'|'.join(option.names)}) {what} ;;"


def _kind(value: str) -> str:
    return {"ID": "ids", "DIR": "dir", "SPEC": "spec", "COMMAND": "commands"}.get(value, "")


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
