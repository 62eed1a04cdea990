"""One probe: what a check asks of the host, and what it answers.

It may block. It must not decide how long, nor what follows.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from reconciler.host import probe as files

if TYPE_CHECKING:
    from reconciler.base.values import Verdict
    from reconciler.host import Host
    from reconciler.host.users import Account
    from reconciler.kinds.check.resource import Check


def ask(want: Check, account: Account, host: Host) -> Verdict:
    """The verdict. Raises HostError and OSError."""
    if want.fresh is not None:
        fresh = want.fresh
        return files.fresh(fresh.path, fresh.max_age, host.walltime)
    if want.queue is not None:
        queue = want.queue
        return files.queue(queue.path, queue.match, queue.max_age, queue.max_count, host.walltime)
    if want.disk is not None:
        disk = want.disk
        return files.disk(disk.path, disk.min_free, disk.max_used)
    if want.log is not None:
        from reconciler.host.probe_log import log

        lines = want.log
        return log(lines.path, lines.match, lines.max, lines.within)
    if want.command is not None:
        from reconciler.host.probe_command import command

        return command(want.command, want.expect, want.cwd, want.env, account)
    if want.tcp is not None or want.http is not None:
        return _over_the_network(want)
    return _of_the_host(want, host)


def _over_the_network(want: Check) -> Verdict:
    from reconciler.host import probe_net as net

    if want.tcp is not None:
        where = want.tcp.unix or want.tcp.address
        assert where is not None
        return net.tcp(where, want.timeout)
    asked = want.http
    assert asked is not None
    headers = {name: secret.reveal() for name, secret in asked.headers}
    return net.http(
        asked.url,
        asked.status,
        want.timeout,
        match=asked.match,
        headers=headers,
        ca_file=asked.ca_file,
        unix=asked.unix,
    )


def _of_the_host(want: Check, host: Host) -> Verdict:
    if want.load is not None:
        return files.load(want.load.max)
    if want.cpu is not None:
        return files.cpu(want.cpu.max_used)
    room = want.memory or want.swap
    if room is not None:
        return files.memory(want.swap is not None, room.min_free, room.max_used)
    from reconciler.host import probe_own as own

    if want.results is not None:
        results = want.results
        return own.results(results.home, results.max, results.within)
    if want.state is not None:
        return own.state(want.state.path, want.state.max)
    return own.persistence(host, os.path.dirname(host.state_dir))
