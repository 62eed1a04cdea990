"""``--hosts``: the same on every host of an inventory.

It must not look at this host, besides the spec that is sent.
"""

from __future__ import annotations

import os
from base64 import b64encode
from typing import Any

from reconciler.base.records import replace
from reconciler.base.text import FromFile, hide, printable
from reconciler.cli.context import Context
from reconciler.cli.invocation import InvalidUsage, exit_status

_MODULE = "reconcile.host.reconcile"
_WITHIN = {"plan": 300.0, "status": 60.0, "once": 3600.0}
"""Seconds that a host may take, by mode."""
_NOT_THERE = {"sign": "sign", "watch": "watch", "at": "at", "event": "if"}


def run(context: Context) -> int:
    """Print one table; 1 where any host has failed or does not answer, 130 after Ctrl-C."""
    from reconciler.fleet.run import run_on_hosts
    from reconciler.fleet.view import fleet_blocks, fleet_document, trouble_rows

    options = context.options
    for name, flag in _NOT_THERE.items():
        if getattr(options, name):
            raise InvalidUsage(f"--{flag} is for one host, not for --hosts")
    arguments = _arguments(context)
    results, interrupted = run_on_hosts(
        _MODULE, arguments, options.hosts, options.limit,
        within=_WITHIN[options.mode],
    )  # fmt: skip
    document = fleet_document(options.mode, results)
    if options.json:
        context.print_json(document)
    elif options.quiet:
        context.terminal.write(trouble_rows(document))
    else:
        about = options.spec or f"the plan {options.saved}"
        context.terminal.write(fleet_blocks(document, printable(about), options.verbose))
    if interrupted:
        return 128 + interrupted
    summary = document["summary"]
    trouble = summary["failed"] + summary["unreachable"] > 0
    return exit_status(trouble, summary["differs"] + summary["changed"] > 0, options)


def _arguments(context: Context) -> dict[str, Any]:
    """What the module is given. Raises SpecError, HostError and Usage."""
    options = context.options
    given = context.given_settings()
    secret = {name: value for name, value in given.items() if isinstance(value, FromFile)}
    shown: dict[str, str | None] = {name: given[name] for name in given.keys() - secret}
    shown |= dict.fromkeys(options.unset)
    found = {
        "mode": options.mode, "vars": shown, "secret_vars": secret, "only": options.only,
        "trust": options.trust, "state_dir": options.state_dir, "out": options.out,
        "from": options.saved, "signers": options.signers, "take_over": options.take_over,
        **_spec(context),
    }  # fmt: skip
    return {name: value for name, value in found.items() if value not in (None, [], {}, False)}


def _spec(context: Context) -> dict[str, Any]:
    """The spec, which is sent if it is a file here."""
    options = context.options
    if options.spec is None:
        if options.saved is None:
            raise InvalidUsage("--hosts needs a SPEC: a file, which is sent, or a shipped spec")
        return {}
    from reconciler.host.spec_files import known_as

    path = context.spec_path()
    if "/" not in known_as(os.path.abspath(path)):
        return {"spec": known_as(os.path.abspath(path))}
    place = options.placed or os.path.basename(path)
    if options.mode == "status":
        return {"spec": place}
    from reconciler import kinds
    from reconciler.cli.placing import files_of
    from reconciler.config import load

    # Whether the program may be run by root is another question on each host.
    spec = load(
        path, all_kinds=kinds.all_kinds, facts=replace(context.facts(), bin_refused=""),
        settings=context.given_settings, environ=os.environ, state_dir=None, write_cache=False,
        complete=True, patience=5.0, strict=False,
    )  # fmt: skip
    hide(secret.reveal() for secret in spec.secrets)
    files = files_of(spec, path)
    files[os.path.basename(place)] = files.pop(os.path.basename(path))
    return {
        "spec": place,
        "files": {name: b64encode(data).decode() for name, data in sorted(files.items())},
    }
