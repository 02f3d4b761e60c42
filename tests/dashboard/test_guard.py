"""Whom the dashboard's server answers: each rule alone, on requests without a server."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from attnscope.dashboard.access import Access
from attnscope.dashboard.guard import App, Guard, Receive, Scope, Send

ACCESS = Access(8501, token="right", session="inside")
COOKIE = ("cookie", f"a=b; {ACCESS.cookie}=inside")
ANSWERED = 200


async def dashboard(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": ANSWERED, "headers": []})


def ask(
    *headers: tuple[str, str],
    host: str | None = "localhost:8501",
    query: str = "",
    method: str = "GET",
    kind: str = "http",
    app: App = dashboard,
    **settings: Any,
) -> dict[str, Any]:
    """Return the first message that the guard of a dashboard sends."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    async def receive() -> MutableMapping[str, Any]:
        return {}

    named = [*([("host", host)] if host is not None else []), *headers]
    scope = {
        "type": kind,
        "method": method,
        "path": "/channels",
        "query_string": query.encode(),
        "server": ("192.168.0.7", 8501),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named],
    }
    if kind == "websocket":
        del scope["method"]
    # In a thread of its own: the browser of other tests leaves a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        asked = Guard(app, ["localhost"], **settings)(scope, receive, send)
        thread.submit(asyncio.run, asked).result()
    return dict(sent[0])


def status(*headers: tuple[str, str], **how: Any) -> int:
    return int(ask(*headers, **how)["status"])


@pytest.mark.parametrize(
    "host",
    [None, "", "example.org", "localhost@example.org", "example.org@localhost", "localhost/x"],
)
def test_another_name_of_the_host_is_refused(host: str | None) -> None:
    assert status(host="LOCALHOST:1") == ANSWERED
    assert status(host=host) == 403


def test_two_hosts_or_two_origins_are_refused() -> None:
    own = ("origin", "http://localhost:8501")
    assert status(own) == ANSWERED
    assert status(own, own) == 403
    assert status(own, ("origin", "http://example.org")) == 403
    assert status(("host", "localhost:8501")) == 403
    assert status(("host", "example.org")) == 403


def test_the_address_of_this_machine_is_answered_only_if_the_server_listens_there() -> None:
    assert status(host="192.168.0.7:8501", own_address=True) == ANSWERED
    assert status(host="192.168.0.7:8501") == 403
    assert status(host="192.168.0.8:8501", own_address=True) == 403


@pytest.mark.parametrize("inside", ["frame", "iframe", "embed", "object"])
def test_nothing_is_shown_inside_another_page(inside: str) -> None:
    link = (("sec-fetch-mode", "navigate"), ("sec-fetch-site", "none"))
    assert status(*link, ("sec-fetch-dest", "document")) == ANSWERED
    assert status(*link, ("sec-fetch-dest", inside)) == 403


def test_the_token_is_taken_by_requests_that_read_and_only_if_no_other_is_given() -> None:
    answer = ask(query="token=right&view=a", access=ACCESS)
    headers = dict(answer["headers"])
    assert answer["status"] == 303
    assert headers[b"location"] == b"/channels?view=a"
    cookie = headers[b"set-cookie"].decode().split("; ")
    assert cookie[0] == f"{ACCESS.cookie}=inside"
    assert {*cookie[1:]} == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert status(query="token=right", method="HEAD", access=ACCESS) == 303
    for refused in ("token=wrong", "token=right&token=wrong", "token=wrong&token=right", "token="):
        assert status(query=refused, access=ACCESS) == 401
        assert status(COOKIE, query=refused, access=ACCESS) == 401
    assert status(query="token=right", method="POST", access=ACCESS) == 401
    assert ask(query="token=right", kind="websocket", access=ACCESS)["type"] == "websocket.close"


def test_nothing_is_answered_without_the_cookie() -> None:
    assert status(access=ACCESS) == 401
    assert status(COOKIE, access=ACCESS) == ANSWERED
    assert ask(kind="websocket", access=ACCESS)["type"] == "websocket.close"
    assert ask(COOKIE, kind="websocket", access=ACCESS)["type"] == "http.response.start"
    for value in ("insid", "insidex", "", "right"):
        assert status(("cookie", f"{ACCESS.cookie}={value}"), access=ACCESS) == 401
    assert status(("cookie", "attnscope_1=inside"), access=ACCESS) == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_files_are_taken_only_if_the_command_allowed_it(method: str) -> None:
    assert status(method=method) == ANSWERED
    assert status(method=method, uploads=False) == 403
    assert status(method="GET", uploads=False) == ANSWERED


def test_answers_of_the_dashboard_are_for_its_own_pages_only() -> None:
    async def generous(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Access-Control-Allow-Origin", b"*"), (b"X-Frame-Options", b"ALLOWALL")]
        await send({"type": "http.response.start", "status": ANSWERED, "headers": headers})

    for answer in (ask(app=generous), ask(app=generous, host="example.org")):
        headers = [(name.lower(), value) for name, value in answer["headers"]]
        assert b"access-control-allow-origin" not in dict(headers)
        assert [value for name, value in headers if name == b"x-frame-options"] == [b"DENY"]
        policy = dict(headers)[b"content-security-policy"].decode()
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'self'" in policy
        assert dict(headers)[b"cross-origin-resource-policy"] == b"same-origin"
