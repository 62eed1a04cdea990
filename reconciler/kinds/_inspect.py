"""With which command a person looks into what a check is about. Pure."""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit

from reconciler.kinds._check import Check


def inspect(want: Check) -> str | None:
    """A line for the shell that shows more than the check says. It changes nothing by itself."""
    quote = shlex.quote
    if want.command is not None:
        words = want.command
        return words[2] if words[:2] == ("sh", "-c") else shlex.join(words)
    if want.fresh is not None:
        return f"ls -ld --full-time {quote(want.fresh.path)}"
    if want.log is not None:
        return f"grep -nP {quote(want.log.match)} {quote(want.log.path)} | tail -n 20"
    if want.queue is not None:
        return f"ls -ltr {quote(want.queue.path)} | head -n 20"
    if want.disk is not None:
        return f"du -xh {quote(want.disk.path)} | sort -h | tail -n 20"
    port = want.tcp[1] if want.tcp is not None else None
    if want.http is not None:
        # The rest of a URL may hold a secret.
        parts = urlsplit(want.http[0])
        port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"ss -ltnp 'sport = :{port}'" if port is not None else None
