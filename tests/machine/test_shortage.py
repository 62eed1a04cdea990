"""A loop that runs short of something that every other program takes for granted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import Machine, until


def test_it_paces_what_dies_when_nothing_can_be_remembered(
    machine: Machine, looping: Any, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    command = f"echo x >> {starts}; sleep 0.1; exit 1"
    spec = machine.spec(f'processes: {{bad: {{command: [sh, -c, "{command}"]}}}}')
    store = machine.state / "demo" / "store.db"
    store.mkdir(parents=True)  # Whoever opens it is told that this cannot be.
    store.parent.chmod(0o700)
    loop = looping(spec).up()
    # The first goes free; then pauses of 1 s, 2 s and 4 s.
    until(lambda: starts.read_text().count("x") >= 4, 20)
    begun = [event["time"] for event in loop.events() if event["event"] == "step"]
    assert begun[-1] - begun[0] > 2.5
