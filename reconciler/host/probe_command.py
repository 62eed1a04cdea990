"""The probe that runs a command: does it end well, and does it say what it should?

It must not wait for what the command leaves behind, nor show a value of its environment.
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Sequence

from reconciler.base.text import censored, printable, redacted
from reconciler.base.values import Secret, Verdict
from reconciler.host import kernel
from reconciler.host.launch import environment
from reconciler.host.start import Program, begin
from reconciler.host.users import Account
from reconciler.host.walk import closing

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

    It stays in the session that the caller has for the verdict alone (``child``). What it leaves
    behind, in whichever session, is the caller's, who ends it. Raises HostError when it cannot
    be run.
    """
    kernel.adopt_orphans()
    program = Program(argv, environment(account, env), account, cwd)
    null = os.open("/dev/null", os.O_RDWR)
    pipe, output = os.pipe()
    try:
        pid = begin(program, (null, output, output), session=os.getsid(0) != os.getpid())
    except BaseException:
        os.close(pipe)
        raise
    finally:
        os.close(null)
        os.close(output)
    with closing(pipe):
        text = _output(pid, pipe).decode(errors="replace")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    matches = expect is None or re.search(expect, text, re.MULTILINE) is not None
    said = _last_line(text, [secret.value or "" for _, secret in env])
    tail = f": {printable(said, _LONGEST)}" if said else ""
    if status < 0:
        return Verdict(False, f"ended by signal {-status}{tail}")
    if status:
        return Verdict(False, f"exit status {status}{tail}")
    if not matches:
        last = f"; last{tail}" if tail else "; there is none"
        return Verdict(False, f"its output does not match {expect!r}{last}")
    return Verdict(True, f"exit status 0{tail}")


def _last_line(text: str, secrets: Sequence[str]) -> str:
    """The last line with text in it, without secrets; not one that was not read to its end."""
    if len(text) >= _MOST:
        text = text.rpartition("\n")[0]
    lines = redacted(text, secrets).splitlines()
    return censored(next((line.strip() for line in reversed(lines) if line.strip()), ""))


def _output(pid: int, pipe: int) -> bytes:
    """The beginning of what it prints until it ends, whoever may hold the pipe afterwards."""
    with closing(os.pidfd_open(pid)) as ended:
        return _until(ended, pipe)


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
