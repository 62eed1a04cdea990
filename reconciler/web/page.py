"""The page in HTML: what was seen, what is wrong first. It must not look anything up.

Names come from the host, and hold whatever somebody has put there: the templates escape them all,
and what cannot be printed is shown as an escape.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from reconciler import __version__
from reconciler.base.text import amount, count_of, printable
from reconciler.host.probe_own import MOST_COMMANDS
from reconciler.output.status import STYLES, counted, loop_line
from reconciler.web.chart import chart
from reconciler.web.looks import Looks

if TYPE_CHECKING:
    from jinja2 import Template

    from reconciler.web.samples import Series

_LONGEST = 1000
_MOST_CHARTS = 100
_FAR = 3e10
"""Seconds from the epoch, some thousand years: whoever owns a file may give it any time."""
_RESULTS = {"ok": "good", "failing": "bad", "unanswered": "change"}
_VERBS = {"done": "good", "failed": "bad"}
SECTIONS = ("state", "wrong", "processes", "resources", "checks", "executors", "queues", "history",
            "about")  # fmt: skip
"""The blocks of the template, each of which is renewed by itself."""


class Page:
    """The page over these looks; made once for each of them, however many read it."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._of: object = None
        self._sections: dict[str, str] = {}
        self._whole = ""

    def whole(self) -> str:
        """The whole page."""
        self.sections()
        return self._whole

    def sections(self) -> dict[str, str]:
        """Each section by its id, as it is now."""
        looks = self._looks
        now = looks.number, looks.error, looks.broken
        if now != self._of:
            shown = _shown(looks)
            context = self._template.new_context(shown)
            blocks = self._template.blocks
            self._sections = {one: "".join(blocks[one](context)).strip() for one in SECTIONS}
            self._whole = self._template.render(shown)
            self._of = now
        return self._sections

    @cached_property
    def _template(self) -> Template:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        made = Environment(
            loader=PackageLoader("reconciler.web", "."), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True, finalize=_printable,
        )  # fmt: skip
        made.globals |= {"badge": _badge, "at": _at}
        made.globals["table"] = made.get_template("table.html").module.table  # type: ignore[attr-defined]
        return made.get_template("page.html")


def _printable(value: Any) -> Any:
    return printable(value, _LONGEST) if type(value) is str else value


def _html(form: str, *values: Any) -> Markup:
    return Markup(form).format(*map(_printable, values))


_NONE = Markup('<span class="none">-</span>')


def _badge(word: str, style: str) -> Markup:
    return _html('<span class="badge {}">{}</span>', style, word)


def _at(wall: float | None) -> Markup:
    """A time, of today without the date; the script of the page says how long ago that is."""
    if wall is None or abs(wall) > _FAR:
        return _NONE
    then, now = time.localtime(wall), time.localtime()
    words = time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M", then)
    exact = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall))
    return Markup('<time datetime="{}">{}</time>').format(exact, words)


def _shown(looks: Looks) -> dict[str, Any]:
    """What the template shows."""
    trouble = [looks.error] if looks.error else []
    if looks.broken:
        trouble.append(
            f"the spec cannot be used as it is now; the last good one is shown: {looks.broken}"
        )
    document = looks.document
    shown: dict[str, Any] = {
        "version": __version__, "spec": {"name": looks.spec.name, "path": looks.spec.path},
        "host": "", "trouble": trouble, "known": document is not None, "stale": bool(looks.error),
    }  # fmt: skip
    if document is None:
        return shown
    status = document["status"]
    states = {STYLES.get(one["state"], "bad") for one in status["resources"]}
    words, style = loop_line(status["loop"])
    wrong = document["wrong"]
    good = not (wrong or "bad" in states or looks.error)
    return {
        **shown,
        "host": status["host"],
        "trouble": [*trouble, *document["said"]],
        "time": status["time"],
        "summary": counted(status["resources"]) or "nothing is declared",
        "style": "bad" if not good else "change" if "change" in states else "good",
        "loop": {"words": words, "style": style},
        "wrong": wrong,
        "diagnose": document["diagnose"],
        "processes": list(_processes(looks, document)),
        "unseen": max(0, len(document["usage"] or ()) - _MOST_CHARTS),
        "resources": [_resource(one, looks, document) for one in status["resources"]],
        "checks": [_check(one) for one in status["resources"] if "asked" in one],
        "executors": list(_commands(document["metrics"]["executors"], status["time"])),
        "queues": list(_queues(document["metrics"], status["time"])),
        "history": [
            (f"{one['verb']} {one['id']}", _at(one["time"]), _done(one["result"]), one["by"],
             ": ".join(filter(None, (one["why"], one["error"]))))
            for one in reversed(document["history"])
        ],
    }  # fmt: skip


Row = tuple[Any, ...]
"""Of a table: texts, and what is HTML already."""


def _done(result: str) -> Markup:
    return _badge(result, _VERBS.get(result, "change"))


def _resource(one: Mapping[str, Any], looks: Looks, document: Mapping[str, Any]) -> Row:
    state = "ok (absent)" if one.get("absent") and one["state"] == "ok" else one["state"]
    last = document["latest"].get(one["id"])
    words = []
    if "pids" in one:
        more = f" and {len(one['pids']) - 4} more" if len(one["pids"]) > 4 else ""
        words.append(f"pid {', '.join(map(str, one['pids'][:4]))}{more}")
    if one.get("attempts"):
        number = one["attempts"]
        again = "restarted once" if number == 1 else f"restarted {number} times"
        words.append(again if "pids" in one else count_of(number, "failed start"))
    if one["reason"]:
        words.append(one["reason"])
    elif "asked" in one:
        words.append(one["asked"]["said"])
    # Since when it is so: as the store knows, or as the page itself has seen it.
    since = looks.since[one["id"]][1]
    if "paused" in one:
        since = one["paused"]["since"]
    elif "asked" in one:
        since = one["asked"]["since"]
    elif one["state"] not in ("ok", "skipped"):
        since = document["troubles"].get(one["id"], since)
    elif "since" in one:
        since = one["since"]
    elif last is not None and last["result"] == "done":
        since = last["time"]
    badge = _badge(state, STYLES.get(one["state"], "bad"))
    return one["id"], badge, _at(since), _last(last), "; ".join(filter(None, words))


def _last(one: Mapping[str, Any] | None) -> Markup:
    """The last action, and why."""
    if one is None:
        return Markup('<span class="none">none</span>')
    done = _html("{} {} {} by {}", one["result"], one["verb"], _at(one["time"]), one["by"])
    return Markup(": ").join([done, *map(_printable, filter(None, (one["why"], one["error"])))])


def _processes(looks: Looks, document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    states = {one["id"]: one for one in document["status"]["resources"]}
    for ident in list(document["usage"] or ())[:_MOST_CHARTS]:
        series, one = looks.samples.series.get(ident), states.get(ident)
        if series is not None and one is not None:
            row = {"id": ident, "state": one["state"], "style": STYLES.get(one["state"], "bad")}
            yield {**row, "since": one.get("since"), "charts": list(_charts(series))}


def _charts(series: Series) -> Iterator[dict[str, Any]]:
    cpu, memory = series.now
    for name, values, now, least, said in (
        ("CPU", series.cpu, cpu, 1.0, _percent), ("memory", series.memory, memory, 2.0**20, amount)
    ):  # fmt: skip
        most = max((one for one in values if not isnan(one)), default=None)
        words = "none" if isnan(memory) else "not known yet" if isnan(now) else said(now)
        highest = "" if most is None else f"at most {said(most)}"
        label = f"{name} in the last hour: now {words}, {highest or 'none before'}"
        drawn = chart(series.at, values, least, label)
        yield {"name": name, "now": words, "most": highest, "drawn": drawn}


def _percent(number: float) -> str:
    return f"{number:.{0 if number >= 10 else 1}f} %"


def _check(one: Mapping[str, Any]) -> Row:
    asked = one["asked"]
    badge = _badge(asked["result"], _RESULTS.get(asked["result"], "change"))
    took = f"{asked['seconds']:.2f} s"
    return one["id"], badge, _at(asked["since"]), _at(asked["time"]), took, asked["said"]


def _commands(executors: Mapping[str, Any], now: float) -> Iterator[Row]:
    """Of each command executor how many commands stand where, and which run or ran last."""
    for home, found in executors.items():
        if found is None:
            yield "commands", _badge("unknown", "bad"), "", "", home
            continue
        oldest = found["oldest"]
        since = {"pending": _at(now - oldest)} if oldest is not None else {}
        for state in ("pending", "running", "completed", "failed"):
            number = found[state]
            style = "bad" if number is None or (state == "failed" and number) else "quiet"
            words = "not known" if number is None else count_of(number, "command")
            words += " or more" if number == MOST_COMMANDS else ""
            where = home if state == "pending" else ""
            yield words, _badge(state, style), since.get(state, ""), "", where
        for ident, at in found["now"]:
            yield ident, _badge("running", "good"), _at(at), "", ""
        for ident, at, status, code in found["last"]:
            badge = _badge(status, "good" if status == "succeeded" else "bad")
            yield ident, badge, _at(at), "" if code is None else code, ""


def _queues(metrics: Mapping[str, Any], now: float) -> Iterator[Row]:
    """What waits: files in folders that are looked at, and messages."""
    for (ident, folder), (number, age) in metrics["queues"].items():
        yield folder, number, _at(now - age if number else None), ident
    for target, number in metrics["waiting"].items():
        yield f"messages to {target}", number, _NONE, "notify"
