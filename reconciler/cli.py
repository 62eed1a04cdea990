"""The command line: flags, exit codes and wiring. The only module that knows all the others.

It must not do any of the work itself.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from reconciler import __version__, kinds
from reconciler.descriptors import keep_descriptors, open_standard_streams
from reconciler.exits import BUSY, CHANGED, DONE, INVALID, TROUBLE, USAGE
from reconciler.session import Session, Usage, in_words, print_json
from reconciler.text import printable

if TYPE_CHECKING:
    from reconciler.model import Spec
    from reconciler.spec.errors import SpecError
    from reconciler.turns import Taken

_SHORT_WAIT = 5.0
"""Seconds that a single pass waits for what was tried in vain and is soon to be tried again."""

_STILL_WRONG = (
    "still wrong after a pass of the loop (with other --set values than the loop's own, stop the "
    "loop first)"
)

_EPILOG = """\
exit status: 0 done, 1 something failed or is unknown, 2 drift or changes (only with
--detailed-exitcode), 64 wrong usage, 65 invalid spec, 75 another pass is at work
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if message.startswith("one of the arguments"):
            modes = ", ".join(f"--{mode}" for mode, _, _ in _MODES)
            message = f"no mode that is known; it is one of {modes}"
        raise Usage(f"{message}\ntry: {self.prog} --help")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Asks for the width of the terminal by itself: argparse would load shutil at every start."""

    def __init__(self, prog: str) -> None:
        try:
            columns = os.get_terminal_size().columns
        except OSError:
            columns = 80
        super().__init__(prog, max_help_position=28, width=min(columns, 100) - 2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="reconcile",
        usage="%(prog)s MODE [SPEC] [options]",
        description="Show how this host differs from what a YAML file declares, and mend it.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("modes").add_mutually_exclusive_group(required=True)
    for mode, _, words in _MODES:
        if mode in _NAMING:
            group.add_argument(f"--{mode}", metavar="ID", action="append", help=words)
        else:
            group.add_argument(
                f"--{mode}", dest="mode", action="store_const", const=mode, help=words
            )
    group.add_argument("--version", action="version", version=f"reconcile {__version__}")
    add = parser.add_argument
    add("spec", metavar="SPEC", nargs="?", help="the YAML file, or the name of a shipped spec")
    add("--only", metavar="ID", action="append", default=[],
        help="only this resource and what it needs; shell patterns; repeatable")  # fmt: skip
    add("--set", metavar="NAME=VALUE", action="append", default=[],
        help="give a variable of the spec another value; repeatable")  # fmt: skip
    add("--since", metavar="TIME", help="--history: from 2h ago, 2026-11-22, '2026-11-22 14:30'")
    add("--reason", metavar="TEXT", default="", help="--pause: why, for people")
    add("--for", metavar="TIME", dest="duration", type=_duration, default=None,
        help="--pause: for so long, such as 2h")  # fmt: skip
    add("--stop", action="store_true", help="--pause: end the process as well")
    add("--json", action="store_true", help="one JSON document on standard output")
    add("--detailed-exitcode", action="store_true", help="2 for drift or changes")
    add("--state-dir", metavar="DIR", help="where state is kept")
    add("--color", choices=("auto", "always", "never"), default="auto")
    add("-q", "--quiet", action="store_true", help="print only what failed or is unknown")
    add("-v", "--verbose", action="store_true", help="print every note")
    return parser


def _duration(text: str) -> float:
    from reconciler.parsers import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Never lets a traceback out."""
    # One short pass makes many small objects and frees few of them: collecting costs a fifth.
    gc.disable()
    open_standard_streams()
    os.umask(0o022)  # What we make must not depend on who calls.
    try:
        keep_descriptors()
        status = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except Usage as error:
        return _complain(str(error), USAGE)
    except BrokenPipeError:
        from reconciler.views.terminal import discard

        discard(sys.stdout)  # The reader has seen enough; nothing may be written at exit either.
        return TROUBLE
    except KeyboardInterrupt:
        return _complain("interrupted; the next pass goes on from here", 130)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else TROUBLE
    except Exception as error:
        return _complain(in_words(error), TROUBLE)


def _run(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    options.mode = options.mode or next(mode for mode in _NAMING if getattr(options, mode))
    run = next(function for mode, function, _ in _MODES if mode == options.mode)
    session = Session(options)
    status = run(session)
    error = session.terminal.error
    if error is None or isinstance(error, BrokenPipeError):
        return status
    # All was done all the same; only the telling of it went wrong.
    return _complain(f"cannot print: {(error.strerror or str(error)).lower()}", status or TROUBLE)


def _plan(session: Session) -> int:
    from reconciler.modes import messages
    from reconciler.views import data, text

    spec = _loaded(session)
    if isinstance(spec, int):
        return spec
    plan = messages.with_targets(session, session.look(spec, session.host(spec)).plan, spec)
    options = session.options
    if options.json:
        session.print_json(data.plan_document(plan))
    elif options.quiet:
        session.terminal.write(text.remark_lines(plan, False) if plan.trouble else ())
    else:
        session.terminal.write([text.heading(plan), *text.plan_lines(plan, options.verbose)])
    return _status(plan.trouble, bool(plan.steps), options)


def _once(session: Session) -> int:
    from reconciler import spec as specs
    from reconciler.model import HostError
    from reconciler.modes import messages
    from reconciler.turns import Taken, turn

    spec = _loaded(session, write_cache=True)
    if isinstance(spec, int):
        return spec

    def taken_over(words: str) -> None:
        _tell(f"{spec.name}: {words}")
        session.report(words)

    try:
        with turn(session.folder(spec), taken_over):
            status, told = _pass(session, spec)
            messages.deliver(session, told)
            return status
    except Taken as taken:
        return _beside(session, spec, taken)
    except HostError as error:
        return _complain(str(error), TROUBLE)
    except specs.SpecError as error:  # Looked up, and imported, only when something is raised.
        return _invalid(session, error)


def _beside(session: Session, spec: Spec, taken: Taken) -> int:
    """Somebody else is at work on this spec: normal when it is a loop that is well.

    The loop is the one who acts. Where something differs it is asked for a pass now, and what
    has become of it is told.
    """
    from reconciler.model import Outcome, Report
    from reconciler.turns import ask
    from reconciler.views import data, text

    host = session.host(spec)
    plan = session.look(spec, host).plan
    report = Report(plan)
    if taken.loop is not None and plan.steps and ask(taken, session.folder(spec)):
        left = {step.id: step.why for step in session.look(spec, host).plan.steps}
        report = Report(
            plan,
            tuple(
                Outcome(step, "failed", f"{_STILL_WRONG}: {left[step.id]}")
                if step.id in left
                else Outcome(step, "done")
                for step in plan.steps
            ),
        )
    options = session.options
    if options.json:
        about = {"pid": taken.pid, "loop": taken.loop is not None}
        session.print_json({**data.report_document(report), "busy": about})
    if taken.loop is None:
        return _complain(f"{spec.name}: {taken}; nothing was done", BUSY)
    asked = "; asked for a pass now, it has ended so" if report.outcomes else ""
    session.say((f"{spec.name}: {taken}{asked}", "good"))
    for outcome in report.outcomes:
        session.say(*text.outcome_lines(outcome))
    return _status(report.failed, report.changed, options)


def _loop(session: Session) -> int:
    from reconciler.model import HostError
    from reconciler.spec.aside import Invalid
    from reconciler.turns import Taken
    from reconciler.watchdog import keep

    if session.options.only:
        raise Usage("--loop keeps the whole spec; --only is for --plan and --once")
    gc.enable()  # This one lives for years.
    try:
        keep(session, session.load_aside(), _tell)
        return DONE
    except Taken as taken:
        return _complain(f"{taken}; this loop does not begin", BUSY)
    except Invalid as error:
        sys.stderr.write(error.text)
        return INVALID
    except HostError as error:
        return _complain(str(error), TROUBLE)


def _pass(session: Session, spec: Spec) -> tuple[int, Spec]:
    """The exit status, and the spec as the pass has left it."""
    from reconciler.asking import ask_and_act
    from reconciler.model import Outcome, Report
    from reconciler.modes import messages
    from reconciler.views import data, text

    session.recover(spec)
    host = session.host(spec)
    look = session.look(spec, host)
    end = host.clock.monotonic() + _SHORT_WAIT
    due = session.learn(look, host)
    while look.plan.held and due is not None and host.clock.monotonic() + due <= end:
        # The next pass may come in minutes only.
        host.clock.sleep(due)
        look = session.look(spec, host)
        due = session.learn(look, host)
    plan = look.plan
    terminal, options = session.terminal, session.options

    def told(outcome: Outcome) -> None:
        if not options.quiet or outcome.result == "failed":
            terminal.write(text.outcome_lines(outcome))

    session.say(text.heading(plan))
    # What fails is told when it was asked once more.
    told_now = replace(plan, failing=())
    if not options.quiet or told_now.trouble:
        shown = messages.with_targets(session, told_now, spec)
        terminal.write(text.remark_lines(shown, options.verbose))
    report = session.act(look, host, told) if plan.steps else Report(plan)
    report = ask_and_act(session, look, report, host, told)
    plan = report.plan
    terminal.write(text.failing_lines(plan))
    session.say(*text.report_summary(report))
    if options.json:
        session.print_json(data.report_document(report))
    session.tell(replace(look, plan=report.plan), report.outcomes)
    trouble = report.failed or plan.trouble
    return _status(trouble, report.changed, options), look.spec


def _check(session: Session) -> int:
    from reconciler.views.data import FORMAT

    spec = _loaded(session, complete=True)
    if isinstance(spec, int):
        return spec
    if session.options.json:
        path = {"name": spec.name, "path": spec.path}
        print_json({"format": FORMAT, "spec": path, "valid": True, "errors": []})
    session.say((f"{spec.path}: valid; {len(spec.resources)} resources", "good"))
    if spec.notify.targets:
        from reconciler.notify import switched_off

        session.say(
            *((f"  . note {one.id}: {one.reason}", "quiet") for one in switched_off(spec.notify))
        )
    return DONE


def _schema(session: Session) -> int:
    from reconciler.spec.schema import json_schema

    print_json(json_schema(kinds.all_kinds()))
    return DONE


def _loaded(session: Session, write_cache: bool = False, complete: bool = False) -> Spec | int:
    """The spec, or the exit status after its errors have been printed."""
    from reconciler import spec

    try:
        return session.load(write_cache, complete)
    except spec.SpecError as error:  # Looked up, and imported, only when something is raised.
        return _invalid(session, error)


def _invalid(session: Session, error: SpecError) -> int:
    from reconciler.spec.errors import document, render
    from reconciler.views.data import FORMAT

    sys.stderr.write(render(error))
    if session.options.json:
        print_json({"format": FORMAT, "valid": False, "errors": document(error)})
    return INVALID


def _status(trouble: bool, changes: bool, options: argparse.Namespace) -> int:
    if trouble:
        return TROUBLE
    return CHANGED if changes and options.detailed_exitcode else DONE


def _complain(message: str, status: int) -> int:
    _tell(message)
    return status


def _tell(message: str) -> None:
    lines = [printable(line, 4000) for line in message.splitlines()]
    sys.stderr.write("reconcile: " + "\n".join(lines) + "\n")


def _pause(session: Session) -> int:
    from reconciler.modes import pause

    return _of_valid(session, pause.pause)


def _resume(session: Session) -> int:
    from reconciler.modes import pause

    return _of_valid(session, pause.resume)


def _status_mode(session: Session) -> int:
    from reconciler.modes import status

    return _of_valid(session, status.run)


def _notify_test(session: Session) -> int:
    from reconciler.modes import messages

    return _of_valid(session, messages.run)


def _history(session: Session) -> int:
    from reconciler.modes import history

    return _of_valid(session, history.run)


def _of_valid(session: Session, run: Callable[[Session], int]) -> int:
    """A mode whose spec must be valid."""
    from reconciler import spec

    try:
        return run(session)
    except spec.SpecError as error:  # Looked up, and imported, only when something is raised.
        return _invalid(session, error)


_NAMING = ("pause", "resume")
"""The modes that take ids."""

_MODES: tuple[tuple[str, Callable[[Session], int], str], ...] = (
    ("plan", _plan, "show what would change, and why; writes nothing"),
    ("once", _once, "one pass: plan, act in order, verify"),
    ("loop", _loop, "the watchdog: a pass now, and one every interval"),
    ("status", _status_mode, "how things stand now; fast, reads only"),
    ("history", _history, "what was done, when, why, by whom, with which result"),
    ("pause", _pause, "leave a resource alone until told otherwise; repeatable"),
    ("resume", _resume, "see to it again"),
    ("check", _check, "is the spec valid? shows all errors at once"),
    ("notify-test", _notify_test, "one message to every target, and which took it"),
    ("schema", _schema, "the JSON Schema of the spec, for editors"),
)
