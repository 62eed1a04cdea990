"""The command line `ai-cmd-executor`: flags, exit codes and error messages.
Must not show anybody a traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys

from reconciler.base.text import escapes
from reconciler.executor.home import BadId, Layout, resolve_home
from reconciler.host.environment import clean, use_utf8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import NoReturn

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 64, 130  # 64: EX_USAGE of sysexits(3)


def main(argv: list[str] | None = None) -> int:
    """Run one command line (that of the process, unless given) and return the exit code."""
    if argv is None:
        use_utf8()
    clean()
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _main(sys.argv[1:] if argv is None else argv, argv is None)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output is gone; the interpreter must not stumble over it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    except BadId as error:
        _complain(str(error))
        return USAGE
    except (OSError, ValueError) as error:
        _complain(str(error))
        return FAILED


def _complain(text: str, margin: str = "  ") -> None:
    """To standard error, whoever reads it or not; a name of others may hold a line break."""
    with contextlib.suppress(OSError):
        lines = escapes(text, keep="\n").replace("\n", f"\n{margin}")
        print(f"ai-cmd-executor: {lines}", file=sys.stderr)


def _main(args: list[str], own_process: bool) -> int:
    if len(args) == 3 and args[:2] == ["worker", "--home"] and os.path.isabs(args[2]):
        return _worker(args[2], args, own_process)  # a worker needs no parser in its memory
    from reconciler.executor.options import UsageError, parse_options

    if "_ARGCOMPLETE" in os.environ:
        _answer()
    verbs = {
        "start": _start,
        "stop": _stop,
        "restart": _restart,
        "logs": _logs,
        "submit": _submit,
        "result": _result,
        "log": _log,
        "report": _report,
        "status": _status,
        "test": _test,
    }
    try:
        options = parse_options(args)
        if options.verb == "worker":
            return _worker(options.home, args, own_process)
        return verbs[options.verb](Layout(resolve_home(options.home)), options)
    except UsageError as error:
        _complain(str(error), "")
        return USAGE


def _answer() -> NoReturn:
    """Answer the completion script of a shell."""
    from reconciler.executor.options import parser
    from reconciler.executor.status import newest
    from reconciler.output import completion

    def ids(_: str, options: Namespace, dest: str) -> list[str]:
        return newest(Layout(resolve_home(options.home)))

    values: dict[str, completion.Values] = {
        "ID": ids, "DIR": completion.folders, "SPEC": completion.specs,
    }  # fmt: skip
    completion.answer(parser(), values)


def _worker(given: str | None, args: list[str], own_process: bool) -> int:
    home = resolve_home(given)
    exact = ["worker", "--home", home]
    if own_process and args != exact:
        before = sys.orig_argv[1 : len(sys.orig_argv) - len(args)]
        if sys.orig_argv[len(sys.orig_argv) - len(args) :] == args and before:
            # So that whoever looks for the worker of this home finds it by one pattern.
            sys.stdout and sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, *before, *exact])
    from reconciler.executor.worker import Worker

    layout = Layout(home)
    worker = Worker(layout)
    _complain(f"worker {os.getpid()} for {home}, log {layout.event_log}")
    return worker.run()


def _start(layout: Layout, options: Namespace) -> int:
    from reconciler.executor.keeper import keeper_of

    return _started(*keeper_of(options).start())


def _stop(layout: Layout, options: Namespace) -> int:
    from reconciler.executor.keeper import keeper_of

    keeper = keeper_of(options)
    print(escapes(keeper.stop("stop")))
    print(escapes(f"it stays so until: {keeper.command('start')}"))
    return OK


def _restart(layout: Layout, options: Namespace) -> int:
    from reconciler.executor.keeper import keeper_of

    return _started(*keeper_of(options).restart())


def _started(words: str, others: list[str]) -> int:
    print(escapes(words))
    for other in others:
        _complain(other)
    return OK


def _logs(layout: Layout, options: Namespace) -> int:
    from reconciler.executor.logs import tail
    from reconciler.executor.show import Printer

    printer = Printer()
    try:
        for data in tail(layout.event_log, options.lines, options.follow):
            if data is None:
                _complain(f"there is no log {layout.event_log} yet; waiting for it")
            else:
                printer.put(data)
    except FileNotFoundError:
        _complain(f"there is no log {layout.event_log}; no worker has run in this home yet")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED  # this is how following ends, and nothing to complain of
    return OK


def _submit(layout: Layout, options: Namespace) -> int:
    from reconciler.executor import api, heartbeat, results
    from reconciler.executor.options import UsageError, command_text, directory, environment
    from reconciler.executor.show import result_text

    try:
        command_id = api.create_bash_command(
            command_text(options.command),
            options.id,
            options.overwrite,
            timeout=options.timeout,
            cwd=directory(options.cwd),
            env=environment(options.env),
            home=layout.home,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    print(command_id, flush=True)
    alive, words = heartbeat.judge(layout)
    if not alive:
        _complain(f"{words}; the command waits; {_starts(layout)}")
    elif trouble := heartbeat.trouble_of(heartbeat.read(layout)):
        _complain(f"the command waits, as the worker runs none: {trouble}")
    if options.wait is None:
        return OK
    found = api.wait_results(command_id, options.wait, home=layout.home)
    if found is None or not results.is_final(found):
        _complain(_no_result(layout, command_id, options.wait, found))
        return FAILED
    print(result_text(found), end="")
    return results.exit_code_of(found)


def _no_result(
    layout: Layout, command_id: str, seconds: float, found: dict[str, object] | None
) -> str:
    within = f" within {seconds:g} s" if seconds else ""
    if found is None:
        return f"there is no command {command_id} in {layout.base}"
    words = "is running" if found["status"] == "running" else "is waiting for its turn"
    return f"no result of {command_id}{within}: it {words}"


def _result(layout: Layout, options: Namespace) -> int:
    from reconciler.executor import api, results
    from reconciler.executor.show import result_text
    from reconciler.executor.text import as_json

    seconds = options.wait or 0.0
    found = api.wait_results(options.id, seconds, home=layout.home)
    if found is None or not results.is_final(found):
        _complain(_no_result(layout, options.id, seconds, found))
        return FAILED
    if options.json:
        print(as_json(results.read(layout, options.id) or found), end="")
    else:
        print(result_text(found), end="")
    return OK if found.get("status") == "succeeded" else FAILED


def _report(layout: Layout, options: Namespace) -> int:
    from reconciler.executor.status import report_text, reported
    from reconciler.executor.text import as_json

    found = reported(layout, options.since, options.failed)
    print(as_json({"format": 1, "commands": found}) if options.json else report_text(found), end="")
    return OK


def _log(layout: Layout, options: Namespace) -> int:
    from reconciler.executor import api
    from reconciler.executor.show import copy_log

    path = api.find_log(options.id, home=layout.home)
    if path is None:
        return _archived_log(layout, options.id)
    command_id = os.path.basename(path).removesuffix(".log")

    def is_done() -> bool:
        return not options.follow or not os.path.lexists(layout.running_file(command_id))

    copy_log(path, is_done)
    return OK


def _archived_log(layout: Layout, command_id: str | None) -> int:
    from reconciler.executor.logs import archived_log
    from reconciler.executor.show import Printer

    with archived_log(layout, command_id) as found:
        if found is None:
            what = "no log" if command_id is None else f"no log of {command_id}"
            _complain(f"there is {what} in {layout.logs} or in its archives")
            return FAILED
        path, content = found
        _complain(f"from {path}")
        printer = Printer()
        while data := content.read(65536):
            printer.put(data)
    return OK


def _status(layout: Layout, options: Namespace) -> int:
    from reconciler.executor.keeper import who_keeps
    from reconciler.executor.show import status_text
    from reconciler.executor.status import status
    from reconciler.executor.text import as_json

    found = {"format": 1, **status(layout), "kept": who_keeps(options)}
    print(as_json(found) if options.json else status_text(found), end="")
    return OK if found["alive"] and not found["trouble"] else FAILED


def _starts(layout: Layout) -> str:
    """How a person gets a worker."""
    from reconciler.host.remedy import remedy

    return f"start one with: {remedy('ai-cmd-executor', 'start', '--home', layout.home)}"


def _test(layout: Layout, options: Namespace) -> int:
    from reconciler.executor.status import try_out

    if not os.path.isdir(layout.home):
        _complain(
            f"the home {layout.home} does not exist, so no worker is running; {_starts(layout)}"
        )
        return FAILED
    if options.archives:
        return _test_archives(layout)
    good, words = try_out(layout, options.timeout, options.busy_ok)
    if good:
        print(escapes(words))
        return OK
    _complain(words)
    return FAILED


def _test_archives(layout: Layout) -> int:
    from reconciler.executor.logs import broken_archive
    from reconciler.executor.options import ARCHIVES

    number, trouble = broken_archive(layout, ARCHIVES)
    if trouble is not None:
        _complain(escapes(trouble))
        return FAILED
    print(f"{number} archive{'' if number == 1 else 's'} of logs can be read")
    return OK
