"""The flags of `reconcile`, and the help that teaches them.

It must not do anything that they ask for. The completion and the manual page are made from the
same parser: a metavar says what kind of value it is, and a help that begins with ``--mode: `` is
that of an option which only these modes have.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from reconciler import __version__
from reconciler.base.records import dataclass
from reconciler.cli.context import ACTING
from reconciler.cli.invocation import InvalidUsage

# argparse would look for its words in another language, and load `locale` for that at every start.
argparse._ = str  # type: ignore[attr-defined]

SHELLS = ("bash", "zsh", "fish")
DOCUMENTS = ("plan", "status", "diagnose", "history", "logs", "once", "repair", "loop", "pause",
             "resume", "undo", "check", "import", "adopt", "init", "notify-test", "uninstall",
             "invalid")  # fmt: skip
"""What ``--json`` prints: a document of each mode, and one for an invalid spec."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A mode: its name, what it does, and its value where it takes one.

    ``many``: the value is the id of a resource, and it can be given again. ``several``: it takes
    one or more words; ``maybe``: one or none.
    """

    name: str
    words: str
    value: str = ""
    many: bool = False
    several: bool = False
    maybe: bool = False


MODES: dict[str, tuple[Mode, ...]] = {
    "look, and change nothing": (
        Mode("plan", "what would change, and why"),
        Mode("status", "the state of each resource; fast"),
        Mode("diagnose", "all that can be seen, what is wrong, and what fixes it"),
        Mode("history", "what was done, when, why, by whom, with which result"),
        Mode("logs", "the output of what is managed; -f: as it comes", "ID", several=True),
        Mode("metrics", "the state of each resource for Prometheus"),
        Mode("serve", "a status page for browsers, and /metrics", "HOST:PORT", maybe=True),
    ),
    "act": (
        Mode("once", "one pass: plan, act in order, verify"),
        Mode("repair", "diagnose, fix, watchdog, persistence, final check"),
        Mode("loop", "the watchdog: a pass now, and one every interval"),
        Mode("pause", "do not touch a resource until it is resumed", "ID", True),
        Mode("resume", "manage it again, and reset its retry counter", "ID", True),
        Mode("undo", "take back the last pass, or that one of --history", "PASS", maybe=True),
    ),
    "set up": (
        Mode("init", "a shipped spec to edit, and what keeps it on this host"),
        Mode(
            "import", "a spec from supervisord.conf, crontab, tmuxp and more", "FILE", several=True
        ),
        Mode(
            "adopt", "a spec of what is there: process:PID, session:NAME, ...", "ID", several=True
        ),
        Mode("check", "is the spec valid? shows all errors at once"),
        Mode("notify-test", "send one message to each target"),
        Mode("schema", "the JSON Schema of the spec, or of --MODE --json"),
        Mode("completion", "a script for your shell: bash, zsh or fish", "SHELL"),
        Mode("uninstall", "stop and remove what the spec has made, and its state"),
        Mode("man", "the manual page: reconcile --man | man -l -"),
    ),
}
"""All modes, in the groups of the help."""

OF = {
    "--only": ("plan", "once", "status", "history", "undo"),
    "--detailed-exitcode": ("plan", "once"),
    "--unset": ("plan", "once"),
    "--out": ("plan",),
    "--sign": ("plan",),
    "--at": ("plan",),
    "--if": ("plan",),
    "--from": ("once",),
    "--signers": ("once",),
    "--as": ("plan", "once", "status"),
    "--hosts": ("plan", "once", "status"),
    "--limit": ("plan", "once", "status"),
    "--since": ("history", "logs"),
    "--follow": ("logs",),
    "--watch": ("status",),
    "--for": ("pause",),
    "--reason": ("pause",),
    "--stop": ("pause",),
    "--token-file": ("serve",),
    "--take-over": ACTING,
}
"""The options that only some modes have, with these; any other one is for all of them.

Help, manual page and completion go by it, and with another mode it is an error.
"""

_OF_A_SPEC = ("set", "set_file")
_NO_USE = {
    "man": (*_OF_A_SPEC, "json", "spec"),
    "completion": (*_OF_A_SPEC, "json", "spec"),
    "schema": _OF_A_SPEC,
    "import": _OF_A_SPEC,
    "adopt": (*_OF_A_SPEC, "spec"),
    "metrics": ("json",),
}
"""Of the options that are for all modes, and the SPEC, what some have no use for."""

FIRST = (
    ("reconcile --check my.yaml", "is the file right?"),
    ("reconcile --plan my.yaml", "what would change on this host? touches nothing"),
    ("reconcile --once my.yaml", "change it; a second time there is nothing to do"),
)
"""The first commands of somebody who is new."""

WHERE = (
    "SPEC: a YAML file, or the name of a shipped or kept one; else $RECONCILE_SPEC, "
    "./specs/executor.yaml, ~/.config/reconcile/spec.yaml, /etc/reconcile/spec.yaml."
)

STATUSES = (
    (0, "done"),
    (1, "something failed or unknown"),
    (2, "drift or changes (--detailed-exitcode)"),
    (64, "wrong usage"),
    (65, "invalid spec"),
    (75, "another pass is running"),
)

_ADDRESS = re.compile(r"(?:\[[0-9A-Fa-f:.%]*\]:|[^/:\s]*:)?[0-9]+")
"""What may stand behind ``--serve``; anything else is the SPEC."""
_COLUMN = 22
_FEW = 3
"""An option of more modes than that has a line of its own in the help, unless all of them act."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidUsage(f"{message}\ntry: {self.prog} --help")

    def format_help(self) -> str:
        return "\n".join(_help(self)) + "\n"


class _Formatter(argparse.HelpFormatter):
    """Of a fixed width: argparse would load shutil at every start, only to ask for it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=79)


def parser() -> argparse.ArgumentParser:
    """The parser of `reconcile`, which raises Usage.

    That there is a mode, and that it has these options, is seen by ``parsed`` only.
    """
    made = _Parser(
        prog="reconcile",
        usage="%(prog)s MODE [SPEC] [options]",
        description="Show how this host differs from what a YAML file says, and fix it.",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    group = made.add_mutually_exclusive_group()
    for mode in all_modes():
        flag = f"--{mode.name}"
        if mode.several:
            group.add_argument(
                flag, metavar=mode.value, action="extend", nargs="+", help=mode.words
            )
        elif mode.name == "undo":  # With --plan it only shows what it would do.
            made.add_argument(flag, metavar="PASS", nargs="?", const="", help=mode.words)
        elif mode.maybe:
            group.add_argument(flag, metavar=mode.value, nargs="?", const="", help=mode.words)
        elif mode.many:
            group.add_argument(flag, metavar=mode.value, action="append", help=mode.words)
        elif mode.value:
            group.add_argument(flag, metavar=mode.value, choices=SHELLS, help=mode.words)
        else:
            group.add_argument(
                flag, dest="mode", action="store_const", const=mode.name, help=mode.words
            )
    group.add_argument("--version", action="version", version=f"reconcile {__version__}",
                       help="print the version")  # fmt: skip
    made.add_argument("spec", metavar="SPEC", nargs="?",
                      help="the YAML file, or the name of a shipped spec")  # fmt: skip

    def add(*flags: str, help: str, **rest: Any) -> None:
        of = OF.get(flags[-1], ())
        before = f"{', '.join(f'--{mode}' for mode in of)}: " if of else ""
        made.add_argument(*flags, help=f"{before}{help}", **rest)

    add("--only", metavar="ID", action="append", default=[],
        help="only this and what it needs; repeatable; shell patterns")  # fmt: skip
    add("--set", metavar="NAME=VALUE", action="append", default=[],
        help="another value for a variable of the spec; repeatable")  # fmt: skip
    add("--unset", metavar="NAME", action="append", default=[],
        help="the file's own value again for a variable that was set")  # fmt: skip
    add("--set-file", metavar="NAME=FILE", action="append", default=[],
        help="the same from a file, for secrets; repeatable")  # fmt: skip
    add("--json", action="store_true", help="one JSON document on standard output")
    add("--state-dir", metavar="DIR", help="where state is kept")
    add("--trust", metavar="UID", action="append", type=_uid, default=[],
        help="trust files of this account too; repeatable")  # fmt: skip
    add("--color", choices=("auto", "always", "never"), default="auto",
        help="auto (only on a terminal), always or never")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="print only what failed or is unknown")
    add("-v", "--verbose", action="store_true", help="print every note")
    add("--detailed-exitcode", action="store_true",
        help="exit status 2 for drift or changes")  # fmt: skip
    add("--out", metavar="FILE", help="save the plan, sealed, for --once --from FILE")
    add("--sign", metavar="KEY", help="sign it with that key of ssh, into FILE.sig")
    add("--at", metavar="TIME", help="as it would be then: '2026-12-24 03:00' or +3d")
    add("--if", metavar="EVENT", dest="event",
        help="what follows: 'ID dies 12 times', 'CHECK fails for 10m'")  # fmt: skip
    add("--from", metavar="FILE", dest="saved",
        help="do that saved plan exactly, or nothing where something has moved")  # fmt: skip
    add("--signers", metavar="FILE",
        help="only one that these have signed, as in ssh-keygen -Y")  # fmt: skip
    add("--as", metavar="PATH", dest="placed",
        help="as if the spec lay there; --once puts it there first")  # fmt: skip
    add("--hosts", metavar="INVENTORY", help="on every host of an Ansible inventory")
    add("--limit", metavar="PATTERN", help="only hosts of that pattern of Ansible")
    add("--since", metavar="TIME", help="from 2h ago, 2026-11-22 or '2026-11-22 14:30'")
    add("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    add("--watch", action="store_true", help="live, until Ctrl-C")
    add("--for", metavar="TIME", dest="duration", type=_duration, default=None,
        help="for how long, such as 2h")  # fmt: skip
    add("--reason", metavar="TEXT", help="why, for other people")
    add("--stop", action="store_true", help="stop the process as well")
    add("--token-file", metavar="FILE", help="who has what it holds may read the page")
    add("--take-over", action="store_true",
        help="use this file, though the name belongs to another")  # fmt: skip
    return made


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The options, and their mode. Raises Usage, also for an option that this mode has not."""
    made = parser()
    options, rest = made.parse_known_args(argv)
    unknown = next((word for word in rest if word.startswith("-")), None)
    if unknown is not None:
        made.error(_no_option(unknown, made))
    mode = mode_of(options)
    options.dry = False
    if options.undo is not None:
        if mode not in (None, "plan", "undo"):
            made.error(f"argument --{mode}: not allowed with argument --undo")
        if options.undo and not options.undo.isdigit():
            if options.spec is not None:
                made.error(
                    f"--undo takes the number of a pass, as in --history, not {options.undo!r}"
                )
            rest = [*rest, *filter(None, [options.spec])]
            options.spec, options.undo = options.undo, ""
        options.dry, mode = mode == "plan", "undo"
    if mode is None:
        lines = [f"  {command:27} {words}" for command, words in FIRST]
        modes = " ".join(f"--{mode.name}" for mode in all_modes())
        made.error(
            "\n".join(("choose a mode; begin with", *lines, *_wrapped(f"modes: {modes}", 7)))
        )
    if options.logs and options.spec is None and not _is_id(options.logs[-1]):
        if len(options.logs) == 1 and options.logs[0].endswith((".yaml", ".yml")):
            made.error(f"--logs needs an ID before the SPEC: --logs 'process:*' {options.logs[0]}")
        options.spec = options.logs.pop() if len(options.logs) > 1 else None
    if options.serve and options.spec is None and not _ADDRESS.fullmatch(options.serve):
        options.spec, options.serve = options.serve, ""
    if rest:
        made.error(f"only one SPEC can be given; {rest[0]!r} is another one")
    for action in made._actions:
        flag = next((name for name in action.option_strings if name in OF), None)
        if flag and mode not in OF[flag] and getattr(options, action.dest) != action.default:
            made.error(f"{flag} is for {listed(f'--{one}' for one in OF[flag])}, not for --{mode}")
        if action.dest in _NO_USE.get(mode, ()) and getattr(options, action.dest) != action.default:
            made.error(f"--{mode} has no use for {(*action.option_strings, 'a SPEC')[0]}")
    options.mode = mode
    if options.placed is not None and options.hosts is None:
        options.placed = os.path.abspath(options.placed)
    return options


def _is_id(word: str) -> bool:
    """Does it look like an id, or a pattern for ids, and not like a spec?"""
    return (":" in word or "*" in word) and not word.endswith((".yaml", ".yml"))


def listed(names: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _no_option(word: str, made: argparse.ArgumentParser) -> str:
    """What to say of an option that there is none of."""
    from reconciler.config.errors import closest

    name = word.partition("=")[0]
    bare = name.lstrip("-")
    known = {flag.lstrip("-"): flag for action in made._actions for flag in action.option_strings}
    near = known.get(bare) or known.get(closest(bare, known) or "")
    return f"unknown option {name!r}" + (f"; did you mean {near!r}?" if near else "")


def all_modes() -> Iterator[Mode]:
    """All modes, in their order."""
    for modes in MODES.values():
        yield from modes


def mode_of(options: argparse.Namespace) -> str | None:
    """Which mode was asked for, if any."""
    if options.mode is not None:
        return str(options.mode)
    valued = (one.name for one in all_modes() if one.value)
    return next((name for name in valued if getattr(options, name) is not None), None)


def _help(made: argparse.ArgumentParser) -> Iterator[str]:
    """The help, on one screen."""
    yield f"usage: {made.usage}" % {"prog": made.prog}
    yield f"{made.description} Begin with:"
    for command, words in FIRST:
        yield f"  {command:27} {words}"
    for title, modes in MODES.items():
        yield f"{title}:"
        for mode in modes:
            takes = f"[{mode.value}]" if mode.maybe else mode.value
            yield _row(f"--{mode.name} {takes}", mode.words)
    yield from _wrapped(WHERE, 0)
    yield "options:"
    special: dict[str, list[str]] = {}
    for action in made._actions:
        if not action.option_strings or action.dest in ("help", "version"):
            continue
        if action in made._mutually_exclusive_groups[0]._group_actions or action.dest == "undo":
            continue
        of = OF.get(action.option_strings[-1], ())
        value = "WHEN" if action.choices else action.metavar if action.nargs is None else ""
        left = f"{', '.join(action.option_strings)} {value or ''}".strip()
        if not of or (len(of) > _FEW and of != ACTING):
            yield _row(left, (action.help or "").rpartition(": ")[2])
        if of:
            modes_of = "what acts" if of == ACTING else ", ".join(f"--{mode}" for mode in of)
            special.setdefault(modes_of, []).append(left)
    text = "; ".join(f"{', '.join(flags)} ({modes_of})" for modes_of, flags in special.items())
    yield from _wrapped(f"only of some modes: {text}", 2, 2)
    statuses = ", ".join(f"{status} {words}" for status, words in STATUSES)
    yield from _wrapped(f"exit status: {statuses}", 2)


def _row(left: str, right: str) -> str:
    return f"  {left.strip():{_COLUMN - 3}} {right}"


def _wrapped(text: str, indent: int, first: int = 0) -> Sequence[str]:
    from textwrap import wrap

    return wrap(
        text, 79, initial_indent=" " * first, subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )  # fmt: skip


def _uid(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 2**32 - 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of an account; see: id -u")
    return int(text)


def _duration(text: str) -> float:
    from reconciler.base.scalars import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
