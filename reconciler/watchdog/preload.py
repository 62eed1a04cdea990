"""What acting needs, imported before it could be gone or be of another version.

It must not import what only compiles, or what only people ask for who look for a cause.
"""

from __future__ import annotations

import gc
import os
from importlib import import_module

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOMS = ("host", "kinds", "store")
_MODULES = tuple(
    f"reconciler.{name}" for name in ("aside", "delivery", "memory", "notify", "owners", "tries")
)
_UNUSED = frozenset(("__init__", "choose", "processtable"))


def preload() -> None:
    """Import it all: some 8 MB. Raises ImportError and OSError where it is gone already."""
    for room in _ROOMS:
        for file in sorted(os.listdir(os.path.join(_ROOT, room))):
            name, ending = os.path.splitext(file)
            if ending == ".py" and name not in _UNUSED:
                import_module(f"reconciler.{room}.{name}")
    for name in (*_MODULES, "sqlite3"):  # What is Python's own is not gone, but takes its time.
        import_module(name)
    # None of it will ever be garbage; looked through for that, a child would copy it all.
    gc.freeze()
