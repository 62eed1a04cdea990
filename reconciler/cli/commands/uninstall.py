"""Takes away what a spec has made on this host, its watchdog first, and what is remembered of it.

It must not remove what was there before: folders, units without a file of ours, processes that it
has not started. What is left is said.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import BUSY, DONE, TROUBLE, HostError
from reconciler.base.records import dataclass, field, replace
from reconciler.base.text import printable
from reconciler.cli.commands.pause import planned
from reconciler.cli.context import Context
from reconciler.cli.invocation import complain, invalid, tell
from reconciler.core.kind import Modifying, Probed
from reconciler.core.model import Outcome, Resource, Spec
from reconciler.core.plan import ending
from reconciler.output import data, text
from reconciler.state.folder import LockHeld, turn

if TYPE_CHECKING:
    from reconciler.core.observe import Snapshot
    from reconciler.host import Host

_PATIENCE = 60.0
"""Seconds that a pass which is at work, or a watchdog that is started again, is waited for."""
_LOOP_ENDS = 10.0
"""Seconds that a loop has to end in an orderly way; it needs 3 at most."""


@dataclass(frozen=True, slots=True)
class Left:
    """Something that stays on the host, and why; ``again``: it would start a watchdog again."""

    what: str
    why: str
    again: bool = False

    def document(self) -> dict[str, Any]:
        """As a JSON value."""
        return {"what": self.what, "reason": self.why, "starts_again": self.again}


@dataclass(slots=True)
class Removal:
    """What has become of it so far."""

    outcomes: list[Outcome] = field(default_factory=list)
    unknown: list[Left] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    state_removed: bool = False

    @property
    def trouble(self) -> bool:
        """Is something of ours still there, or not known to be gone?"""
        failed = any(one.result == "failed" for one in self.outcomes)
        return failed or bool(self.unknown) or any(one.again for one in self.left)


def run(context: Context) -> int:
    """Remove it all; 1 where something of it is still there."""
    from reconciler.config.errors import SpecError

    try:
        spec = context.load(complete=True)
    except SpecError as error:
        status = invalid(context, error)
        tell(
            "nothing was removed: only the spec says what it has made. Correct or restore the file "
            "(an older version of it will do), then run: reconcile --uninstall SPEC"
        )
        return status
    context.claim(spec)
    context.say(context.heading(spec))
    found = Removal()
    try:
        with _alone(context, spec):
            context.recover(spec)
            _remove(context, spec, found)
            if not found.trouble:
                _remove_state(context, spec)
                found.state_removed = True
    except LockHeld as taken:
        return complain(f"{spec.name}: {taken}; nothing was removed", BUSY)
    _show(context, spec, found)
    return TROUBLE if found.trouble else DONE


@contextmanager
def _alone(context: Context, spec: Spec) -> Iterator[None]:
    """Hold the lock. Loops are ended, also one that its supervisor has started again."""
    from reconciler.host.clock import Clock
    from reconciler.state.heartbeat import pulse

    folder, host = context.folder(spec), context.host(spec)
    end = time.monotonic() + _PATIENCE

    def report(words: str) -> None:
        context.say((f"  {words}", "change"))

    with ExitStack() as held:
        while True:
            loop = pulse(folder, Clock())
            if loop is not None:
                _end(loop.identity, host)
                report(f"stopped the watchdog (pid {loop.identity.pid})")
            try:
                held.enter_context(turn(folder, report, max(0.0, end - time.monotonic())))
                break
            except LockHeld as taken:
                if taken.loop is None or time.monotonic() >= end:
                    raise
        yield


def _end(loop: Any, host: Host) -> None:
    """End a loop by the unit that it is, so that it is not started again, or by a signal."""
    unit = host.systemd.unit_of(loop.pid)
    if unit is not None:
        host.systemd.tell(unit[0], "stop", "--", unit[1])
    host.processes.end(loop, _LOOP_ENDS)


def _remove(context: Context, spec: Spec, found: Removal) -> None:
    """Do it: everything but folders first, which may be empty then."""
    from reconciler.host.written import WrittenFiles

    host = context.host(spec)
    made, written = _made(context, spec), WrittenFiles(host.state_dir).read()
    before = context.look(spec, host, ())
    going: list[Resource[Any]] = []
    folders: list[Resource[Any]] = []
    present = {one.id: one.present for one in before.spec.resources}
    for one in ending(before.spec.resources):
        kind, want = kinds.get(one.kind), one.want
        if one.orphan or not present[one.id]:
            going += [one] if one.orphan else []
            continue
        if isinstance(kind, (Modifying, Probed)):
            continue  # It leaves nothing behind.
        absent = replace(one, held=None, skip=None)
        if one.kind == "directory":
            folders += [absent] if one.id in made else []
            if _is_there(one, before) and one.id not in made:
                found.left.append(Left(f"{one.id} ({want.path})", "existed before"))
        elif one.kind == "file" and want.path not in written and _is_there(one, before):
            found.left.append(Left(f"{one.id} ({want.path})", "was not written by this spec"))
        elif one.kind == "unit" and want.template is None and want.content is None:
            if one.skip is None:
                found.left.append(
                    Left(f"{one.id} ({want.unit})", "its file was not made by reconcile")
                )
        elif one.kind == "session" and want.adopt and one.id not in made:
            going.append(replace(absent, want=replace(want, kept=True)))
            found.left.append(Left(f"{one.id} ({want.tmux_name})", "existed before"))
        elif one.kind == "process":
            # One that matches and was not started by us is not asked to end.
            going.append(replace(absent, want=replace(want, match=None)))
            found.left += _adopted(one, before)
        else:
            going.append(absent)
    # What is skipped now may have been made when it was not.
    skipped = {one.id for one in before.spec.resources if one.skip is not None}
    _apply(context, spec, host, going, skipped, found)
    _apply(context, spec, host, folders, skipped, found)
    found.left += _files(spec)
    found.left += _again(context, spec, host)


def _is_there(one: Resource[Any], before: Snapshot) -> bool:
    return one.id in before.seen and before.seen[one.id].state is not None


def _made(context: Context, spec: Spec) -> set[str]:
    """The ids of what was made by a pass, as far as that is remembered."""
    try:
        deeds = context.store(spec, False).history.since(0.0)
    except HostError as error:
        context.warn(f"{error}; folders are left")
        return set()
    return {one.id for one in deeds if one.verb == "create" and one.result == "done"}


def _adopted(one: Resource[Any], before: Snapshot) -> Iterator[Left]:
    seen = before.seen[one.id].state if one.id in before.seen else None
    for identity, digest in (seen.found or ()) if seen is not None else ():
        if digest is None:
            yield Left(f"{one.id} (pid {identity.pid})", "was not started by this spec")


def _apply(
    context: Context,
    spec: Spec,
    host: Host,
    resources: Sequence[Resource[Any]],
    skipped: Collection[str],
    found: Removal,
) -> None:
    """Make these absent, in this order."""
    whole = replace(spec, resources=tuple(resources), complete=True)
    look = planned(whole, host)

    def report(outcome: Outcome) -> None:
        if not context.options.quiet or outcome.result == "failed":
            context.terminal.write(text.outcome_lines(outcome))

    found.outcomes += context.act(look, host, report).outcomes
    for remark in look.plan.unknown:
        if remark.id in skipped:
            continue
        is_folder = remark.id.startswith("directory:")
        (found.left if is_folder else found.unknown).append(Left(remark.id, remark.reason))


def _files(spec: Spec) -> Iterator[Left]:
    """Files of people's that the spec has read."""
    for target in spec.notify.addressed:
        if target.url_file is not None and os.path.exists(target.url_file):
            yield Left(target.url_file, f"holds the URL of the target {target.name}")
    from reconciler.host.spec_files import folder

    ours = (folder("specs"), folder("templates"))
    for path in spec.files:
        if os.path.dirname(path) not in ours and os.path.exists(path):
            yield Left(path, "the spec" if path == spec.path else "read by the spec")


def _again(context: Context, spec: Spec, host: Host) -> Iterator[Left]:
    """Who would start it again, of whom the spec does not know."""
    from reconciler.host.persistence import look

    for one in look(host, spec.path, context.state_dir)["runners"]:
        yield Left(one["what"], "still runs reconcile on this spec; remove it", again=True)


def _remove_state(context: Context, spec: Spec) -> None:
    """Remove the state directory of the spec and its compiled forms. Raises HostError."""
    from reconciler.config import cache

    folder = context.folder(spec)
    context.close(spec)
    inputs = cache.Inputs(spec.path, context.facts(), {}, {})
    cache.remove(cache.file_name(context.state_dir, inputs))
    try:
        # Private, and on a way that is believed: see state.refuse_folder.
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError(f"cannot remove the state {folder}: {error.strerror}") from None


def _show(context: Context, spec: Spec, found: Removal) -> None:
    if context.options.json:
        about = context.about(spec)
        context.print_json(
            {
                "format": data.FORMAT,
                "spec": about,
                "host": os.uname().nodename,
                "steps": [data.outcome_document(one) for one in found.outcomes],
                "unknown": [{"id": one.what, "reason": one.why} for one in found.unknown],
                "left": [one.document() for one in found.left],
                "state_removed": found.state_removed,
            }
        )
    lines: list[text.Line] = [
        (f"  ? unknown {printable(one.what)}: {printable(one.why)}", "bad") for one in found.unknown
    ]
    if not context.options.quiet:
        lines += [("left unchanged:", "")] if found.left else []
    lines += [
        (f"  {printable(one.what)}: {printable(one.why)}", "bad" if one.again else "")
        for one in found.left
        if one.again or not context.options.quiet
    ]
    context.terminal.write(lines)
    done = sum(one.result == "done" for one in found.outcomes)
    failed = sum(one.result == "failed" for one in found.outcomes)
    words = f"{done} done, {failed} failed"
    if found.unknown:
        words += f", {len(found.unknown)} unknown"
    if found.state_removed:
        context.say((f"Uninstalled: {words}; state and remembered variables are removed.", "good"))
    else:
        tell(
            f"not uninstalled: {words}; state and remembered variables are kept. Correct what is "
            "named above, and run it again"
        )
