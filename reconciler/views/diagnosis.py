"""A diagnosis as lines for people, 80 columns wide, from its JSON value. It must not print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from reconciler.text import printable
from reconciler.views.period import lines_of
from reconciler.views.status import amount, moment, span
from reconciler.views.text import Line

_WIDTH = 80
_STYLES = {"ok": "good", "differs": "change", "paused": "change", "skipped": "quiet"}
_RESULTS = {"ok": "good", "failing": "bad", "unanswered": "change", "not asked": "quiet"}
_MOST = 12
_LINES = 40
"""Of a section, unless all was asked for."""
_LONGEST = 600

Document = Mapping[str, Any]


def diagnosis_lines(document: Document, verbose: bool) -> Iterator[Line]:
    """All of it; what is wrong comes last, where a person looks first."""
    spec = document["spec"]
    yield (
        f"{spec['name']} ({printable(spec['path'])}) on {printable(document['host_name'])}, "
        f"{moment(document['time'])}",
        "",
    )
    most = 1000 if verbose else _MOST
    sections = (
        ("host", _host(document["host"])),
        ("disks", _disks(document["disks"])),
        ("watchdog", _loop(document["loop"])),
        ("resources", _resources(document["resources"], verbose)),
        ("processes", _processes(document["processes"], verbose)),
        ("tmux", _sessions(document["sessions"])),
        ("folders", _folders(document["folders"], document["time"])),
        ("logs", _logs(document["logs"], document["time"], verbose)),
        ("checks", _checks(document["checks"])),
        ("last day", _restarts(document["restarts"], most)),
        ("sum of the last day", _period(document["period"])),
        ("reboot", _reboot(document["reboot"])),
        ("conflicts", _conflicts(document["conflicts"], most)),
        ("not seen", ((f"{one['what']}: {one['reason']}", "change")
                      for one in document["unseen"])),
    )  # fmt: skip
    for name, lines in sections:
        number = 0
        for text, style in lines:
            number += 1
            if number == 1:
                yield f"{name}:", ""
            if verbose or number <= _LINES:
                yield from _wrapped(text, style)
        if number > _LINES and not verbose:
            yield f"  and {number - _LINES} lines more (-v shows all)", "quiet"
    yield from wrong_lines(document)


def wrong_lines(document: Document) -> Iterator[Line]:
    """What is worth a look, and what is wrong, the causes first."""
    if document["doubts"]:
        yield "worth a look:", ""
        yield from _listed(document["doubts"], "change")
    wrong = document["wrong"]
    if not wrong:
        yield f"Nothing is wrong. [{document['seconds']:.1f} s]", "good"
        return
    yield "wrong, most important first:", "bad"
    yield from _listed(wrong, "bad")
    causes = sum(one["follows_from"] is None for one in wrong)
    words = "1 thing is" if causes == 1 else f"{causes} things are"
    follows = f", from which {len(wrong) - causes} more follow" if len(wrong) > causes else ""
    yield f"{words} wrong{follows}. [{document['seconds']:.1f} s]", "bad"


def _listed(rows: Sequence[Document], style: str) -> Iterator[Line]:
    number = 0
    for one in rows:
        follows = one["follows_from"] is not None
        number += not follows
        head = "so " if follows else f"{number}. "
        yield from _wrapped(f"{head}{one['what']}", "" if follows else style, 5 if follows else 2)
        if one["mend"] and not follows:
            yield f"       {printable(one['mend'], 100_000)}", ""


def _wrapped(text: str, style: str, indent: int = 2) -> Iterator[Line]:
    """One line as several; what is deeper than the others begins with blanks."""
    deeper = len(text) - len(text.lstrip(" "))
    margin = " " * (indent + deeper)
    lines = wrap(
        printable(text.lstrip(" "), _LONGEST), _WIDTH, initial_indent=margin,
        subsequent_indent=f"{margin}    ", break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    for line in lines:
        yield line, style


def _host(host: Document) -> Iterator[Line]:
    if not host:
        return
    memory, swap = host["memory"], host["swap"]
    load = " ".join(f"{one:.2f}" for one in host["load"])
    yield f"load {load} on {_number(host['cpus'], 'processor')}", ""
    words = "no swap"
    if swap["total"]:
        words = f"swap {amount(swap['free'])} of {amount(swap['total'])} free"
    yield (
        f"memory {amount(memory['available'])} of {amount(memory['total'])} available, {words}",
        "",
    )
    clock = "is doubted" if host["clock"] else f"is believed ({host['zone']})"
    yield f"up for {span(host['uptime'])}, since {moment(host['booted'])}; its clock {clock}", ""


def _disks(disks: Iterable[Document]) -> Iterator[Line]:
    for one in disks:
        if "reason" in one:
            yield f"{one['mount']}: {one['reason']}", "bad"
            continue
        words = f"{one['mount']}: {amount(one['free'])} of {amount(one['total'])} free"
        if one["inodes"]:
            words += f", {one['inodes_free']:,} of {one['inodes']:,} inodes free"
        yield words + (", read only" if one["read_only"] else ""), ""


def _loop(loop: Document) -> Iterator[Line]:
    if loop.get("unknown"):
        yield f"not known: {loop['unknown']}", "change"
    elif not loop["running"]:
        declared = ", ".join(loop["expected_by"])
        yield (
            "no loop runs" + (f", though {declared} declares it" if declared else ""),
            ("bad" if declared else "change"),
        )
    else:
        state = "runs" if loop["healthy"] else "hangs"
        yield (
            f"the loop {state} (pid {loop['pid']}): {_number(loop['passes'], 'full pass')}, moved "
            f"{span(loop['moved'])} ago",
            "good" if loop["healthy"] else "bad",
        )


def _resources(rows: Sequence[Document], verbose: bool) -> Iterator[Line]:
    counts: dict[str, int] = {}
    for one in rows:
        counts[one["state"]] = counts.get(one["state"], 0) + 1
    yield ", ".join(f"{number} {state}" for state, number in counts.items()), ""
    for one in rows:
        if one["state"] == "ok" and not (verbose or one["note"]):
            continue
        if one["state"] == "skipped" and not verbose and one["reason"].startswith("when: "):
            continue
        words = f"{one['id']}: {one['state']}"
        reason = one["reason"] or one["note"]
        words += f": {reason}" if reason else ""
        yield words, _STYLES.get(one["state"], "bad")
        if one.get("evidence"):
            yield f"  {one['evidence']}", "quiet"


def _processes(rows: Iterable[Document], verbose: bool) -> Iterator[Line]:
    states = {"T": ", stopped", "D": ", waits in the kernel", "Z": ", ended"}
    for one in rows:
        files = "?" if one["open_files"] is None else one["open_files"]
        yield (
            f"{one['id']}: pid {one['pid']} for {span(one['uptime'])}, {amount(one['memory'])}, "
            f"cpu {one['cpu']:.1f} %, {_number(one['threads'], 'thread')}, {files} open files"
            f"{states.get(one['state'], '')}",
            "bad" if one["state"] in states else "",
        )
        yield f"  {one['command']}", "quiet"
        for child in one["children"] if verbose else ():
            yield f"  pid {child['pid']} {child['state']}: {child['command']}", "quiet"


def _sessions(rows: Iterable[Document]) -> Iterator[Line]:
    for one in rows:
        server = "" if one["socket"] == "default" else f" (tmux -L {one['socket']})"
        owner = f"of {one['spec']}" if one["spec"] else "not of any spec"
        panes = [pane for window in one["windows"] for pane in window["panes"]]
        dead = sum(pane["dead"] for pane in panes)
        words = f"{_number(len(one['windows']), 'window')}, {_number(len(panes), 'pane')}"
        words += f", {dead} dead" if dead else ""
        yield f"{one['session']}{server}, {owner}: {words}", "bad" if dead else ""


def _folders(rows: Iterable[Document], now: float) -> Iterator[Line]:
    for one in rows:
        if "reason" in one:
            continue
        match = f" ({one['match']})" if one["match"] else ""
        more = "" if one["complete"] else "more than "
        words = f"{one['id']}{match}: {more}{_number(one['files'], 'file')}"
        if one["files"]:
            oldest = span(now - one["oldest"]["time"])
            words += f", {amount(one['bytes'])}, {one['changed_last_hour']:,} of the last hour"
            words += f", the oldest {oldest} old" if one["files"] > 1 else f", {oldest} old"
        yield words, ""


def _logs(rows: Iterable[Document], now: float, verbose: bool) -> Iterator[Line]:
    for one in rows:
        if one.get("missing"):
            yield f"{one['path']}: not there", "quiet"
        if "silent" not in one:
            continue
        yield (
            f"{one['path']}: {amount(one['size'])}, {_number(one['errors'], 'error')}, "
            f"{_number(one['warnings'], 'warning')}, silent for {span(one['silent'])}",
            "change" if one["errors"] else "",
        )
        for kind in one["kinds"][: 20 if verbose else 4]:
            when = ""
            if kind["last"] is not None:
                first = f" since {moment(kind['first'])}" if kind["count"] > 1 else ""
                when = f"{first}, last {moment(kind['last'])}"
            text = f"{kind['level']}, {_number(kind['count'], 'time')}{when}: {kind['message']}"
            yield f"  {text}", ""
        for line in one["last"][-3 if verbose else -1 :]:
            yield f"  last: {line[:200]}", "quiet"


def _checks(rows: Iterable[Document]) -> Iterator[Line]:
    for one in rows:
        took = f" [{one['seconds']:.1f} s]" if one["seconds"] else ""
        yield f"{one['id']}: {one['result']}: {one['said']}{took}", _RESULTS[one["result"]]


def _restarts(rows: Sequence[Document], most: int) -> Iterator[Line]:
    if len(rows) > most:
        yield f"{len(rows) - most} more before these (reconcile --history)", "quiet"
    for one in rows[-most:]:
        yield (
            f"{moment(one['time'])} {one['by']}: {one['result']} {one['verb']} {one['id']}: "
            f"{one['cause']}",
            "bad" if one["result"] == "failed" else "",
        )


def _period(period: Document | None) -> Iterator[Line]:
    """What a report would say, but for what stands here otherwise."""
    for line in lines_of(period, {}) if period is not None else ():
        yield line, ""


def _reboot(reboot: Document) -> Iterator[Line]:
    if not reboot:
        return
    for one in reboot["runners"]:
        when = "at boot" if one["at_boot"] else "at login only"
        words = f"passes {when}" if not one["loop"] else f"the loop {when}"
        if not one["works"]:
            words = f"nothing: {one['why']}"
        yield f"{one['what']} starts {words}", "good" if one["works"] else "bad"
    safe = any(one["works"] and one["at_boot"] for one in reboot["runners"])
    if reboot["lost"]:
        count = _number(len(reboot["lost"]), "process or session", "processes and sessions")
        if safe:
            yield f"{count} would be brought back", "good"
        else:
            yield f"nothing would bring back {count}: {', '.join(reboot['lost'][:6])}", "change"
    others: dict[str, list[str]] = {}
    for one in reboot["differences"]:
        rows = ", ".join(f"{row['name']} ({row['there'] or 'unset'})" for row in one["environ"])
        if rows:
            others.setdefault(rows, []).append(one["what"])
        if one["state_dir"]:
            yield f"{one['what']} keeps its state in {one['state_dir']}", "bad"
    for rows, what in others.items():
        who = what[0] if len(what) == 1 else f"{len(what)} of these"
        yield f"{who} would have another {rows} than this shell", "quiet"


def _conflicts(rows: Sequence[Document], most: int) -> Iterator[Line]:
    for one in rows[:most]:
        yield f"{one['id']} ({one['path']}): {one['with']} {one['words']}", "change"
    if len(rows) > most:
        yield f"and {len(rows) - most} more", "quiet"


def _number(count: int, one: str, many: str | None = None) -> str:
    if count == 1:
        return f"1 {one}"
    return f"{count:,} {many or one + ('es' if one.endswith('s') else 's')}"
