"""kill -9 at every system call that changes something while units are installed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from machine.conftest import booted
from machine.disposable import SYSTEMD, DisposableHost

pytestmark = pytest.mark.root
ETC = "/etc/systemd/system"
# What changes a unit's file, and each start of a program: what systemctl does comes after it.
CALLS = "fchmod,fchown,mkdirat,renameat,renameat2,unlinkat,linkat,vfork,clone,clone3"
TEXT = "[Service]\nExecStart=/bin/sleep 100{}\n[Install]\nWantedBy=multi-user.target\n"


@pytest.fixture(scope="module")
def booted_host() -> Iterator[DisposableHost]:
    yield from booted(DisposableHost, SYSTEMD)


@pytest.mark.parametrize("every", [24, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_change(free: None, booted_host: DisposableHost, every: int) -> None:
    host = booted_host
    if host.run("sh", "-c", "command -v strace", check=False).returncode:
        pytest.skip("needs strace")

    def spec(word: int) -> str:
        on = {"content": TEXT.format(word), "enabled": True, "active": True}
        drop = {"unit": "one.service", "drop_in": "x", "content": f"[Unit]\nDescription={word}\n"}
        document = {"version": 1, "name": "demo", "units": {"one.service": on, "drop": drop}}
        host.write(f"/srv/{word}.yaml", json.dumps(document))
        return f"/srv/{word}.yaml"

    def traced(path: str, *options: str) -> tuple[int, str]:
        done = host.run(
            "strace", "-qq", "-e", f"trace={CALLS}", *options, "-o", "/srv/trace",
            host.bin / "reconcile", "--once", "--take-over", path, check=False,
        )  # fmt: skip
        return done.returncode, host.read("/srv/trace")

    paths = [spec(word) for word in (0, 1)]
    host.run(host.bin / "reconcile", "--once", paths[0])
    status, trace = traced(paths[1])
    assert status == 0
    names = [match[1] for line in trace.splitlines() if (match := re.match(r"(\w+)\(", line))]
    places = [(name, names[: at + 1].count(name)) for at, name in enumerate(names)]
    # Programs that only look are run between the others; some of them show nearly all.
    starts = [place for place in places if place[0] in ("vfork", "clone", "clone3")]
    assert ("renameat", 2) in places and len(starts) > 6
    calls = [place for place in places if place not in starts]
    places = calls[:: 1 if every == 1 else 5] + starts[::every]
    texts = {word: host.read(f"{ETC}/one.service") for word in [1]}
    killed = 0
    turn = 0
    for name, number in places:
        path = paths[turn]
        status, _ = traced(path, "-e", f"inject={name}:signal=KILL:when={number}")
        killed += status != 0
        # No torn file at any moment: it is the one or the other.
        now = host.read(f"{ETC}/one.service")
        assert now.replace("sleep 1000", "sleep 1001") == texts[1]
        done = host.run(
            "sh", "-ec",
            f"{host.bin}/reconcile --once --take-over {path} >&2; "
            f"{host.bin}/reconcile --plan {path} --detailed-exitcode >&2; ls -A {ETC} {ETC}/*.d; "
            "cat /proc/$(systemctl show --value -p MainPID one)/cmdline | tr '\\0' ' '; "
            "systemctl is-enabled one; systemctl show --value -p Description one",
        )  # fmt: skip
        assert f"sleep 100{turn} enabled\n{turn}" in done.stdout
        assert ".reconcile" not in done.stdout
        turn = 1 - turn
    # Only the first of these passes writes the compiled spec, in five calls.
    assert killed >= len(places) - 5
