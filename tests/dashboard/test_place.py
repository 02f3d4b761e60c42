"""Where the dashboard is served, and who can reach it there."""

from __future__ import annotations

import getpass
import shlex
import socket
from dataclasses import replace

import pytest

from attnscope.dashboard.access import Access
from attnscope.dashboard.place import Place, checked_hosts, checked_path, tunnel
from tests.making import refused

HERE = Place("127.0.0.1", 8501, "", ())


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.0.2", "::1", "0:0:0:0:0:0:0:1", "localhost"]
)
def test_only_loopback_addresses_are_private(address: str) -> None:
    place = replace(HERE, address=address)
    assert place.is_private
    assert not replace(place, allow_hosts=("hub.example.org",)).is_private
    assert place.hosts == {"127.0.0.1", "::1", "localhost", address}


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "192.168.1.5", "0", "lab", "127.0.0.1.evil.org"]
)
def test_every_other_address_is_not_private(address: str) -> None:
    place = replace(HERE, address=address)
    assert not place.is_private
    assert place.is_wildcard == (address in ("0.0.0.0", "::"))
    assert (address in place.hosts) != place.is_wildcard
    assert socket.gethostname().lower() in place.hosts


def test_addresses_are_written_as_browsers_read_them() -> None:
    access = Access(8501)
    assert HERE.url("127.0.0.1", None) == "http://127.0.0.1:8501"
    assert replace(HERE, base_path="a/b").url("::1", None) == "http://[::1]:8501/a/b"
    assert HERE.url("lab", access) == f"http://lab:8501/?token={access.token}"
    assert replace(HERE, address="0.0.0.0").shown_host == socket.gethostname().lower()
    assert replace(HERE, address="0.0.0.0").near_host == "127.0.0.1"


@pytest.mark.parametrize("path", ["", "/", "lab", "/lab/", "lab/gates", "/user/a.b-c_d~e/proxy"])
def test_a_base_path_has_no_slashes_around_it(path: str) -> None:
    assert checked_path(path) == path.strip("/")


@pytest.mark.parametrize(
    "path", ["a//b", "..", "a/../b", "a b", "a;b", "a?b", "ü", "a\nb", "media", "_stcore/x", "\\a"]
)
def test_a_base_path_that_is_no_path_or_hides_the_servers_own_is_refused(path: str) -> None:
    with refused("AS143", names=("--base-path",)):
        checked_path(path)


def test_names_of_hosts_are_compared_in_lower_case() -> None:
    given = ["Hub.Example.ORG", "10.0.0.7", "[FE80::1]", "my_host"]
    assert checked_hosts(given) == ("hub.example.org", "10.0.0.7", "fe80::1", "my_host")


@pytest.mark.parametrize(
    "name", ["", "*", "http://lab", "lab:8501", "lab/a", "*.example.org", "a\nb"]
)
def test_what_is_no_name_of_a_host_is_refused(name: str) -> None:
    with refused("AS144", names=("--allow-host",)):
        checked_hosts(["lab", name])


def test_the_tunnel_leads_back_to_the_machine_that_ssh_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert tunnel(8501) == ""
    user = getpass.getuser()
    monkeypatch.setenv("SSH_CONNECTION", "10.1.1.1 50000 10.2.2.2 22")
    assert shlex.split(tunnel(8501)) == [
        "ssh",
        "-N",
        "-L",
        "8501:127.0.0.1:8501",
        f"{user}@10.2.2.2",
    ]
    monkeypatch.setenv("SSH_CONNECTION", "10.1.1.1 50000 10.2.2.2 2222")
    assert shlex.split(tunnel(8610))[3:6] == ["8610:127.0.0.1:8610", "-p", "2222"]
    monkeypatch.setenv("SSH_CONNECTION", "UNKNOWN")
    assert tunnel(8501).endswith(f"@{socket.gethostname()}")
