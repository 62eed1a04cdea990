"""With which command a person looks into what a check is about. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from reconciler.base.errors import Remedy
from reconciler.host.remedy import in_words, piped, remedy
from reconciler.kinds.check.resource import Check


def inspect(want: Check) -> Remedy | None:
    """A line for the shell that shows more than the check says. It changes nothing by itself."""
    if want.command is not None:
        return in_words(want.command)
    if want.fresh is not None:
        return remedy("ls", "-ld", "--full-time", want.fresh.path)
    last = ("tail", "-n", "20")
    if want.log is not None:
        return piped(("grep", "-nP", "-e", want.log.match, want.log.path), last)
    if want.queue is not None:
        return piped(("ls", "-ltr", want.queue.path), ("head", "-n", "20"))
    if want.disk is not None:
        return piped(("du", "-xh", want.disk.path), ("sort", "-h"), last)
    port = want.tcp[1] if want.tcp is not None else None
    if want.http is not None:
        # The rest of a URL may hold a secret.
        parts = urlsplit(want.http[0])
        port = parts.port or (443 if parts.scheme == "https" else 80)
    return remedy("ss", "-ltnp", f"sport = :{port}") if port is not None else None
