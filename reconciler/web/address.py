"""Where the page listens, and the names that a browser may know it by."""

from __future__ import annotations

import os
import re
import socket
from ipaddress import ip_address

from reconciler.base.errors import HostError

_HOST, _PORT = "127.0.0.1", 8470
_FORM = re.compile(r"(?:\[([^\]]*)\]:|([^:\[\]]*):)?([0-9]+)")


def listen(text: str, guarded: bool) -> socket.socket:
    """A socket that listens at ``HOST:PORT``; whatever is left out is as usual.

    ``guarded``: who reads the page must have a token, without which it is for this host alone.
    Raises ValueError for an address that cannot be, HostError where it cannot be had.
    """
    host, port = _parts(text)
    made = None
    try:
        family, *_, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if not (guarded or ip_address(str(place[0])).is_loopback):
            raise ValueError(
                f"{host} can be reached from elsewhere: name 127.0.0.1, or say with --token-file "
                "FILE who may read the page"
            )
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(128)
    except OSError as error:
        if made is not None:
            made.close()
        words = f"cannot listen at {text or f'{host}:{port}'}: {error.strerror}"
        raise HostError(f"{words}; name another address: --serve HOST:PORT") from None
    made.setblocking(False)
    return made


def url(listener: socket.socket) -> str:
    """The address for a browser."""
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = os.uname().nodename
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _parts(text: str) -> tuple[str, int]:
    found = _FORM.fullmatch(text) if text else None
    if text and (found is None or int(found[3]) > 65535):
        raise ValueError(f"--serve takes HOST:PORT, such as 127.0.0.1:{_PORT}, not {text!r}")
    if found is None:
        return _HOST, _PORT
    return found[1] or found[2] or _HOST, int(found[3])


def is_known(name: str, listener: socket.socket, given: str) -> bool:
    """May a browser know this server by that name, or may it be somebody else's (DNS rebinding)?

    ``name`` is that of a Host header, without its port; ``given`` what stands behind ``--serve``.
    """
    name = name.lower()
    if name == "localhost" or name == _parts(given)[0].lower():
        return True
    everywhere = not ip_address(listener.getsockname()[0]).is_loopback
    try:
        address = ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        here = os.uname().nodename.lower()
        return everywhere and name in (here, here.partition(".")[0])
    return everywhere or address.is_loopback
