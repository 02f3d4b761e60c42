"""Seeds that are derived for different purposes."""

from __future__ import annotations

from attnscope.training.randomness import derive_seed


def test_different_purposes_and_keys_have_different_seeds() -> None:
    keys = [
        (p, *k) for p in ("order", "augment") for k in ((0,), (0, 0), (0, 0, 0), (2**32,), (0, 1))
    ]
    assert len({derive_seed(*k) for k in keys}) == len(keys)
    assert all(0 <= derive_seed(*k) < 2**63 for k in keys)
