"""Work in a child that is forked."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from reconciler.host.child import answer


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_what_is_said_to_the_loop_ends_no_child_of_it(free: None, number: signal.Signals) -> None:
    def work() -> bytes:
        os.kill(os.getpid(), number)
        # What it runs is ended by it as any other program.
        return str(subprocess.run(["sh", "-c", f"kill -{int(number)} $$"]).returncode).encode()

    assert answer(work, 20) == str(-number).encode()
