"""Recordings and moments: written, read and verified. No torch."""

from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording, find_recordings

__all__ = ["Moments", "Recording", "find_recordings"]
