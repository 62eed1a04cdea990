"""Probes over the network: does somebody listen, and is the answer to a request right?

They must not show the URL, in which there may be secrets, nor follow where an answer points.
"""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from reconciler.base.text import printable
from reconciler.base.values import Verdict
from reconciler.host.walk import reason

_MOST_BODY = 2**20
_LONGEST = 300
_NONE: Mapping[str, str] = MappingProxyType({})


def tcp(where: tuple[str, int] | str, timeout: float) -> Verdict:
    """Does somebody take connections there: at a host and port, or at the path of a socket?"""
    try:
        (socket.create_connection(where, timeout) if isinstance(where, tuple) else
         _at_socket(where, timeout)).close()  # fmt: skip
    except OSError as error:
        return Verdict(False, _why(error))
    return Verdict(True, "somebody listens")


def _at_socket(path: str, timeout: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(timeout)
    try:
        made.connect(path)
    except OSError as error:
        made.close()
        raise type(error)(error.errno, f"{reason(error)}: {path}") from None
    return made


def http(
    url: str,
    right: Sequence[int],
    timeout: float,
    *,
    match: str | None = None,
    headers: Mapping[str, str] = _NONE,
    ca_file: str | None = None,
    unix: str | None = None,
) -> Verdict:
    """Is GET answered with one of the status codes that are ``right``, and with a body of which a
    line ``match``es?

    ``ca_file`` has the certificates that are believed; ``unix`` is the socket that is asked.
    """
    # No proxy: whoever starts us, shell, cron or systemd, it must be the same way.
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    from reconciler import __version__

    parts = urlsplit(url)
    sent = {"User-Agent": f"reconcile/{__version__}", "Accept": "*/*", "Connection": "close"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        sent["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    given = {name.lower() for name in headers}
    sent = {name: value for name, value in sent.items() if name.lower() not in given}
    query = f"?{parts.query}" if parts.query else ""
    body = b""
    context = None
    if parts.scheme == "https":
        from ssl import create_default_context

        try:
            context = create_default_context(cafile=ca_file)
        except OSError as error:
            return Verdict(False, f"the ca_file {ca_file}: {_why(error)}")
    host = parts.hostname or ""
    connection = HTTPConnection(host, parts.port, timeout=timeout)
    if context is not None:
        connection = HTTPSConnection(host, parts.port, timeout=timeout, context=context)
    try:
        if unix is not None:
            plain = _at_socket(unix, timeout)
            connection.sock = context.wrap_socket(plain, server_hostname=host) if context else plain
        connection.request("GET", (parts.path or "/") + query, headers={**sent, **headers})
        answer = connection.getresponse()
        if match is not None:
            body = answer.read(_MOST_BODY)
    except HTTPException as error:
        # Their words could hold what was asked for.
        return Verdict(False, f"no answer in HTTP ({type(error).__name__})")
    except OSError as error:
        return Verdict(False, _why(error))
    finally:
        connection.close()
    status = answer.status
    if status not in right:
        wanted = " or ".join(map(str, right))
        moved = "; it points elsewhere, which is not followed" if 300 <= status < 400 else ""
        return Verdict(False, f"answered {status}, not {wanted}{moved}")
    text = body.decode(errors="replace")
    if match is not None and re.search(match, text, re.MULTILINE) is None:
        said = _first_line(text, headers.values())
        return Verdict(False, f"answered {status}, but its body does not match {match!r}; {said}")
    return Verdict(True, f"answered {status}")


def _first_line(text: str, secrets: Iterable[str]) -> str:
    """What a body begins with, without the secrets that were sent."""
    from reconciler.base.text import censored, redacted

    lines = (line.strip() for line in redacted(text, list(secrets)).splitlines())
    first = censored(next(filter(None, lines), ""))
    return f"it begins: {printable(first, _LONGEST)}" if first else "it is empty"


def _why(error: OSError) -> str:
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or 'it was closed'}"
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return reason(error)
