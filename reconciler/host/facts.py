"""What the spec may ask about this host and its user.

It must not run anything: this is read at every start.
"""

from __future__ import annotations

import os
import sys

from reconciler.base.values import Facts
from reconciler.host import trust
from reconciler.host.command import find, program_folder
from reconciler.host.users import Users


def facts(users: Users, state_dir: str) -> Facts:
    """The facts as they are now."""
    account = users.account(None)
    return Facts(
        user_name=account.name,
        user_home=os.path.abspath(account.home),
        user_uid=account.uid,
        host_name=os.uname().nodename,
        # sd_booted(3)
        systemd=os.path.isdir("/run/systemd/system"),
        crontab=find("crontab") is not None,
        tmux=find("tmux") is not None,
        state_dir=state_dir,
        bin=program_folder(),
        bin_refused=_program_refused() if os.geteuid() == 0 else "",
        linger=os.path.exists(f"/var/lib/systemd/linger/{account.name}"),
        trust=tuple(word for uid in trust.trusted_owners() for word in ("--trust", str(uid))),
    )


def _program_refused() -> str:
    """Why root cannot trust this program: its command, its interpreter, and its own files."""
    try:
        for path in (f"{program_folder()}/reconcile", sys.executable, __file__):
            trust.refuse_untrusted(path, "this program")
    except trust.Untrusted as error:
        return str(error)
    except OSError as error:
        return f"this program cannot be looked at: {error}"
    return ""


def state_directory(chosen: str | None, users: Users) -> str:
    """Where state is kept: ``chosen``, else ``$STATE_DIRECTORY``, else the user's own place.

    Raises ValueError.
    """
    if chosen is not None:
        if not chosen:
            raise ValueError("--state-dir takes a folder, not ''")
        return os.path.abspath(users.expanded(chosen))
    # systemd.exec(5): several are separated by colons.
    given = users.expanded(os.environ.get("STATE_DIRECTORY", "").partition(":")[0])
    if given:
        # It holds for commands in whatever folder: each would come to a state of its own.
        if not given.startswith("/"):
            raise ValueError(f"$STATE_DIRECTORY must be an absolute path, not {given!r}")
        return os.path.abspath(given)
    if os.geteuid() == 0:
        return "/var/lib/reconcile"
    base = os.environ.get("XDG_STATE_HOME", "")
    if not base.startswith("/"):
        base = os.path.join(users.account(None).home, ".local/state")
    return os.path.join(base, "reconcile")
