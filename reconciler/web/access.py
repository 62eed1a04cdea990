"""Who may read the page: every request goes through here before anything answers it.

It must not show more to one who may not read than why. A page that is for this host alone is
still asked by every browser of this host, on behalf of whatever site it shows: so the names in
Host and Origin are checked, the browser is told what the page may do (https://www.w3.org/TR/CSP3/),
and keeps nothing.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from base64 import b64decode
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.base.errors import HostError
from reconciler.base.text import error_in_words, hide, printable
from reconciler.host import trust
from reconciler.host.remedy import remedy

_LEAST = 16
"""Characters of a token."""
_MOST = 4096
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Token:
    """What one must have who may read the page."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def admits(self, authorization: str) -> bool:
        """Does that header have it: from a program, or as the password of whatever user?

        No cookie has: browsers give one to all ports of a host, on which others may answer.
        """
        scheme, _, given = authorization.partition(" ")
        text = given.strip().encode(errors="surrogateescape")
        if scheme.lower() == "basic":
            try:
                text = b64decode(text, validate=True).partition(b":")[2]
            except ValueError:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(text, self._secret)


def token_of(path: str) -> Token:
    """The token in that file. Raises HostError where somebody else could know or change it."""
    path = os.path.abspath(os.path.expanduser(path))
    try:
        with os.fdopen(trust.opened(path, what="who may read the page"), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise HostError(f"the token file {path} is no regular file")
            if status.st_mode & 0o077:
                words = f"others may read the token file {path}"
                if status.st_uid != os.geteuid():
                    raise HostError(f"{words}, which is not yours; name a file of your own")
                raise HostError(words, remedy=remedy("chmod", "600", path))
            secret = file.read(_MOST).strip()
    except OSError as error:
        words = f"cannot read the token file {path}: {error.strerror}"
        raise HostError(words) from None
    if not re.fullmatch(rb"[!-~]{%d,}" % _LEAST, secret):
        raise HostError(
            f"the token in {path} must have {_LEAST} characters or more, and no blanks",
            remedy=remedy("openssl", "rand", "-hex", "32", into=path),
        )
    hide([secret.decode()])
    return Token(secret)


class Guard:
    """Refuses whom it must, and tells browsers what they may do with the answer."""

    def __init__(self, app: ASGIApp, is_known: Callable[[str], bool], token: Token | None) -> None:
        self._app = app
        self._is_known = is_known
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                more = [(name.lower().encode(), text.encode()) for name, text in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        answer: ASGIApp = self._app
        try:
            answer = self._refused(scope) or answer
            await answer(scope, receive, sent)
        except Exception as error:
            if begun:
                return
            text = printable(error_in_words(error))
            await PlainTextResponse(f"{text}\n", 500)(scope, receive, sent)

    def _refused(self, scope: Scope) -> Response | None:
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }
        if scope["method"] not in ("GET", "HEAD"):
            words = "this page can only be read\n"
            return PlainTextResponse(words, 405, {"Allow": "GET, HEAD"})
        host = headers.get("host", "")  # There is but one: h11 refuses a second.
        name = re.sub(r":[0-9]*$", "", host)
        if not self._is_known(name):
            shown = printable(name, 100)
            words = f"this page is not known as {shown!r}; open it at the address of --serve\n"
            return PlainTextResponse(words, 421)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return PlainTextResponse("this page is for no other site\n", 403)
        # A look costs its time, also where the browser then shows that site nothing of it.
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        if site in ("cross-site", "same-site") and mode != "navigate":
            return PlainTextResponse("this page is for no other site\n", 403)
        if self._token is None or self._token.admits(headers.get("authorization", "")):
            return None
        words = (
            "the token of this page is the password of any user; programs can send: "
            "Authorization: Bearer TOKEN\n"
        )
        return PlainTextResponse(words, 401, {"WWW-Authenticate": 'Basic realm="reconcile"'})
