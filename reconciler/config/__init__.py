"""A YAML file to a valid, typed, ordered Spec.

It must not touch the host beyond reading the files named, the environment it is handed and the
compiled spec. It stays light: what compiles is imported only when something has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.config import cache

if TYPE_CHECKING:
    from reconciler.base.values import Facts
    from reconciler.core.kind import Kind
    from reconciler.core.model import Spec


def load(
    path: str,
    *,
    all_kinds: Callable[[], Sequence[Kind[Any, Any]]],
    facts: Facts,
    settings: Callable[[], Mapping[str, str]],
    environ: Mapping[str, str],
    state_dir: str | None,
    write_cache: bool,
    complete: bool = False,
    patience: float | None = None,
    strict: bool = True,
) -> Spec:
    """The spec in the file ``path``, compiled or as it was kept in ``state_dir``.

    ``settings`` gives the values of ``--set``, some of which may be from files: they are read once
    more where somebody still writes. ``state_dir`` None: nothing is kept or looked up.
    ``write_cache`` False: nothing is written. ``complete``: never a spec without its secrets.
    ``all_kinds`` is called only to compile. ``patience`` are the seconds for which one who still
    writes a file of it is waited for, None: whatever is there is taken. Not ``strict``: resources
    that contradict one another are held, and not refused. Raises BeingWritten, and SpecError with
    every problem there is; a file that cannot be read, or that root cannot trust, is one too.
    """
    inputs = cache.Inputs(path, facts, settings(), environ)
    if state_dir is not None:
        kept = cache.load(cache.file_name(state_dir, inputs), inputs, complete)
        if kept is not None and not (strict and any(one.held for one in kept.resources)):
            return kept
    from reconciler.base.redaction import FromFile
    from reconciler.config.build import Built, build
    from reconciler.config.errors import SpecError
    from reconciler.config.settled import settled

    def made() -> tuple[Built, Mapping[str, bytes]]:
        nonlocal inputs
        inputs = cache.Inputs(path, facts, settings(), environ)
        given = {
            one.path: one.digest for one in inputs.settings.values() if isinstance(one, FromFile)
        }
        try:
            built = build(path, all_kinds(), facts, inputs.settings, environ, strict)
        except SpecError as error:
            error.files.update(given)
            raise
        return built, {**built.files, **given}

    built = made()[0] if patience is None else settled(made, patience)
    if state_dir is not None and write_cache:
        file = cache.file_name(state_dir, inputs)
        if built.keepable:
            cache.write(file, inputs, built.spec, built.files, built.environ)
        else:
            cache.remove(file)
    return built.spec
