"""Two networks, or two kinds of network, compared: `attnscope.comparison`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnscope import statistics
from attnscope.comparison import (
    Comparison,
    SeedComparison,
    compare,
    compare_kinds,
    open_all,
    open_recorded,
)
from attnscope.errors import InputError
from attnscope.plots import PLOTS
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.statistics.inference import paired_accuracy_change
from tests.making import refused

Make = Callable[..., Recording]


def in_kinds(make_recording: Make, kinds: dict[str, list[int]]) -> dict[str, list[Recording]]:
    """Recordings of kinds of network with these seeds, which tell of themselves what they are."""
    made: dict[str, list[Recording]] = {}
    for kind, seeds in kinds.items():
        for seed in seeds:
            recording = make_recording(f"{kind}-{seed}", count=30, seed=seed + 10 * len(made))
            recording.about |= {"model": {"attention": kind}, "seed": seed}
            made.setdefault(kind, []).append(recording)
    return made


def test_recordings_runs_and_paths_give_the_same_comparison(make_recording: Make) -> None:
    a, b = make_recording("a"), make_recording("b", seed=1)
    wanted = Comparison(a, b).accuracy
    run_a, run_b = (Run(each.folder.parent.parent) for each in (a, b))
    for first, second in ((a, b), (run_a, run_b), (run_a.folder, b.folder), (str(a.folder), b)):
        found = compare(first, second)
        assert found.names == ("a", "b")
        pd.testing.assert_frame_equal(found.accuracy, wanted)


def test_the_accuracy_is_that_of_compare_accuracy_with_its_interval(make_recording: Make) -> None:
    names = ["cat", "dog", "owl", "no image"]
    a = make_recording("a", accuracy=0.9, count=30, names=names)
    b = make_recording("b", seed=1, accuracy=0.5, count=30, names=names)
    table = compare(a, b).accuracy
    pd.testing.assert_frame_equal(
        table.drop(columns=["low", "high"]), statistics.compare_accuracy(a, b)
    )
    for row, rows in enumerate([slice(None), *(a.labels == k for k in range(4))]):
        _, low, high = paired_accuracy_change(a.right[rows], b.right[rows])
        np.testing.assert_array_equal(table.loc[row, ["low", "high"]].to_numpy(float), [low, high])
    assert (table["low"] < table["difference"])[:4].all()


def test_the_split_of_a_run_is_chosen(make_recording: Make) -> None:
    a, b = make_recording("a"), make_recording("b", seed=1)
    for recording in (a, b):
        recording.folder.rename(recording.folder.with_name("validation"))
    runs = [each.folder.parent.parent for each in (a, b)]
    assert compare(*runs, split="validation").a.folder.name == "validation"
    with refused("AS535", names=(runs[0],)):
        compare(*runs)


def test_different_images_are_refused(make_recording: Make) -> None:
    a, b = make_recording("a", count=30), make_recording("b", count=33)
    with refused("AS721", names=(30, 33)):
        compare(a, b)
    for recording, attention in ((a, "se"), (b, "cbam")):
        recording.about["model"] = {"attention": attention}
    with refused("AS721", names=(30, 33)):
        compare([a], [b])


def test_the_same_network_is_refused(make_recording: Make) -> None:
    a, b = make_recording("a"), make_recording("b", seed=1)
    with refused("AS924", names=(a.folder,)):
        compare(a, Run(a.folder.parent.parent))
    for recording in (a, b):
        recording.about |= {"weights_sha256": "0" * 64, "model": {"attention": "se"}}
    with refused("AS924", names=(a.folder, b.folder)):
        compare(a, b)
    with refused("AS924", names=(a.folder, b.folder)):
        PLOTS["per_class_accuracy"](a, b)
    b.about["model"] = {"attention": "none"}  # other code with the same weights
    assert compare(a, b).b is b
    b.about["model"], a.id, b.id = {"attention": "se"}, "1", "1"
    b.about["weights_sha256"] = "1" * 64
    with refused("AS924", names=(a.folder, b.folder)):
        compare(a, b)


def trained(recording: Recording, attention: str, **changed: object) -> Recording:
    """Write the settings of a run beside its recording, those given in place of others."""
    recording.about["model"] = {"attention": attention, "width": 16, "name": "resnet18"}
    recipe = {"name": "fast", "about": "", "batch_size": 128, "optimizer": {"momentum": 0.9}}
    config = {
        **{"data": f"folder:{attention}", "parts": {"test": {"images": 60, "sha256": "0"}}},
        **{"epochs": 4, "seed": 0, "recipe": recipe, "image_size": 16, "skip_unreadable": False},
    }
    for key in changed.keys() & {"width", "name", "stem"}:
        recording.about["model"][key] = changed.pop(key)
    config["recipe"] = {**recipe, **changed.pop("recipe", {})}  # type: ignore[dict-item]
    file = recording.folder.parent.parent / "config.json"
    file.write_text(json.dumps({**config, **changed}))
    return recording


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 3}, ""),
        ({"data": "folder:moved"}, ""),
        ({"recipe": {"about": "other words"}}, ""),
        ({"epochs": 60}, "epochs 4 and 60"),
        ({"width": 64, "epochs": 60}, "width 16 and 64, epochs 4 and 60"),
        ({"name": "resnet34"}, "network resnet18 and resnet34"),
        ({"recipe": {"batch_size": 64}}, "batch size 128 and 64"),
        ({"recipe": {"optimizer": {"momentum": 0.8}}}, "momentum 0.9 and 0.8"),
        ({"recipe": {"name": "staged", "batch_size": 64}}, "recipe fast and staged"),
        ({"skip_unreadable": True}, "skip unreadable no and yes"),
        ({"class_weights": [1, 2]}, "class weights"),
        ({"parts": {"test": {"images": 61}}}, "data folder:se and folder:cbam"),
    ],
)
def test_networks_that_were_trained_differently_are_told(
    changed: dict[str, object], words: str, make_recording: Make
) -> None:
    a = trained(make_recording("a"), "se")
    b = trained(make_recording("b", seed=1), "cbam", **changed)
    pair = compare(a, b)
    assert pair.training == (words and f"They were also trained differently: {words}.")
    plot = PLOTS["per_class_accuracy"]
    assert pair.training in plot.caption(plot.result(pair))
    kinds = compare([a], [b])
    assert kinds.training == (
        words and f"The configurations were also trained differently: {words}."
    )
    assert kinds.training in PLOTS["seed_differences"].caption(
        PLOTS["seed_differences"].result(kinds)
    )


def test_of_recordings_outside_runs_the_hash_of_the_settings_is_compared(
    make_recording: Make,
) -> None:
    a, b = make_recording("a"), make_recording("b", seed=1)
    assert compare(a, b).training == ""
    a.about |= {"training_sha256": "1", "source": "digits"}
    b.about |= {"training_sha256": "2", "source": "digits"}
    assert compare(a, b).training.startswith("They were also trained differently: ")
    b.about["source"] = "folder:digits"  # the hash is of the place of the data, too
    assert compare(a, b).training == ""
    b.about |= {"source": "digits", "untrained": True}
    assert compare(a, b).training == ""


def test_other_arguments_are_refused(make_recording: Make) -> None:
    a = make_recording("a", count=30)
    with refused("AS923", names=("int",)):
        compare(a, 3)
    with refused("AS923", names=("DataFrame",)):
        open_recorded(pd.DataFrame())
    with refused("AS921"):
        compare(a, [a])
    with refused("AS921"):
        compare((a, a), a)
    assert open_all([a, a.folder])[0] is a
    assert open_all(a) == [a]


def test_lists_are_compared_over_seeds_in_the_given_order_of_kinds(make_recording: Make) -> None:
    made = in_kinds(make_recording, {"se": [1, 0], "cbam": [0, 1]})
    found = compare(made["cbam"], made["se"])
    assert isinstance(found, SeedComparison)
    assert found.names == ("cbam", "se")
    assert [r.name for r in found.recordings] == ["cbam-0", "cbam-1", "se-0", "se-1"]
    pd.testing.assert_frame_equal(found.accuracy, statistics.compare_seeds(found.a, found.b))


def test_a_list_of_two_kinds_is_refused(make_recording: Make) -> None:
    made = in_kinds(make_recording, {"se": [0, 1], "cbam": [0, 1]})
    with refused("AS922", names=("se", "cbam")):
        compare([made["se"][0], made["cbam"][1]], [made["cbam"][0], made["se"][1]])
    with refused("AS922", names=("se",)):
        compare(made["se"][:1], made["se"][1:])
    with refused("AS922"):
        compare(made["se"], [])


def test_recordings_are_sorted_into_two_kinds_or_refused(make_recording: Make) -> None:
    made = in_kinds(make_recording, {"se": [1, 0], "cbam": [0]})
    kinds = compare_kinds([*made["se"], *made["cbam"]])
    assert kinds.names == ("se", "cbam")
    assert [[r.name for r in kind] for kind in (kinds.a, kinds.b)] == [["se-0", "se-1"], ["cbam-0"]]
    with refused("AS922", names=("se", "1")):
        compare_kinds(made["se"])


def test_repr_has_the_accuracies_and_the_interval(make_recording: Make) -> None:
    a, b = make_recording("a"), make_recording("b", seed=1)
    pair = compare(a, b)
    whole = pair.accuracy.iloc[0]
    ends = [f"{100 * whole[end]:.1f}".replace("-", "−") for end in ("low", "high")]
    text = repr(pair)
    for value in ("'a'", "'b'", "60", f"{a.right.mean():.1%}", f"{b.right.mean():.1%}", *ends):
        assert value in text
    assert "\n" not in text
    assert "'c'" in repr(Comparison(a, make_recording("c", count=12)))  # and it does not raise
    made = in_kinds(make_recording, {"se": [0, 1, 2], "cbam": [0, 1, 2]})
    seeds = compare(made["se"], made["cbam"])
    low = seeds.accuracy["low"][0]
    assert f"{100 * low:.1f}".replace("-", "−") in repr(seeds)
    assert "95%" not in repr(compare(made["se"][:1], made["cbam"][:1]))


def test_html_is_an_escaped_table_of_all_classes(make_recording: Make) -> None:
    names = ["<script>alert(1)</script>", "cat & dog", "owl"]
    pair = compare(make_recording("<b>a", names=names), make_recording("b", seed=1, names=names))
    html = pair._repr_html_()
    assert "<script>" not in html
    assert "<b>a" not in html
    assert "&lt;b&gt;a" in html
    assert html.count("<tr>") == 1 + 1 + 3  # the head, all images, and each class
    for end in ("low", "high"):
        assert f"{100 * pair.accuracy[end][0]:.1f}".replace("-", "−") in html
    many = [f"class {i:02d}" for i in range(40)]
    pair = compare(make_recording("c", names=many), make_recording("d", seed=1, names=many))
    assert "class 29" in pair._repr_html_()
    assert "class 30" not in pair._repr_html_()
    assert "10" in pair._repr_html_().split("</table>")[1]  # classes that are not shown


def test_html_of_recordings_that_cannot_be_compared_says_so(make_recording: Make) -> None:
    pair = Comparison(make_recording("a", count=30), make_recording("b", count=33))
    with pytest.raises(InputError) as caught:
        _ = pair.accuracy
    assert caught.value.message in pair._repr_html_()


def test_old_names_work_and_warn(make_recording: Make, tmp_path: Path) -> None:
    from attnscope.plots import subjects

    for old, new in (
        ("Pair", Comparison), ("TwoKinds", SeedComparison), ("two_kinds", compare_kinds),
    ):  # fmt: skip
        with pytest.warns(DeprecationWarning, match=old):
            assert getattr(subjects, old) is new


def test_two_seeds_of_one_network_have_two_names(make_recording: Make) -> None:
    a, b = make_recording("seed0"), make_recording("seed1", seed=1)
    for recording in (a, b):
        recording.about["name"] = "build"  # both are package.module:build
    pair = Comparison(a, b)
    assert pair.names == ("build (seed0)", "build (seed1)")
    assert "build (seed0)" in repr(pair)
    assert "build (seed1)" in pair._repr_html_()
    for name in ("per_class_accuracy", "per_class_gates", "per_class_grad_cam", "disagreements"):
        assert PLOTS[name].result(pair).names == pair.names
