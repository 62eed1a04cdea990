"""The manual page, made from the parser and a few sections written by hand.

It must not look anything up, so that it can be made where the program is built.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from reconciler import __version__
from reconciler.base.exit_codes import DONE
from reconciler.cli.options import FIRST, MODES, STATUSES, listed, of_modes, parser

if TYPE_CHECKING:
    from reconciler.cli.context import Context

_DESCRIPTION = (
    "A spec, a YAML file, says how a Linux host should be: its directories and permissions, its "
    "long-running processes and tmux sessions, systemd units and cron lines, blocks in files that "
    "people edit, and how long files are kept. reconcile shows how the host differs, removes the "
    "difference with ordered actions, looks whether it helped, and keeps it so.",
    "SPEC is a file, or the name of one that comes with the program, such as executor. Without "
    "it, the first that exists of $RECONCILE_SPEC, ./specs/executor.yaml, "
    "$XDG_CONFIG_HOME/reconcile/spec.yaml and /etc/reconcile/spec.yaml is taken.",
    "An ID is KIND:NAME, such as process:worker, or a pattern such as directory:*.",
    "At most one acts on a spec. A single pass beside a loop that is well asks the loop for one, "
    "and tells what has become of it.",
)
_SPEC = """\
version: 1
name: web
directories:
  data: { path: /srv/web, mode: "0755" }
processes:
  web:
    command: [/usr/bin/python3, -m, http.server, "8000"]
    cwd: /srv/web
"""
_SPEC_WORDS = (
    "Sections are directories, permissions, retention, sessions, processes, units, cron and "
    "blocks, among others; beside them stand version, name, include, vars and loop. Fields that "
    "every resource has are state (present or absent), needs, after, when and for_each. Strings "
    "may hold {{ ... }}, an expression over the vars, env, user, host and spec. Durations are "
    "written 30s, 5m, 2h or 7d, sizes 20MiB, modes as quoted octal text.",
    "reconcile --schema prints the JSON Schema of it all, and the README of the project describes "
    "every field.",
)
_SIGNALS = (
    ("SIGHUP", "has a loop read the spec anew, and make a pass."),
    ("SIGUSR1", "has it make a pass now."),
    ("SIGTERM, SIGINT", "end it; what it manages goes on."),
)
_ENVIRONMENT = (
    ("RECONCILE_SPEC", "the spec to take when none is named."),
    ("STATE_DIRECTORY, XDG_STATE_HOME", "say where state is kept."),
    ("XDG_CONFIG_HOME", "where a user's own spec is looked for."),
    ("NO_COLOR", "no colours."),
    ("AI_CO_HOME", "the home of the command executor, in the spec that comes with the program."),
)
_FILES = (
    ("/var/lib/reconcile", "where state is kept for root: a folder for each spec."),
    ("~/.local/state/reconcile", "the same for others."),
    ("/etc/reconcile/spec.yaml", "the spec of the host."),
    ("~/.config/reconcile/spec.yaml", "that of a user."),
)
_EXAMPLES = (
    *FIRST,
    ("reconcile --once executor", "bring up the command executor that comes with it"),
    ("reconcile --pause process:web my.yaml --stop --for 2h", "end it, and leave it for two hours"),
    ("reconcile --history my.yaml --since 1d --only 'process:*'", "what was done to processes"),
    ("source <(reconcile --completion bash)", "complete options and ids from now on"),
)


def run(context: Context) -> int:
    """Print it."""
    import sys

    sys.stdout.write(page())
    return DONE


def page() -> str:
    """The page as roff, in the macros of man(7)."""
    return "\n".join(_lines(parser())) + "\n"


def _lines(made: argparse.ArgumentParser) -> Iterator[str]:
    yield '.\\" Made by: reconcile --man'
    yield f'.TH RECONCILE 1 "" "reconcile {_text(__version__)}" "User Commands"'
    yield ".SH NAME"
    yield f"reconcile \\- {_lower(made.description or '')}"
    yield ".SH SYNOPSIS"
    yield ".B reconcile"
    yield ".I MODE"
    yield "[\\fISPEC\\fR] [\\fIoptions\\fR]"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(_DESCRIPTION)
    yield ".SH MODES"
    actions = {name: one for one in made._actions for name in one.option_strings}
    for title, modes in MODES.items():
        yield f".SS {_text(title.capitalize())}"
        for mode in modes:
            yield from _option(actions.pop(f"--{mode.name}"), mode.words)
    yield ".SH OPTIONS"
    for action in dict.fromkeys(actions.values()):
        of, words = of_modes((action.help or "") % {"prog": made.prog})
        only = f" Only with {listed(of)}." if of else ""
        yield from _option(action, f"{words}.{only}")
    yield ".SH THE SPEC"
    yield from _paragraphs(("A small one:",))
    yield from _literal(_SPEC.splitlines())
    yield ".PP"
    yield from _paragraphs(_SPEC_WORDS)
    yield ".SH EXIT STATUS"
    yield from _table((str(status), words) for status, words in STATUSES)
    yield ".SH SIGNALS"
    yield from _table(_SIGNALS)
    yield ".SH ENVIRONMENT"
    yield from _table(_ENVIRONMENT)
    yield ".SH FILES"
    yield from _table(_FILES)
    yield ".SH EXAMPLES"
    for command, words in _EXAMPLES:
        yield ".TP"
        yield f"\\fB{_text(command)}\\fR"
        yield from _wrapped(_sentence(words))
    yield ".SH SEE ALSO"
    yield "\\fBai\\-cmd\\-executor \\-\\-help\\fR,"
    see = (("tmux", "1"), ("crontab", "5"), ("systemd.unit", "5"), ("tmpfiles.d", "5"))
    for name, section in see:
        comma = "" if (name, section) == see[-1] else ","
        yield f".BR {_text(name)} ({section}){comma}"


def _option(action: argparse.Action, words: str) -> Iterator[str]:
    """An option with its value."""
    value = ""
    if action.nargs != 0:
        choices = "|".join(map(str, action.choices or ()))
        value = f" \\fI{_text(choices or str(action.metavar))}\\fR"
    names = action.option_strings or ()
    if not names:
        return
    yield ".TP"
    yield ", ".join(f"\\fB{_text(name)}\\fR{value}" for name in names)
    yield from _wrapped(_sentence(words))


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, words in rows:
        yield ".TP"
        yield f"\\fB{_text(name)}\\fR"
        yield from _wrapped(_sentence(words))


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    """Paragraphs; the macro stands between two of them."""
    for number, text in enumerate(texts):
        if number:
            yield ".PP"
        yield from _wrapped(text)


def _literal(lines: Iterable[str]) -> Iterator[str]:
    yield ".PP"
    yield ".RS 4"
    yield ".nf"
    yield from map(_text, lines)
    yield ".fi"
    yield ".RE"


def _wrapped(text: str) -> Iterator[str]:
    from textwrap import wrap

    yield from map(_text, wrap(text, 70, break_on_hyphens=False))


def _text(text: str) -> str:
    """Text that roff takes as it is meant: no escapes, no macros, ASCII hyphens and quotes."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti")
    safe = safe.replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha")
    return f"\\&{safe}" if safe.startswith(".") else safe


def _sentence(text: str) -> str:
    text = text.rstrip(".")
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith("?") else ".")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")
