"""Register the data sources of the package. Does not import torch."""

from __future__ import annotations

from attnscope.data import digits  # isort: skip  # the default is listed first
from attnscope.data import cifar, folder
from attnscope.data.sources import DATA_SOURCES, describe_sources, find_source

__all__ = ["DATA_SOURCES", "cifar", "describe_sources", "digits", "find_source", "folder"]
