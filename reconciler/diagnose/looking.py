"""The looks that a diagnosis takes, each in a child of its own.

It must not change anything, nor wait for what hangs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler import kinds
from reconciler.core.kind import Diagnosed, Supervised
from reconciler.core.model import Observation, Spec
from reconciler.core.observe import shown, watched
from reconciler.host.child import Children
from reconciler.host.filesystems import by_mount

if TYPE_CHECKING:
    from reconciler.cli.context import Context
    from reconciler.host import Host
    from reconciler.host.processes import Identity

LOOK = 3.0
"""Seconds for each look at the host."""
_EVIDENCE = 2.5
_PERIOD = 4.0
_DAY = 86400.0
_MOST_EVIDENCE = 12


class Looking:
    """One diagnosis under way."""

    def __init__(self, context: Context, spec: Spec, children: Children, probe: float) -> None:
        self.context = context
        self.probe = probe
        """Seconds for each check."""
        self.spec = spec
        self.children = children
        self.host: Host = context.host(spec)
        self.folder = context.folder(spec)
        self.began = time.monotonic()
        self.declared = [one for one in spec.resources if one.present and one.skip is None]
        self.claims = {
            one.id: [claim.key for claim in kinds.get(one.kind).claims(one.want)]
            for one in self.declared
        }
        self.paths: dict[str, str] = {}
        """The paths that the spec manages or uses, each with whose it is, by its id."""
        for one in self.declared:
            for key in (*self.claims[one.id], *kinds.get(one.kind).uses(one.want)):
                if key.sort == "path":
                    self.paths.setdefault(key.value, one.id)

    def begin_period(self, seen: Mapping[str, Observation[Any]]) -> None:
        """What a report would say of the last day."""
        from reconciler.notify.reports.figures import figures

        known = self.spec.resources, seen, self.host, time.time() - _DAY, kinds.get, True
        self.children.begin("period", partial(figures, *known), _PERIOD)

    def begin(self) -> None:
        """Everything that needs not wait for something else."""
        from reconciler.diagnose import conflicts, past, sections
        from reconciler.host import persistence

        begin, host, spec = self.children.begin, self.host, self.spec
        shown = self._shown()
        begin("host", partial(sections.machine_figures, host), LOOK)
        begin("stopped", partial(sections.stopped, os.geteuid()), LOOK)
        begin("kernel", sections.kernel, LOOK)
        begin("past", partial(past.remembered, self.folder, spec.resources, kinds.get), LOOK)
        begin("loop", partial(past.loop, self.folder), LOOK)
        begin("folders", partial(sections.folders, shown["folder"]), LOOK)
        begin("logs", partial(sections.logs, shown["log"], shown["logs"]), LOOK)
        state_dir = self.context.state_dir
        begin("reboot", partial(persistence.look, host, spec.path, state_dir), LOOK)
        known = spec, host, state_dir, kinds.get
        begin("conflicts", partial(conflicts.found, *known), LOOK)
        for socket in self.sockets():
            begin(f"tmux {socket}", partial(sections.tmux_sessions, host, socket), LOOK)
        for mount, paths in by_mount([*self.paths, self.folder]).items():
            ids = {path: self.paths.get(path, "the state directory") for path in paths}
            begin(f"disk {mount}", partial(sections.disks, ids), LOOK)

    def begin_again(
        self, rows: Sequence[dict[str, Any]], seen: Mapping[str, Observation[Any]]
    ) -> None:
        """What needs to know how things stand: processes, and why something is not as declared."""
        from reconciler.diagnose.sections import processes

        by_id = {one.id: one for one in self.spec.resources}
        wanted: dict[str, Sequence[Identity]] = {}
        for ident, one in seen.items():
            resource = by_id[ident]
            kind = kinds.get(resource.kind)
            if one.state is not None and isinstance(kind, Supervised):
                wanted[ident] = watched(kind, resource, one.state, self.host)
        loop = self.children.answers.get("loop")
        if loop is not None:
            wanted["loop"] = [loop.identity]
        for row in rows:
            row["runs"] = bool(wanted.get(row["id"]))
        self.children.begin("processes", partial(processes, wanted), _EVIDENCE)
        amiss = ("differs", "given up", "waits", "failing")
        for row in [row for row in rows if row["state"] in amiss][:_MOST_EVIDENCE]:
            resource = by_id[row["id"]]
            kind = kinds.get(resource.kind)
            if isinstance(kind, Diagnosed):
                work = partial(kind.evidence, resource, self.host)
                self.children.begin(f"evidence {row['id']}", work, _EVIDENCE)

    def sockets(self) -> list[str]:
        """The tmux servers on which it has sessions, by their ``-L`` name."""
        return list(
            dict.fromkeys(
                key.value.partition("/")[0]
                for keys in self.claims.values()
                for key in keys
                if key.sort == "tmux session"
            )
        )

    def _shown(self) -> dict[str, list[Any]]:
        """What the kinds say is worth a closer look."""
        found: dict[str, list[Any]] = {"log": [], "logs": [], "folder": []}
        for resource in self.declared:
            for key in shown(kinds.get(resource.kind), resource, self.host):
                if key.sort == "queue":
                    folder, _, match = key.value.rpartition("/")
                    found["folder"].append((resource.id, folder, match))
                elif key.sort == "folder":
                    found["folder"].append((resource.id, key.value, None))
                elif key.sort in found:
                    found[key.sort].append((resource.id, key.value))
        return found
