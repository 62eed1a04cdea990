"""A spec for a process that runs for years: compiled in a child, so that it stays small.

It must not import what compiles into the process that asks.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reconciler import spec as room
from reconciler.contract import Kind
from reconciler.host.child import answer
from reconciler.model import BeingWritten, Facts, Spec
from reconciler.spec import cache

_TIMEOUT = 120.0


class Invalid(Exception):
    """The spec is not valid: ``text`` says why to people, ``errors`` as JSON values.

    ``files`` are those that it was made from.
    """

    def __init__(self, text: str, errors: list[dict[str, Any]], files: tuple[str, ...]) -> None:
        super().__init__(text)
        self.text = text
        self.errors = errors
        self.files = files


def load_aside(
    path: str,
    *,
    get_kind: Callable[[str], Kind[Any, Any]],
    all_kinds: Callable[[], Sequence[Kind[Any, Any]]],
    facts: Facts,
    settings: Mapping[str, str],
    environ: Mapping[str, str],
    state_dir: str,
    patience: float,
    settings_anew: Callable[[], Mapping[str, str]] | None = None,
) -> Spec:
    """As ``spec.load`` of a complete spec.

    Raises Invalid, BeingWritten, and UnknownState when it hangs.
    """
    inputs = cache.Inputs(path, facts, settings, environ)
    kept = cache.load(cache.file_name(state_dir, inputs), inputs, get_kind, complete=True)
    if kept is not None:
        return kept

    def work() -> bytes:
        from reconciler.spec.errors import SpecError, document, render
        from reconciler.spec.packing import packed

        try:
            spec = room.load(
                path,
                get_kind=get_kind,
                all_kinds=all_kinds,
                facts=facts,
                settings=settings,
                environ=environ,
                state_dir=state_dir,
                write_cache=True,
                complete=True,
                patience=patience,
                strict=False,
                settings_anew=settings_anew,
            )
        except SpecError as error:
            return marshal.dumps((False, render(error), (document(error), tuple(error.files))))
        except BeingWritten as error:
            return marshal.dumps((False, str(error), None))
        body, complete = packed(spec, secrets=True)
        head = {
            "name": spec.name,
            "path": spec.path,
            "loop_every": spec.loop_every,
            "complete": complete,
            "empty": spec.empty,
            "variables": spec.variables,
            "secrets": tuple(secret.reveal() for secret in spec.secrets),
            "files": tuple((name, b"") for name in spec.files),
        }
        return marshal.dumps((True, head, body))

    valid, first, second = marshal.loads(answer(work, _TIMEOUT))
    if not valid and second is None:
        raise BeingWritten(first)
    if not valid:
        raise Invalid(first, *second)
    return cache.decoded(second, first, get_kind)
