"""Where the dashboard is served: address, port, base path, and the names of the host."""

from __future__ import annotations

import getpass
import ipaddress
import os
import re
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from attnscope.dashboard.access import TOKEN, Access
from attnscope.errors import InputError

_LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_BASE_PATH = re.compile(r"[A-Za-z0-9_~][A-Za-z0-9_~.-]*(/[A-Za-z0-9_~][A-Za-z0-9_~.-]*)*")
_OF_STREAMLIT = ("_stcore", "app", "component", "media", "static", "vendor")
_SSH_PORT = 22


@dataclass(frozen=True)
class Place:
    """Where the dashboard is served."""

    address: str
    """An IP address of this machine, or a name of it."""
    port: int
    base_path: str
    """Without slashes around it; empty for none."""
    allow_hosts: tuple[str, ...]
    """Names of the host in lower case, besides those of this machine."""

    @property
    def is_loopback(self) -> bool:
        """Whether it listens on an address that other machines cannot reach."""
        try:
            return ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            return self.address.lower() == "localhost"

    @property
    def is_wildcard(self) -> bool:
        """Whether it listens on every address of this machine."""
        try:
            return ipaddress.ip_address(self.address).is_unspecified
        except ValueError:
            return False

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches it: neither its address nor a name says otherwise."""
        return self.is_loopback and not self.allow_hosts

    @property
    def hosts(self) -> set[str]:
        """The names of the host under which it answers."""
        own = set() if self.is_loopback else {socket.gethostname().lower()}
        listened = set() if self.is_wildcard else {self.address.lower()}
        return {*_LOCAL_HOSTS, *self.allow_hosts, *own, *listened}

    def url(self, host: str, access: Access | None) -> str:
        """Return its address under a name of the host, with the token if it needs one."""
        place = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        place += f"/{self.base_path}" if self.base_path else ""
        return place if access is None else f"{place}/?{TOKEN}={access.token}"

    @property
    def shown_host(self) -> str:
        """The name of the host in the address that is printed."""
        if self.allow_hosts:
            return self.allow_hosts[0]
        return socket.gethostname().lower() if self.is_wildcard else self.address

    @property
    def near_host(self) -> str:
        """The name of the host under which this machine reaches it."""
        return "127.0.0.1" if self.is_wildcard else self.address


def checked_path(path: str) -> str:
    """Return the base path without slashes around it."""
    inner = path.strip("/")
    if inner and (not _BASE_PATH.fullmatch(inner) or inner.split("/")[0] in _OF_STREAMLIT):
        raise InputError(
            "AS143",
            f"the base path {path!r} is not valid; choose --base-path of letters, digits, hyphens "
            "and single slashes, such as lab/gates",
        )
    return inner


def checked_hosts(names: Sequence[str]) -> tuple[str, ...]:
    """Return names or IP addresses of hosts as browsers ask for them: in lower case."""
    return tuple(_checked_host(name) for name in names)


def _checked_host(name: str) -> str:
    host = name.lower()
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        if _HOST_NAME.fullmatch(host):
            return host
    raise InputError(
        "AS144",
        f"the host {name!r} is not valid; give --allow-host a name or an IP address without "
        "protocol, port and path, such as lab.example.org",
    )


def tunnel(port: int) -> str:
    """Return the command that forwards the port to another machine; empty if nobody is remote."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if not connection:
        return ""
    # Addresses and ports of the client and of this machine, as the client reaches it.
    host, ssh_port = connection[2:4] if len(connection) == 4 else (socket.gethostname(), "")
    try:
        user = f"{getpass.getuser()}@"
    except (KeyError, OSError):  # this user has no name here
        user = ""
    there = [] if ssh_port in ("", str(_SSH_PORT)) else ["-p", ssh_port]
    return shlex.join(["ssh", "-N", "-L", f"{port}:127.0.0.1:{port}", *there, f"{user}{host}"])
