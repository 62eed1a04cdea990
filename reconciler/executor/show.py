"""Results, logs and the status as text for people.
Must not let anything that a command printed steer the terminal.
"""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Callable

from reconciler.executor import files
from reconciler.executor.text import shown


def result_text(found: dict[str, object]) -> str:
    """A few lines about one result, with the end of its output."""
    lines = [f"{shown(found.get('id'))}: {shown(found.get('status'))}"]
    for key in ("exit_code", "signal", "reason", "start", "end", "seconds", "log_path", "file"):
        if found.get(key) is not None:
            lines.append(f"  {key.replace('_', ' ')}: {shown(found[key])}")
    tail = found.get("output_tail")
    if isinstance(tail, str) and tail:
        lines.append("  output, its end:")
        lines.extend(f"    {shown(line, keep=chr(9))}" for line in tail.rstrip("\n").split("\n"))
    return "\n".join(lines) + "\n"


def status_text(found: dict[str, object]) -> str:
    def count(key: str) -> str:
        return "?" if found[key] is None else str(found[key])

    lines = [
        shown(found["summary"]),
        f"  home: {shown(found['home'])}",
        "  " + ", ".join(f"{key} {count(key)}" for key in _COUNTED),
    ]
    if found.get("command"):
        lines.append(f"  command: {shown(found['command'])} since {shown(found['command_since'])}")
    if found.get("oldest_pending"):
        lines.append(
            f"  oldest pending: {shown(found['oldest_pending'])}, "
            f"waiting for {shown(found['oldest_pending_age'])} s"
        )
    return "\n".join(lines) + "\n"


_COUNTED = ("pending", "running", "completed", "failed")


def copy_log(path: str, is_done: Callable[[], bool]) -> None:
    """Print a log until its end, and after that what comes until `is_done`.

    Byte for byte, except to a terminal: there control characters are shown, not sent.
    """
    if sys.stdout is None:
        return
    to_terminal = sys.stdout.isatty()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    fd = files.open_regular(path)
    try:
        while True:
            last = is_done()  # asked before reading: what came until then is still printed
            while data := os.read(fd, 65536):
                if to_terminal:
                    text = decoder.decode(data).replace("\r\n", "\n")
                    sys.stdout.write(shown(text, keep="\n\t"))
                else:
                    sys.stdout.buffer.write(data)
            sys.stdout.flush()
            if last:
                return
            time.sleep(0.1)
    finally:
        os.close(fd)
