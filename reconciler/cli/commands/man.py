"""The manual page, which is made when the program is built."""

from __future__ import annotations

import os
import sys

import reconciler
from reconciler.base.errors import DONE, HostError
from reconciler.cli.context import Context

_PAGE = os.path.join(os.path.dirname(reconciler.__file__), "reconcile.1")


def run(context: Context) -> int:
    """Print it. Raises HostError in a checkout, which was not built."""
    try:
        with open(_PAGE, encoding="utf-8") as file:
            sys.stdout.write(file.read())
    except FileNotFoundError:
        raise HostError(
            f"{_PAGE} is missing: it is made by pip install; see reconcile --help"
        ) from None
    return DONE
