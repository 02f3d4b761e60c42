"""What the package hands on, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_every_public_name_is_what_it_says_whatever_was_imported_before() -> None:
    code = """
import attnscope.capturing, attnscope
from attnscope import *
from attnscope import capture, Recording
assert callable(capture) and callable(find_gates) and isinstance(Recording, type)
assert all(getattr(attnscope, name) is not None for name in attnscope.__all__)
print(len(attnscope.__all__))
"""
    assert int(run(code)) >= 11


def test_reading_a_recording_and_asking_for_help_bring_in_no_torch() -> None:
    code = """
import sys
import attnscope, attnscope.statistics, attnscope.report, attnscope.commands.main
from attnscope import Recording
try:
    attnscope.commands.main.main(["train", "--help"])
except SystemExit:
    pass
print("torch" in sys.modules)
"""
    assert run(code).splitlines()[-1] == "False"


def test_an_unknown_name_is_an_attribute_error() -> None:
    code = "import attnscope\ntry: attnscope.nothing\nexcept AttributeError as e: print(e)"
    assert "nothing" in run(code)
