"""Probes over the network: does somebody listen, and is the answer to a request right?

They must not show the URL, in which there may be secrets, nor follow where an answer points.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from reconciler.base.values import Verdict
from reconciler.host.walk import reason


def tcp(host: str, port: int, timeout: float) -> Verdict:
    """Does somebody take connections there?"""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        return Verdict(False, _why(error))
    return Verdict(True, "somebody listens")


def http(url: str, right: Sequence[int], timeout: float) -> Verdict:
    """Is GET answered with one of the status codes that are ``right``?"""
    # No proxy: whoever starts us, shell, cron or systemd, it must be the same way.
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    from reconciler import __version__

    parts = urlsplit(url)
    headers = {"User-Agent": f"reconcile/{__version__}", "Accept": "*/*", "Connection": "close"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    sort = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = sort(parts.hostname or "", parts.port, timeout=timeout)
    query = f"?{parts.query}" if parts.query else ""
    try:
        connection.request("GET", (parts.path or "/") + query, headers=headers)
        status = connection.getresponse().status
    except HTTPException as error:
        # Their words could hold what was asked for.
        return Verdict(False, f"no answer in HTTP ({type(error).__name__})")
    except OSError as error:
        return Verdict(False, _why(error))
    finally:
        connection.close()
    if status not in right:
        wanted = " or ".join(map(str, right))
        moved = "; it points elsewhere, which is not followed" if 300 <= status < 400 else ""
        return Verdict(False, f"answered {status}, not {wanted}{moved}")
    return Verdict(True, f"answered {status}")


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
