"""The command line: flags, exit codes and wiring. The only module that knows all the others.

It must not do any of the work itself.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from reconciler import __version__, kinds
from reconciler.descriptors import keep_descriptors, open_standard_streams
from reconciler.text import Censor

if TYPE_CHECKING:
    from reconciler.host.users import Users
    from reconciler.model import Plan, Report, Spec
    from reconciler.spec.errors import SpecError
    from reconciler.views.terminal import Terminal

DONE, TROUBLE, CHANGED, USAGE, INVALID, BUSY = 0, 1, 2, 64, 65, 75
"""Exit codes; the numbers from 64 up are those of sysexits.h."""

_EPILOG = """\
exit status: 0 done, 1 something failed or is unknown, 2 drift or changes (only with
--detailed-exitcode), 64 wrong usage, 65 invalid spec, 75 another pass is at work
"""


class Usage(Exception):
    """The command line asks for something that cannot be; the message says what and why."""


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
        group.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=words)
    group.add_argument("--version", action="version", version=f"reconcile {__version__}")
    add = parser.add_argument
    add("spec", metavar="SPEC", nargs="?", help="the YAML file, or the name of a shipped spec")
    add("--only", metavar="ID", action="append", default=[],
        help="only this resource and what it needs; shell patterns; repeatable")  # fmt: skip
    add("--set", metavar="NAME=VALUE", action="append", default=[],
        help="give a variable of the spec another value; repeatable")  # fmt: skip
    add("--json", action="store_true", help="one JSON document on standard output")
    add("--detailed-exitcode", action="store_true", help="2 for drift or changes")
    add("--state-dir", metavar="DIR", help="where state is kept")
    add("--color", choices=("auto", "always", "never"), default="auto")
    add("-q", "--quiet", action="store_true", help="print only what failed or is unknown")
    add("-v", "--verbose", action="store_true", help="print every note")
    return parser


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
        return _complain(_in_words(error), TROUBLE)


def _run(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    run = next(function for mode, function, _ in _MODES if mode == options.mode)
    session = _Session(options)
    status = run(session)
    error = session.terminal.error
    if error is None or isinstance(error, BrokenPipeError):
        return status
    # All was done all the same; only the telling of it went wrong.
    return _complain(f"cannot print: {(error.strerror or str(error)).lower()}", status or TROUBLE)


class _Session:
    """One call of the command: its options, and what follows from them."""

    def __init__(self, options: argparse.Namespace) -> None:
        from reconciler.host.facts import state_directory
        from reconciler.host.users import Users
        from reconciler.views.terminal import Terminal

        self.options = options
        self.terminal: Terminal = Terminal(options.color, to_errors=options.json)
        self.users: Users = Users()
        self.state_dir = state_directory(options.state_dir, self.users)

    def load(self, write_cache: bool = False, complete: bool = False) -> Spec:
        """The spec that was asked for. Raises SpecError or Usage."""
        from reconciler.host.facts import facts
        from reconciler.spec import load

        spec = load(
            self.spec_path(),
            get_kind=kinds.get,
            all_kinds=kinds.all_kinds,
            facts=facts(self.users, self.state_dir),
            settings=self.settings(),
            environ=os.environ,
            state_dir=self.state_dir,
            write_cache=write_cache,
            complete=complete,
        )
        if spec.secrets:
            self.terminal.censor = Censor(secret.reveal() for secret in spec.secrets)
        return spec

    def spec_path(self) -> str:
        """The file named, or the first of the usual places where there is one."""
        from reconciler.shipped import find_spec

        path, tried = find_spec(self.options.spec, os.environ, self.users.account(None).home)
        if path is None:
            raise Usage("no spec: name one, or make one of " + ", ".join(tried))
        return path

    def settings(self) -> Mapping[str, str]:
        """The variables of ``--set``."""
        pairs = [word.partition("=") for word in self.options.set]
        for name, equals, _ in pairs:
            if not name or not equals:
                raise Usage(f"--set takes NAME=VALUE, not {name!r}")
        home = self.users.account(None).home
        return {
            # No shell expands the ~ of --set home=~/x, and people mean it.
            name: home + value[1:] if value == "~" or value.startswith("~/") else value
            for name, _, value in pairs
        }

    def plan(self, spec: Spec, host: Any) -> Plan:
        """Look at the host, and plan. Raises Usage for an ``--only`` that matches nothing."""
        from reconciler.observe import observe
        from reconciler.plan import chosen, make_plan

        try:
            resources = chosen(spec, self.options.only)
        except KeyError as error:
            raise Usage(_no_such(error.args[0], spec)) from None
        seen = observe(resources, kinds.get, host)
        return make_plan(spec, resources, seen, kinds.get, os.uname().nodename)

    def print_json(self, document: Any) -> None:
        """Print the one document on standard output."""
        _print_json(self.terminal.censor.json(document))

    def say(self, *lines: tuple[str, str]) -> None:
        """Print lines for people, unless they asked for quiet."""
        if not self.options.quiet:
            self.terminal.write(lines)


def _plan(session: _Session) -> int:
    from reconciler.views import data, text

    spec = _loaded(session)
    if isinstance(spec, int):
        return spec
    plan = session.plan(spec, _host(spec, session.state_dir))
    options = session.options
    if options.json:
        session.print_json(data.plan_document(plan))
    elif options.quiet:
        session.terminal.write(text.remark_lines(plan, False) if plan.unknown else ())
    else:
        session.terminal.write([text.heading(plan), *text.plan_lines(plan, options.verbose)])
    return _status(bool(plan.unknown), bool(plan.steps), options)


def _once(session: _Session) -> int:
    from reconciler.model import HostError
    from reconciler.store import Busy, locked

    spec = _loaded(session, write_cache=True)
    if isinstance(spec, int):
        return spec
    try:
        with locked(os.path.join(session.state_dir, spec.name)):
            report = _pass(session, spec)
    except Busy as busy:
        return _complain(f"{spec.name}: {busy}; nothing was done", BUSY)
    except HostError as error:
        return _complain(str(error), TROUBLE)
    if isinstance(report, int):
        return report
    trouble = report.failed or bool(report.plan.unknown)
    return _status(trouble, report.changed, session.options)


def _pass(session: _Session, spec: Spec) -> Report | int:
    from reconciler.model import Outcome, Report
    from reconciler.views import data, text

    host = _host(spec, session.state_dir)
    plan = session.plan(spec, host)
    terminal, options = session.terminal, session.options

    def told(outcome: Outcome) -> None:
        if not options.quiet or outcome.result == "failed":
            terminal.write(text.outcome_lines(outcome))

    session.say(text.heading(plan))
    if not options.quiet or plan.unknown:
        terminal.write(text.remark_lines(plan, options.verbose))
    report = Report(plan)
    if plan.steps:
        if not spec.complete:
            # The compiled spec holds no secrets, and something is to be started now.
            full = _loaded(session, complete=True)
            if isinstance(full, int):
                return full
            spec, plan = full, session.plan(full, host)
        from reconciler.apply import apply

        report = apply(plan, spec, kinds.get, host, told)
    session.say(*text.report_summary(report))
    if options.json:
        session.print_json(data.report_document(report))
    return report


def _check(session: _Session) -> int:
    from reconciler.views.data import FORMAT

    spec = _loaded(session, complete=True)
    if isinstance(spec, int):
        return spec
    if session.options.json:
        path = {"name": spec.name, "path": spec.path}
        _print_json({"format": FORMAT, "spec": path, "valid": True, "errors": []})
    session.say((f"{spec.path}: valid; {len(spec.resources)} resources", "good"))
    return DONE


def _schema(session: _Session) -> int:
    from reconciler.spec.schema import json_schema

    _print_json(json_schema(kinds.all_kinds()))
    return DONE


def _loaded(session: _Session, write_cache: bool = False, complete: bool = False) -> Spec | int:
    """The spec, or the exit status after its errors have been printed."""
    from reconciler import spec

    try:
        return session.load(write_cache, complete)
    except spec.SpecError as error:  # Looked up, and imported, only when something is raised.
        return _invalid(session, error)


def _invalid(session: _Session, error: SpecError) -> int:
    from reconciler.spec.errors import document, render
    from reconciler.views.data import FORMAT

    sys.stderr.write(render(error))
    if session.options.json:
        _print_json({"format": FORMAT, "valid": False, "errors": document(error)})
    return INVALID


def _host(spec: Spec, state_dir: str) -> Any:
    from reconciler.host import Host

    return Host(spec.name, os.path.join(state_dir, spec.name))


def _status(trouble: bool, changes: bool, options: argparse.Namespace) -> int:
    if trouble:
        return TROUBLE
    return CHANGED if changes and options.detailed_exitcode else DONE


def _no_such(pattern: str, spec: Spec) -> str:
    from difflib import get_close_matches

    near = get_close_matches(pattern, [resource.id for resource in spec.resources], 1)
    hint = f"; did you mean {near[0]!r}?" if near else "; ids look like directory:pending"
    return f"--only {pattern!r} matches no resource of {spec.path}{hint}"


def _print_json(document: Any) -> None:
    import json

    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _complain(message: str, status: int) -> int:
    from reconciler.text import printable

    lines = [printable(line, 4000) for line in message.splitlines()]
    sys.stderr.write("reconcile: " + "\n".join(lines) + "\n")
    return status


def _in_words(error: Exception) -> str:
    """What to say of an error that nobody foresaw: enough to report it, no more."""
    from reconciler.model import HostError

    if isinstance(error, HostError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'input or output'}: {error.strerror.lower()}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"internal error: {type(error).__name__}: {error}{where}; please report it"


_MODES: tuple[tuple[str, Callable[[_Session], int], str], ...] = (
    ("plan", _plan, "show what would change, and why; writes nothing"),
    ("once", _once, "one pass: plan, act in order, verify"),
    ("check", _check, "is the spec valid? shows all errors at once"),
    ("schema", _schema, "the JSON Schema of the spec, for editors"),
)
