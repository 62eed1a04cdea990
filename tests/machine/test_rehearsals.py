"""What ``--plan --at`` and ``--plan --if`` say is what becomes of it, on a real host."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from looping import Looping
from receiver import Receiver
from support import Machine, allowed, late, until

from reconciler.cli.main import main
from reconciler.host.clock import Clock
from reconciler.state.store import Store

LIBRARY = next(map(str, Path("/usr").glob("lib*/**/faketime/libfaketime.so.1")), None)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.down()


def rehearse(machine: Machine, spec: Path, *options: str) -> dict[str, Any]:
    done = machine.reconcile("--plan", spec, "--json", *options)
    assert done.returncode in (0, 1), done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def every_file(folder: Path) -> dict[str, tuple[float, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.skipif(LIBRARY is None, reason="needs libfaketime: apt-get install faketime")
@pytest.mark.parametrize("days", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_the_plan_of_then_is_that_of_a_clock_that_is_set_ahead(machine: Machine, days: int) -> None:
    logs = machine.base / "logs"
    logs.mkdir()
    for name, age in (("new", 0.0), ("older", 2.5), ("old", 30.0)):
        (logs / name).write_text(name)
        at = time.time() - age * 86400
        os.utime(logs / name, (at, at))
    (machine.base / "daily.log").write_text("lines\n")
    spec = machine.spec(
        f"retention:\n"
        f"  aged: {{path: {logs}, older_than: 5d, action: delete}}\n"
        f"  month: {{path: {machine.base}, match: daily.log, action: rotate, every: month}}\n"
        "cron: {c: {schedule: '30 3 1 * *', command: [/bin/true]}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}, e: {{path: {machine.base}/e}}}}\n"
        "checks: {k: {command: 'false', every: 1h}}\n"
        "processes: {w: {command: 'false', restart: {attempts: 1, retry_every: 1h}}}\n"
    )
    machine.once(spec, "--only", "check:k", "--only", "process:w", status=1)
    machine.reconcile("--pause", "directory:d", "--for", "36h", spec)
    machine.reconcile("--pause", "directory:e", "--for", "50d", spec)
    before = every_file(machine.state)
    found = rehearse(machine, spec, "--at", f"+{days}d")
    assert every_file(machine.state) == before
    turned = machine.reconcile(
        "--plan", spec, "--json",
        environ={
            "LD_PRELOAD": LIBRARY or "", "FAKETIME": f"+{days}d", "NO_FAKE_STAT": "1",
            "FAKETIME_NO_CACHE": "1",
        },
    )  # fmt: skip
    then = json.loads(turned.stdout)
    # A cron daemon of this machine may begin or end between the two.
    for one in (found, then):
        one["notes"] = [
            note for note in one["notes"] if "no cron daemon runs" not in note["reason"]
        ]
    assert abs(found.pop("at") - time.time() - days * 86400) < 600
    assert found.pop("messages") == []
    assert found == then
    assert found != rehearse(machine, spec)
    steps = {one["id"]: one["why"] for one in found["steps"]}
    assert ("2 files" if days == 3 else "3 files") in steps["retention:aged"]
    assert "process:w" in steps and "directory:d" in steps and "directory:e" not in steps


def test_a_report_is_due_when_its_period_has_ended(machine: Machine) -> None:
    url = machine.base / "url"
    url.write_text("json://localhost:9/x\n")
    url.chmod(0o600)

    def told(*options: str, more: str = "") -> list[tuple[str, str]]:
        spec = machine.spec(
            f"notify: {{report_every: [1d, 7d], targets: {{ops: {{url_file: {url}, on: [report]}}, "
            f"other: {{url_file: {url}, on: [failed]}}}}{more}}}\n"
            f"directories: {{d: {{path: {machine.base}}}}}\n"
        )
        found = rehearse(machine, spec, *options)["messages"]
        return [(one["what"], one["words"]) for one in found]

    assert told("--at", "+30d") == []  # Nobody knows from when on.
    state = machine.state / "demo"
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    Store(str(state), Clock(), True).reports.made([86400.0, 7 * 86400.0], {})
    assert told("--at", "+23h") == []
    daily = "told ops: the report of 1 d, which is due then"
    assert told("--at", "+25h") == [("told", daily)]
    assert len(told("--at", "+8d")) == 2
    at = time.strftime("%Y-%m-%d 03:00", time.localtime(time.time() + 2 * 86400))
    ((what, words),) = told("--at", at, more=", quiet: '22:00-06:00'")
    assert what == "held" and "until 06:00" in words and "report of 1 d" in words


def test_a_worker_that_is_killed_fares_as_rehearsed(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    """Its starts, and what people are told, up to the end of all attempts and back."""
    good, births, url = (machine.base / name for name in ("good", "births", "url"))
    url.write_text(f"json://{receiver.where}/x\n")
    url.chmod(0o600)
    good.touch()
    command = (
        f"date +%s.%N >> {births}; test -e {good} && exec sleep {machine.mark}; sleep 0.1; exit 3"
    )
    spec = machine.spec(
        f"notify: {{targets: {{ops: {{url_file: {url}, on: [failed, gave_up, recovered]}}}}}}\n"
        f"processes: {{p: {{command: '{command}', restart: {{attempts: 4, backoff: {{initial: "
        f"500ms, factor: 2}}, healthy_after: 1500ms, retry_every: {allowed(8.0):.0f}s}}}}}}\n"
    )
    loop: Looping = looping(spec).up()
    worker = machine.only(machine.mark)
    loop.rest()
    # The loop has started it, which then has ended and failed four times, and is well again.
    said = rehearse(machine, spec, "--if", "process:p dies 5 times")["timeline"]
    births.write_text("")
    good.unlink()
    begun = time.time()
    os.kill(worker, 9)
    # Of the loop itself: the message may take longer on a loaded machine than the next try.
    until(lambda: "gave up after" in loop.output.read_text())
    good.touch()
    until(lambda: any("gave up" in one["message"] for _, one in receiver.got))
    until(lambda: any("recovered" in one["message"] for _, one in receiver.got))
    real = [float(line) - begun for line in births.read_text().split()]
    rehearsed = [one["after"] for one in said if one["what"] == "start"]
    assert len(real) == len(rehearsed) == 5, (real, rehearsed)
    before = 0.0
    for one, other in zip(real, rehearsed, strict=True):
        # Each pause is counted from the start before it, which has come late itself.
        assert other - 0.1 <= one and not late(one - other - before, 2.0), (real, rehearsed)
        before = max(before, one - other)
    told = [one["words"] for one in said if one["what"] == "told"]
    heard = [one["message"] for _, one in receiver.got]
    assert len(told) == len(heard) == 4, (told, heard)
    for words, message in zip(told, heard, strict=True):
        status = message.split("\n")[0].removeprefix("Status: ")
        assert words.startswith(f"told ops: {status}"), (told, heard)
    assert "gave up after 4 failed starts" in told[2]


def test_a_check_that_fails_fares_as_rehearsed(
    machine: Machine, looping: Any, receiver: Receiver
) -> None:
    good, births, asks, url = (machine.base / i for i in ("good", "births", "asks", "url"))
    url.write_text(f"json://{receiver.where}/x\n")
    url.chmod(0o600)
    good.touch()
    asked = f"test -e {good} || {{ date +%s.%N >> {asks}; exit 1; }}"
    command = f"date +%s.%N >> {births}; exec sleep {machine.mark}"
    spec = machine.spec(
        f"notify: {{targets: {{ops: {{url_file: {url}, on: [failed, recovered]}}}}}}\n"
        f"processes: {{p: {{command: '{command}'}}}}\n"
        f"checks: {{c: {{command: '{asked}', every: 1s, failures: 3, timeout: 1s, "
        "on_failure: ['restart process:p']}}\n"
    )
    loop: Looping = looping(spec).up()
    machine.only(machine.mark)
    loop.rest(60.0)
    said = rehearse(machine, spec, "--if", "check:c fails")["timeline"]
    births.write_text("")
    good.unlink()
    begun = time.time()
    until(lambda: births.read_text())
    good.touch()
    until(lambda: any("recovered" in one["message"] for _, one in receiver.got))
    (restarted,) = (one["after"] for one in said if one["what"] == "restart")
    # When it is asked next is another moment by now.
    real = float(births.read_text().split()[0]) - begun
    assert 1.99 <= restarted <= 3.1, restarted
    failed = [at for at in asks.read_text().split() if float(at) <= begun + real]
    assert len(failed) >= 3, (failed, begun, real)
    assert not late(real - restarted, 3.0), (restarted, real)
    told = [one["words"] for one in said if one["what"] == "told"]
    heard = [one["message"].split("\n")[0] for _, one in receiver.got]
    # The one goes on with "it fails", the other with which status the command has ended.
    assert [one.split(";")[0].split(": it ")[0] for one in told] == [
        one.split(": exit ")[0].replace("Status", "told ops") for one in heard
    ], (told, heard)


def test_it_writes_nothing_and_acts_on_nothing(machine: Machine) -> None:
    spec = machine.spec(
        f"processes: {{w: {{command: [sleep, '{machine.mark}']}}}}\n"
        f"checks: {{k: {{command: 'touch {machine.base}/asked', on_failure: "
        f"['restart process:w', 'run touch {machine.base}/run']}}}}\n"
        "sessions: {s: {}}\n"
    )
    before = every_file(machine.base)
    with_trace = machine.traced(
        "execve,openat,unlink,rename,kill,mkdir",
        *machine.argv("--plan", spec, "--if", "check:k fails for 1h"),
    )
    lines = [line for line in with_trace.splitlines() if " = -1 " not in line]
    writes = [one for one in lines if "O_WRONLY" in one or "O_RDWR" in one or "O_CREAT" in one]
    writes = [one for one in writes if "/dev/" not in one and "/proc/" not in one]
    assert not writes, writes
    for event in ("process:w dies 12 times", "session:s dies 2 times", "check:k fails"):
        rehearse(machine, spec, "--if", event, "--at", "+3d")
    rehearse(machine, spec, "--at", "+3d")
    after = every_file(machine.base)
    after.pop(str(machine.base / "trace"))
    assert after == before
    assert not machine.running(machine.mark)


REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("--if", "process:v dies"), "matches no resource of"),
    (("--if", "process:v dies"), "did you mean 'process:w'?"),
    (("--if", "check:k dies"), "a check fails; write --if 'check:k fails for 10m'"),
    (("--if", "process:w fails"), "a process dies; write --if 'process:w dies'"),
    (("--if", "directory:d dies"), "neither runs nor is asked"),
    (("--if", "process:off dies"), "it is switched off here, when: "),
    (("--if", "process:gone dies"), "it is declared absent"),
    (("--if", "unit:u.service dies"), "nothing is declared of whether it runs"),
    (("--if", "process:w dies", "--only", "directory:d"), "is not among what --only names"),
    (("--if", "process:w dies", "--only", "none"), "matches no resource"),
    (("--if", "process:w dies", "--out", "x"), "leave out --if"),
    (("--at", "+3d", "--out", "x"), "leave out --at"),
    (("--at", "+3d", "--sign", "x"), "give both"),
    (("--at", "2020-01-01 00:00"), "is past"),
    (("--at", "+3d", "--hosts", "x"), "--at is for one host, not for --hosts"),
)


def test_what_cannot_be_rehearsed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    spec = machine.spec(
        "processes: {w: {command: [sleep, '9']}, off: {command: [sleep, '9'], when: 'false'},\n"
        "  gone: {command: [sleep, '9'], state: absent}}\n"
        f"directories: {{d: {{path: {machine.base}/d}}}}\n"
        'units: {u.service: {content: "[Service]\\nExecStart=/bin/true\\n"}}\n'
        "checks: {k: {command: 'true'}}\n"
    )
    for options, words in REFUSED:
        status = main(["--plan", str(spec), "--state-dir", str(machine.state), *options])
        said = capsys.readouterr().err
        assert (status, words in said) == (64, True), (options, said)
    assert not Path("x").exists() and not machine.state.exists()
    assert main(["--once", str(spec), "--at", "+3d"]) == 64
    assert "--at is for --plan, not for --once" in capsys.readouterr().err
