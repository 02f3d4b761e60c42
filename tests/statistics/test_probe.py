"""Linear probes, against discriminant analysis by definition, scikit-learn and planted effects.

This file has more than 400 lines, because all of these tests need the planted recordings.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import special
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

from attnscope.kinds import Gate
from attnscope.recording.recording import Recording
from attnscope.statistics import class_sums, gate_logits, linear_probe, probe, rotation
from attnscope.statistics.inference import mean_share_interval
from attnscope.statistics.splits import present_classes, stratified_folds
from tests.making import refused


def sigmoids(count, effect, channels=6, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    logits = rng.normal(size=(count, channels)) @ rng.normal(size=(channels, channels))
    logits[:, : classes - 1] += effect * np.eye(classes)[labels][:, : classes - 1]
    return labels, logits


def chosen(x, labels, classes, seed):
    """Return the shrinkage that is best in a split of the fitting half."""
    rng = np.random.default_rng(seed)
    parts = stratified_folds(labels, 2, rng)
    a, b = parts == 0, parts == 1
    quality = {}
    for shrinkage in (0.1, 0.01, 1e-3, 1e-4):
        right = by_definition(x[a], labels[a], x[b], classes, shrinkage) == labels[b]
        quality[shrinkage] = np.mean([right[labels[b] == k].mean() for k in range(classes)])
    return max(quality, key=quality.get)  # the first of equally good ones


def by_definition(x, labels, y, classes, shrinkage):
    """Predict by discriminant analysis with a shrunk covariance, from its definition."""
    mean, std = x.mean(0), x.std(0)
    x, y = (x - mean) / std, (y - mean) / std
    means = np.stack([x[labels == k].mean(0) for k in range(classes)])
    offset = x - means[labels]
    within = (1 - shrinkage) * offset.T @ offset / len(x) + shrinkage * np.eye(x.shape[1])
    d = y[:, None] - means[None]
    return np.einsum("nkc,cd,nkd->nk", d, np.linalg.inv(within), d).argmin(1)


@pytest.mark.parametrize("channels", [3, 6, 40, 120])  # also more than images
def test_linear_probe_equals_discriminant_analysis(write_recording, channels):
    labels, logits = sigmoids(90, 2, channels)
    labels[:12] = 0  # classes of different sizes
    recording = write_recording(labels=labels, gates={"g": special.expit(logits)})
    row = linear_probe(recording, permutations=9, seed=3).loc[0]
    halves = stratified_folds(labels, 2, np.random.default_rng(3))
    x = gate_logits(recording, "g")[0].astype(float)
    fit, score = halves == 1, halves == 0
    shrinkage = chosen(x[fit], labels[fit], 3, 4)
    assert row["shrinkage"] == shrinkage
    predictions = by_definition(x[fit], labels[fit], x[score], 3, shrinkage)
    expected = balanced_accuracy_score(labels[score], predictions)
    assert row["balanced_accuracy"] == pytest.approx(expected)
    assert (row["fitted"], row["scored"]) == (fit.sum(), score.sum())
    right = [(predictions[labels[score] == k] == k).sum() for k in range(3)]
    assert row["low"] < expected < row["high"]
    interval = mean_share_interval(
        np.array(right) / np.bincount(labels[score]), np.bincount(labels[score])
    )
    assert (row["low"], row["high"]) == pytest.approx(interval)


def test_chance_is_the_accuracy_of_the_predictions_under_permuted_labels(write_recording):
    labels, logits = sigmoids(60, 1)
    labels[:9] = 0
    recording = write_recording(labels=labels, gates={"g": special.expit(logits)})
    row = linear_probe(recording, permutations=19, seed=3).loc[0]
    halves = stratified_folds(labels, 2, np.random.default_rng(3))
    x = gate_logits(recording, "g")[0].astype(float)
    fit, score = halves == 1, halves == 0
    best = chosen(x[fit], labels[fit], 3, 4)
    predictions = by_definition(x[fit], labels[fit], x[score], 3, best)
    orders = np.tile(np.arange(score.sum()), (19, 1))
    orders = np.random.default_rng(5).permuted(orders, axis=1)
    null = [balanced_accuracy_score(labels[score][order], predictions) for order in orders]
    assert row["null"] == pytest.approx(np.mean(null))
    assert (row["null_low"], row["null_high"]) == pytest.approx(
        tuple(np.quantile(null, [0.025, 0.975], method="weibull"))
    )
    assert row["p"] == pytest.approx(
        (1 + (np.array(null) >= row["balanced_accuracy"] - 1e-9).sum()) / 20
    )


def test_the_limit_divides_significant_gates_from_others(write_recording):
    """Also with so few images that the central 95% of the null reach all of them."""
    for count, classes in ((8, 4), (60, 3), (90, 3)):
        gates = {}
        for effect in (0, 0.5, 1, 4):
            labels, logits = sigmoids(count, effect, seed=int(2 * effect), classes=classes)
            gates[f"g{effect}"] = special.expit(logits)
        recording = write_recording(f"net{count}", labels=labels, gates=gates, names=list("abcd"))
        frame = linear_probe(recording, permutations=199)
        assert frame["limit"].nunique() == 1
        above = frame["balanced_accuracy"] > frame["limit"]
        assert above.tolist() == (frame["p_max"] < 0.05).tolist()


def test_usable_information_by_definition(write_recording):
    """Two normal classes: the probabilities follow from the density of each class."""
    labels, logits = sigmoids(400, 1.5, 2, classes=2)
    recording = write_recording(labels=labels, gates={"g": special.expit(logits)})
    row = linear_probe(recording, permutations=9, seed=3).loc[0]
    halves = stratified_folds(labels, 2, np.random.default_rng(3))
    x = gate_logits(recording, "g")[0].astype(float)
    fit, score = halves == 1, halves == 0
    model = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(x[fit], labels[fit])
    own = model.predict_proba(x[score])[np.arange(score.sum()), labels[score]]
    gain = [np.log(2 * own[labels[score] == k]) for k in range(2)]
    assert row["nats"] == pytest.approx(np.mean([each.mean() for each in gain]), abs=0.02)
    assert row["nats_low"] < row["nats"] < row["nats_high"] < np.log(2) + 0.1
    error = np.sqrt(sum(each.var(ddof=1) / len(each) for each in gain)) / 2
    width = (row["nats_high"] - row["nats_low"]) / 2
    assert width == pytest.approx(1.97 * error, rel=0.1)
    none = linear_probe(
        write_recording("none", labels=labels, gates={"g": special.expit(sigmoids(400, 0)[1])}), 9
    ).loc[0]
    assert abs(none["nats"]) < 0.05


def test_a_gate_that_varies_only_where_it_is_scored_has_no_probe(write_recording):
    labels = np.arange(40) % 2
    halves = stratified_folds(labels, 2, np.random.default_rng(0))
    values = np.where(halves == 1, 0.5, np.random.default_rng(0).uniform(0.1, 0.9, 40))[:, None]
    row = linear_probe(write_recording(labels=labels, gates={"g": values}), 9).loc[0]
    assert row[["balanced_accuracy", "low", "null", "p", "p_max", "nats"]].isna().all()
    assert (row["fitted"], row["scored"]) == (20, 20)


def test_copies_are_in_one_half_and_permuted_together(write_recording):
    labels, logits = sigmoids(40, 1)
    twice = np.repeat(np.arange(40), 2)
    recording = write_recording(labels=labels[twice], gates={"g": special.expit(logits)[twice]})
    row = linear_probe(recording, permutations=99, groups=twice).loc[0]
    alone = linear_probe(
        write_recording("alone", labels=labels, gates={"g": special.expit(logits)}), 99
    ).loc[0]
    assert row["balanced_accuracy"] == pytest.approx(alone["balanced_accuracy"])
    assert row["p"] == alone["p"]
    assert row["scored"] == 2 * alone["scored"]
    with refused("AS717", names=(80,)):
        linear_probe(recording, 9, groups=[1, 2])


@pytest.mark.parametrize("copies", [2, 3])
def test_a_class_of_copies_of_one_image_is_left_out(write_recording, copies):
    # A probe needs each class in both halves, and copies are in one half.
    labels, logits = sigmoids(80, 1.5, classes=2)
    values = special.expit(np.append(logits, np.full((copies, 6), 3.0), 0))
    recording = write_recording(labels=np.append(labels, [2] * copies), gates={"g": values})
    row = linear_probe(recording, 99, seed=3, groups=np.append(np.arange(80), [80] * copies)).loc[0]
    halves = stratified_folds(labels, 2, np.random.default_rng(3))
    x = gate_logits(recording, "g")[0][:80].astype(float)
    fit, score = halves == 1, halves == 0
    best = chosen(x[fit], labels[fit], 2, 4)
    found = by_definition(x[fit], labels[fit], x[score], 2, best)
    assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels[score], found))
    assert row["null"] == pytest.approx(1 / 2, abs=0.03)
    assert (row["fitted"], row["scored"]) == (40, 40)


def test_present_classes_count_groups_by_the_class_of_their_first_image():
    labels = np.array([0, 1, 0, 2, 2, 1, 4, 2, 0])
    groups = np.array([5, 3, 3, 9, 9, 7, 8, 3, 6])  # the images of group 3 have three classes
    known, kept, count = present_classes(labels, 2, groups)
    np.testing.assert_array_equal(known, [0, 1])  # groups 5 and 6, groups 3 and 7
    np.testing.assert_array_equal(kept, [0, 1, 0, -1, -1, 1, -1, -1, 0])
    np.testing.assert_array_equal(count, [3, 2])
    halves = stratified_folds(kept, 2, np.random.default_rng(0), groups)
    for label in range(2):
        assert set(halves[kept == label]) == {0, 1}


def test_linear_probe_is_close_to_scikit_learn(write_recording):
    labels, logits = sigmoids(600, 2, 12, classes=10)
    recording = write_recording(
        labels=labels, gates={"g": special.expit(logits)}, names=list("abcdefghij")
    )
    row = linear_probe(recording, permutations=9).loc[0]
    halves = stratified_folds(labels, 2, np.random.default_rng(0))
    model = LinearDiscriminantAnalysis().fit(logits[halves == 1], labels[halves == 1])
    theirs = balanced_accuracy_score(labels[halves == 0], model.predict(logits[halves == 0]))
    assert row["balanced_accuracy"] == pytest.approx(theirs, abs=0.02)


def test_linear_probe_separates_classes_on_a_line(write_recording):
    # Regression on class indicators would never predict the middle class.
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    recording = write_recording(
        labels=labels, gates={"g": special.expit(labels[:, None] + 0.1 * rng.normal(size=(300, 1)))}
    )
    row = linear_probe(recording, permutations=99).loc[0]
    assert row["balanced_accuracy"] == 1
    assert row["high"] == 1
    assert 0.95 < row["low"] < 1  # the interval has a width
    assert row["p"] == 1 / 100
    assert row["null"] == pytest.approx(1 / 3, abs=0.03)


def test_uninformative_and_constant_gates_are_at_chance(write_recording):
    labels, logits = sigmoids(120, 0)
    gates = {"none": special.expit(logits), "constant": np.full((120, 4), 0.5)}
    frame = linear_probe(write_recording(labels=labels, gates=gates), permutations=99).set_index(
        "gate"
    )
    assert frame["p"]["none"] > 0.05
    assert (
        frame["null_low"]["none"]
        <= frame["balanced_accuracy"]["none"]
        <= frame["null_high"]["none"]
    )
    assert frame["balanced_accuracy"]["constant"] == pytest.approx(1 / 3)
    assert frame["p"]["constant"] == 1


def test_results_do_not_depend_on_the_block_size(write_recording, monkeypatch):
    labels, logits = sigmoids(60, 1)
    recording = write_recording(labels=labels, gates={"g": special.expit(logits)})
    expected = linear_probe(recording, permutations=19)
    monkeypatch.setattr(class_sums, "_DENSE_CLASSES", 2)
    assert linear_probe(recording, permutations=19).equals(expected)
    monkeypatch.setattr(probe, "_CELLS", 1)
    assert linear_probe(recording, permutations=19)["balanced_accuracy"].equals(
        expected["balanced_accuracy"]
    )
    monkeypatch.setattr(probe, "_BLOCK", 7)
    monkeypatch.setattr(rotation, "_BLOCK", 11)
    for column in ("balanced_accuracy", "nats", "nats_low", "nats_high"):
        found = linear_probe(recording, permutations=19)[column]
        assert found.to_numpy() == pytest.approx(expected[column].to_numpy(), abs=1e-12)


def test_many_classes_take_little_more_memory_than_the_scores(write_recording, monkeypatch):
    """The scores of all images to score are the largest array; there is no second one of its size."""
    classes, images = 400, 6400
    labels = np.arange(images) % classes
    values = np.random.default_rng(0).random((images, 8), np.float32)
    recording = write_recording(
        labels=labels, gates={"g": values}, names=[*map(str, range(classes))]
    )
    for module in (probe, rotation):  # small for few images, too
        monkeypatch.setattr(module, "_BLOCK", 64)
    linear_probe(recording, permutations=1)  # imports and caches do not count
    tracemalloc.start()
    linear_probe(recording, permutations=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    scores = images // 2 * classes * 8
    assert scores < peak < 2 * scores


def test_linear_probe_with_more_channels_than_images(write_recording):
    labels, logits = sigmoids(40, 4, 100)
    row = linear_probe(
        write_recording(labels=labels, gates={"g": special.expit(logits / 10)}), 9
    ).loc[0]
    assert 0 <= row["balanced_accuracy"] <= 1


def test_gate_logits_clip_values_at_the_bounds(write_recording):
    values = np.array([[0.5, 0.0, 1.0], [special.expit(2), 1e-9, 0.25]])
    logits, clipped = gate_logits(write_recording(labels=[0, 1], gates={"g": values}), "g")
    edge = special.logit(2.0**-24)
    expected = [[0, edge, -edge], [2, edge, np.log(1 / 3)]]
    assert logits == pytest.approx(np.array(expected), abs=1e-5)
    assert clipped == 3
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("activation", "bounds", "values", "expected"),
    [
        ("tanh", (-1, 1), np.tanh([-1.0, 0.5, 2.0]), 2 * np.array([-1, 0.5, 2])),
        ("sigmoid", (0, 2), 2 * special.expit([-1.0, 0.5, 2.0]), [-1, 0.5, 2]),
        ("hardsigmoid", (0, 1), [0.25, 0.5, 0.75], [0.25, 0.5, 0.75]),
        ("relu6", (0, 6), [1.5, 3.0, 4.5], [0.25, 0.5, 0.75]),
        ("softmax", (0, 1), [0.2, 0.5, 0.3], np.log([0.2, 0.5, 0.3])),
        ("erf", (-1, 1), special.erf([-1.0, 0.5, 1.0]), [-1, 0.5, 1]),
        ("softsign", (-1, 1), [-0.5, 0.5, 0.75], [-1, 1, 3]),
    ],
)
def test_each_activation_has_its_inverse(
    tmp_path, write_recording, activation, bounds, values, expected
):
    recording = write_recording(labels=[0], gates={"g": np.array(values)[None]}, bounds=bounds)
    recording.gates[0] = Gate("g", "channel", 3, None, activation, *bounds, 1)
    assert gate_logits(recording, "g")[0][0] == pytest.approx(np.array(expected), abs=1e-5)


def test_linear_probe_refuses_an_unknown_activation(write_recording):
    recording: Recording = write_recording(labels=[0, 0, 1, 1], gates={"g": [[0.5]] * 4})
    recording.gates[0] = Gate("g", "channel", 1, None, "entmax", 0, 1, 1)
    with refused("AS705", names=("'g'", "entmax")):
        linear_probe(recording)


def test_linear_probe_is_nan_with_too_few_classes_or_images(write_recording):
    for labels in ([0, 1, 2], [1, 1, 1]):
        frame = linear_probe(
            write_recording(f"r{labels}", labels=labels, gates={"g": [[0.1], [0.2], [0.4]]}), 9
        )
        assert frame[["balanced_accuracy", "low", "high", "null", "p"]].isna().all(axis=None)
        assert frame[["fitted", "scored", "clipped"]].eq(0).all(axis=None)
    alone = linear_probe(
        write_recording("a", labels=[0, 0, 1, 1, 2], gates={"g": np.arange(5)[:, None] / 8 + 0.1}),
        9,
    )
    assert alone[["fitted", "scored"]].to_numpy().tolist() == [
        [2, 2]
    ]  # a class of one image is left out
    with refused("AS701", names=("permutations", 0)):
        linear_probe(write_recording("p", labels=[0, 1]), 0)


def test_linear_probe_uses_the_pooled_input_unchanged(write_recording):
    labels, inputs = sigmoids(90, 2, 6)
    inputs = 1000 * inputs - 50  # outside the domain of the logit
    recording = write_recording(
        labels=labels, gates={"g": np.full((90, 6), 0.5)}, pooled={"g": inputs}
    )
    recording.gates[0] = Gate("g", "channel", 6, None, "entmax", 0, 1, 1)  # without an inverse
    row = linear_probe(recording, permutations=9, seed=3, of="pooled_input").loc[0]
    halves = stratified_folds(labels, 2, np.random.default_rng(3))
    fit, score = halves == 1, halves == 0
    x = inputs.astype(np.float32).astype(float)
    shrinkage = chosen(x[fit], labels[fit], 3, 4)
    predictions = by_definition(x[fit], labels[fit], x[score], 3, shrinkage)
    assert row["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels[score], predictions)
    )
    assert (row["shrinkage"], row["clipped"]) == (shrinkage, 0)


def test_logits_as_pooled_input_give_the_same_probe_as_the_gate(write_recording):
    labels, logits = sigmoids(60, 1)
    gates = {"g": special.expit(logits)}
    values = gate_logits(write_recording("gate", labels=labels, gates=gates), "g")[0]
    recording = write_recording(labels=labels, gates=gates, pooled={"g": values})
    assert linear_probe(recording, 19, of="pooled_input").equals(linear_probe(recording, 19))


def test_linear_probe_shows_information_that_the_gate_lost(write_recording):
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    maps = rng.normal(size=(120, 4, 5))
    maps[:, 2, 3] += 4 * labels
    recording = write_recording(
        labels=labels, gates={"s": rng.uniform(0, 1, (120, 4, 5))}, pooled={"s": maps}
    )
    gate, given = linear_probe(recording, 99), linear_probe(recording, 99, of="pooled_input")
    assert gate["p"][0] > 0.05
    assert given["balanced_accuracy"][0] > 0.8 > gate["high"][0]
    assert given["p"][0] == 1 / 100
    assert list(given) == list(gate)


def test_missing_or_infinite_pooled_inputs(write_recording):
    labels, logits = sigmoids(60, 1)
    gates = {"own": special.expit(logits), "factor": special.expit(logits)}
    some = write_recording("some", labels=labels, gates=gates, pooled={"own": logits})
    frame = linear_probe(some, 9, of="pooled_input").set_index("gate")
    assert frame.loc["own", "fitted"] == 30
    assert frame.loc["factor", ["fitted", "scored", "clipped"]].tolist() == [0, 0, 0]
    assert frame.loc["factor", ["balanced_accuracy", "low", "high", "null", "p"]].isna().all()
    with refused("AS612", names=("own",)):
        linear_probe(write_recording("none", labels=labels, gates=gates), of="pooled_input")
    with refused("AS706", names=("'input'", "pooled_input")):
        linear_probe(some, of="input")
    logits[3, 1] = np.inf
    endless = write_recording("endless", labels=labels, gates=gates, pooled={"own": logits})
    with refused("AS704", names=("'own'", 1, endless.folder)):
        linear_probe(endless, of="pooled_input")


def test_p_max_compares_with_the_highest_accuracy_of_any_gate(write_recording):
    """With one gate p_max equals p; with several it compares with the highest accuracy."""
    gates = {f"g{i}": special.expit(sigmoids(90, 2.0 * i, seed=i)[1]) for i in range(3)}
    labels = np.arange(90) % 3
    alone = [
        linear_probe(
            write_recording(f"alone{i}", labels=labels, gates={name: values}), permutations=99
        ).loc[0]
        for i, (name, values) in enumerate(gates.items())
    ]
    both = linear_probe(write_recording("all", labels=labels, gates=gates), permutations=99)
    assert [row["p"] for row in alone] == both["p"].tolist()
    assert [row["p_max"] for row in alone] == both["p"].tolist()
    assert (both["p_max"] >= both["p"]).all()
    assert (both["p_max"] > both["p"]).any()
    assert both["p_max"].iloc[2] == 0.01
