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
    from reconciler.config.errors import Problem, SpecError
    from reconciler.core.kind import Kind
    from reconciler.core.model import Spec

__all__ = ["Problem", "SpecError", "json_schema", "load"]


def load(
    path: str,
    *,
    all_kinds: Callable[[], Sequence[Kind[Any, Any]]],
    facts: Facts,
    settings: Mapping[str, str],
    environ: Mapping[str, str],
    state_dir: str | None,
    write_cache: bool,
    complete: bool = False,
    patience: float | None = None,
    strict: bool = True,
    settings_anew: Callable[[], Mapping[str, str]] | None = None,
) -> Spec:
    """The spec in the file ``path``, compiled or as it was kept in ``state_dir``.

    ``settings`` are the values of ``--set``. ``state_dir`` None: nothing is kept or looked up.
    ``write_cache`` False: nothing is written. ``complete``: never a spec without its secrets.
    ``all_kinds`` is called only to compile. ``patience`` are the seconds for which one who still
    writes a file of it is waited for, None: whatever is there is taken. Not ``strict``: resources
    that contradict one another are held, and not refused. ``settings_anew``: where some are from
    files, which are waited for as well, it gives them as they are by then. Raises BeingWritten,
    and SpecError with every problem there is; a file that cannot be read, or that root cannot
    trust, is one too.
    """
    inputs = cache.Inputs(path, facts, settings, environ)
    file = None if state_dir is None else cache.file_name(state_dir, inputs)
    if file is not None:
        kept = cache.load(file, inputs, complete)
        if kept is not None and not (strict and any(one.held for one in kept.resources)):
            return kept
    from reconciler.config.build import Built, build

    def made() -> Built:
        return build(path, all_kinds(), facts, inputs.settings, environ, strict)

    def made_anew() -> Built:
        nonlocal inputs
        if settings_anew is not None:
            inputs = cache.Inputs(path, facts, settings_anew(), environ)
        try:
            return made()
        except errors.SpecError as error:
            error.files.update(_given(inputs.settings))
            raise

    if patience is None:
        built = made()
    else:
        from reconciler.config import errors
        from reconciler.config.settled import settled

        built = settled(made_anew, lambda b: {**b.files, **_given(inputs.settings)}, patience)
        file = None if state_dir is None else cache.file_name(state_dir, inputs)
    if file is not None and write_cache:
        if built.keepable:
            cache.write(file, inputs, built.spec, built.files, built.environ)
        else:
            cache.remove(file)
    return built.spec


def _given(settings: Mapping[str, str]) -> dict[str, bytes]:
    """The files that hold the value of a variable, with their digests."""
    from reconciler.base.redaction import FromFile

    return {one.path: one.digest for one in settings.values() if isinstance(one, FromFile)}


def __getattr__(name: str) -> Any:
    if name in ("Problem", "SpecError"):
        from reconciler.config import errors

        return getattr(errors, name)
    raise AttributeError(name)


def json_schema(kinds: Sequence[Kind[Any, Any]]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a spec file, for editors."""
    from reconciler.config.schema import json_schema as schema

    return schema(kinds)
