"""Register the target schemes of the package."""

from __future__ import annotations

from attnscope.networks import folded, targets
from attnscope.networks.source import NetworkSource

__all__ = ["NetworkSource", "folded", "targets"]
