"""What each probe says of files, logs, queues, disks, listeners and commands."""

from __future__ import annotations

import gzip
import os
import socket
import time
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from receiver import answering, answering_at, certificate_of
from support import within

from reconciler.base.errors import UnknownState
from reconciler.base.values import Secret, Verdict
from reconciler.executor.text import stamp
from reconciler.host import Host, probe_own
from reconciler.host.clock import Clock, WallTime
from reconciler.host.probe import bounded, cpu, disk, fresh, load, memory, queue, span
from reconciler.host.probe_command import command
from reconciler.host.probe_log import log, time_of
from reconciler.host.probe_net import http, tcp
from reconciler.host.probe_own import commands, persistence, results, state
from reconciler.host.users import Users


def aged(path: Path, seconds: float, text: str = "") -> Path:
    path.write_text(text)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def at(ago: float, form: str) -> str:
    return time.strftime(form, time.localtime(time.time() - ago))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.25, "0.2 s"), (59.6, "1 min"), (300, "5 min"), (301, "5 min 1 s"),
     (7380, "2 h 3 min"), (7205, "2 h"), (90061, "1 d 1 h")],
)  # fmt: skip
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_fresh(tmp_path: Path) -> None:
    walltime = WallTime(str(tmp_path), Clock())
    beat = aged(tmp_path / "beat", 20)
    assert fresh(str(beat), 60, walltime).ok
    stale = fresh(str(beat), 5, walltime)
    assert (stale.ok, stale.words) == (False, f"last changed 20 s ago, more than 5 s: {beat}")
    ahead = fresh(str(aged(beat, -7200)), 60, walltime)
    assert (ahead.ok, ahead.words) == (False, f"its time is 2 h in the future: {beat}")
    assert fresh(f"{beat}x", 5, walltime) == Verdict(False, f"there is no {beat}x")
    words = f"there is no {beat}*; it is one path, no pattern"
    assert fresh(f"{beat}*", 5, walltime) == Verdict(False, words)


def test_queue(tmp_path: Path) -> None:
    walltime = WallTime(str(tmp_path), Clock())
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to("/etc/passwd")
    aged(tmp_path / ".hidden.json", 9000)
    aged(tmp_path / "other", 9000)
    assert queue(str(tmp_path), ["*.json"], 300, None, walltime) == Verdict(True, "no file waits")
    aged(tmp_path / "a\nb.json", 720)
    for name in "cd":
        aged(tmp_path / f"{name}.json", 30)
    late = queue(str(tmp_path), ["*.json"], 300, 3, walltime)
    words = f"the oldest of 3 files has waited 12 min, more than 5 min: {tmp_path}/a\\nb.json"
    assert late == Verdict(False, words)
    assert queue(str(tmp_path), ["*"], None, 3, walltime) == Verdict(
        False, "4 files wait, more than 3"
    )
    with pytest.raises(UnknownState, match="there is no"):
        queue(str(tmp_path / "none"), ["*"], None, 3, walltime)


def test_what_is_remembered_of_files_with_times_ahead_does_not_grow(tmp_path: Path) -> None:
    """As those of a file server are whose clock is ahead; each that comes is the oldest in turn."""
    state, folder = tmp_path / "state", tmp_path / "queue"
    state.mkdir()
    folder.mkdir()
    walltime = WallTime(str(state), Clock(), remembers=True)
    for name in "abc":
        file = aged(folder / name, -7200)
        assert queue(str(folder), ["*"], 300, None, walltime).ok
        assert len(list(state.iterdir())) == 1
        file.unlink()


def test_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 2.5, 0.0))
    assert load(2.5) == Verdict(True, "load 2.50 over 5 min")
    assert load(2.0) == Verdict(False, "load 2.50 over 5 min, more than 2")
    found = SimpleNamespace(total=400 * 2**20, available=100 * 2**20, free=100 * 2**20)
    for swap, name in ((False, "virtual_memory"), (True, "swap_memory")):
        monkeypatch.setattr(psutil, name, lambda: found)
        assert memory(swap, ("%", 25.0), 75.0) == Verdict(True, "25% free (100 MiB of 400 MiB)")
        assert not memory(swap, ("B", 101 * 2.0**20), None).ok
        assert memory(swap, None, 74.0).words.endswith(": more than 74% used")
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=0, free=0))
    assert memory(True, ("%", 90.0), None) == Verdict(True, "no swap")
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: 97.0)
    assert cpu(97.0).ok
    assert cpu(90.0) == Verdict(False, "97% of the processors used, over 90%")


def test_disk(tmp_path: Path) -> None:
    well = disk(str(tmp_path), ("B", 1.0), 99.999)
    assert well.ok
    assert "% free (" in well.words
    full = disk(str(tmp_path), ("%", 99.999), None)
    assert not full.ok
    assert "less than 99.999%" in full.words
    assert "less than 1024 TiB" in disk(str(tmp_path), ("B", 2.0**50), None).words
    assert "more than 0.001% used" in disk("/", None, 0.001).words


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%dT%H:%M:%S", "[%Y-%m-%d %H:%M:%S]", "%Y-%m-%d %H:%M:%S,123", "%b %d %H:%M:%S host x:",
     "<14>%b %d %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "INFO %Y-%m-%d %H:%M:%S"],
)  # fmt: skip
def test_times_that_are_understood(form: str) -> None:
    now = time.time()
    found = time_of(f"{time.strftime(form, time.localtime(now))} text".encode())
    assert found is not None
    assert abs(found - now) <= 1


def test_times_with_a_zone() -> None:
    assert time_of(b"2026-11-22T20:30:54Z x") == time_of(b"2026-11-22T21:30:54+01:00 x")
    assert time_of(b"1970-01-02 00:00:00.5 +0000 x") == 86400.5
    for silent in (b"", b"  at line 3", b"2026-13-40T20:30:54", b"12:30:11", b"x" * 60 + b"1999"):
        assert time_of(silent) is None


def test_log_counts_what_is_of_late(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        f"{stamp(time.time() - 900)} ERROR [1] long ago\n  ERROR of it\n"
        f"{at(300, '%Y-%m-%d %H:%M:%S')} INFO x\n"
        f"{at(200, '%b %d %H:%M:%S')} it is an ERROR\n Traceback\n ERROR: of that one\n"
        f"{stamp()} INFO done\n"
    )
    found = log(str(path), "ERROR", 0, 600)
    words = "2 lines match 'ERROR' within 10 min, more than 0; last: ERROR: of that one"
    assert found == Verdict(False, words)
    assert log(str(path), "ERROR", 2, 600).ok
    assert log(str(path), "ERROR", 0, 100) == Verdict(
        True, "no line matches 'ERROR' within 1 min 40 s"
    )
    assert log(str(path), "ERROR", 3, 1000).words.startswith("4 lines match")


def test_log_without_times(tmp_path: Path) -> None:
    path = aged(tmp_path / "log", 60, "bad\nbad\ngood")
    assert log(str(path), "^bad$", 0, 600).words.startswith("2 lines match")
    assert log(str(path), "^bad$", 0, 30).ok
    aged(path, 60, "bad\r\ngood\r\nbad\r\n")
    assert log(str(path), "^bad$", 0, 600).words.startswith("2 lines match")


@pytest.mark.parametrize("packed", [False, True])
def test_log_that_was_rotated(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "log"
    older = f"{stamp(time.time() - 900)} bad\n{stamp(time.time() - 60)} bad\n"
    if packed:
        (tmp_path / "log.1.gz").write_bytes(gzip.compress(older.encode()))
    else:
        (tmp_path / "log.1").write_text(older)
    # The writer makes the new one only when it has something to say.
    assert log(str(path), "bad", 0, 600).words.startswith("1 line matches")
    path.write_text(f"{stamp()} bad\n")
    assert log(str(path), "bad", 0, 600).words.startswith("2 lines match")


def test_log_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert log(str(path), "x", 0, 60) == Verdict(False, f"there is no {path}")
    os.mkfifo(path)
    with pytest.raises(UnknownState, match="a FIFO, not a file"):
        log(str(path), "x", 0, 60)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(UnknownState, match="a symlink"):
        log(str(path), "x", 0, 60)


def test_log_is_read_from_its_end_and_with_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    line = f"{stamp()} bad \N{SNOWMAN}\n"
    path.write_text(line * 1000)
    monkeypatch.setattr("reconciler.host.probe_log._BLOCK", 100)
    assert log(str(path), "bad \N{SNOWMAN}$", 0, 60).words.startswith("1,000 lines match")
    monkeypatch.setattr("reconciler.host.probe_log._MOST", 10 * len(line.encode()) - 1)
    assert log(str(path), "bad", 0, 60).words.startswith("9 lines match 'bad' within 1 min (only")


def test_a_log_of_one_endless_line_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open(path, "wb") as file:
        file.truncate(48 * 2**20)
    tracemalloc.start()
    try:
        found = log(str(path), "x", 0, 60)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.ok
    assert most < 16 * 2**20


@pytest.fixture
def server() -> Iterator[int]:
    with answering() as made:
        yield made


def test_tcp_and_http(server: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert tcp(("127.0.0.1", port), 5) == Verdict(False, "connection refused")
        refused = http(f"http://127.0.0.1:{port}/token", (200,), 5)
        assert refused == Verdict(False, "connection refused")
    assert tcp(("localhost", server), 5).ok
    url = f"http://127.0.0.1:{server}"
    assert http(f"{url}/204", (200, 204), 5).ok
    assert http(f"{url}/503", (200, 204), 5) == Verdict(False, "answered 503, not 200 or 204")
    moved = http(f"{url}/302", (200,), 5)
    assert (moved.ok, "points elsewhere" in moved.words) == (False, True)
    assert http(f"http://a:b@127.0.0.1:{server}/secret?token=canary", (200,), 5).ok
    assert http(f"https://127.0.0.1:{server}/", (200,), 5).words.startswith("no TLS: ")


def test_what_a_body_says_and_which_headers_are_sent(server: int) -> None:
    url = f"http://127.0.0.1:{server}/200/echo"
    assert http(url, (200,), 5, match="^status: well$").ok
    sent = {"user-agent": "mine", "X-Token": "canary"}
    assert http(url, (200,), 5, match=r"(?i)^user-agent: mine\r?$", headers=sent).ok
    assert not http(url, (200,), 5, match="(?i)^user-agent: reconcile", headers=sent).ok
    wrong = http(url, (200,), 5, match="canary$|^ill", headers={"X-Token": "x"})
    assert wrong == Verdict(
        False, "answered 200, but its body does not match 'canary$|^ill'; it begins: status: well"
    )
    assert http(f"{url[:-9]}/204", (204,), 5, match="x").words.endswith("; it is empty")
    # The words show no header, also where a body does.
    shown = http(url, (200,), 5, match="no", headers={"X": "status: well"})
    assert "status: well" not in shown.words


def test_a_unix_socket_with_and_without_tls(tmp_path: Path, free: None) -> None:
    both, alone = certificate_of("box.example", tmp_path)
    missing = f"no such file or directory: {tmp_path}/none"
    assert tcp(f"{tmp_path}/none", 5) == Verdict(False, missing)
    assert http("http://x/200", (200,), 5, unix=f"{tmp_path}/none") == Verdict(False, missing)
    assert tcp(str(alone), 5) == Verdict(False, f"connection refused: {alone}")
    with answering_at(tmp_path / "plain") as plain:
        assert tcp(plain, 5).ok
        found = http("http://box/200/echo", (200,), 5, unix=plain, match="^Host: box\r?$")
        assert found == Verdict(True, "answered 200")
    assert not tcp(plain, 5).ok  # Nobody listens at what was left.
    with answering_at(tmp_path / "tls", both) as secure:
        ask = partial(http, "https://box.example/200", (200,), 5, unix=secure)
        assert ask(ca_file=str(alone)).ok
        assert ask().words.startswith("its certificate is not valid: self")
        other = http("https://else/200", (200,), 5, unix=secure, ca_file=str(alone))
        assert "not valid for 'else'" in other.words
        assert ask(ca_file=str(tmp_path / "key.pem")).words.startswith("the ca_file /")
        assert ask(ca_file="/none").words == "the ca_file /none: no such file or directory"


def test_results_of_an_executor(tmp_path: Path) -> None:
    folder = tmp_path / "ai_commands/completed"
    with pytest.raises(UnknownState, match=r"there is no .*/completed"):
        results(str(tmp_path), 0, 60)
    folder.mkdir(parents=True)
    assert results(str(tmp_path), 0, 60) == Verdict(True, "no command failed within 1 min")
    aged(folder / "well.json", 5, '{"status": "succeeded"}')
    aged(folder / "long_ago.json", 90, '{"status": "failed"}')
    aged(folder / ".new.json", 5, "{")
    aged(folder / "note.txt", 5, "{")
    assert results(str(tmp_path), 0, 60).ok
    # What a command prints may be anything.
    odd = '{"status": "failed", "output_tail": "\\"status\\": \\"succeeded\\""}'
    aged(folder / "odd.json", 20, odd)
    aged(folder / "torn.json", 10, '{"sta')
    aged(folder / "list.json", 15, "[]")
    wrong = results(str(tmp_path), 2, 60)
    assert wrong == Verdict(False, "3 commands failed within 1 min, more than 2; last: torn")
    assert results(str(tmp_path), 3, 60).ok
    (folder / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo.json")
    assert results(str(tmp_path), 3, 60).ok


def test_commands_of_an_executor_are_counted_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walltime, folder = WallTime(str(tmp_path), Clock()), tmp_path / "ai_commands/completed"
    unknown = {"oldest": None, "now": [], "last": [], **dict.fromkeys(
        ("pending", "running", "completed", "failed"))}  # fmt: skip
    assert commands(str(tmp_path), walltime) == unknown
    folder.mkdir(parents=True)
    now = time.time()
    for number in range(9):
        path = aged(folder / f"{number}.json", 0, '{"status": "failed", "exit_code": 1}')
        os.utime(path, (now - number,) * 2)
    (folder / "0.json").write_text('{"status": [1], "exit_code": 1e400}')
    os.mkfifo(folder / "fifo.json")
    found = commands(str(tmp_path), walltime)
    assert found["completed"] == 9
    assert [(ident, *how) for ident, _, *how in found["last"]] == [
        ("0", "[1]", None), *((str(number), "failed", 1) for number in range(1, 5)),
    ]  # fmt: skip
    monkeypatch.setattr(probe_own, "MOST_COMMANDS", 3)
    assert commands(str(tmp_path), walltime)["completed"] == 3
    # There are more than were looked at, also where those were of another sort.
    for number in range(9):
        (folder / f"{number}.json").rename(folder / f"{number}.json.reason")
    assert commands(str(tmp_path), walltime)["completed"] == 3


def test_the_room_of_our_own_state(tmp_path: Path) -> None:
    (tmp_path / "one/two").mkdir(parents=True)
    (tmp_path / "one/two/file").write_bytes(b"x" * 2**20)
    (tmp_path / "elsewhere").symlink_to("/usr")
    with (tmp_path / "hollow").open("wb") as file:
        file.truncate(2**30)
    found = state(str(tmp_path), 2 * 2**20)
    assert found == Verdict(True, f"1.0 MiB of state in {tmp_path}")
    full = state(str(tmp_path), 2**19)
    assert full == Verdict(False, f"1.0 MiB of state in {tmp_path}, more than 512 KiB")


WATCHED = ("TMUX_TMPDIR", "HOME", "PATH")
UNIT = {"what": "unit r.service", "sort": "unit", "works": True, "at_boot": True}
LINE = {"what": "a line in the crontab of me (@reboot)", "sort": "cron", "works": True,
        "at_boot": True}  # fmt: skip
HOOK = {"what": "/home/me/.bashrc", "sort": "login", "works": True, "at_boot": False}
OFF = {"works": False, "why": "it is not enabled"}
IDLE = {"cron_runs": False, "cron_installed": True}


@pytest.mark.parametrize(
    ("runners", "more", "ok", "words"),
    [
        ([UNIT, LINE], {}, True, "brought back after a reboot by unit r.service, a line in the"),
        ([LINE], {}, True, "brought back after a reboot by a line in the crontab of me (@reboot)"),
        # The unit alone is enough, and a unit that does not work is never meant.
        ([UNIT, LINE], IDLE, True, "brought back after a reboot by unit r.service"),
        ([UNIT | OFF, LINE], {}, False, "unit r.service: it is not enabled"),
        ([LINE], IDLE, False, "nothing brings it back after a reboot; no cron daemon runs; fix it "
         "with: systemctl enable --now cron"),
        ([LINE], {"cron_enabled": False}, False, "would not start at boot; fix it with: systemctl"),
        ([UNIT, HOOK], {}, True, "by unit r.service"),
        ([HOOK], {}, False, "/home/me/.bashrc starts it at the next login only"),
        ([], {}, False, "nothing brings it back after a reboot"),
        ([UNIT, LINE | {"state_dir": "/other"}], {}, False,
         "a line in the crontab of me (@reboot) would keep its state in /other"),
    ],
)  # fmt: skip
def test_what_a_reboot_would_bring(
    runners: list[dict[str, Any]],
    more: dict[str, Any],
    ok: bool,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    around = {"state_dir": "/var/lib/reconcile", "environ": dict.fromkeys(WATCHED, "")}
    found = {"runners": [{**around, **one} for one in runners], "unseen": [], "systemd": True,
             "cron_runs": True, "cron_enabled": True, "here": around, **more}  # fmt: skip
    monkeypatch.setattr("reconciler.host.persistence.look", lambda *asked: found)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    said = persistence(Host("demo", "/var/lib/reconcile/demo"), "/var/lib/reconcile")
    assert (said.ok, words in said.words) == (ok, True), said.words


@pytest.mark.parametrize(
    ("argv", "expect", "ok", "words"),
    [
        (
            ("sh", "-c", "echo all; echo well"),
            "^wel$",
            False,
            "does not match '^wel$'; last: well",
        ),
        (("sh", "-c", "echo all; echo well"), "^well$", True, "exit status 0: well"),
        (("sh", "-c", "echo no $KEY >&2; exit 3"), None, False, "exit status 3: no ***"),
        (("sh", "-c", "kill -9 $$"), None, False, "ended by signal 9"),
        # Who is left behind and holds the pipe is not waited for.
        (("sh", "-c", "sleep 5 & yes | head -c 3000000"), "y", True, "exit status 0: y"),
        (("sh", "-c", "echo $KEY"), "canary", True, "exit status 0: ***"),
        (("pwd",), "^/proc$", True, "exit status 0: /proc"),
    ],
)
def test_command(
    argv: tuple[str, ...], expect: str | None, ok: bool, words: str, free: None
) -> None:
    with within(4):
        secret = (("KEY", Secret.of("canary")),)
        found = command(argv, expect, "/proc", secret, Users().account(None))
    assert found.ok is ok
    assert found.words.endswith(words)


def test_what_takes_too_long_and_what_cannot_be_known() -> None:
    late = bounded(lambda: Verdict(True, str(time.sleep(10))), 0.05)
    assert late == Verdict(False, "no answer within 0.1 s")

    def unknown() -> Verdict:
        raise UnknownState("who knows")

    assert bounded(unknown, 5) == Verdict(False, "cannot be known: who knows")
