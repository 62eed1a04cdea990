"""The JSON Schema of the spec, for editors, or of the document that a mode prints with ``--json``.

It must not look at any spec.
"""

from __future__ import annotations

import json
import os

from reconciler import kinds
from reconciler.base.errors import DONE
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage
from reconciler.cli.options import DOCUMENTS

_FILE = os.path.join(os.path.dirname(__file__), "documents.json")
_OTHERS = {"saved-plan": "--plan --out", "fleet": "--hosts --json"}
"""Documents that are none of a mode alone, and what prints them."""
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def run(context: Context) -> int:
    """Print it. Raises Usage for a mode that prints no document."""
    mode = context.options.spec
    if mode not in (*DOCUMENTS, *_OTHERS):
        if mode is not None and mode.replace("-", "").isalpha():
            modes = ", ".join((*DOCUMENTS, *_OTHERS))
            raise InvalidUsage(
                f"--schema takes nothing, for the spec, or one of {modes}; not {mode!r}"
            )
        from reconciler.config.schema import json_schema

        context.print_json(json_schema(kinds.all_kinds()))
        return DONE
    with open(_FILE, encoding="utf-8") as file:
        documents = json.load(file)
    # Where the spec is invalid, every mode says just that; but a loop prints it as an event.
    names = [mode] if mode in ("loop", "adopt", "invalid", "saved-plan") else [mode, "invalid"]
    names += ["rehearsal"] if mode == "plan" else []
    context.print_json(
        {
            "$schema": _DRAFT,
            "title": f"reconcile {_OTHERS.get(mode, f'--{mode} --json')}",
            "anyOf": [{"$ref": f"#/$defs/{name}"} for name in names],
            "$defs": documents,
        }
    )
    return DONE
