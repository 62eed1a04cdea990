"""The command line: from flags to a mode, and from what went wrong to an exit status.

It must not do any of the work itself; that is in ``modes``, a module each.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from argparse import Namespace


if "--loop" in sys.argv:
    # They are heard as soon as the loop listens: before that, they would end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1))
    if os.getpid() == 1:
        from reconciler.host.init import SIGNALS

        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

import gc
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from reconciler.base.errors import BUSY, TROUBLE, USAGE, BeingWritten
from reconciler.base.text import error_in_words
from reconciler.cli.invocation import InvalidUsage, Invocation, complain, invalid
from reconciler.host.environment import clean, keep_descriptors, open_standard_streams, use_utf8
from reconciler.host.filesystems import served
from reconciler.state.folder import is_asked

if TYPE_CHECKING:
    from reconciler.cli.context import Context

_ELSEWHERE = {
    "import": "importing",
    "adopt": "adopting",
    "resume": "pause",
    "notify-test": "messages",
}
"""The modes that are not in a module of their own name."""
_NO_LOOK = ("completion", "loop", "man", "schema", "serve")
"""The modes that look at no file of the host, and two which have children of their own."""


def entry() -> NoReturn:
    """The program as it is installed: end with the status of ``main``.

    The interpreter is not taken apart first. Nothing here waits for that, and it is a
    twenty-fifth of a pass that finds nothing to do.
    """
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # Nobody reads it, or it is closed.
            stream.flush()
    os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Never lets a traceback out."""
    # One short pass makes many small objects and frees few of them: collecting costs a fifth.
    gc.disable()
    open_standard_streams()
    if argv is None:
        use_utf8()
        if os.getpid() == 1 and "--loop" in sys.argv:
            from reconciler.host.init import go_on_as_child

            go_on_as_child()
    clean()
    os.umask(0o022)  # What we make must not depend on who calls.
    # Where a caller ignores it, nobody could be waited for: their ends would be lost, wait(2).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        keep_descriptors()
        status = _run(sys.argv[1:] if argv is None else argv, own=argv is None)
        sys.stdout.flush()
        return status
    except InvalidUsage as error:
        return complain(str(error), USAGE)
    except BrokenPipeError:
        from reconciler.output.terminal import discard

        discard(sys.stdout)  # The reader has seen enough; nothing may be written at exit either.
        return TROUBLE
    except KeyboardInterrupt:
        return complain("interrupted; the next pass goes on from here", 130)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else TROUBLE
    except Exception as error:
        return complain(error_in_words(error), TROUBLE)


def _run(argv: Sequence[str], own: bool) -> int:
    if "_ARGCOMPLETE" in os.environ:
        from reconciler.cli.commands import completion

        completion.answer()
    options = usual(argv)
    if options is None:
        from reconciler.cli.options import parsed

        options = parsed(argv)
    many = options.hosts is not None
    if options.limit is not None and not many:
        raise InvalidUsage("--limit is about the hosts of --hosts; give both")
    bound = (
        own and not many and options.mode not in _NO_LOOK and bool(served()) and _go_on_in_child()
    )
    answer = None
    if (
        options.mode == "once"
        and not many
        and not (options.only or options.json or options.unset or options.saved or options.placed)
    ):
        call = Invocation(options)
        if is_asked(call.state_dir) and not options.take_over:
            from reconciler.cli.commands.beside import ask

            status, answer = ask(call)
            if status is not None:
                return _printed(call, status)
    from reconciler.cli.context import Context

    context = Context(options)
    context.answer = answer
    if bound:
        from reconciler.host import bounded

        context.carried, context.carry = bounded.told(), bounded.tell
    draws = options.mode in ("loop", "serve") or options.watch
    if context.terminal.watched and not options.quiet and not draws:
        from reconciler.host.progress import watch
        from reconciler.output.progress import Bars

        watch(Bars(context.terminal))
    return _printed(context, _done(context))


def _printed(call: Invocation, status: int) -> int:
    """The exit status, in view of how printing went."""
    error = call.terminal.error
    if error is None or isinstance(error, BrokenPipeError):
        return status
    # All was done all the same; only the telling of it went wrong.
    return complain(f"cannot print: {(error.strerror or str(error)).lower()}", status or TROUBLE)


def _go_on_in_child() -> bool:
    """A file system may hang whoever looks into it: that is not to be this process."""
    from reconciler.host import bounded
    from reconciler.state import folder as state

    if not bounded.go_on_in_child():
        return False
    state.kept_by = bounded.give_away
    return True


def _done(context: Context) -> int:
    mode = context.options.mode if context.options.hosts is None else "fleet"
    # Only the one that is wanted: the others would cost time at every start.
    module = import_module(f"reconciler.cli.commands.{_ELSEWHERE.get(mode, mode)}")
    try:
        return int(module.run(context))
    except BeingWritten as error:
        done = "" if context.acted else "; nothing was done"
        return complain(f"{error}{done}; try again when it is saved", BUSY)
    except Exception as error:
        from reconciler.config.errors import SpecError  # Only when something is raised.

        if isinstance(error, SpecError):
            return invalid(context, error)
        raise


_MODES = ("once", "plan", "status", "loop")
_FLAGS = {
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--json": "json",
}
_VALUES = {"--state-dir": "state_dir"}
_LISTS = {"--set": "set", "--set-file": "set_file"}


def usual(argv: Sequence[str]) -> Namespace | None:
    """What ``options.parsed`` makes of the same; None: that is to be asked."""
    options = SimpleNamespace(
        mode=None, spec=None, only=[], set=[], unset=[], set_file=[], json=False, state_dir=None,
        trust=[], color="auto", quiet=False, verbose=False, detailed_exitcode=False, since=None,
        duration=None, reason=None, stop=False, take_over=False, pause=None, resume=None,
        completion=None, logs=None, follow=False, watch=False, adopt=None, out=None, sign=None,
        saved=None, signers=None, placed=None, hosts=None, limit=None, serve=None,
        token_file=None, at=None, event=None, undo=None, dry=False,
        **{"import": None},
    )  # fmt: skip
    found = vars(options)
    words = iter(argv)
    for word in words:
        if word[:2] == "--" and word[2:] in _MODES and found["mode"] is None:
            found["mode"] = word[2:]
        elif word in _FLAGS:
            found[_FLAGS[word]] = True
        elif word in _VALUES or word in _LISTS:
            value = next(words, "")
            if value[:1] in ("", "-"):
                return None
            if word in _LISTS:
                found[_LISTS[word]].append(value)
            else:
                found[_VALUES[word]] = value
        elif word[:1] not in ("", "-") and found["spec"] is None:
            found["spec"] = word
        else:
            return None
    return cast("Namespace", options) if found["mode"] is not None else None
