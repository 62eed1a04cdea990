"""How what a retention has moved is taken back; what is deleted, archived or rotated is not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

from reconciler.base.text import count_of
from reconciler.core.model import Resource, Step
from reconciler.kinds.directory import Directory
from reconciler.kinds.retention.actions import (
    ArchiveFiles,
    DeleteFiles,
    MoveFiles,
    RemoveFolders,
)
from reconciler.kinds.retention.resource import Retention
from reconciler.undo import Around, Irreversible, Reversal, all_of, few, ident


class OfRetention(Reversal):
    """Files that were moved are moved back, if they are still what they were."""

    traced = False

    def before(
        self, resource: Resource[Any], step: Step, have: Any, around: Around
    ) -> Sequence[Resource[Any]]:
        found: list[Resource[Any]] = []
        folders: list[Resource[Any]] = []
        host = around.host
        for action in step.actions:
            if isinstance(action, DeleteFiles):
                raise Irreversible(f"{count_of(len(action.files), 'file')} deleted")
            if isinstance(action, ArchiveFiles):
                number = count_of(len(action.files), "file")
                raise Irreversible(f"{number} put into {action.goal}, and to be taken from there")
            if isinstance(action, RemoveFolders):
                within = chain(action.empty, (file.below for file in action.files))
                below = {*few(within, str)} - {""}
                parts = (one.split("/") for one in below)
                above = {"/".join(one[:end]) for one in parts for end in range(1, len(one) + 1)}
                for one in sorted(above):
                    path = f"{action.path}/{one}"
                    now = all_of(path, host)
                    want = Directory(path, now.mode, now.owner, now.group)
                    folders.append(Resource(ident("directory", path), want))
            elif isinstance(action, MoveFiles):
                files = tuple(sorted(few(action.files, attrgetter("path"))))
                back = Retention(action.to, action="move", to=action.path, returned=files)
                found.append(Resource(resource.id, back))
                inside = sorted({file.below for file in files}, reverse=True)
                ways = [f"{action.to}/{one}/x" if one else f"{action.to}/x" for one in inside]
                new = {one.id: one for way in ways for one in around.missing_above(way)}
                found += sorted(new.values(), key=lambda one: one.id, reverse=True)
            else:
                raise Irreversible("logs are rotated")
        return [*folders, *found]


REVERSAL = OfRetention()
