"""What a single pass beside a watchdog says of what the watchdog has done for it."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.cli.commands import beside
from reconciler.core.model import Plan, Remark, Step
from reconciler.state import heartbeat


@pytest.mark.parametrize("as_json", [False, True])
def test_what_waits_after_the_pass_was_not_done(
    as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog has tried it, and gave up: no step is left of it."""
    wanted = Plan("demo", "/x", "here", 1, (Step("process:p", "start", (), (), "not running", ()),))
    held = Remark("process:p", "not running; gave up after 1 failed start")
    plans = [wanted, Plan("demo", "/x", "here", 1, held=(held,))]
    said: list[tuple[str, str]] = []
    documents: list[dict[str, Any]] = []
    context: Any = SimpleNamespace(
        options=Namespace(
            take_over=False, json=as_json, set=[], set_file=[], detailed_exitcode=False
        ),
        answer=None,
        host=lambda spec: SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 0.0)),
        look=lambda spec, host: SimpleNamespace(
            plan=plans.pop(0), spec=SimpleNamespace(resources=()), seen={}
        ),
        folder=lambda spec: "",
        about=lambda spec: {},
        say=lambda *lines: said.extend(lines),
        print_json=documents.append,
    )
    monkeypatch.setattr(heartbeat, "ask", lambda *words: True)
    spec: Any = SimpleNamespace(name="demo")
    taken: Any = SimpleNamespace(loop=7, pid=7)
    assert beside.run(context, spec, taken) == 1
    text = "\n".join(line for line, _ in said)
    assert "  failed start process:p: not running" in text and "gave up after" in text
    assert "  done" not in text
    for document in documents:
        assert [one["result"] for one in document["steps"]] == ["failed"]
        assert document["skipped"] == [{"id": "process:p", "reason": held.reason}]
    assert len(documents) == as_json
