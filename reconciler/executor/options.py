"""The flags of `ai-cmd-executor`.
Must not read or write anything.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import NoReturn

from reconciler.output.completion import SHELLS

WAIT = 3600.0  # seconds of a --wait without a number
LINES = 30  # of `logs`
ARCHIVES = 7  # of `test --archives`
_WITH_VALUE = ("--home", "--id", "--timeout", "--cwd", "--env")

_EPILOG = """\
The home is --home, else $AI_CO_HOME, else ~/ai_co. Commands are files in
HOME/ai_commands/pending; results are files in HOME/ai_commands/completed.
start, stop, restart and status go through `reconcile`, on the spec in use: --spec,
else what it takes by itself, else the one of the executor that comes with it.

exit codes: 0 done; 1 failed or not found; 64 wrong usage. `submit --wait` ends with the
command's own exit code, 124 after its timeout, 128 + N after signal N.
"""


class UsageError(Exception):
    """The command line is wrong; the message says how and what would be right."""


class _Completion(argparse.Action):
    """Prints the script, and ends the program as --help does."""

    def __call__(self, parser: argparse.ArgumentParser, *given: object) -> None:
        from reconciler.host.command import program_path
        from reconciler.output.completion import script

        _, shell, _ = given
        try:
            print(script(parser.prog, program_path(parser.prog), str(shell)), end="")
        except ValueError as error:
            raise UsageError(str(error)) from None
        parser.exit()


class _VerbParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage().rstrip()}\nmore: {self.prog} --help")


def parse_options(args: list[str]) -> argparse.Namespace:
    """The options with `verb` and `home`. Raises UsageError; --help prints and exits 0."""
    return parser().parse_args(_complete_wait(args))


def parser() -> argparse.ArgumentParser:
    home = _VerbParser(add_help=False)
    # Suppressed: a default here would overwrite a --home given before the verb.
    home.add_argument(
        "--home", type=_not_empty, default=argparse.SUPPRESS, metavar="DIR", help="the home"
    )
    made = _VerbParser(
        prog="ai-cmd-executor",
        description="Runs bash commands that are put as files into a folder, one after the other.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--home", type=_not_empty, default=None, metavar="DIR", help="the home")
    made.add_argument(
        "--completion",
        action=_Completion,
        metavar="SHELL",
        choices=SHELLS,
        help="print a script for your shell: bash, zsh or fish",
    )
    verbs = made.add_subparsers(
        dest="verb", required=True, metavar="VERB", parser_class=_VerbParser
    )

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name, parents=[home], help=text, description=text, allow_abbrev=False
        )

    keeping = _VerbParser(add_help=False)
    keeping.add_argument("--spec", type=_not_empty, metavar="SPEC", help="the spec in use")
    keeping.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a variable of the spec"
    )
    keeping.add_argument(
        "--set-file",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a variable, read from a file",
    )
    keeping.add_argument(
        "--trust", action="append", default=[], metavar="UID", help="trust files of this account"
    )
    keeping.add_argument(
        "--state-dir", type=_not_empty, metavar="DIR", help="the state directory of reconcile"
    )

    def kept(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(
            name, parents=[home, keeping], help=text, description=text, allow_abbrev=False
        )

    for made_verb in (
        kept("start", "Start the worker and keep it alive; exit 0 once it is alive."),
        kept("stop", "Stop the worker until `start`."),
        kept("restart", "Stop and start the worker; exit 0 once a new one is alive."),
    ):
        made_verb.add_argument(
            "--take-over", action="store_true", help="use this spec instead of the one in use"
        )
    status = kept("status", "Show what the executor does; exit 0 if a worker is alive.")
    status.add_argument("--json", action="store_true", help="as JSON")
    logs = verb("logs", "Print the last lines of the worker's own log.")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    logs.add_argument(
        "-n", "--lines", type=_count, default=LINES, metavar="N", help=f"number of lines ({LINES})"
    )

    verb("worker", "Take commands from HOME/ai_commands/pending until TERM or INT.")

    submit = verb("submit", "Put a command into the queue and print its id.")
    submit.add_argument("--id", help="its id (a new one, unless given)")
    submit.add_argument(
        "--overwrite", action="store_true", help="instead of an earlier command of that id"
    )
    submit.add_argument("--timeout", type=_seconds, metavar="S", help="seconds (3600)")
    submit.add_argument("--cwd", type=_not_empty, metavar="DIR", help="where it runs (the home)")
    submit.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="K[=V]",
        help="repeatable; K alone takes the value that it has here",
    )
    submit.add_argument(
        "--wait",
        type=_seconds,
        metavar="SECONDS",
        help=f"wait for the result and exit with its code; {WAIT:.0f} without a number",
    )
    submit.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="one argument is bash text as it stands; several are quoted and joined; "
        "- reads it from standard input, since everybody sees the arguments of a process",
    )

    result = verb("result", "Show the result of a command; exit 0 if it succeeded.")
    result.add_argument("id", metavar="ID")
    result.add_argument("--wait", type=_seconds, metavar="S", help="wait at most this long for it")
    result.add_argument("--json", action="store_true", help="as JSON")

    log = verb("log", "Print the output of a command.")
    log.add_argument("id", nargs="?", metavar="ID", help="the latest, unless given")
    log.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")

    report = verb("report", "List the commands that ended recently, the oldest first.")
    report.add_argument("--failed", action="store_true", help="only those that did not succeed")
    report.add_argument(
        "--since", type=_ago, default=86400.0, metavar="TIME", help="such as 2h or 7d (1d)"
    )
    report.add_argument("--json", action="store_true", help="as JSON")

    test = verb("test", "Send a harmless command through the worker; exit 0 if it comes back.")
    test.add_argument(
        "--timeout", type=_seconds, default=15.0, metavar="S", help="seconds at most (15)"
    )
    test.add_argument(
        "--busy-ok", action="store_true", help="exit 0 too while the worker runs another command"
    )
    test.add_argument(
        "--archives",
        action="store_true",
        help=f"instead: exit 0 if the newest {ARCHIVES} archives of logs can be read",
    )
    return made


def _complete_wait(args: list[str]) -> list[str]:
    """Give a --wait of submit without a number its number: else it would swallow the command."""
    if "submit" not in args:
        return args
    done = list(args)
    at = args.index("submit") + 1
    while at < len(done) and done[at].startswith("-") and done[at] != "--":
        if done[at] == "--wait" and not (at + 1 < len(done) and _is_number(done[at + 1])):
            done[at] = f"--wait={WAIT}"
        at += 2 if done[at] in _WITH_VALUE or done[at] == "--wait" else 1
    return done


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 366 * 86400:  # also refuses NaN
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return value


def _ago(text: str) -> float:
    from reconciler.base.scalars import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of lines above 0")
    return int(text)


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give a directory")
    return text


def command_text(words: list[str]) -> str:
    """What bash gets: one word is shell text already, several are arguments of one program.

    A single - stands for what standard input holds. Raises UsageError.
    """
    words = words[1:] if words[:1] == ["--"] else words
    if words == ["-"]:
        if sys.stdin is None:
            raise UsageError("-: there is no standard input")
        return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    return words[0] if len(words) == 1 else shlex.join(words)


def directory(given: str | None) -> str | None:
    """--cwd as the caller means it: relative to where the caller is."""
    if given is None or given.startswith("~"):
        return given
    return os.path.abspath(given)


def environment(pairs: list[str]) -> dict[str, str]:
    """`K=V` words as a dict, `K` with its value in our environment. Raises UsageError."""
    env = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and name not in os.environ:
            # Not named: it may be a secret.
            raise UsageError("--env: write it as NAME=VALUE, or the NAME of a variable that is set")
        value = value if equals else os.environ[name]
        env[name] = value
    return env
