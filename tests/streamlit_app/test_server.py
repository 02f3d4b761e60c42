"""Whom the real server answers, by plain requests over HTTP and websocket."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from attnscope.recording.recording import Recording
from tests.recording.making import write

PATIENCE = 120
"""Seconds; the machine may be busy."""
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
[browser]
gatherUsageStats = true
"""
"""What a config.toml in a working directory can do to open a server of Streamlit."""
PROGRAM = """
import socket, sys
from pathlib import Path

connect = socket.socket.connect

def note(self, place):
    with open(sys.argv[3], "a") as file:
        print(place, file=file)
    return connect(self, place)

socket.socket.connect = note
from attnscope.serve import serve
sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2])))
"""
"""Serves a folder, and writes each address to which the process connects to a file."""


@dataclass(frozen=True)
class Server:
    port: int
    connected: Path
    """A file with the addresses to which the server has connected."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def get(self, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        """Request a path; a header's name has underscores for its hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, headers={"Host": self.host, **named})
            answer = connection.getresponse()
            answer.read()
            return answer
        finally:
            connection.close()

    def websocket(self, **headers: str) -> int:
        """Ask for the websocket, and return the status: 101 opens it."""
        key = base64.b64encode(os.urandom(16)).decode()
        return self.get(
            "/_stcore/stream", Connection="Upgrade", Upgrade="websocket",
            Sec_WebSocket_Version="13", Sec_WebSocket_Key=key,
            Sec_WebSocket_Protocol="streamlit", **headers,
        ).status  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The dashboard, started in a folder whose settings would open it to everyone."""
    place = tmp_path_factory.mktemp("server")
    write(place / "runs" / "toy")
    assert len(Recording(place / "runs/toy"))
    (place / ".streamlit").mkdir()
    (place / ".streamlit/config.toml").write_text(OPEN_CONFIG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = Server(free.getsockname()[1], place / "connected")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(place / "runs"), str(found.port), found.connected],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=place,
    )  # fmt: skip
    try:
        _wait_until_up(found, process)
        yield found
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
        assert output.startswith(f"http://{found.host}"), output
        assert "Traceback" not in output
    finally:
        process.kill()
        process.wait()


def _wait_until_up(server: Server, process: subprocess.Popen[str]) -> None:
    for _ in range(10 * PATIENCE):
        assert process.poll() is None, process.communicate()[0]
        try:
            assert server.get("/_stcore/health").status == 200
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server did not start")


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
