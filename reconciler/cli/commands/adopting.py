"""Print a spec of what is there on this host, once its own plan is empty. It changes nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from reconciler import kinds
from reconciler.base.errors import DONE, TROUBLE, HostError
from reconciler.base.text import count_of, printable
from reconciler.cli.commands.importing import built_from
from reconciler.cli.context import Context
from reconciler.cli.invocation import complain, tell
from reconciler.config.build import Built
from reconciler.config.errors import Problem, SpecError
from reconciler.core.observe import observe
from reconciler.core.plan import make_plan
from reconciler.host import Host
from reconciler.migrate.adopt import NotAdopted, adopted
from reconciler.migrate.draft import SpecDraft
from reconciler.output.data import FORMAT


def run(context: Context) -> int:
    """Print it whole, or nothing; what cannot be kept as it is, is said on standard error."""
    name = os.uname().nodename
    built: Built

    def problems_of(text: str) -> Sequence[Problem]:
        nonlocal built
        try:
            built = built_from(text, "adopted.yaml", context)
        except SpecError as error:
            return error.problems
        return ()

    try:
        draft = adopted(context.options.adopt, Host(name, os.path.join(context.state_dir, name)))
        left: dict[str, str] = {}
        while True:
            text = draft.valid(problems_of)
            differs = _differs(built, context)
            if not differs:
                break
            left |= differs
            for ident, reason in differs.items():
                _take_out(draft, ident, reason)
    except (NotAdopted, HostError) as refused:
        return complain(f"{refused}; nothing is printed", TROUBLE)
    left |= {str(at): one.reason for at, one in enumerate(draft.left)}
    if not any(isinstance(one, dict) for one in draft.document.values()):
        return complain(f"nothing is left: {'; '.join(left.values())}", TROUBLE)
    if context.options.json:
        context.print_json({"format": FORMAT, "spec": text, "left_out": list(left.values())})
        return DONE
    sys.stdout.write(text)
    sys.stdout.flush()
    if not context.options.quiet:
        for reason in left.values():
            sys.stderr.write(f"{printable(reason, 500)}\n")
        made = sum(len(one) for one in draft.document.values() if isinstance(one, dict))
        tell(f"{count_of(made, 'resource')}; their plan on this host is empty")
    return DONE


def _differs(built: Built, context: Context) -> Mapping[str, str]:
    """What a pass by that spec would change, or could not know, by id, and why."""
    spec = built.spec
    host = Host(spec.name, os.path.join(context.state_dir, spec.name))
    host.declared, host.spec_path = spec.resources, spec.path
    seen = observe(spec.resources, kinds.get, host)
    plan = make_plan(spec, spec.resources, seen, kinds.get, os.uname().nodename)
    found = {step.id: f"{step.id} would be changed: {step.why}" for step in plan.steps}
    found |= {one.id: f"{one.id} is not known: {one.reason}" for one in plan.unknown}
    return found | {one.id: f"{one.id}: {one.reason}" for one in plan.held}


def _take_out(draft: SpecDraft, ident: str, reason: str) -> None:
    """With a comment in its place."""
    kind, _, name = ident.partition(":")
    title = kinds.get(kind).section
    section = draft.document[title]
    holder = section if len(section) > 1 else draft.document
    holder.say(printable(f"left out: {reason}", 500), name if holder is section else title)
    section.drop(name)
    if not section:
        draft.document.drop(title)
