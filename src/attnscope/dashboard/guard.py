"""Whom the dashboard's server answers: an ASGI middleware for pages, media and websocket alike.

The server listens on this machine, where every web page that is open in a browser can reach it. A
page of another site, or of another port of this machine, must not read recordings or show the
dashboard in a frame. Streamlit checks some of its addresses, by settings that a ``config.toml`` in
the working directory can change. This middleware stands before all of Streamlit's addresses and has
no settings but those that `serve` gives it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from attnscope.dashboard.access import Access, without_token

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_OWN = "'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
_HEADERS = {
    # Everything that the page needs comes from this server: no fonts, addresses or counters of
    # other servers. Vega compiles its charts, and Streamlit writes styles into the page.
    "content-security-policy": f"default-src {_OWN}; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-frame-options": "DENY",  # of browsers that do not know frame-ancestors
    "cross-origin-resource-policy": "same-origin",  # no <img> or <script> of another page
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_REFUSED = 403
_UNKNOWN = 401
_SEE_OTHER = 303
_POLICY_VIOLATION = 1008  # RFC 6455, 7.4.1
_READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class _Answer:
    """What is answered in place of the application."""

    status: int
    text: str
    headers: tuple[tuple[str, str], ...] = ()


class Guard:
    """Refuses requests for another host, of another origin, into a frame, or without the token.

    A host is compared by its name alone, because ``ssh -L`` changes the port. The origin of a
    request, if the browser names it, must have the host and port of the request: then it was sent
    by the dashboard's own page. A request that names no origin, such as one of an image, is judged
    by ``Sec-Fetch-Site`` (https://www.w3.org/TR/fetch-metadata/), which browsers send and pages
    cannot change; a link from another page may open the dashboard. A program that is not a browser
    sends neither and is answered.

    Where a token is required, the address with the token is answered by a cookie and the same
    address without the token, and nothing is answered without the cookie: no page, picture,
    websocket or file.
    """

    def __init__(
        self,
        app: App,
        hosts: Iterable[str],
        *,
        own_address: bool = False,
        access: Access | None = None,
        uploads: bool = True,
    ) -> None:
        """Guard an application.

        Args:
            app: The ASGI application.
            hosts: Names of the host under which it may be asked for, without a port.
            own_address: Whether it may also be asked for by the IP address of this machine that
                the request reached. No name of another site leads to a page of that address.
            access: The token that visitors need; None if they need none.
            uploads: Whether visitors may send files. Otherwise only requests that read are
                answered.
        """
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._own_address = own_address
        self._access = access
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it in one line."""
        if scope["type"] not in ("http", "websocket"):  # that the server starts or ends
            await self._app(scope, receive, send)
            return
        answer = self._answer(scope)
        if answer is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            closed = {"code": _POLICY_VIOLATION, "reason": answer.text}
            await send({"type": "websocket.close", **closed})
        else:
            named = (
                ("content-type", "text/plain; charset=utf-8"),
                ("cache-control", "no-store"),
                *answer.headers,
            )
            headers = [(name.encode(), value.encode("latin-1")) for name, value in named]
            start = {"type": "http.response.start", "status": answer.status, "headers": headers}
            await _with_headers(send)(start)
            await send({"type": "http.response.body", "body": f"{answer.text}\n".encode()})

    def _answer(self, scope: Scope) -> _Answer | None:
        """Return what is answered in place of the application; None if the application answers."""
        values: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            values.setdefault(name.lower(), []).append(value.decode("latin-1").strip())
        if reason := self._reason_against(scope, values):
            return _Answer(_REFUSED, reason)
        method = scope.get("method", "GET")  # a websocket has none
        if self._access is not None:
            answer = _judge(self._access, scope, method, values.get(b"cookie", []))
            if answer is not None:
                return answer
        if method not in _READING and not self._uploads:
            return _Answer(_REFUSED, "This dashboard takes no files; see --allow-actions.")
        return None

    def _reason_against(self, scope: Scope, values: dict[bytes, list[str]]) -> str:
        """Return why a host, an origin or a frame is refused; empty if they are not."""
        hosts, origins = values.get(b"host", []), values.get(b"origin", [])
        if len(hosts) != 1 or not self._is_own(_name_of(hosts[0]), scope):
            return "The dashboard is not served under this name of the host; see --allow-host."
        if origins and (len(origins) > 1 or _place_of(origins[0]) != hosts[0].lower()):
            return "The dashboard does not answer pages of another origin."
        if origins:  # named by the browser, and its own
            return ""
        return _reason_by_metadata({name: found[-1] for name, found in values.items()})

    def _is_own(self, name: str, scope: Scope) -> bool:
        if name in self._hosts:
            return True
        reached = scope.get("server")
        return bool(self._own_address and name and reached and name == _plain(reached[0]))


def _judge(access: Access, scope: Scope, method: str, cookies: list[str]) -> _Answer | None:
    """Return the answer to a visitor with a token, or without the cookie; otherwise None."""
    query = scope.get("query_string", b"").decode("latin-1")
    tokens = access.tokens_in(query) if scope["type"] == "http" else []
    if tokens and all(tokens) and method in _READING:
        place = without_token(scope["path"], query)
        headers = (("location", place), ("set-cookie", access.set_cookie))
        return _Answer(_SEE_OTHER, "The token was taken.", headers)
    if not tokens and access.has_cookie(cookies):
        return None
    return _Answer(
        _UNKNOWN,
        "Open the address with the token that the command printed. If this browser has opened it "
        "before and a link led here, press Enter in the address bar.",
        (("www-authenticate", "Token"),),
    )


def _plain(address: str) -> str:
    """Return an IP address as addresses in a browser have it; empty if it is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _reason_by_metadata(headers: dict[bytes, str]) -> str:
    """Judge a request that names no origin by what the browser says about it."""
    if headers.get(b"sec-fetch-dest", "") in ("frame", "iframe", "embed", "object"):
        return "The dashboard is not shown inside another page."
    is_own = headers.get(b"sec-fetch-site", "none") in ("same-origin", "none")
    is_link = (headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")) == (
        "navigate",
        "document",
    )
    return "" if is_own or is_link else "The dashboard does not answer pages of another origin."


def _name_of(host: str) -> str:
    """Return the name in a ``Host`` header, without the port; empty if it is not valid."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 - raises if it is not a port
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.netloc == host and "@" not in host else ""


def _place_of(origin: str) -> str:
    """Return host and port of an ``Origin`` header, as a ``Host`` header has them."""
    scheme, separator, place = origin.lower().partition("://")
    return place if separator and scheme in ("http", "https") else ""


def _with_headers(send: Send) -> Send:
    """Return ``send`` that adds the headers of `Guard` to an answer, and lets no one else read it.

    Streamlit's own answers to questions of other origins (CORS) are removed.
    """

    async def send_guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value)
                for name, value in message.get("headers", ())
                if not name.lower().startswith(b"access-control-")
                and name.lower().decode("latin-1") not in _HEADERS
            ]
            added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*kept, *added]}
        await send(message)

    return send_guarded
