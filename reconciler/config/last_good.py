"""What goes on of a spec whose files are not valid now, as it was compiled last.

It must not delete, stop or clean anything: what does so is skipped, and done when the files are
valid again. So is what needs a secret, for none is kept with a compiled spec.
"""

from __future__ import annotations

from typing import Any

from reconciler.base.records import replace
from reconciler.base.values import secrets
from reconciler.core.model import Resource, Spec

_KINDS = frozenset(("cron", "process", "session", "unit"))
SKIPPED = "the spec is not valid now"
LACKS = "the spec is not valid now, and values of its env are not kept"


def reduced(spec: Spec) -> Spec:
    """The spec without all that must not be done by what it was compiled to last."""
    resources = tuple(replace(one, skip=_skip(one)) for one in spec.resources)
    return replace(spec, resources=resources, complete=True, last_good=True)


def _skip(resource: Resource[Any]) -> str | None:
    if resource.skip is not None:
        return resource.skip
    if resource.kind not in _KINDS or not resource.present:
        return SKIPPED
    return LACKS if any(one.value is None for one in secrets(resource.want)) else None
