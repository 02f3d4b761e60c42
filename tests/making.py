"""Images and checks that tests of several folders share."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attnscope.commands.main import main
from attnscope.errors import ERRORS, InputError


@contextmanager
def refused(code: str, names: tuple[object, ...] = ()) -> Iterator[None]:
    """The block raises an `InputError` with this code, in one line.

    Args:
        code: of `attnscope.errors.ERRORS`.
        names: values that the message contains, such as a path, a gate's name or an option.
    """
    assert code in ERRORS
    with pytest.raises(InputError) as caught:
        yield
    assert caught.value.code == code, f"{caught.value} has another code than {code}"
    _check_message(str(caught.value), names)


def refused_command(
    capsys: pytest.CaptureFixture[str],
    code: str,
    *arguments: object,
    names: tuple[object, ...] = (),
) -> None:
    """The command ``attnscope ARGUMENTS`` exits with 2 and prints one line with this code."""
    assert code in ERRORS
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr().err.strip()
    line = printed.splitlines()[-1] if printed else ""
    assert re.search(r"\[(AS\d{3})\]$", line), line
    assert line.endswith(f"[{code}]"), f"{line} has another code than {code}"
    _check_message(line, names)


def _check_message(message: str, names: tuple[object, ...]) -> None:
    assert "\n" not in message
    for name in names:
        assert str(name) in message, f"{name} is not named in: {message}"


def lock_folders(monkeypatch: pytest.MonkeyPatch, *locked: Path) -> None:
    """Let folders be as if one may not enter them: tests may run as root, who may."""

    def refusing(call: Callable[..., Any], lists: bool) -> Callable[..., Any]:
        def wrapped(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, (str, os.PathLike)):
                place = Path(os.path.abspath(path))
                if set(locked) & {*place.parents, *([place] if lists else [])}:
                    raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return call(path, *args, **kwargs)

        return wrapped

    for name in ("stat", "lstat", "open", "listdir", "scandir"):
        lists = name in ("listdir", "scandir")
        monkeypatch.setattr(os, name, refusing(getattr(os, name), lists))


def write_images(
    root: Path,
    train: int = 12,
    test: int = 6,
    seed: int = 0,
    levels: Mapping[str, int] = MappingProxyType({"dark": 60, "light": 190}),
) -> Path:
    """Classes of 16×16 pictures that differ in brightness: ``root/train`` and ``root/test``."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("test", test)):
        for name, level in levels.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.normal(level, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root
