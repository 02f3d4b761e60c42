"""Gates as points, against NumPy's singular value decomposition and planted groups."""

from __future__ import annotations

import numpy as np
import pytest

from attnscope.statistics import embedding
from attnscope.statistics.embedding import (
    gate_vectors,
    neighbor_embedding,
    principal_components,
    sampled_rows,
)

GATE = "layer1.attention.channel"
MAP = "layer1.attention.spatial"


@pytest.mark.parametrize(("gate", "dense"), [(GATE, 600), (MAP, 600), (MAP, 0)])
@pytest.mark.parametrize("count", [60, 31])
def test_components_are_those_of_a_singular_value_decomposition(
    make_recording, monkeypatch, gate, dense, count
):
    monkeypatch.setattr(embedding, "_DENSE", dense)
    recording = make_recording(count=count)
    found = principal_components(recording, gate, components=3)
    values = recording.gate(gate).reshape(count, -1).astype(float)
    left, singular, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    shares = (singular**2 / (singular**2).sum())[:3]
    np.testing.assert_allclose(found.explained, shares, rtol=1e-5 if dense == 0 else 1e-9)
    expected = (left * singular)[:, :3]
    signs = np.sign((expected * found.scores).sum(0))
    np.testing.assert_allclose(found.scores, expected * signs, atol=1e-5)
    assert list(found.rows) == list(range(count))


def test_a_sample_is_the_same_for_the_same_seed(make_recording):
    recording = make_recording()
    a, b = (principal_components(recording, GATE, at_most=20, seed=1) for _ in range(2))
    assert len(set(a.rows)) == 20
    assert list(a.rows) == sorted(a.rows) == list(b.rows)
    np.testing.assert_array_equal(a.scores, b.scores)
    assert list(sampled_rows(60, 20, seed=2)) != list(a.rows)
    assert list(sampled_rows(3, 3)) == [0, 1, 2]
    np.testing.assert_array_equal(
        gate_vectors(recording, GATE, a.rows), recording.gate(GATE)[a.rows]
    )


def test_a_constant_gate_has_no_components(make_recording, monkeypatch):
    recording = make_recording()
    constant = np.full((60, 8), 0.3, np.float32)
    monkeypatch.setattr(embedding, "gate_vectors", lambda *_: constant)
    found = principal_components(recording, GATE)
    assert not found.scores.any()
    assert not found.explained.any()


def test_one_unit_has_one_component(make_recording, monkeypatch):
    recording = make_recording()
    values = recording.gate(GATE)[:, :1]
    monkeypatch.setattr(embedding, "gate_vectors", lambda *_: values)
    found = principal_components(recording, GATE)
    np.testing.assert_allclose(found.explained, [1, 0])
    np.testing.assert_allclose(found.scores[:, 0], values[:, 0] - values.mean(), atol=1e-6)
    assert not found.scores[:, 1].any()


def test_t_sne_keeps_groups_together_and_repeats():
    rng = np.random.default_rng(0)
    group = np.arange(60) % 3
    vectors = (5 * np.eye(3)[group] + rng.normal(scale=0.1, size=(60, 3))).astype(np.float32)
    places = neighbor_embedding(vectors)
    assert places.shape == (60, 2)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(60)
    assert (group[apart.argmin(1)] == group).all()
    np.testing.assert_array_equal(places, neighbor_embedding(vectors))
    assert np.isfinite(neighbor_embedding(vectors[:4])).all()
    assert np.isfinite(neighbor_embedding(vectors[:, :1])).all()
