"""Whom the real server answers, by plain requests over HTTP and websocket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from attnscope.recording.recording import Recording
from tests.recording.making import write
from tests.streamlit_app.plain import Server, started

OPEN_CONFIG = """
[global]
developmentMode = true
[server]
enableCORS = false
enableXsrfProtection = false
corsAllowedOrigins = ["http://evil.example"]
allowedHosts = ["*"]
enableAgentApi = true
baseUrlPath = "elsewhere"
address = "0.0.0.0"
port = 1
maxUploadSize = 1000
[client]
showErrorDetails = "full"
[browser]
gatherUsageStats = true
"""
"""What a config.toml in a working directory can do to open a server of Streamlit."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The dashboard, started in a folder whose settings would open it to everyone."""
    place = tmp_path_factory.mktemp("server")
    write(place / "runs" / "toy")
    assert len(Recording(place / "runs/toy"))
    (place / ".streamlit").mkdir()
    (place / ".streamlit/config.toml").write_text(OPEN_CONFIG)
    with started(place / "runs", place) as found:
        yield found
    assert found.said[0].startswith(f"http://{found.host} ")


PATHS = ["/", "/channels", "/_stcore/health", "/_stcore/host-config", "/media/a.png"]
"""A page, a page that the app names, and addresses of Streamlit."""
FOREIGN: list[dict[str, str]] = [
    {"Host": "evil.example"},
    {"Host": "evil.example:{port}"},
    {"Host": "127.0.0.1.evil.example:{port}"},
    {"Host": "user@127.0.0.1:{port}"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "http://localhost:{port}"},
    {"Origin": "file://127.0.0.1:{port}"},
]
EMBEDDING: list[dict[str, str]] = [
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"},
    {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "script"},
    {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
]


def _filled(headers: dict[str, str], server: Server) -> dict[str, str]:
    return {name: value.format(port=server.port) for name, value in headers.items()}


@pytest.mark.parametrize("headers", [*FOREIGN, *EMBEDDING])
def test_other_hosts_origins_ports_and_frames_get_nothing(
    headers: dict[str, str], server: Server
) -> None:
    for path in PATHS:
        answer = server.get(path, **_filled(headers, server))
        assert answer.status == 403
        assert answer.getheader("Access-Control-Allow-Origin") is None


@pytest.mark.parametrize("headers", FOREIGN)
def test_the_websocket_refuses_other_hosts_origins_and_ports(
    headers: dict[str, str], server: Server
) -> None:
    assert server.websocket(**_filled(headers, server)) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:{port}"},
        {"Host": "localhost:{port}", "Origin": "http://localhost:{port}"},
        # ssh -L 9000:localhost:8501, on the other side
        {"Host": "localhost:9000", "Origin": "http://localhost:9000"},
        {"Host": "[::1]:9000"},
    ],
)
def test_the_dashboards_own_page_is_answered(headers: dict[str, str], server: Server) -> None:
    filled = _filled(headers, server)
    assert server.websocket(**filled) == 101
    for path in PATHS[:-1]:
        assert server.get(path, **filled).status == 200
    assert server.get("/media/a.png", **filled).status == 404


def test_a_link_of_another_page_opens_the_dashboard(server: Server) -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert server.get("/", **link, Sec_Fetch_Dest="document").status == 200


@pytest.mark.parametrize("path", PATHS)
def test_no_other_page_may_frame_or_embed_an_answer(path: str, server: Server) -> None:
    answer = server.get(path, Origin=f"http://{server.host}")
    assert "frame-ancestors 'none'" in str(answer.getheader("Content-Security-Policy"))
    assert answer.getheader("X-Frame-Options") == "DENY"
    assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"
    assert [name for name, _ in answer.getheaders() if name.lower().startswith("access-")] == []


def test_the_agent_interface_is_closed_whatever_the_working_directory_says(
    server: Server,
) -> None:
    answer = server.get("/_stcore/agent/interact", "POST", Content_Type="application/json")
    assert answer.status in (403, 404, 405)


def test_the_server_asks_no_other_machine(server: Server) -> None:
    # Streamlit asks the internet for the machine's address when it judges a foreign origin.
    server.websocket(Origin="http://evil.example")
    noted = server.connected.read_text() if server.connected.exists() else ""
    assert [line for line in noted.splitlines() if "127.0.0.1" not in line] == []
