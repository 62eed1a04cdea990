"""A diagnosis as lines for people, 80 columns wide, from its JSON value. It must not print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

from reconciler.base.records import replace
from reconciler.base.text import amount, count_of, printable, shortened
from reconciler.output.period import lines_of
from reconciler.output.status import counted, history_table, moment, span
from reconciler.output.text import Block, Line, Row, Table, given

_WIDTH = 80
_STYLES = {"ok": "good", "differs": "change", "paused": "change", "skipped": "quiet"}
_RESULTS = {"ok": "good", "failing": "bad", "unanswered": "change", "not asked": "quiet"}
_MOST = 12
_LINES = 40
"""Of a section, unless all was asked for."""
_LONGEST = 600

Document = Mapping[str, Any]


def diagnosis_blocks(document: Document, verbose: bool) -> Iterator[Block]:
    """All of it; what is wrong comes last, where a person looks first."""
    spec = document["spec"]
    yield (
        f"{spec['name']} ({printable(spec['path'])}) on {printable(document['host_name'])}, "
        f"{moment(document['time'])}{given(spec)}",
        "",
    )
    most = 1000 if verbose else _MOST
    sections: tuple[tuple[str, Iterable[Block]], ...] = (
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
        ("summary of the last day", _period(document["period"])),
        ("reboot", _reboot(document["reboot"])),
        ("conflicts", _conflicts(document["conflicts"], most)),
        ("not seen", ((f"{one['what']}: {one['reason']}", "change")
                      for one in document["unseen"])),
    )  # fmt: skip
    for name, blocks in sections:
        number = 0
        for block in blocks:
            if number == 0:
                yield f"{name}:", ""
            left = None if verbose else max(0, _LINES - number)
            if isinstance(block, Table):
                number += len(block.rows)
                if left is None or left:
                    yield replace(block, rows=block.rows[:left])
            else:
                number += 1
                yield from _wrapped(*block) if left is None or left else ()
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
    words = count_of(causes, "thing is", "things are")
    more = len(wrong) - causes
    follows = f"; {more} more follow{'s' if more == 1 else ''} from that" if more else ""
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
    yield f"load {load} on {count_of(host['cpus'], 'processor')}", ""
    words = "no swap"
    if swap["total"]:
        words = f"swap {amount(swap['free'])} of {amount(swap['total'])} free"
    yield (
        f"memory {amount(memory['available'])} of {amount(memory['total'])} available, {words}",
        "",
    )
    clock = "not trusted" if host["clock"] else f"trusted ({host['zone']})"
    yield f"up for {span(host['uptime'])}, since {moment(host['booted'])}; clock {clock}", ""


def _disks(disks: Sequence[Document]) -> Iterator[Block]:
    rows = [
        (
            (
                printable(one["mount"], _LONGEST), amount(one["free"]), amount(one["total"]),
                f"{one['inodes_free']:,}" if one["inodes"] else "",
                f"{one['inodes']:,}" if one["inodes"] else "",
                "read only" if one["read_only"] else "",
            ),
            "bad" if one["read_only"] else "",
        )
        for one in disks
        if "reason" not in one
    ]  # fmt: skip
    if rows:
        head = "file system", "free", "of", "inodes free", "of", ""
        yield _table(head, rows, 1, 2, 3, 4)
    for one in disks:
        if "reason" in one:
            yield f"{one['mount']}: {one['reason']}", "bad"


def _loop(loop: Document) -> Iterator[Line]:
    if loop.get("unknown"):
        yield f"unknown: {loop['unknown']}", "change"
    elif not loop["running"]:
        declared = ", ".join(loop["expected_by"])
        yield (
            "no watchdog is running" + (f", though {declared} declares one" if declared else ""),
            ("bad" if declared else "change"),
        )
    else:
        state = (
            "is running" if loop["healthy"] else "is stopped" if loop.get("stopped") else "hangs"
        )
        yield (
            f"the watchdog {state} (pid {loop['pid']}): "
            f"{count_of(loop['passes'], 'full pass')}, last "
            f"sign of life {span(loop['moved'])} ago",
            "good" if loop["healthy"] else "bad",
        )


def _resources(resources: Sequence[Document], verbose: bool) -> Iterator[Block]:
    yield counted(resources), ""
    rows = []
    for one in resources:
        if one["state"] == "ok" and not (verbose or one["note"]):
            continue
        if one["state"] == "skipped" and not verbose and one["reason"].startswith("when: "):
            continue
        words = [one["reason"] or one["note"], one.get("evidence")]
        told = printable("; ".join(filter(None, words)), _LONGEST)
        rows.append(((printable(one["id"]), one["state"], told), _STYLES.get(one["state"], "bad")))
    if rows:
        yield _table(("resource", "state", "why"), rows)


def _processes(processes: Sequence[Document], verbose: bool) -> Iterator[Block]:
    states = {"T": "stopped", "D": "waiting in the kernel", "Z": "ended"}
    rows = [
        (
            (
                printable(one["id"]), str(one["pid"]), span(one["uptime"]), amount(one["memory"]),
                f"{one['cpu']:.1f}%", f"{one['threads']:,}",
                "?" if one["open_files"] is None else f"{one['open_files']:,}",
                states.get(one["state"], ""),
            ),
            "bad" if one["state"] in states else "",
        )
        for one in processes
    ]  # fmt: skip
    if rows:
        head = "process", "pid", "for", "memory", "cpu", "threads", "files", "state"
        yield _table(head, rows, 1, 2, 3, 4, 5, 6)
    for one in processes:
        yield f"pid {one['pid']}: {one['command']}", "quiet"
        for child in one["children"] if verbose else ():
            yield f"  pid {child['pid']} {child['state']}: {child['command']}", "quiet"


def _sessions(sessions: Sequence[Document]) -> Iterator[Block]:
    rows = []
    for one in sessions:
        server = "" if one["socket"] == "default" else f" (tmux -L {one['socket']})"
        panes = [pane for window in one["windows"] for pane in window["panes"]]
        dead = sum(pane["dead"] for pane in panes)
        cells = (
            printable(f"{one['session']}{server}"), str(len(one["windows"])), str(len(panes)),
            str(dead), printable(one["spec"] or "none"),
        )  # fmt: skip
        rows.append((cells, "bad" if dead else ""))
    if rows:
        yield _table(("session", "windows", "panes", "dead", "spec"), rows, 1, 2, 3)


def _folders(folders: Sequence[Document], now: float) -> Iterator[Block]:
    rows = []
    for one in folders:
        if "reason" in one:
            continue
        match = f" ({one['match']})" if one["match"] else ""
        more = "" if one["complete"] else "> "
        cells = [printable(f"{one['id']}{match}"), f"{more}{one['files']:,}", "", "", ""]
        if one["files"]:
            oldest = span(now - one["oldest"]["time"])
            cells[2:] = amount(one["bytes"]), f"{one['changed_last_hour']:,}", oldest
        rows.append((cells, ""))
    if rows:
        yield _table(("folder", "files", "size", "last hour", "oldest"), rows, 1, 2, 3, 4)


def _logs(rows: Iterable[Document], now: float, verbose: bool) -> Iterator[Line]:
    for one in rows:
        if one.get("missing"):
            yield f"{one['path']}: missing", "quiet"
        if "silent" not in one:
            continue
        yield (
            f"{one['path']}: {amount(one['size'])}, {count_of(one['errors'], 'error')}, "
            f"{count_of(one['warnings'], 'warning')}, silent for {span(one['silent'])}",
            "change" if one["errors"] else "",
        )
        for kind in one["kinds"][: 20 if verbose else 4]:
            when = ""
            if kind["last"] is not None:
                first = f" since {moment(kind['first'])}" if kind["count"] > 1 else ""
                when = f"{first}, last {moment(kind['last'])}"
            text = f"{kind['level']}, {count_of(kind['count'], 'time')}{when}: {kind['message']}"
            yield f"  {text}", ""
        for line in one["last"][-3 if verbose else -1 :]:
            yield f"  last: {shortened(line, 200)}", "quiet"


def _checks(checks: Sequence[Document]) -> Iterator[Block]:
    rows = [
        (
            (
                printable(one["id"]), one["result"],
                f"{one['seconds']:.1f} s" if one["seconds"] else "",
                printable(one["said"], _LONGEST),
            ),
            _RESULTS[one["result"]],
        )
        for one in checks
    ]  # fmt: skip
    if rows:
        yield _table(("check", "result", "took", "output"), rows, 2)


def _restarts(rows: Sequence[Document], most: int) -> Iterator[Block]:
    if len(rows) > most:
        yield f"{len(rows) - most} more before these (--history shows all)", "quiet"
    if rows:
        deeds = [{**one, "why": one["cause"], "error": None} for one in rows[-most:]]
        yield history_table(deeds)


def _period(period: Document | None) -> Iterator[Line]:
    """What a report would say, but for what stands here otherwise."""
    for line in lines_of(period, {}) if period is not None else ():
        yield line, ""


def _reboot(reboot: Document) -> Iterator[Line]:
    if not reboot:
        return
    for one in reboot["runners"]:
        when = "at boot" if one["at_boot"] else "at login only"
        words = f"passes {when}" if not one["loop"] else f"the watchdog {when}"
        if not one["works"]:
            words = f"nothing: {one['why']}"
        yield f"{one['what']} starts {words}", "good" if one["works"] else "bad"
    safe = any(one["works"] and one["at_boot"] for one in reboot["runners"])
    if reboot["lost"]:
        count = count_of(len(reboot["lost"]), "process or session", "processes and sessions")
        if safe:
            yield f"{count} would be brought back", "good"
        else:
            yield f"nothing would bring back {count}: {', '.join(reboot['lost'][:6])}", "change"
    yield from setup_lines([one for one in reboot["setup"] if one["state"] == "missing"])
    others: dict[str, list[str]] = {}
    for one in reboot["differences"]:
        rows = ", ".join(f"{row['name']} ({row['there'] or 'unset'})" for row in one["environ"])
        if rows:
            others.setdefault(rows, []).append(one["what"])
        if one["state_dir"]:
            yield f"{one['what']} keeps its state in {one['state_dir']}", "bad"
    for rows, what in others.items():
        who = what[0] if len(what) == 1 else f"{len(what)} of these"
        yield f"{who} would have a different {rows} than this shell", "quiet"


def setup_lines(setup: Sequence[Document]) -> Iterator[Line]:
    """What keeps a spec after a reboot: what is set up, and what is missing with its command."""
    missing: dict[str | None, list[str]] = {}
    for one in setup:
        if one["state"] == "set up":
            yield f"set up: {one['what']}", "good"
        else:
            words = f" ({one['words']})" if one["words"] else ""
            missing.setdefault(one["remedy"], []).append(f"{one['what']}{words}")
    for command, what in missing.items():
        yield f"missing: {', '.join(what)}", "change"
        if command is not None:
            yield f"  set up by: {command}", ""


def _conflicts(rows: Sequence[Document], most: int) -> Iterator[Line]:
    for one in rows[:most]:
        yield f"{one['id']} ({one['path']}): {one['with']} {one['words']}", "change"
    if len(rows) > most:
        yield f"and {len(rows) - most} more", "quiet"


def _table(head: tuple[str, ...], rows: Sequence[Row], *numbers: int) -> Table:
    return Table(head, tuple(rows), frozenset(numbers))
