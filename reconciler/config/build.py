"""The whole way from a file to a Spec, when there is no compiled one. Nothing is half done.

It must not write anything, and it is only imported when a spec has to be compiled.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from reconciler.base.records import dataclass
from reconciler.base.values import Facts, Secret, strings
from reconciler.config.documents import HeadReader, gather
from reconciler.config.errors import Problems
from reconciler.config.graph import Graph
from reconciler.config.notify import NotifyReader
from reconciler.config.rendering import Renderer
from reconciler.config.resolve import Declaration, Resolver
from reconciler.config.scope import Scope, is_secret_setting, worth_hiding
from reconciler.config.validate import Validator
from reconciler.core.kind import Kind, Persistent
from reconciler.core.model import Spec
from reconciler.host.spec_files import known_as

_PART = 6
"""Characters of a variable in a URL that is redacted; less may be a word such as a host."""


@dataclass(frozen=True, slots=True)
class Built:
    """A Spec and what it was made from.

    ``files`` has the digest of each by absolute path, empty for a template that was not there;
    ``environ`` the names that templates asked for. ``keepable`` is False when it
    holds a secret where it would be written to disk.
    """

    spec: Spec
    files: Mapping[str, bytes]
    environ: frozenset[str]
    keepable: bool


def _refuse_program(declared: Sequence[Declaration], facts: Facts, problems: Problems) -> None:
    """Nothing that outlives a pass of root may run this program, where others can change it."""
    if not facts.bin_refused:
        return
    for one in declared:
        wanted = isinstance(one.kind, Persistent) and one.present and one.skip is None
        if wanted and any(f"{facts.bin}/" in text for text in strings(one.want)):
            problems.add(
                one.at,
                f"root would go on to run what is in {facts.bin}: {facts.bin_refused}",
                "install this program where only root may write, and call it there",
            )


@contextmanager
def _without_collector() -> Iterator[None]:
    """Trees without circles are made: looking for some takes a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@_without_collector()
def build(
    path: str,
    kinds: Sequence[Kind[Any, Any]],
    facts: Facts,
    settings: Mapping[str, str],
    environ: Mapping[str, str],
    strict: bool = True,
    text: bytes | None = None,
    placed: str | None = None,
) -> Built:
    """Read and compile the spec at ``path``. Raises SpecError with everything that is wrong.

    Not ``strict``: resources that contradict one another are held, and not refused. ``text`` is
    what will stand in the file, where there is none yet; ``placed`` where the file will lie, when
    it lies elsewhere now.
    """
    problems = Problems()
    files = gather(path, problems, text, placed)
    top = HeadReader(files, [kind.section for kind in kinds], problems)
    top.read_head()
    full = os.path.abspath(placed or path)
    about = {"name": top.name, "path": known_as(full), "dir": os.path.dirname(full)}
    scope = Scope(facts, environ, about, problems, partial=files.broken)
    top.read_vars(settings, scope)
    validator = Validator(kinds, facts.user_home, problems)
    top.read_loop(scope, validator)
    policy = top.read_policy(scope, validator)
    messages = NotifyReader(scope, validator, problems, settings)
    messages.read(files.roots)
    resolver = Resolver(files.roots, kinds, problems)
    renderer = Renderer(scope, problems, files.digests)
    declared = []
    for one in resolver.resources(scope):
        one.want = renderer.want(one, validator.want(one))
        if not validator.saw_secret:
            one.kept = None
        declared.append(one)
    if files.broken:
        problems.stop_if_any()  # What the others would have declared is not known.
    graph = Graph(declared, resolver.bases, facts, problems)
    whole = all(one.want is not None for one in declared)
    resources = graph.ordered(whole=whole)
    for wish in graph.wishes if strict else ():
        problems.add(*wish)
    _refuse_program(declared, facts, problems)
    problems.stop_if_any()
    if not whole:
        raise RuntimeError("a resource was dropped without a word; this is a bug of the program")
    read = scope.environ.secret_values.items()
    hidden = [value for name, value in read if worth_hiding(name, value)]
    # By name, by where it is from, and by the place where it stands: the URL of a target.
    hidden += [value for name, value in settings.items() if is_secret_setting(name, value)]
    parts = (settings[name] for name in sorted(messages.made_of & settings.keys()))
    hidden += [value for value in parts if len(value) >= _PART]
    for each in resources:
        marked = getattr(each.want, "secret", ())
        pairs = getattr(each.want, "env", ()) if marked and isinstance(marked, tuple) else ()
        hidden += [value.reveal() for name, value in pairs if name in marked]
    hidden += renderer.secrets
    used = {one.kind.name for one in declared}
    spec = Spec(
        top.name,
        full,
        resources,
        top.loop.every,
        secrets=tuple(map(Secret.of, dict.fromkeys((*hidden, *messages.urls)))),
        files=tuple(files.digests),
        empty=tuple(name for name in resolver.declared_kinds if name not in used),
        notify=messages.notify,
        # What must not be shown is not remembered either.
        variables=tuple(one for one in top.variables if one[1] not in hidden),
        policy=policy,
        metrics=top.loop.metrics,
        stop_timeout=top.loop.stop_timeout,
    )
    keepable = not (validator.keeps_secrets or renderer.keeps_secrets)
    return Built(spec, files.digests, frozenset(scope.environ.names), keepable)
