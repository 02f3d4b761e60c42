"""Seeds for each use of random numbers, derived from the seed of the training."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(purpose: str, *keys: int) -> int:
    """One 63-bit seed from several numbers, so that no two uses of a seed share a stream."""
    # Not np.random.SeedSequence, to which (seed, 0) and (seed, 0, 0) are the same.
    digest = hashlib.sha256(repr((purpose, *keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def derived_generator(purpose: str, *keys: int) -> np.random.Generator:
    """A NumPy generator seeded by `derive_seed`."""
    return np.random.default_rng(derive_seed(purpose, *keys))
