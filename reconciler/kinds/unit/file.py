"""From a template to the whole text of a unit file, with the header that makes it ours.

It must not look at the host: what can be told from the text alone is told here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.base.records import replace
from reconciler.core.kind import BadValue, Templates
from reconciler.kinds.unit.environment import parted
from reconciler.kinds.unit.text import links, programs, settings, written

if TYPE_CHECKING:
    from reconciler.kinds.unit.resource import Unit

_MARK = "# reconcile: "
_HEADER_LINES = 10


def filled(want: Unit, templates: Templates) -> Unit:
    """``want`` with its text, and what follows from that. Raises BadValue."""
    field = "template" if want.template is not None else "content"
    if want.template is None and want.content is None:
        if want.drop_in is not None:
            raise BadValue("drop_in", None, "needs a template or content to be written")
        if want.enabled is None and want.active is None:
            words = "nothing is asked for; give a template or content, enabled or active"
            raise BadValue("unit", None, words)
        return want
    rendered = templates.render(field)
    text = written(field, rendered)
    if not text.strip():
        raise BadValue(field, None, "gives an empty file")
    environment = None
    if rendered.secret:
        text, environment = parted(text, want.environment_file, field)
    made = links(text, str(want.unit))
    if not want.drop_in:
        _check(want, text, made is not None)
    return replace(
        want,
        text=header(templates.spec, templates.id) + text,
        environment=header(templates.spec, templates.id) + environment if environment else None,
        secret=rendered.secret,
        programs=programs(text),
        # What a template's or an instance's links are called is systemd's own affair.
        links=made or () if "@" not in str(want.unit) and not want.drop_in else (),
    )


def _check(want: Unit, text: str, installs: bool) -> None:
    said = {key: value for _, key, value in settings(text)}
    if want.enabled and not installs:
        words = "cannot be true: the unit has no [Install] section with WantedBy= to enable it by"
        raise BadValue("enabled", None, words)
    oneshot = said.get("Type") == "oneshot"
    remains = said.get("RemainAfterExit", "no").lower() in ("yes", "true", "1", "on", "y", "t")
    if want.active and oneshot and not remains:
        raise BadValue("active", None, f"cannot be true: {RUNS_AND_ENDS}")
    reloads = "ExecReload" in said or said.get("Type") == "notify-reload"
    if want.on_change == "reload" and not reloads:
        words = "cannot be reload: the unit has no ExecReload=; write restart or none"
        raise BadValue("on_change", None, words)


RUNS_AND_ENDS = (
    "with Type=oneshot and without RemainAfterExit=yes it runs and ends, so that it never stays "
    "active; leave active out, and start it by a timer"
)


def header(spec: str, resource: str) -> str:
    """The lines that say who made a file, and tell us that it is ours."""
    said = "# Made by reconcile; edit the spec instead: what is changed here is put back."
    return f"{said}\n{mark(spec)} {resource}\n\n"


def mark(spec: str) -> str:
    """How the line begins that makes a file that spec's own."""
    return f"{_MARK}{spec}"


def ours(text: str, spec: str) -> bool:
    """Does the header of a file say that this spec made it?"""
    first = text.split("\n", _HEADER_LINES)[:_HEADER_LINES]
    return any(line.split()[:3] == mark(spec).split() for line in first)
