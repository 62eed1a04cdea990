"""Five steps that bring a host back, one command at three in the morning.

It must not hold anything of the steps themselves, which are in ``reconciler.diagnose.repair``.
"""

from __future__ import annotations

from reconciler.base.errors import BUSY, DONE, TROUBLE
from reconciler.cli.context import Context
from reconciler.cli.invocation import complain


def run(context: Context) -> int:
    """Make all five; 1 when something is still wrong."""
    from reconciler.diagnose.repair import Repair, RepairBusy
    from reconciler.diagnose.repair.progress import RepairProgress

    spec = context.load(write_cache=True, complete=True)
    context.claim(spec)
    context.say(context.heading(spec))
    telling = RepairProgress(context, spec)
    repair = Repair(context, spec, telling)
    try:
        repair.run()
    except RepairBusy as busy:
        if context.options.json:
            context.print_json({**repair.document(), "busy": True})
        return complain(f"{spec.name}: {busy}", BUSY)
    telling.end(repair)
    return DONE if repair.healthy else TROUBLE
