"""Recordings and moments: write, read and verify them. Without torch."""

from attnscope.recording.moments import Moments
from attnscope.recording.places import find_recordings
from attnscope.recording.recording import Recording

__all__ = ["Moments", "Recording", "find_recordings"]
