"""What acting needs, imported before it could be gone or be of another version.

It must not import what only compiles, or what only people ask for who look for a cause.
"""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from importlib import import_module

from reconciler.base.records import compile_all

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOMS = ("core", "host", "kinds", "state", "undo")
_MODULES = tuple(
    f"reconciler.{name}"
    for name in (
        "notify.delivery",
        "notify.outbox",
        "notify.sender",
    )
)
_UNUSED = frozenset(("__init__", "choose", "machine"))


def preload(metrics: bool = False) -> None:
    """Import it all: some 8 MB; what ``metrics`` take as well.

    Raises ImportError and OSError where it is gone already.
    """
    for room in _ROOMS:
        os.listdir(os.path.join(_ROOT, room))  # Else a room that is gone would be an empty one.
        for folder, _, files in os.walk(os.path.join(_ROOT, room)):
            package = os.path.relpath(folder, os.path.dirname(_ROOT)).replace("/", ".")
            for file in sorted(files):
                name, ending = os.path.splitext(file)
                if ending == ".py" and name not in _UNUSED:
                    import_module(f"{package}.{name}")
    for name in (*_MODULES, "_sqlite3"):  # What is Python's own is not gone, but takes its time.
        import_module(name)
    if metrics:
        import_module("reconciler.cli.commands.metrics")
        with suppress(ImportError):  # An extra, which is asked for when the file is written.
            import_module("prometheus_client")
    compile_all()
    # None of it will ever be garbage; looked through for that, a child would copy it all.
    gc.freeze()
