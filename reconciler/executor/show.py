"""Results, logs and the status as text for people.
Must not let anything that a command printed steer the terminal.
"""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Callable, Iterator

from reconciler.base.text import escapes
from reconciler.executor import files
from reconciler.host.walk import closing


def result_text(found: dict[str, object]) -> str:
    """A few lines about one result, with the end of its output."""
    lines = [f"{escapes(found.get('id'))}: {escapes(found.get('status'))}"]
    for key in ("exit_code", "signal", "reason", "start", "end", "seconds", "log_path", "file"):
        if found.get(key) is not None:
            lines.append(f"  {key.replace('_', ' ')}: {escapes(found[key])}")
    tail = found.get("output_tail")
    if isinstance(tail, str) and tail:
        lines.append("  output, its end:")
        lines.extend(f"    {escapes(line, keep=chr(9))}" for line in tail.rstrip("\n").split("\n"))
    return "\n".join(lines) + "\n"


def status_text(found: dict[str, object]) -> str:
    def count(key: str) -> str:
        return "?" if found[key] is None else str(found[key])

    lines = [
        escapes(found["summary"]),
        f"  home: {escapes(found['home'])}",
        "  " + ", ".join(f"{key} {count(key)}" for key in _COUNTED),
    ]
    if found.get("trouble"):
        lines.append(f"  trouble: {escapes(found['trouble'])}")
    if found.get("command"):
        lines.append(
            f"  command: {escapes(found['command'])} since {escapes(found['command_since'])}"
        )
    if found.get("oldest_pending"):
        lines.append(
            f"  oldest pending: {escapes(found['oldest_pending'])}, "
            f"waiting for {escapes(found['oldest_pending_age'])} s"
        )
    kept = found.get("kept")
    if isinstance(kept, dict):
        lines.extend(_kept_lines(kept, found["home"]))
    return "\n".join(lines) + "\n"


def _kept_lines(kept: dict[str, object], home: object) -> Iterator[str]:
    """Who keeps the worker alive, and whether it is paused."""
    if "unknown" in kept:
        yield f"  kept alive: unknown, because {escapes(kept['unknown'])}"
        return
    watchdog = f"the watchdog (pid {kept['loop']})"
    if kept["loop"] is None:
        yield "  kept alive by: nobody; no watchdog is running"
    elif kept["loop_healthy"]:
        yield f"  kept alive by: {watchdog}"
    else:
        yield f"  kept alive by: nobody; {watchdog} hangs"
    if kept["home"] not in (None, home):
        yield f"  the worker of {escapes(kept['spec'])} has another home: {escapes(kept['home'])}"
    paused = kept["paused"]
    if isinstance(paused, dict):
        until = f" until {escapes(paused['until'])}" if paused["until"] else ""
        why = f": {escapes(paused['reason'])}" if paused["reason"] else ""
        yield f"  paused since {escapes(paused['since'])}{until} by {escapes(paused['by'])}{why}"
        yield f"  start it again with: {escapes(kept['again'])}"


_COUNTED = ("pending", "running", "completed", "failed")


def copy_log(path: str, is_done: Callable[[], bool]) -> None:
    """Print a log until its end, and after that what comes until `is_done`.

    Byte for byte, except to a terminal: there control characters are shown, not sent.
    """
    if sys.stdout is None:
        return
    printer = Printer()
    with closing(files.open_shown(path)) as fd:
        while True:
            last = is_done()  # asked before reading: what came until then is still printed
            while data := os.read(fd, 65536):
                printer.put(data)
            if last:
                return
            time.sleep(0.1)


class Printer:
    """Prints bytes as they are, but to a terminal without control characters."""

    def __init__(self) -> None:
        self._to_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def put(self, data: bytes) -> None:
        """Print some, at once."""
        if sys.stdout is None:
            return
        if self._to_terminal:
            text = self._decoder.decode(data).replace("\r\n", "\n")
            sys.stdout.write(escapes(text, keep="\n\t"))
        else:
            sys.stdout.buffer.write(data)
        sys.stdout.flush()
