"""A process that has imported the package, and runs commands in forks of itself.

The pages run many commands, and importing torch and the rest takes longer than most of them. Here
it happens once. A command has its own process, folder, environment and streams, as any other.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

IMPORTED = (
    "captum.attr",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.metrics",
    "torchvision",
)
CLIENT = """\
#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({place!r})
    request = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(request).encode() + b"\\n"], [0, 1, 2])
    answer = server.recv(16)
sys.exit(int(answer) if answer else 70)
"""


@contextlib.contextmanager
def running(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    """Start the server, and put ``folder/attnscope`` and ``folder/run-code`` beside its socket.

    The first does what the command does, and the second what ``python -c`` does.
    """
    place = folder / "socket"
    for name in ("attnscope", "run-code"):
        (folder / name).write_text(CLIENT.format(python=sys.executable, place=f"{place}-{name}"))
        (folder / name).chmod(0o755)
    command = [sys.executable, __file__, str(place)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        process.terminate()


def serve(place: str) -> None:
    """Run each command that a client sends in a fork."""
    import select

    import attnscope

    for name in attnscope.__all__:
        getattr(attnscope, name)
    for name in ("attnscope.commands.main", *IMPORTED):
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    listeners = {}
    for kind in ("attnscope", "run-code"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{place}-{kind}")
        listener.listen()
        listeners[listener] = kind
    print("ready", flush=True)
    while True:
        for listener in select.select([*listeners, sys.stdin], [], [])[0]:
            if listener is sys.stdin:  # it was closed: the tests have ended in whatever way
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                _answer(connection, listeners[listener])
            connection.close()


def _answer(connection: socket.socket, kind: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 16)
    request = json.loads(data)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [entry for entry in given if entry and entry not in sys.path]
    importlib.invalidate_caches()
    code = _run(kind, request["arguments"])
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    connection.send(str(code).encode())
    os._exit(code)


def _run(kind: str, arguments: list[str]) -> int:
    try:
        if kind == "attnscope":
            from attnscope.commands.main import main

            sys.argv = ["attnscope", *arguments]
            return int(main(arguments))
        sys.argv = ["-c", *arguments[1:]]
        sys.path.insert(0, "")
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(arguments[0], "-c", "exec"), names)
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    serve(sys.argv[1])
