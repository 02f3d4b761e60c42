"""The dashboard's server: what it refuses before it starts."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest

from attnscope.dashboard import serve
from attnscope.dashboard.place import Place
from tests.making import refused


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with refused("AS140", names=(port, "--port")):
        serve._check_port(port, "127.0.0.1")


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = used.getsockname()[1]
        with refused("AS141", names=(port, "127.0.0.1", "--port")):
            serve._check_port(port, "127.0.0.1")
    serve._check_port(port, "127.0.0.1")


def test_missing_pages_are_refused(tmp_path: Path) -> None:
    with refused("AS142", names=(tmp_path / "a" / "b",)):
        serve._find_app(tmp_path / "a" / "b")
    assert serve._find_app(Path(serve.__file__).resolve().parents[1]).is_file()


@pytest.mark.parametrize("address", ["203.0.113.7", "no.such.host.invalid", "", "unix://a"])
def test_an_address_of_another_machine_is_refused(address: str) -> None:
    with refused("AS145", names=("--address",)):
        serve._check_port(8501, address)


def test_a_port_in_use_is_passed_over_where_any_will_do() -> None:
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        port = used.getsockname()[1]
        used.listen()
        assert serve.free_port(port) not in (0, port)
    assert serve.free_port(port) == port


def test_a_folder_needs_no_recording_but_must_exist(tmp_path: Path) -> None:
    assert serve._count_recordings(tmp_path) == 0
    with refused("AS620", names=(tmp_path / "nowhere",)):
        serve._count_recordings(tmp_path / "nowhere")


def test_pages_show_no_tracebacks_and_follow_the_theme_of_the_browser() -> None:
    options = serve._options(Place("127.0.0.1", 8501, "", ()))
    assert options["client.showErrorDetails"] == "none"
    assert "theme.base" not in options, "it would choose one theme for every browser"
    light, dark = (
        {name.removeprefix(f"theme.{theme}.") for name in options if f".{theme}." in name}
        for theme in ("light", "dark")
    )
    assert light == dark != set()


def test_what_was_imported_is_left_out_of_later_collections() -> None:
    try:
        serve._forget_modules()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
