"""What a killed worker left in running/: it is recorded as interrupted, never run again.
Must not touch what a living worker holds.
"""

from __future__ import annotations

import contextlib
import json
import os

from reconciler.executor import claims, files, results
from reconciler.executor.commandfile import CommandRefused, parse
from reconciler.executor.eventlog import EventLog
from reconciler.executor.folders import held
from reconciler.executor.layout import Layout, is_command_name
from reconciler.executor.processes import end_tree, is_alive
from reconciler.executor.runner import BeatsWhileRunning


def recover(layout: Layout, log: EventLog, pulse: BeatsWhileRunning) -> None:
    """Every file in running/ whose worker is dead. Raises OSError if running/ cannot be read."""
    with held(layout.running, readable=True) as running:
        found = set(os.listdir(running))
    # A lock of its own may have been left, too: adopting nothing takes it away.
    found |= {name.removesuffix(".lock") + ".json" for name in found if name.endswith(".lock")}
    for name in sorted(filter(is_command_name, found)):
        if pulse.stopping:
            return
        try:
            claim = claims.adopt(layout, name)
        except claims.QueueBusy:
            continue  # with the next heartbeat
        except OSError as error:
            log.error_once(f"running/{name}", f"running/{name} cannot be recovered: {error}")
            continue
        if claim is not None:
            _recover_one(layout, log, pulse, claim)


def _recover_one(
    layout: Layout, log: EventLog, pulse: BeatsWhileRunning, claim: claims.QueueClaim
) -> None:
    try:
        process = _process(layout, claim.id)
        if os.path.lexists(layout.result_file(claim.id)):
            log.info(f"recovered {claim.id}: its result is there already")
        else:
            ended = _end_orphans(layout, claim.id, process, pulse)
            results.write(layout, claim.id, _result(layout, claim, process, ended))
            log.error(f"recovered {claim.id}: interrupted, its worker was killed; {ended}")
    except OSError as error:
        log.error_once(f"recover {claim.id}", f"{claim.id} cannot be recovered yet: {error}")
        claim.leave()  # the file stays in running/: tried again with a later heartbeat
        return
    claim.finish()


def _process(layout: Layout, command_id: str) -> dict[str, object]:
    """What the dead worker recorded about the command's process; empty if it had no time to."""
    try:
        found = json.loads(files.read_small(layout.process_file(command_id), 65536))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _end_orphans(
    layout: Layout, command_id: str, process: dict[str, object], pulse: BeatsWhileRunning
) -> str:
    """End the command if its leader is certainly the process that was recorded."""
    pid = process.get("pid")
    if not isinstance(pid, int) or not is_alive(process):
        return "its process does not run any more"
    log = None
    with contextlib.suppress(OSError), held(layout.logs) as logs:
        log = os.stat(f"{command_id}.log", dir_fd=logs, follow_symlinks=False)
    how = end_tree(pid, False, log, lambda seconds: pulse.wait(None, seconds))
    return f"its process group {pid} was ended {how}"


def _result(
    layout: Layout, claim: claims.QueueClaim, process: dict[str, object], ended: str
) -> results.Result:
    command = None
    # A file that only the dead worker understood is recorded with what is known.
    with contextlib.suppress(CommandRefused):
        command = parse(claim.read(), claim.id)
    tail = ""
    with contextlib.suppress(OSError):
        fd = files.open_regular(layout.log_file(claim.id))
        try:
            tail = results.tail_of(fd)
        finally:
            os.close(fd)
    return results.make(
        layout,
        claim.id,
        command,
        status="interrupted",
        reason=f"the worker was killed while the command was running; {ended}",
        start=process.get("start"),
        output_tail=tail,
    )
