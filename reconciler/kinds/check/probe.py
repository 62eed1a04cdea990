"""Which probe a check asks for. To be called in a child of its own, for it may block."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.base.values import Verdict
from reconciler.host import Host
from reconciler.host.users import Account
from reconciler.kinds.check.resource import Check


def probe(want: Check, account: Account, host: Host) -> Callable[[], Verdict]:
    """What gives the verdict; it may block, and raises HostError and OSError."""
    from reconciler.host import probe as files

    if want.fresh is not None:
        fresh = want.fresh
        return lambda: files.fresh(fresh.path, fresh.max_age, host.walltime)
    if want.queue is not None:
        queue = want.queue
        return lambda: files.queue(
            queue.path, queue.match, queue.max_age, queue.max_count, host.walltime
        )
    if want.disk is not None:
        disk = want.disk
        return lambda: files.disk(disk.path, disk.min_free, disk.max_used)
    if want.log is not None:
        from reconciler.host.probe_log import log

        lines = want.log
        return lambda: log(lines.path, lines.match, lines.max, lines.within)
    if want.command is not None:
        from reconciler.host.probe_command import command

        argv = want.command
        return lambda: command(argv, want.expect, want.cwd, want.env, account)
    from reconciler.host import probe_net as net

    if want.tcp is not None:
        name, port = want.tcp
        return lambda: net.tcp(name, port, want.timeout)
    assert want.http is not None
    url, right = want.http
    return lambda: net.http(url, right, want.timeout)


def verdict(want: Check, account: Account, host: Host, parent: int | None) -> Verdict:
    """The verdict, within the check's time; only in a child of its own, a group leader."""
    from reconciler.host.probe import bounded

    words = "it did not end" if want.command is not None else "no answer"
    return bounded(lambda: probe(want, account, host)(), want.timeout, parent, words)
