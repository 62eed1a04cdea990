"""The command executor: takes bash commands as JSON files from a folder and runs them in order.
It is a program of its own: it must not import any other part of `reconciler`.

Everything lies below one home (``--home``, else ``$AI_CO_HOME``, else ``~/ai_co``):

    ai_commands/pending/<name>.json     a command waits here, written whole: temp name, then rename
    ai_commands/running/<id>.json       taken by a worker, which holds an flock on it
    ai_commands/running/<id>.pid        the command's process: pid, start ticks, boot id
    ai_commands/logs/<id>.log           stdout and stderr, as they come
    ai_commands/completed/<id>.json     the result, whole or not at all, never overwritten
    ai_commands/failed/<name>           not a command; `<name>.reason` says why
    ai_commands/heartbeat               JSON: pid, time, state
    logs/command_executor.log           one line per event

A command file is an object ``{"command": "...", "id", "timeout", "cwd", "env"}``; only `command`
is required, other keys are copied into the result under `extra`. The command gets the worker's
environment, `AI_CO_HOME`, `AI_COMMAND_ID` and its `env`; standard input is empty. A result's
`status` is `succeeded` (exit code 0), `failed`, `timed_out` or `interrupted`; `reason` says why.
What a command leaves in the background (``server &``) is left alone when it exits; at a timeout,
a stop of the worker, or too much output, its whole process group gets TERM, then KILL.
"""

TYPE_CHECKING = False  # type checkers take this for True; importing `typing` for it costs time
if TYPE_CHECKING:
    from reconciler.executor.api import (
        check_results,
        create_bash_command,
        get_latest_log,
        wait_results,
    )

__all__ = ["check_results", "create_bash_command", "get_latest_log", "wait_results"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reconciler.executor import api

    return getattr(api, name)
