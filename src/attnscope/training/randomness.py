"""Independent random seeds for different purposes, derived from the seed of a run."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(purpose: str, *keys: int) -> int:
    """Return a 63-bit seed that is a hash of a purpose and integers.

    Args:
        purpose: what the random numbers are for, such as ``order`` or ``augment``.
        keys: the seed of the run, then for example the epoch and the step.
    """
    # np.random.SeedSequence would give (seed, 0) and (seed, 0, 0) the same stream.
    digest = hashlib.sha256(repr((purpose, *keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def derived_generator(purpose: str, *keys: int) -> np.random.Generator:
    """Return a NumPy generator seeded by `derive_seed`."""
    return np.random.default_rng(derive_seed(purpose, *keys))
