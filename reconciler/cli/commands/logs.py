"""The output of what a spec declares, the last of it or as it comes. It must not change a thing."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.base.errors import DONE, TROUBLE, HostError
from reconciler.base.text import censored, printable
from reconciler.cli.commands.history import moment_given
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage, no_such
from reconciler.core.claims import Key
from reconciler.core.kind import Diagnosed, Probed
from reconciler.core.messages import moment
from reconciler.core.model import Resource, Spec
from reconciler.core.plan import is_matched

if TYPE_CHECKING:
    from reconciler.host.outputs import Output

_LINES = 30
_EVERY = 0.5
"""Seconds between two looks."""
_LONGEST = 4000


class CheckOutput:
    """What a check has said last, as the store has it."""

    def __init__(self, context: Context, spec: Spec, ident: str) -> None:
        self._context = context
        self._spec = spec
        self._id = ident
        self._last = 0.0

    def last(self, count: int, since: float | None) -> list[str]:
        """Its last words, unless they are older. Raises HostError."""
        found = self._context.store(self._spec, False).checks.all().get(self._id)
        if found is None or found.wall <= self._last or found.wall < (since or 0.0):
            return []
        self._last = found.wall
        return [f"{moment(found.wall)} {found.result}: {found.reason}"]

    def more(self) -> list[str]:
        """The same, where it was asked again. Raises HostError."""
        return self.last(1, None)

    def close(self) -> None:
        """Nothing is open."""


def run(context: Context) -> int:
    """Print it; 1 where something that was named has none, or it cannot be read."""
    options = context.options
    if options.follow and options.json:
        raise InvalidUsage("--follow has no end, so it has no --json")
    spec = context.load()
    since = moment_given(options.since) if options.since is not None else None
    logs = _Logs(context, spec, chosen(spec, options.logs), since)
    if options.json:
        rows = [
            {"id": ident, "from": where or None, "lines": lines}
            for ident, where, lines in logs.round()
        ]
        context.print_json({"format": 1, "spec": context.about(spec), "logs": rows})
    else:
        logs.show()
    gc.enable()  # It may go on for days.
    try:
        while options.follow and context.terminal.error is None:
            time.sleep(_EVERY)
            logs.show()
    except KeyboardInterrupt:
        return DONE
    return TROUBLE if logs.trouble else DONE


def chosen(spec: Spec, patterns: list[str]) -> list[Resource[Any]]:
    """The resources that are matched. Raises InvalidUsage for a pattern that means none."""
    for pattern in patterns:
        if not any(is_matched(one.id, pattern) for one in spec.resources):
            raise InvalidUsage(no_such(pattern, spec))
    return [one for one in spec.resources if any(is_matched(one.id, each) for each in patterns)]


class _Logs:
    def __init__(
        self, context: Context, spec: Spec, resources: list[Resource[Any]], since: float | None
    ) -> None:
        self.trouble = False
        self._context = context
        self._spec = spec
        self._resources = resources
        self._since = since
        self._host = context.host(spec)
        self._known: dict[tuple[str, str], Output | CheckOutput] = {}
        self._shown = ("", "")
        self._complaints: set[str] = set()

    def show(self) -> None:
        """Print what has come; above it from whom, where it is not the one before."""
        for ident, where, lines in list(self.round()):
            if (ident, where) != self._shown and len(self._known) > 1 and lines:
                of = f" ({printable(where)})" if where else ""
                self._context.terminal.write([(f"==> {ident}{of} <==", "quiet")])
                self._shown = ident, where
            self._context.terminal.write([(line, "") for line in lines])

    def round(self) -> Iterator[tuple[str, str, list[str]]]:
        """By id and where it is read: the last lines, or what has come since the last round."""
        self._host.forget()
        found = [(one, key) for one in self._resources for key in self._keys(one)]
        for resource, key in found:
            try:
                output = self._known.get((resource.id, key.value))
                if output is None:
                    output = self._output(resource, key)
                    self._known[resource.id, key.value] = output
                    lines = output.last(_LINES, self._since)
                else:
                    lines = output.more()
            except (HostError, OSError) as error:
                words = str(error) if isinstance(error, HostError) else error.strerror or "error"
                self._complain(f"{resource.id}: {words}")
                continue
            if key.sort == "log" and not lines and not os.path.lexists(key.value):
                self._context.warn(f"{resource.id}: there is no {key.value} yet")
            clean = [printable(censored(line), _LONGEST) for line in lines]
            yield resource.id, key.value, clean

    def _output(self, resource: Resource[Any], key: Key) -> Output | CheckOutput:
        if key.sort == "check":
            return CheckOutput(self._context, self._spec, resource.id)
        from reconciler.host.outputs import output_of

        return output_of(key.sort, key.value, self._host, self._context.options.follow)

    def _keys(self, resource: Resource[Any]) -> list[Key]:
        kind = kinds.get(resource.kind)
        if isinstance(kind, Probed):
            return [Key("check", "")]
        try:
            found = list(kind.says(resource, self._host)) if isinstance(kind, Diagnosed) else []
        except HostError as error:
            self._complain(f"{resource.id}: {error}")
            return []
        if not found and resource.id in self._context.options.logs:
            self._complain(f"{resource.id}: has no output of its own that is kept")
        return found

    def _complain(self, words: str) -> None:
        self.trouble = True
        if words not in self._complaints:
            self._complaints.add(words)
            self._context.warn(words)
