"""The real server in a process of its own, asked by plain requests over HTTP and websocket."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 120
"""Seconds; the machine may be busy."""
PROGRAM = """
import json, socket, sys
from pathlib import Path

connect, connected = socket.socket.connect, sys.argv[3]

def note(self, place):
    with open(connected, "a") as file:
        print(place, file=file)
    return connect(self, place)

socket.socket.connect = note
from attnscope.dashboard.serve import serve
sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2]), **json.loads(sys.argv[4])))
"""
"""Serves a folder, and writes each address to which the process connects to a file."""


@dataclass
class Server:
    port: int
    connected: Path
    """A file with the addresses to which the server has connected."""
    process: subprocess.Popen[str]
    cookie: str = ""
    """The cookie of this visitor."""
    said: list[str] = field(default_factory=list)
    """The lines that the server has printed; all of them when it has ended."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """The token in the address that the server has printed; empty if there is none."""
        found = re.search(r"[?&]token=([\w-]+)", self.said[0])
        return found[1] if found else ""

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, str]:
        """Request a path; a header's name has underscores for its hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        own = {"Host": self.host, **({"Cookie": self.cookie} if self.cookie else {})}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, {**own, **named})
            answer = connection.getresponse()
            return answer, answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def get(self, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        return self.ask(path, method, **headers)[0]

    def websocket(self, path: str = "/_stcore/stream", **headers: str) -> int:
        """Ask for the websocket, and return the status: 101 opens it."""
        key = base64.b64encode(os.urandom(16)).decode()
        return self.get(
            path, Connection="Upgrade", Upgrade="websocket",
            Sec_WebSocket_Version="13", Sec_WebSocket_Key=key,
            Sec_WebSocket_Protocol="streamlit", **headers,
        ).status  # fmt: skip

    def enter(self, path: str = "/") -> None:
        """Show the token, and keep the cookie that the server sets."""
        answer = self.get(f"{path}?token={self.token}")
        assert answer.status == 303
        self.cookie = str(answer.getheader("Set-Cookie")).partition(";")[0]

    def upload(self, session: str, content: bytes, *, xsrf: bool = True) -> int:
        """Send a file as a page of a session does; return the status."""
        headers = {"Content_Type": "multipart/form-data; boundary=line"}
        if xsrf:  # a value that Streamlit gives its own pages
            answer = self.get("/_stcore/health")
            cookies = answer.msg.get_all("Set-Cookie") or []
            cookie = next(line for line in cookies if line.startswith("_streamlit_xsrf="))
            cookie = cookie.partition(";")[0]
            headers |= {"Cookie": cookie, "X_Xsrftoken": cookie.partition("=")[2]}
        name = b'Content-Disposition: form-data; name="a"; filename="a.png"'
        body = b"--line\r\n" + name + b"\r\n\r\n" + content + b"\r\n--line--\r\n"
        return self.ask(f"/_stcore/upload_file/{session}/a", "PUT", body, **headers)[0].status


@contextmanager
def started(
    folder: Path, cwd: Path, env: dict[str, str] | None = None, **options: Any
) -> Iterator[Server]:
    """Serve a folder until the block ends; then it must have ended without an error.

    Args:
        folder: what the dashboard shows.
        cwd: the working directory, in which two files are written.
        env: variables of the environment besides those of this process.
        options: further arguments of `attnscope.dashboard.serve.serve`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connected, log = cwd / f"connected-{port}", cwd / f"log-{port}"
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                sys.executable, "-c", PROGRAM,
                str(folder), str(port), str(connected), json.dumps(options),
            ],
            stdout=output, stderr=subprocess.STDOUT, text=True, cwd=cwd,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
    server = Server(port, connected, process)
    try:
        _wait_until_up(server, log)
        yield server
        process.send_signal(signal.SIGINT)
        process.wait(timeout=PATIENCE)
        server.said = log.read_text().splitlines()
        assert process.returncode == 0, server.said
        assert "Traceback" not in log.read_text(), server.said
    finally:
        process.kill()
        process.wait()


def _wait_until_up(server: Server, log: Path) -> None:
    for _ in range(10 * PATIENCE):
        assert server.process.poll() is None, log.read_text()
        try:
            server.get("/_stcore/health")  # any answer: a token may be missing
        except OSError:
            time.sleep(0.1)
        else:
            server.said = log.read_text().splitlines()
            return
    pytest.fail("the server did not start")
