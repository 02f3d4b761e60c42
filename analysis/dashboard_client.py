"""A visitor of the dashboard without a browser: pages and clicks over Streamlit's websocket.

It sends what a browser sends, and reads everything that the server sends for it, so that the time
of a page is the server's time. Widgets are those that the pages send, so a new page needs no line
here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

_PATIENCE = 600
"""Seconds until an answer is given up."""
_SOON = 1.0
"""Parts of a page that run again within so many seconds wait for a result; others watch files."""


@dataclass(frozen=True)
class Widget:
    """A control on the present page."""

    label: str
    key: str
    """Its name in the address; empty if it has none there."""
    fragment: str
    """The part of the page that is run again alone; empty for the whole page."""
    choices: tuple[WidgetState, ...]
    """What it can be set to, without the value that it had when the page was opened."""

    def describe(self, choice: WidgetState) -> str:
        """Return its label and a choice, in one line."""
        value = getattr(choice, str(choice.WhichOneof("value")))
        return f"{self.label}: {', '.join(map(str, getattr(value, 'data', [value])))}"


@dataclass
class Answer:
    """What the server sent for one visit or click."""

    seconds: float = 0.0
    sent: int = 0
    """Bytes."""
    errors: list[str] = field(default_factory=list)
    """What the page shows as an error or an exception."""
    links: list[tuple[str, str]] = field(default_factory=list)
    """Page and query of each link of the page."""
    texts: list[str] = field(default_factory=list)
    """Plain texts and captions that the page shows."""


class Visitor:
    """One visitor with a websocket of its own."""

    def __init__(self, port: int, cookie: str = "") -> None:
        """Prepare a visit of a server on this machine.

        Args:
            port: Its port.
            cookie: The ``Cookie`` header, for a server that requires one.
        """
        self._port = port
        self._cookie = cookie
        self._stack = ExitStack()
        self._page = ""
        self._query = ""
        self._states: dict[str, WidgetState] = {}
        self._by_hash: dict[str, str] = {}
        self.session = ""
        """How the server calls this visitor."""
        self.pages: list[str] = []
        """Names of all pages as they stand in addresses; that of the first page is empty."""
        self.widgets: dict[str, Widget] = {}
        """The controls on the present page."""
        self.buttons: dict[str, Widget] = {}
        """The buttons on the present page, disabled ones, too, by their ids."""
        self._repeated: dict[str, float] = {}
        """Parts of the present page that run again by themselves -> seconds between two runs."""

    def __enter__(self) -> Visitor:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave."""
        self._stack.close()

    def open(self, page: str = "", query: str = "") -> Answer:
        """Open a page by its address, as a new tab does: in a session of its own.

        Args:
            page: Name of the page in addresses; empty for the first page.
            query: What follows the ``?`` in the address.
        """
        self._stack.close()
        place = f"127.0.0.1:{self._port}"
        began = time.perf_counter()
        self._socket: ClientConnection = self._stack.enter_context(
            connect(
                f"ws://{place}/_stcore/stream",
                origin=Origin(f"http://{place}"),
                subprotocols=[Subprotocol("streamlit")],
                additional_headers={"Cookie": self._cookie} if self._cookie else {},
                max_size=None,
                open_timeout=_PATIENCE,  # a busy machine answers late
                ping_interval=None,
            )
        )
        connected = time.perf_counter() - began
        answer = self.go(page, query)
        answer.seconds += connected
        return answer

    def go(self, page: str, query: str = "") -> Answer:
        """Go to a page by a link of the present page, in the same session.

        Args:
            page: Name of the page in addresses; empty for the first page.
            query: What follows the ``?`` in the address.
        """
        self._states.clear()
        self.widgets.clear()
        self._query = query
        message = BackMsg()
        message.rerun_script.page_name = page
        return self._run(message)

    def click(self, widget: str, choice: WidgetState) -> Answer:
        """Set a control of the present page to one of its choices.

        Args:
            widget: One of `widgets`.
            choice: One of its choices.
        """
        self._states[widget] = choice
        return self._send(self.widgets[widget].fragment)

    def press(self, button: str) -> Answer:
        """Press one of `buttons`, even if the page has disabled it."""
        return self._send(self.buttons[button].fragment, WidgetState(id=button, trigger_value=True))

    def settle(self) -> float:
        """Wait until the page shows everything, as a browser does, and return the seconds."""
        began = time.perf_counter()
        while waiting := [part for part, pause in self._repeated.items() if pause < _SOON]:
            time.sleep(min(self._repeated[part] for part in waiting))
            for part in waiting:
                if part in self._repeated:
                    self._send(part)
        return time.perf_counter() - began

    def _send(self, fragment: str, *pressed: WidgetState) -> Answer:
        message = BackMsg()
        message.rerun_script.page_script_hash = self._page
        message.rerun_script.fragment_id = fragment
        message.rerun_script.widget_states.widgets.extend(pressed)
        present = [state for name, state in self._states.items() if name in self.widgets]
        message.rerun_script.widget_states.widgets.extend(present)
        return self._run(message)

    def choices(self, widget: str) -> tuple[WidgetState, ...]:
        """Return what a control can be set to; nothing if the page does not have it now."""
        found = self.widgets.get(widget)
        return () if found is None else found.choices

    def _run(self, message: BackMsg) -> Answer:
        message.rerun_script.query_string = self._query
        fragment = message.rerun_script.fragment_id
        self._forget(fragment)
        began = time.perf_counter()
        self._socket.send(message.SerializeToString())
        answer = Answer()
        while True:
            received = self._socket.recv(timeout=_PATIENCE)
            assert isinstance(received, bytes)
            answer.sent += len(received)
            forward = ForwardMsg.FromString(received)
            self._note(forward, answer)
            if forward.WhichOneof("type") != "script_finished":
                continue
            if forward.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                answer.seconds = time.perf_counter() - began
                return answer
            self._forget("")  # the whole page runs again

    def _forget(self, fragment: str) -> None:
        """Forget the controls of a part of the page that runs again and sends them anew."""
        if not fragment:
            self.widgets.clear()
            self.buttons.clear()
            self._repeated.clear()
        for controls in (self.widgets, self.buttons):
            for name in [name for name, each in controls.items() if each.fragment == fragment]:
                del controls[name]

    def _note(self, forward: ForwardMsg, answer: Answer) -> None:
        kind = forward.WhichOneof("type")
        if kind == "new_session":
            self.session = forward.new_session.initialize.session_id or self.session
            self._page = forward.new_session.page_script_hash
        elif kind == "navigation":
            self._by_hash = {
                page.page_script_hash: "" if page.is_default else page.url_pathname
                for page in forward.navigation.app_pages
            }
            self.pages = list(self._by_hash.values())
            self._page = forward.navigation.page_script_hash
        elif kind == "auto_rerun":
            self._repeated[forward.auto_rerun.fragment_id] = forward.auto_rerun.interval
        elif kind == "stop_auto_rerun":
            self._repeated.pop(forward.stop_auto_rerun.fragment_id, None)
        elif kind == "page_info_changed":
            self._query = forward.page_info_changed.query_string
        elif kind == "delta" and forward.delta.WhichOneof("type") == "new_element":
            self._note_element(forward.delta.new_element, forward.delta.fragment_id, answer)

    def _note_element(self, element: Any, fragment: str, answer: Answer) -> None:
        kind = element.WhichOneof("type")
        content = getattr(element, kind)
        if kind == "exception":
            answer.errors.append(content.message)
        elif kind == "alert" and content.format == content.Format.ERROR:
            answer.errors.append(content.body)
        elif kind == "page_link":
            page = self._by_hash.get(content.page_script_hash)
            if page is not None:
                answer.links.append((page, content.query_string))
        elif kind in ("text", "markdown"):
            answer.texts.append(content.body)
        elif kind == "button":
            self.buttons[content.id] = Widget(content.label, "", fragment, ())
        elif kind in _CHOICES and not content.disabled:
            choices = tuple(_CHOICES[kind](content))
            label = getattr(content, "label", "") or kind
            key = content.query_param_key if content.HasField("query_param_key") else ""
            self.widgets[content.id] = Widget(label, key, fragment, choices)


def _of_select(box: Any) -> Iterator[WidgetState]:
    shown = box.options[box.default] if box.HasField("default") and box.options else None
    shown = box.raw_value if box.set_value else shown
    for option in box.options:
        if option != shown:
            yield WidgetState(id=box.id, string_value=option)


def _of_group(group: Any) -> Iterator[WidgetState]:
    chosen = {group.options[index].content for index in group.default}
    chosen = set(group.raw_values) if group.set_value else chosen
    for option in group.options:
        if option.content not in chosen:
            state = WidgetState(id=group.id)
            state.string_array_value.data.append(option.content)
            yield state


def _of_pagination(pages: Any) -> Iterator[WidgetState]:
    shown = pages.value if pages.set_value else pages.default
    for page in range(1, pages.num_pages + 1):
        if page != shown:
            yield WidgetState(id=pages.id, int_value=page)


def _of_checkbox(box: Any) -> Iterator[WidgetState]:
    shown = box.value if box.set_value else box.default
    yield WidgetState(id=box.id, bool_value=not shown)


def _of_slider(slider: Any) -> Iterator[WidgetState]:
    for value in (slider.min, slider.max):
        state = WidgetState(id=slider.id)
        state.double_array_value.data.extend([value] * len(slider.default))
        yield state


_CHOICES = {
    "selectbox": _of_select,
    "radio": _of_select,
    "button_group": _of_group,
    "pagination": _of_pagination,
    "checkbox": _of_checkbox,
    "slider": _of_slider,
}
"""Kind of a control -> function that yields its choices. Buttons, which start work, have none."""


@dataclass(frozen=True)
class Server:
    """A dashboard in a process of its own."""

    port: int
    process: int

    @property
    def cpu(self) -> float:
        """Seconds of CPU time that it has taken."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> int:
        """Resident memory in bytes."""
        return self._status("VmRSS")

    @property
    def peak(self) -> int:
        """Highest resident memory in bytes."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process}/status").read_text()
        return 1024 * int(status.split(f"{name}:")[1].split()[0])


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder until the block ends.

    Args:
        folder: What the dashboard shows.

    Raises:
        SystemExit: The server did not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "attnscope", "dashboard", str(folder), "--port", str(port)],
        stdout=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                time.sleep(0.1)
            else:
                break
        if process.poll() is not None:
            sys.exit("the dashboard did not start")
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait()
