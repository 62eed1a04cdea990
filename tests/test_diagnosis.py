"""What a diagnosis says of what was seen, without looking at anything."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from reconciler.base.errors import Remedy
from reconciler.base.text import censored
from reconciler.diagnose.conflicts import of_logrotate, of_tmpfiles
from reconciler.diagnose.findings import findings
from reconciler.diagnose.loglines import analysed, level_of, squeezed, too_silent
from reconciler.diagnose.past import told_causes
from reconciler.diagnose.wrong import Seen, Wrong, ordered
from reconciler.host.persistence import differences, of_crontab, surroundings
from reconciler.host.probe_log import time_of
from reconciler.output.diagnosis import diagnosis_blocks
from reconciler.output.status import loop_line
from reconciler.output.terminal import drawn
from reconciler.output.text import Table


def keys(*found: Wrong) -> list[tuple[str, str | None]]:
    return [(one.key, cause) for one, cause in ordered(found)]


def test_causes_come_before_what_follows_from_them() -> None:
    assert keys(
        Wrong("check:queue", "", 85, because=("process:w", "stopped process:w")),
        Wrong("process:w", "", 60, ids=("process:w",), because=("stopped process:w",)),
        Wrong("cron:a", "", 80, ids=("cron:a", "cron:b")),
        Wrong("stopped process:w", "", 35),
    ) == [
        ("stopped process:w", None),
        ("process:w", "stopped process:w"),
        ("check:queue", "stopped process:w"),
        ("cron:a", None),
    ]


def test_the_nearest_cause_counts_and_circles_have_an_end() -> None:
    two = Wrong("c", "", 85, because=("b", "a"))
    assert keys(two, Wrong("a", "", 10), Wrong("b", "", 40)) == [
        ("a", None),
        ("b", None),
        ("c", "b"),
    ]
    circle = (Wrong("x", "", 2, because=("y",)), Wrong("y", "", 1, because=("x",)))
    assert keys(*circle) == [("x", None), ("y", "x")]
    assert keys(Wrong("x", "", 1, ids=("x", "z"), because=("z", "x"))) == [("x", None)]


def document(**changed: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "spec": {"name": "demo", "path": "/srv/demo.yaml"},
        "host_name": "vm",
        "time": 1_800_000_000.0,
        "host": {},
        "loop": {"running": False, "expected_by": []},
        "period": None,
        "past": {},
        "reboot": {},
        "unseen": [],
        "restarts": [],
    }
    lists = ("disks", "resources", "processes", "stopped", "sessions", "folders", "logs", "checks")
    return {**empty, **{name: [] for name in (*lists, "conflicts")}, **changed}


def resource(ident: str, state: str = "ok", reason: str = "", **more: Any) -> dict[str, Any]:
    return {"id": ident, "state": state, "reason": reason, "needs": [], "by_age": False,
            "note": None, "by_hand": [], **more}  # fmt: skip


def told(**changed: Any) -> list[tuple[str, str | None, str | None]]:
    found = findings(document(**changed), lambda *words: " ".join(words))
    return [(one.key, one.fix, cause) for one, cause in ordered(found) if one.certain]


def process(ident: str, state: str) -> dict[str, Any]:
    return {"id": ident, "pid": 7, "state": state, "children": []}


def test_a_stopped_process_is_named_before_its_old_heartbeat_and_queue() -> None:
    asked = [
        {"id": "check:beat", "result": "failing", "said": "last changed 3 min ago"},
        {"id": "check:queue", "result": "failing", "said": "the oldest has waited 1 h"},
        {"id": "check:disk", "result": "ok", "said": "50% free"},
    ]
    needs = {"needs": ["process:w"]}
    assert told(
        resources=[
            resource("process:w", "differs", "its heartbeat is 3 min old"),
            resource("check:beat", acts=True, inspect="ls -ld /beat", **needs),
            # What only tells people is looked into by one of them.
            resource("check:queue", acts=False, inspect="ls -ltr /in", **needs),
            resource("check:disk", **needs),
        ],
        processes=[process("process:w", "T")],
        checks=asked,
    ) == [
        ("stopped process:w", "kill -CONT 7", None),
        ("process:w", "--once", "stopped process:w"),
        ("check:beat", "--repair", "stopped process:w"),
        ("check:queue", "ls -ltr /in", "stopped process:w"),
    ]


def test_a_full_disk_is_the_cause_of_what_fails_on_it() -> None:
    full = {"mount": "/srv", "total": 10**9, "free": 0, "inodes": 0, "inodes_free": 0,
            "read_only": False, "ids": ["directory:d"]}  # fmt: skip
    found = told(
        disks=[full],
        resources=[
            resource("directory:d"),
            resource("process:w", "given up", "gave up", needs=["directory:d"]),
            resource("cron:x", "differs", "missing"),
        ],
    )
    assert [(key, cause) for key, _, cause in found] == [
        ("disk /srv", None),
        ("process:w", "disk /srv"),
        ("cron:x", None),
    ]
    assert "du -xh /srv" in str(found[0][1])


def test_what_is_there_and_only_differs_is_no_cause() -> None:
    """A mode has nothing to do with the death of what runs in the folder; that it is gone has."""
    for verb, cause in (("update", None), ("create", "directory:d")):
        folder = resource("directory:d", "differs", "mode is 0777", verb=verb)
        worker = resource("process:w", "differs", "not running", verb="start")
        rows = [folder, {**worker, "needs": ["directory:d"]}]
        assert ("process:w", "--once", cause) in told(resources=rows)


def test_what_is_wrong_in_the_same_way_is_named_together() -> None:
    rows = [resource(f"directory:{n}", "differs", "missing") for n in range(6)]
    (one,) = findings(document(resources=rows), lambda *words: " ".join(words))[:1]
    assert len(one.ids) == 6
    assert "and 2 more: missing" in one.words


def test_a_hung_program_is_laid_to_the_one_who_is_stopped() -> None:
    reason = "/usr/bin/tmux did not end within 2.5 s and was killed"
    rows = [resource("session:s", "unknown", reason), resource("process:p", "unknown", reason)]
    found = told(resources=rows, stopped=[{"pid": 9, "name": "tmux: server"}])
    assert found[0] == ("program tmux", "kill -CONT 9", None)
    assert [(key, cause) for key, _, cause in found[1:]] == [("session:s", "program tmux")]
    ((key, mend, cause),) = told(resources=rows)
    assert (key, "grep -e tmux" in str(mend), cause) == ("session:s", True, None)


@pytest.mark.parametrize(
    ("loop", "expected"),
    [
        ({"running": False, "expected_by": ["unit:w"]}, [("loop", "--once", None)]),
        ({"running": True, "healthy": False, "pid": 5, "moved": 999.0}, [("loop", "--once", None)]),
        ({"running": True, "healthy": True, "pid": 5, "moved": 1.0}, []),
    ],
)
def test_a_watchdog_that_is_declared_must_run(loop: dict[str, Any], expected: Any) -> None:
    assert told(loop={"expected_by": [], **loop}) == expected


def test_a_stopped_watchdog_is_named_and_what_declares_it_comes_first() -> None:
    loop = {"running": True, "healthy": False, "stopped": True, "pid": 5, "expected_by": []}
    assert told(loop=loop) == [("loop", "kill -CONT 5", None)]
    gone = {"running": False, "expected_by": ["unit:w"]}
    rows = [resource("unit:w", "differs", "not running")]
    assert told(loop=gone, resources=rows) == [
        ("unit:w", "--once", None),
        ("loop", "--once", "unit:w"),
    ]


def test_what_would_not_come_back_after_a_reboot() -> None:
    runner = {"what": "unit w", "sort": "user unit", "works": True, "at_boot": False}
    reboot = {
        "runners": [runner],
        "systemd": True,
        "cron_runs": False,
        "cron_enabled": None,
        "cron_installed": True,
        "lingers": False,
        "user": "ann",
        "setup": [],
        "differences": [],
        "lost": ["process:p"],
    }
    assert told(reboot=reboot) == [("linger", "loginctl enable-linger ann", None)]
    lines = [resource("cron:a"), resource("cron:b", "skipped", "when: host.crontab")]
    assert ("cron daemon", "systemctl enable --now cron", None) in told(
        reboot=reboot, resources=lines
    )
    cron = {**reboot, "cron_runs": True, "cron_enabled": False, "lingers": True}
    assert told(reboot=cron, resources=lines) == [("cron daemon", "systemctl enable cron", None)]
    assert told(reboot=cron, resources=lines[1:]) == []


def test_what_has_become_due_a_moment_ago_is_not_wrong_while_the_watchdog_is_well() -> None:
    rows = [resource("retention:r", "differs", "3 files", by_age=True)]
    well = {"running": True, "healthy": True, "pid": 5, "moved": 1.0, "expected_by": []}
    assert told(resources=rows, loop=well) == []
    assert told(resources=rows) == [("retention:r", "--once", None)]


def test_lines_of_a_log_are_sorted_by_what_they_say() -> None:
    lines = [
        "2026-11-22T10:00:00+00:00 INFO [7] started, 0 errors",
        "2026-11-22T10:01:00+00:00 ERROR [7] cannot read /srv/a/1.json: code 13",
        "2026-11-22T10:02:00+00:00 ERROR [8] cannot read /srv/b/22.json: code 5",
        "  File x, line 3",
        "2026-11-22T10:03:00+00:00 WARNING slow: 3.5 s",
        "ValueError: bad",
    ]
    found = analysed(lines, 0.0)
    assert (found["errors"], found["warnings"]) == (3, 1)
    first = found["kinds"][0]
    assert (first["message"], first["count"]) == ("ERROR [#] cannot read /…: code #", 2)
    assert first["last"] - first["first"] == 60
    assert found["kinds"][1]["last"] == first["last"] + 60
    assert found["longest_gap"] == 60


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("ERROR x", "error"),
        ("app: error: no", "error"),
        ("panic: x", "error"),
        ("WARN low", "warning"),
        ("INFO error_count=0", None),
        ("INFO ERROR handler installed", None),
        ("all is well, terror is not", None),
        ("error.log rotated", None),
    ],
)
def test_levels(line: str, level: str | None) -> None:
    assert level_of(line) == level


def test_times_and_squeezing() -> None:
    assert time_of(b"2026-11-22 10:00:00,123 x", 0.0) is not None
    assert time_of(b"Nov 22 10:00:00 host app: x", 1_795_000_000.0) is not None
    assert time_of(b"2026-13-45 99:00:00 x", 0.0) is None
    assert time_of(b"nothing", 0.0) is None
    assert squeezed("id 0xdeadbeef 3f2a9c1b-77 took 1.5") == "id # # took #"


def test_a_log_is_silent_only_against_its_own_rhythm() -> None:
    assert too_silent(100, 20 * 3600.0, 300.0, 3600.0)
    assert not too_silent(100, 20 * 3600.0, 8 * 3600.0, 3600.0)
    assert not too_silent(5, 20 * 3600.0, 300.0, 3600.0)
    assert not too_silent(100, 3600.0, 300.0, 3600.0)
    assert not too_silent(0, 0.0, None, 3600.0)


def test_why_something_was_started_is_told_where_it_is_known() -> None:
    def deed(at: float, verb: str = "start", why: str = "not running") -> dict[str, Any]:
        return {"time": at, "by": "loop", "id": "process:p", "verb": verb, "result": "done",
                "why": why, "error": None}  # fmt: skip

    deaths = [{"time": 5000.0, "pid": 4, "name": "python3", "how": "out of memory"}]
    deeds = [deed(1010), deed(3000), deed(5001), deed(6000, "restart", "uses 2 GiB")]
    names = {"process:p": ["python3"]}
    causes = [
        row["cause"] for row in told_causes(deeds, 1000.0, deaths, names, {"process:p": 10.0})
    ]
    assert causes[0] == "the host was booted"
    assert causes[1].startswith("exit reason unknown")
    assert causes[2] == "the kernel ended python3 (pid 4): out of memory"
    assert causes[3] == "uses 2 GiB"
    # The first one of all, also on a host that has just been booted.
    for at in (9000.0, 1010.0):
        (row,) = told_causes([deed(at)], 1000.0, [], {}, {"process:p": at})
        assert row["cause"] == "first start"
    # Its first one is older than what is shown.
    (row,) = told_causes([deed(9000)], 1000.0, [], {}, {"process:p": 10.0})
    assert row["cause"].startswith("exit reason unknown")
    deeds = [deed(3000), deed(4000, "pause", ""), deed(5000, "resume", ""), deed(5001), deed(6000)]
    causes = [row["cause"] for row in told_causes(deeds, 1000.0, [], {}, {"process:p": 10.0})]
    assert causes[1:4] == ["requested by the watchdog", "requested by the watchdog", "resumed"]
    assert causes[4].startswith("exit reason unknown")


def test_surroundings_of_cron_lines_and_units() -> None:
    line = "TMUX_TMPDIR=/t reconcile --once /s.yaml --state-dir /var/x >> /l"
    text = f"MAILTO=me\r\nEMPTY=\r\n# reconcile --once /s.yaml\n# 0 1 * * * {line}\n"
    text += f"*/5 * * * * {line}\n0 1 * * * reconcile --once /other\n"
    # python-crontab does not read the one, and fails at the other.
    text += "* * * * sat-sun reconcile --once /s.yaml\n0 0 * * fri-7 /bin/mine\n"
    ((times, found, given),) = of_crontab(text, "/s.yaml")
    assert (times, found, given) == ("*/5 * * * *", line, {"MAILTO": "me", "EMPTY": ""})
    ((times, found, _),) = of_crontab(f"@reboot me {line}\n", "/s.yaml", system=True)
    assert (times, found) == ("@reboot", line)
    there = surroundings(line, {"HOME": "/h"}, 1000)
    assert there["state_dir"] == "/var/x"
    assert there["environ"]["TMUX_TMPDIR"] == "/t"
    assert surroundings("reconcile --once /s", {}, 0)["state_dir"] == "/var/lib/reconcile"
    own = surroundings("reconcile --once /s", {"HOME": "/h"}, 7)["state_dir"]
    assert own == "/h/.local/state/reconcile"
    for given in ("reconcile --once /s --state-dir ~/x", "STATE_DIRECTORY=~/x reconcile --once /s"):
        assert surroundings(given, {"HOME": "/h"}, 7)["state_dir"] == "/h/x"
    here = {"state_dir": "/var/y", "environ": {"TMUX_TMPDIR": "/t", "HOME": "", "PATH": ""}}
    (one,) = differences({"here": here, "runners": [{"what": "cron", **there}]}, True)
    assert (one["state_dir"], one["matters"]) == ("/var/x", True)


def test_conflicts_with_tmpfiles_and_logrotate() -> None:
    paths = {"/srv/q": "directory:q", "/tmp/x/y": "directory:y", "/run/z": "directory:z"}
    text = "d /srv/q 0700 root root 10d\nq /tmp 1777 root root 1d\nd /run 0755 - - -\n# d /run/z\n"
    found = {row["id"]: row["words"] for row in of_tmpfiles("a.conf", text, paths, sorted(paths))}
    assert found.keys() == {"directory:q", "directory:y"}
    assert "cleans it after 10d" in found["directory:q"]
    assert "older than 1d below /tmp" in found["directory:y"]
    for line in ("/tmp/x", "/tmp/x/*"):
        rows = of_tmpfiles("a.conf", text, paths, sorted(paths), [line])
        assert {row["id"] for row in rows} == {"directory:q"}, "somebody has kept it from that"
    rotated = 'weekly\n"/var/log/*.log" /srv/a.log {\n  rotate 3\n  postrotate\n /bin/x\n}\n'
    logs = {"/srv/a.log": "retention:a", "/srv/b.log": "retention:b"}
    assert [row["id"] for row in of_logrotate("f", rotated, logs)] == ["retention:a"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("app --password hunter2 -v", "app --password *** -v"),
        ("app --api-key=abc", "app --api-key=***"),
        ("app https://me:pw@host/x", "app https://***@host/x"),
        ("curl https://hooks.slack.com/services/T/B/xyz", "curl https://***"),
        ("sort --key 2 file", "sort --key 2 file"),
        ("sleep 1", "sleep 1"),
    ],
)
def test_command_lines_hide_what_looks_like_a_secret(line: str, shown: str) -> None:
    assert censored(line) == shown


def test_no_line_but_a_command_or_a_path_is_wider_than_a_terminal() -> None:
    rows = [resource("process:w", "differs", "not running and " + "so on " * 40)]
    seen = document(resources=rows)
    found = ordered(findings(seen, lambda *words: " ".join(words)))
    seen["wrong"] = [one.document(cause) for one, cause in found]
    drawing = Console(width=80, file=io.StringIO(), color_system=None)
    for block in diagnosis_blocks({**seen, "doubts": [], "seconds": 1.0}, False):
        if isinstance(block, Table):
            drawing.print(drawn(block))
        else:
            drawing.print(block[0], soft_wrap=True)  # As it is, however long.
    lines = drawing.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert lines[-2].strip() == "--once" or "--" in "".join(lines)


def test_a_long_chain_of_needs_is_gone_through_once() -> None:
    class Name(str):
        compared = 0
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, other)

    names = [Name(f"directory:d{number}") for number in range(500)]
    rows = [{"id": one, "needs": [before]} for before, one in pairwise(names)]
    rows.append({"id": names[0], "needs": [names[0], Name("directory:undeclared")]})
    seen = Seen({"resources": rows, "loop": {"running": False}}, Remedy)
    assert seen.needs(names[-1]) == [*names[-2::-1], "directory:undeclared"]
    assert Name.compared < 5 * len(names)


def test_a_watchdog_that_hangs_is_named_with_what_helps() -> None:
    words, style = loop_line({"running": True, "healthy": False, "pid": 7, "moved": 400.0})
    assert style == "bad"
    assert words == (
        "the watchdog (pid 7) hangs: no sign of life for 7 min; a pass (--once) ends it and takes "
        "over"
    )
