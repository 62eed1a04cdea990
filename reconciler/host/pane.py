"""The program of a tmux pane: tmux runs us in its place, and we become it, as ``start`` has it.

It must not let tmux, or what root's tmux runs, see an environment that is for another user.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from reconciler.host.not_started import reason
from reconciler.host.start import Program, become, inherit
from reconciler.host.users import Account, refuse_other

_SET = "RECONCILE_SET_"
"""What a pane's program gets in its environment has this in front of its name until then."""
_SETTINGS = "RECONCILE_SETTINGS"
"""Environment variable with what is set before it becomes the program, ``name=value`` each."""
_OF_PANE = ("TERM", "TMUX", "TMUX_PANE")
"""What a program of another user gets of tmux's environment."""
_LOADER = (
    "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH",
)  # fmt: skip
"""What has libraries loaded into any program, ld.so(8), gconv; it waits until ids are changed."""
_PANE = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from reconciler.host import pane as start; start.pane()"
)
"""By its last words a pane that was started so is known, whichever version has done it."""


def for_pane(program: Program) -> tuple[dict[str, str], list[str]]:
    """The environment and the arguments with which tmux is to run a pane in its place.

    What is in its environment is not set before its ids are, and is in nobody's arguments.
    """
    account = program.account
    refuse_other(account)
    environ = {f"{_SET}{name}": value for name, value in program.environ.items()}
    if account.uid != os.geteuid():
        environ |= dict.fromkeys(_LOADER, "")
    if program.settings:
        environ[_SETTINGS] = " ".join(f"{name}={value}" for name, value in program.settings)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    who = (account.name, str(account.uid), str(account.gid), account.home, account.shell)
    interpreter = (sys.executable, "-I", "-S", "-c", _PANE, root)
    return environ, [*interpreter, *who, program.cwd or "", *program.argv]


def pane() -> NoReturn:
    """The first process of a pane, which has its own terminal and session, becomes the program."""
    name, uid, gid, home, shell, cwd, *argv = sys.argv[2:]
    with open("/proc/self/environ", "rb") as file:  # Python has added to its own already.
        words = os.fsdecode(file.read()).split("\0")
    given = dict(word.split("=", 1) for word in words if "=" in word)
    if not any(key.startswith(_SET) for key in given):
        os.write(2, f"cannot start {argv[0]}: respawned without its environment\n".encode())
        os._exit(127)
    account = Account(name, int(uid), int(gid), home, shell)
    own = account.uid == os.geteuid()
    words = given.pop(_SETTINGS, "").split()
    settings = [(word.partition("=")[0], word.partition("=")[2]) for word in words]
    environ = {
        key: value
        for key, value in given.items()
        if not key.startswith(_SET) and (own or key in _OF_PANE)
    }
    environ |= {
        key.removeprefix(_SET): value for key, value in given.items() if key.startswith(_SET)
    }
    try:
        inherit()
        become(Program(argv, environ, account, cwd or None, settings), 2)
    except BaseException as error:
        os.write(2, f"cannot start {argv[0]}: {reason(error)}\n".encode(errors="replace"))
    os._exit(127)
