"""The probe that runs a command: does it end well, and does it say what it should?

It must not wait for what the command leaves behind, nor show a value of its environment.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
from collections.abc import Sequence
from typing import Any

from reconciler.host.launch import environment, resolve
from reconciler.host.users import Account
from reconciler.host.walk import reason
from reconciler.model import HostError, Secret, Verdict
from reconciler.text import printable

_MOST = 2**20
_CHUNK = 65536
_LONGEST = 300


def command(
    argv: Sequence[str],
    expect: str | None,
    cwd: str | None,
    env: Sequence[tuple[str, Secret]],
    account: Account,
) -> Verdict:
    """Run ``argv`` to its end; of its output only the first MiB is looked at.

    It stays in the caller's process group, which whoever waits for the verdict kills in the end.
    Raises HostError when it cannot be run.
    """
    environ = environment(account, env)
    words = resolve(argv, environ)
    other = account.uid != os.geteuid()
    home = account.home if os.path.isdir(account.home) else "/"
    try:
        process = subprocess.Popen(
            words,
            env=environ,
            cwd=cwd or home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **(_as(account) if other else {}),
        )
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise HostError(f"cannot run {argv[0]}: {reason(error)}{where}") from None
    text = _output(process).decode(errors="replace")
    status = process.wait()
    matches = expect is None or re.search(expect, text, re.MULTILINE) is not None
    for _, secret in env:
        if secret.value and len(secret.value) > 3:
            text = text.replace(secret.value, "***")
    said = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    tail = f": {printable(said, _LONGEST)}" if said else ""
    if status < 0:
        return Verdict(False, f"ended by signal {-status}{tail}")
    if status:
        return Verdict(False, f"exit status {status}{tail}")
    if not matches:
        last = f"; last{tail}" if tail else "; there is none"
        return Verdict(False, f"its output does not match {expect!r}{last}")
    return Verdict(True, f"exit status 0{tail}")


def _as(account: Account) -> dict[str, Any]:
    if os.geteuid() != 0:
        raise HostError(f"only root may run a command as {account.name}")
    groups = os.getgrouplist(account.name, account.gid)
    return {"user": account.uid, "group": account.gid, "extra_groups": groups}


def _output(process: subprocess.Popen[bytes]) -> bytes:
    """The beginning of what it prints until it ends, whoever may hold the pipe afterwards."""
    assert process.stdout is not None
    ended = os.pidfd_open(process.pid)
    try:
        with process.stdout as pipe:
            return _until(ended, pipe.fileno())
    finally:
        os.close(ended)


def _until(ended: int, pipe: int) -> bytes:
    os.set_blocking(pipe, False)
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    poller.register(ended, select.POLLIN)
    chunks: list[bytes] = []
    size = 0
    while True:
        over = any(descriptor == ended for descriptor, _ in poller.poll())
        while chunk := _read(pipe):
            if size < _MOST:
                chunks.append(chunk[: _MOST - size])
                size += len(chunks[-1])
            elif over:
                break  # Somebody whom it has left behind prints on and on.
        if over:
            return b"".join(chunks)
        if chunk == b"":
            poller.unregister(pipe)


def _read(pipe: int) -> bytes | None:
    try:
        return os.read(pipe, _CHUNK)
    except BlockingIOError:
        return None
