"""The usual command lines, read without argparse, which takes as long as a small pass.

It must not judge: whatever it does not know, and all that could be wrong, is left to ``options``.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from argparse import Namespace

_MODES = ("once", "plan", "status", "loop")
_FLAGS = {
    "-q": "quiet",
    "--quiet": "quiet",
    "-v": "verbose",
    "--verbose": "verbose",
    "--json": "json",
}
_VALUES = {"--state-dir": "state_dir"}
_LISTS = {"--set": "set", "--set-file": "set_file"}


def usual(argv: Sequence[str]) -> Namespace | None:
    """What ``options.parsed`` makes of the same; None: that is to be asked."""
    options = SimpleNamespace(
        mode=None, spec=None, only=[], set=[], unset=[], set_file=[], json=False, state_dir=None,
        trust=[], color="auto", quiet=False, verbose=False, detailed_exitcode=False, since=None,
        duration=None, reason=None, stop=False, take_over=False, pause=None, resume=None,
        completion=None,
    )  # fmt: skip
    found = vars(options)
    words = iter(argv)
    for word in words:
        if word[:2] == "--" and word[2:] in _MODES and found["mode"] is None:
            found["mode"] = word[2:]
        elif word in _FLAGS:
            found[_FLAGS[word]] = True
        elif word in _VALUES or word in _LISTS:
            value = next(words, "")
            if value[:1] in ("", "-"):
                return None
            if word in _LISTS:
                found[_LISTS[word]].append(value)
            else:
                found[_VALUES[word]] = value
        elif word[:1] not in ("", "-") and found["spec"] is None:
            found["spec"] = word
        else:
            return None
    return cast("Namespace", options) if found["mode"] is not None else None
