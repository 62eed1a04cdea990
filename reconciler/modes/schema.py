"""The JSON Schema of the spec, for editors. It must not look at any spec."""

from __future__ import annotations

from reconciler import kinds
from reconciler.exits import DONE
from reconciler.session import Session, print_json


def run(session: Session) -> int:
    """Print it."""
    from reconciler.spec.schema import json_schema

    print_json(json_schema(kinds.all_kinds()))
    return DONE
