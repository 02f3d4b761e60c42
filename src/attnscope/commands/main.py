"""The commands. Whatever is slow to import is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from attnscope.commands.capture import Capture
from attnscope.commands.compare import Compare
from attnscope.commands.dashboard import Dashboard
from attnscope.commands.demo import Demo
from attnscope.commands.figures import Figures
from attnscope.commands.fold import Fold
from attnscope.commands.inspect import Inspect
from attnscope.commands.intervene import Intervene
from attnscope.commands.report import Report
from attnscope.commands.summary import Summary
from attnscope.commands.train import Train
from attnscope.commands.verify import Verify
from attnscope.errors import InputError
from attnscope.files import DISK_ERRORS

_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": Demo,
    "train": Train,
    "inspect": Inspect,
    "summary": Summary,
    "capture": Capture,
    "intervene": Intervene,
    "fold": Fold,
    "figures": Figures,
    "compare": Compare,
    "report": Report,
    "dashboard": Dashboard,
    "verify": Verify,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 is well, 2 is input that cannot be used, 130 is an interruption.

    1 is what went wrong on the way: a full disk, a loss that is not finite, a pipe that closed.
    """
    command = tyro.extras.subcommand_cli_from_dict(
        _COMMANDS,
        prog="attnscope",
        description="The microscope for the attention gates of convolutional networks.",
        args=arguments,
    )
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"attnscope: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"attnscope: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as under `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"attnscope: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"attnscope: {error if error.args else 'interrupted'}", file=sys.stderr)
        return 130
