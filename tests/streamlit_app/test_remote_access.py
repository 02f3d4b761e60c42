"""Who may enter a dashboard that other machines can reach, and what visitors may do there."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analysis.dashboard_client import Visitor
from attnscope.recording.recording import Recording
from tests.recording.making import write
from tests.streamlit_app.plain import PATIENCE, Server, started

PATHS = [
    "/",
    "/channels",
    "/_stcore/health",
    "/_stcore/host-config",
    "/media/a.png",
    "/favicon.png",
]
"""Pages, and addresses of Streamlit."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A dashboard that listens on all addresses of this machine."""
    place = tmp_path_factory.mktemp("remote")
    write(place / "runs" / "toy")
    with started(
        place / "runs", place, address="0.0.0.0", allow_hosts=["Lab.Example.org"]
    ) as found:
        yield found


@pytest.fixture(autouse=True)
def stranger(request: pytest.FixtureRequest) -> None:
    """Each test begins as a visitor without the cookie."""
    if "server" in request.fixturenames:
        request.getfixturevalue("server").cookie = ""


def test_the_printed_address_has_a_random_token_and_a_warning_is_printed(server: Server) -> None:
    url = server.said[0].split()[0]
    assert url == f"http://lab.example.org:{server.port}/?token={server.token}"
    assert len(server.token) >= 43, "256 bits"
    assert any("not encrypted" in line and "may not upload" in line for line in server.said[1:])


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_without_the_cookie(path: str, server: Server) -> None:
    answer, text = server.ask(path)
    assert answer.status == 401
    assert "token" in text
    assert server.token not in text
    assert answer.getheader("Set-Cookie") is None
    assert answer.getheader("X-Frame-Options") == "DENY"
    name = f"attnscope_{server.port}"
    for wrong in (f"{name}=", f"{name}={server.token}", f"{name}=x", "other=x", f"{name}=ü"):
        assert server.get(path, Cookie=wrong).status == 401
    assert server.get(path, "PUT").status == 401


def test_the_websocket_needs_the_cookie(server: Server) -> None:
    assert server.websocket() == 403
    assert server.websocket(f"/_stcore/stream?token={server.token}") == 403
    server.enter()
    assert server.websocket() == 101
    assert server.websocket(Origin=f"http://{server.host}") == 101
    assert server.websocket(Origin="http://evil.example") == 403


@pytest.mark.parametrize("token", ["", "x", "{token}x", "{short}", "%C3%BC", "%ff"])
def test_a_wrong_token_is_refused(token: str, server: Server) -> None:
    wrong = token.format(token=server.token, short=server.token[:-1])
    for query in (f"token={wrong}", f"token={server.token}&token={wrong}"):
        answer = server.get(f"/?{query}")
        assert answer.status == 401
        assert answer.getheader("Set-Cookie") is None
    server.enter()
    assert server.get(f"/?token={wrong}").status == 401


def test_the_token_becomes_a_cookie_and_the_same_address_without_it(server: Server) -> None:
    query = f"run=a%2Fb&token={server.token}&image=3&x"
    answer, text = server.ask(f"/channels?{query}")
    assert answer.status == 303
    assert answer.getheader("Location") == "/channels?run=a%2Fb&image=3&x"
    assert answer.getheader("Cache-Control") == "no-store"
    assert answer.getheader("Referrer-Policy") == "no-referrer"
    assert server.token not in text
    value, *attributes = str(answer.getheader("Set-Cookie")).split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    assert server.token not in value
    for path in PATHS:
        assert server.get(path, Cookie=f"a=b; {value}; c=d").status in (200, 404)
    assert server.get("/", Cookie=value, Host="evil.example").status == 403


@pytest.mark.parametrize(
    "path", ["//evil.example/a", "/\\evil.example", "/%5Cevil.example", "/%2F/e"]
)
def test_the_redirect_stays_on_this_server(path: str, server: Server) -> None:
    answer = server.get(f"{path}?token={server.token}")
    assert answer.status == 303
    assert re.match(r"/[^/\\]", str(answer.getheader("Location")))


def test_the_token_is_read_however_its_name_is_encoded(server: Server) -> None:
    answer = server.get(f"/?%74oken={server.token}&a=1")
    assert (answer.status, answer.getheader("Location")) == (303, "/?a=1")
    assert server.get(f"/?Token={server.token}").status == 401


def test_visitors_may_not_send_files_unless_the_command_allowed_it(server: Server) -> None:
    server.enter()
    for method in ("PUT", "DELETE", "POST"):
        answer, text = server.ask("/_stcore/upload_file/a/b", method)
        assert answer.status == 403
        assert "--allow-actions" in text
    assert server.get("/").status == 200


@pytest.mark.parametrize("host", ["lab.example.org", "LAB.example.org:80", "localhost", "{name}"])
def test_allowed_hosts_and_the_machine_itself_are_answered(host: str, server: Server) -> None:
    server.enter()
    named = host.format(name=socket.gethostname())
    # A proxy may speak HTTPS, and calls the host by the name that the browser used.
    own = {"Host": named, "Origin": f"https://{named}"}
    assert server.get("/", **own).status == 200
    assert server.websocket(**own) == 101
    assert server.get("/", Host=named, Origin="http://127.0.0.1").status == 403


def test_the_address_that_a_request_reached_is_answered(server: Server) -> None:
    server.enter()
    for address, host, expected in (
        ("127.0.0.2", "127.0.0.2", 200),
        ("127.0.0.2", "127.0.0.3", 403),
        ("127.0.0.1", "127.0.0.2", 403),
    ):
        connection = http.client.HTTPConnection(address, server.port, timeout=PATIENCE)
        headers = {"Host": f"{host}:{server.port}", "Cookie": server.cookie}
        connection.request("GET", "/", headers=headers)
        assert connection.getresponse().status == expected
        connection.close()


@pytest.mark.parametrize("host", ["example.org", "evil.lab.example.org", "10.0.0.1", "0.0.0.0"])
def test_hosts_that_were_not_allowed_are_refused(host: str, server: Server) -> None:
    server.enter()
    for method, path in (("GET", "/"), ("PUT", "/_stcore/upload_file/a/b")):
        answer, text = server.ask(path, method, Host=host)
        assert answer.status == 403
        assert "--allow-host" in text
    assert server.websocket(Host=host) == 403


def test_a_base_path_moves_everything_with_its_cookie(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with started(
        tmp_path / "runs", tmp_path, base_path="/lab/gates/", allow_hosts=["hub.example.org"],
        allow_actions=True,
    ) as server:  # fmt: skip
        url = server.said[0].split()[0]
        assert url == f"http://hub.example.org:{server.port}/lab/gates/?token={server.token}"
        assert any("may upload" in line for line in server.said[1:])
        for path in ("/lab/gates", "/lab/gates/channels", "/", "/lab/gates/_stcore/health"):
            assert server.get(path).status == 401
        assert server.websocket("/lab/gates/_stcore/stream") == 403
        answer = server.get(f"/lab/gates/?token={server.token}&run=a")
        assert answer.getheader("Location") == "/lab/gates/?run=a"
        assert "Path=/lab/gates;" in str(answer.getheader("Set-Cookie"))
        server.enter("/lab/gates/")
        assert server.get("/lab/gates/").status == 200
        assert server.get("/lab/gates/channels").status == 200
        assert server.get("/").status == 404
        assert server.websocket("/lab/gates/_stcore/stream") == 101
        # With --allow-actions, Streamlit judges uploads: this one is of no session.
        answer, text = server.ask("/lab/gates/_stcore/upload_file/a/b", "PUT")
        assert answer.status == 403
        assert "XSRF" in text


def commands() -> list[list[bytes]]:
    """The words of the command of each process."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended meanwhile
            found.append(file.read_bytes().split(b"\0"))
    return found


@pytest.mark.parametrize(
    ("page", "label"),
    [
        ("space?run=cbam%2Ftest&method=t-SNE", "Compute t-SNE"),
        ("channel?run=cbam%2Ftest", "Set the channel to its mean"),
    ],
)
def test_work_is_not_started_by_the_click_of_a_disabled_button(
    page: str, label: str, make_recording: Callable[..., Recording], tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    make_recording("cbam")
    name, _, query = page.partition("?")
    elsewhere = tmp_path_factory.mktemp("log")
    with started(tmp_path, elsewhere, allow_hosts=["lab.example.org"]) as server:
        admitted = server.get(f"/?token={server.token}")
        cookie = str(admitted.getheader("Set-Cookie")).split("; ")[0]
        with Visitor(server.port, cookie) as visitor:
            before = visitor.open(name, query).errors
            (button,) = (key for key, found in visitor.buttons.items() if found.label == label)
            assert visitor.press(button).errors == before
            started_here = [
                words for words in commands() if b"attnscope.dashboard.gate_space" in words
            ]
            assert str(tmp_path) not in str(started_here)


def test_a_private_dashboard_takes_files_of_at_most_20_mb(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with started(tmp_path / "runs", tmp_path) as server, Visitor(server.port) as visitor:
        assert server.token == ""
        visitor.open()
        assert server.upload(visitor.session, b"x" * 1000) == 204
        assert server.upload(visitor.session, b"x" * (20 * 2**20 + 1)) == 413
        assert server.upload(visitor.session, b"x" * 1000, xsrf=False) == 403
        assert server.upload("other", b"x" * 1000) == 400


def test_a_dashboard_without_recordings_starts_and_finds_those_that_appear(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with started(tmp_path / "runs", tmp_path) as server, Visitor(server.port) as visitor:
        assert " no recordings " in server.said[0]
        assert visitor.open().errors == []
        write(tmp_path / "runs" / "toy")
        answer = visitor.open("overview")
        assert answer.errors == []
        assert any("toy" in text for text in answer.texts)


def test_the_browser_opens_the_address_with_the_token_when_the_server_answers(
    tmp_path: Path,
) -> None:
    (tmp_path / "runs").mkdir()
    browser, noted = tmp_path / "browser", tmp_path / "noted"
    browser.write_text(f'#!/bin/sh\necho "$1" > {noted}.partial; mv {noted}.partial {noted}\n')
    browser.chmod(0o755)
    with started(
        tmp_path / "runs", tmp_path, {"BROWSER": f"{browser} %s"}, address="0.0.0.0",
        open_browser=True,
    ) as server:  # fmt: skip
        for _ in range(10 * PATIENCE):
            if noted.is_file():
                break
            time.sleep(0.1)
        url = noted.read_text().strip()
        assert url == f"http://127.0.0.1:{server.port}/?token={server.token}"
