"""The same work on a GPU and on the CPU: ``pytest -m cuda``, or ``python -m analysis.gpu``.

Without a GPU the tests are skipped. With ``ATTNSCOPE_TEST_DEVICE=cpu`` they compare the CPU with
itself, to try them.
"""

from __future__ import annotations

import os


def device_name() -> str:
    """Return the name of the device that is compared with the CPU."""
    return os.environ.get("ATTNSCOPE_TEST_DEVICE", "cuda")
