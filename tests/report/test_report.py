"""Figures by name, their files, and the page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markupsafe import escape
from matplotlib.figure import Figure
from safetensors.numpy import save_file
from scipy import special, stats

from attnscope import figures, report, statistics
from attnscope.errors import InputError
from attnscope.pictures import accuracy_sentence, network, seed_differences, usage, usages_of
from attnscope.pictures.common import intervene_command
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.recording import Recording

Make = Callable[..., Recording]
IN_A_RUN_ONLY = {"training_curves", "training_images"}


@pytest.fixture(autouse=True)
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DPI", 30)
    monkeypatch.setattr(report, "_REPORT_DPI", 20)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes few figures where the test is of something else: drawing takes the time."""
    monkeypatch.setattr(report, "FIGURES", {name: report.FIGURES[name] for name in names})


def add_run_files(recording: Recording) -> Path:
    run = recording.folder.parent.parent
    epochs = np.arange(1, 4)
    pd.DataFrame(
        {
            "epoch": epochs,
            "step": 10 * epochs,
            "train_loss": 2.0 / epochs,
            "train_accuracy": 0.3 * epochs,
            "validation_loss": 2.2 / epochs,
            "validation_accuracy": [0.5, 0.8, 0.7],
            "learning_rate": 0.1,
            "images_per_second": 100.0,
            "seconds": 60.0 * epochs,
        }
    ).to_csv(run / "metrics.csv", index=False)
    (run / "config.json").write_text(json.dumps({"classes": recording.classes}))
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), dtype=np.uint8)
    save_file(
        {"images": images, "labels": np.arange(10) % len(recording.classes)},
        run / "training_images.safetensors",
    )
    return run


def draw(name: str, *recordings: Recording) -> report.Picture:
    with figures.style():
        return (report.FIGURES | report.COMPARISONS)[name](*recordings)


def words(figure: Figure) -> str:
    found = [figure.get_suptitle()]
    found += [text.get_text() for ax in figure.axes for text in ax.texts]
    return "\n".join(found)


def maps(figure: Figure, cmap: str) -> list:
    return [i for ax in figure.axes for i in ax.images if i.cmap.name == cmap]


def test_every_name_gives_png_and_pdf(make_recording: Make) -> None:
    run = add_run_files(make_recording(count=30))
    files = report.write_figures(run)
    assert files == [run / "figures" / f"{n}.{e}" for n in report.FIGURES for e in ("png", "pdf")]
    assert {f.name for f in (run / "figures").iterdir()} == {f.name for f in files}
    for file in files:
        start = b"\x89PNG" if file.suffix == ".png" else b"%PDF"
        assert file.read_bytes().startswith(start)


def test_figures_of_interventions_come_first(
    make_recording: Make,
    add_interventions: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "confusion_matrix")
    recording = make_recording(count=30)
    add_interventions(recording)
    files = report.write_figures(recording.folder, tmp_path / "out")
    names = ["decodable_and_used", "static_gates", "confusion_matrix"]
    assert files == [tmp_path / "out" / f"{n}.{e}" for n in names for e in ("png", "pdf")]


def test_interventions_that_cannot_be_read_cost_no_other_figure(
    make_recording: Make,
    add_interventions: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    only(monkeypatch, "confusion_matrix")
    recording = make_recording(count=30)
    (add_interventions(recording) / "about.json").unlink()
    files = report.write_figures(recording.folder, tmp_path / "out")
    assert [file.name for file in files] == ["confusion_matrix.png", "confusion_matrix.pdf"]
    assert "figures of interventions left out" in caplog.text
    page = report.write_report([recording.folder], tmp_path / "page.html")
    assert "Confusion" in page.read_text(encoding="utf-8")


def test_the_command_for_interventions_names_the_part(make_recording: Make, tmp_path: Path) -> None:
    recording = make_recording(count=30)
    for folder, command in (
        ("my run/recordings/test", f"attnscope intervene '{tmp_path}/my run'"),
        ("run/recordings/validation", f"attnscope intervene {tmp_path}/run --part validation"),
        ("copied", None),
    ):
        recording.folder = tmp_path / folder
        assert intervene_command(recording) == command


def test_trainings_scored_on_other_images_are_not_pooled(
    make_recording: Make, add_interventions: Callable[..., Path]
) -> None:
    recordings = [make_recording(name, count=30) for name in ("a", "b")]
    made = [read_outcomes(add_interventions(recording)) for recording in recordings]
    assert len(usages_of(recordings, made)) == 2
    other = replace(made[1], about={**made[1].about, "seed": 1})
    with pytest.raises(InputError, match="on b have seed 1, those on a 0; make them with the same"):
        usages_of(recordings, [made[0], other])
    with pytest.raises(InputError, match="images"):
        usages_of([recordings[0], make_recording("c", count=33)], made)


def test_figures_are_the_same_bytes_again(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix", "misclassified")
    recording = make_recording(count=12, spatial=False)
    first = report.write_figures(recording.folder, tmp_path / "a")
    second = report.write_figures(recording.folder, tmp_path / "b")
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_outside_a_run_what_is_missing_is_said(
    make_recording: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, *IN_A_RUN_ONLY, "confusion_matrix")
    recording = make_recording(count=12, spatial=False)
    names = {file.stem for file in report.write_figures(recording.folder, tmp_path / "out")}
    assert names == {"confusion_matrix"}
    said = "\n".join(caplog.messages)
    assert "training_curves left out" in said
    assert "metrics.csv" in said
    assert "training_images left out" in said


def test_names_in_the_architecture_are_those_made() -> None:
    page = (Path(__file__).parents[2] / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.split("\n## Figures")[1].split("\n## ")[0]
    for name in [*report.FIGURES, *report.COMPARISONS]:
        assert f"`{name}`" in section


def test_training_curves(make_recording: Make) -> None:
    recording = make_recording(count=12)
    add_run_files(recording)
    picture = draw("training_curves", recording)
    loss, accuracy, rate = picture.figures[0].axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2, 1, 2 / 3])
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [0.5, 0.8, 0.7])
    np.testing.assert_allclose(rate.lines[0].get_ydata(), 0.1)
    assert "70.0 % after the last epoch, highest 80.0 % after epoch 2" in picture.caption


def test_training_images_are_those_of_the_file(make_recording: Make) -> None:
    recording = make_recording(count=12)
    add_run_files(recording)
    axes = [ax for ax in draw("training_images", recording).figures[0].axes if ax.images]
    expected = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), dtype=np.uint8)
    assert len(axes) == 10
    np.testing.assert_array_equal(axes[4].images[0].get_array(), expected[4].transpose(1, 2, 0))
    assert axes[4].get_title("center") == "dog"


@pytest.mark.parametrize("content", [b"", b"epoch\n1\n", b"\xff\xfe"])
def test_damaged_metrics_are_named(make_recording: Make, content: bytes) -> None:
    recording = make_recording(count=12)
    (add_run_files(recording) / "metrics.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.csv") as caught:
        draw("training_curves", recording)
    assert not isinstance(caught.value, report.Unavailable)
    assert "\n" not in str(caught.value)


def test_damaged_training_images_are_named(make_recording: Make) -> None:
    recording = make_recording(count=12)
    (add_run_files(recording) / "training_images.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="training_images"):
        draw("training_images", recording)


def test_confusion_matrix_has_the_counts(make_recording: Make) -> None:
    recording = make_recording()
    picture = draw("confusion_matrix", recording)
    counts = statistics.confusion_matrix(recording).to_numpy()
    image = picture.figures[0].axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), counts / counts.sum(1, keepdims=True))
    assert f"{np.trace(counts)} of 60 images" in picture.caption


def test_channel_gates_share_scales_and_start_with_the_planted_channel(
    make_recording: Make,
) -> None:
    recording = make_recording(effect=0.3)
    picture = draw("channel_gates", recording)
    gates, differences = maps(picture.figures[0], "cividis"), maps(picture.figures[0], "RdBu_r")
    assert len(gates) == len(differences) == 2
    assert len({i.get_clim() for i in gates}) == len({i.get_clim() for i in differences}) == 1
    low, high = gates[0].get_clim()
    everything = np.concatenate([i.get_array().ravel() for i in gates])
    assert (low, high) == (everything.min(), everything.max())
    profiles = statistics.class_profiles(recording, "layer1.attention.channel")
    planted = profiles[profiles["channel"] == 0]["mean"].to_numpy()
    np.testing.assert_allclose(gates[0].get_array()[:, 0], planted, rtol=1e-6)
    np.testing.assert_allclose(
        differences[0].get_array()[:, 0], planted - planted.mean(), rtol=1e-5
    )
    bottom, top = differences[0].get_clim()
    assert bottom == -top
    assert "channel 0 of layer1.attention.channel" in picture.caption
    assert "1 channel (4.2 %) with class-dependent means" in picture.caption
    assert "Constant over all images: 1 channel." in picture.caption
    assert f"{low:.3g} to {high:.3g} (bounds 0 to 1)" in picture.caption


def test_many_gates_take_several_pages_on_one_scale(
    make_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_GATES_A_PAGE", 1)
    monkeypatch.setattr(network, "_CLASSES_A_PAGE", 2)
    recording = make_recording(count=12)
    for name, pages in (("channel_gates", 2), ("spatial_maps", 2)):
        picture = draw(name, recording)
        assert len(picture.figures) == pages
        assert len({i.get_clim() for f in picture.figures for i in maps(f, "cividis")}) == 1


def test_gate_profiles_separate_the_kinds(make_recording: Make) -> None:
    recording = make_recording()
    axes = draw("gate_profiles", recording).figures[0].axes
    assert [ax.get_title("left") for ax in axes[:2]] == ["channel gates", "spatial gates"]
    frame = statistics.gate_profiles(recording)
    owl = frame[(frame["kind"] == "spatial") & (frame["class"] == "owl")]["mean"]
    np.testing.assert_allclose(axes[1].lines[2].get_ydata(), owl)
    caption = draw("gate_profiles", make_recording("se", spatial=False)).caption
    assert "no spatial gates" in caption


def test_gate_state_shares_a_scale_and_names_the_constant(make_recording: Make) -> None:
    picture = draw("gate_state", make_recording())
    channel, spatial = picture.figures[0].axes
    assert channel.get_ylim() == spatial.get_ylim()
    assert [bar.get_height() for bar in channel.containers[3]] == [1 / 8, 0]
    assert "at most 12.5 %, in layer1.attention.channel" in picture.caption


def test_spatial_maps_are_class_means_on_one_scale(make_recording: Make) -> None:
    recording = make_recording()
    picture = draw("spatial_maps", recording)
    drawn = maps(picture.figures[0], "cividis")
    assert len(drawn) == 6
    assert len({i.get_clim() for i in drawn}) == 1
    expected = statistics.class_mean_maps(recording, "layer2.attention.spatial")
    np.testing.assert_allclose(drawn[3].get_array(), expected[1])
    cams = maps(picture.figures[0], "viridis")
    np.testing.assert_allclose(
        cams[2].get_array(), statistics.class_mean_grad_cam(recording, "predicted")[2]
    )
    low, high = drawn[0].get_clim()
    assert f"from {low:.3g} to {high:.3g} (bounds 0 to 1)" in picture.caption


@pytest.mark.parametrize("name", ["spatial_maps", "map_agreement", "attention_grid"])
def test_a_network_without_spatial_gates_says_so(make_recording: Make, name: str) -> None:
    picture = draw(name, make_recording("se", spatial=False))
    assert "no spatial gates" in words(picture.figures[0])
    assert "no spatial gates" in picture.caption


@pytest.mark.parametrize("name", sorted(set(report.FIGURES) - IN_A_RUN_ONLY))
def test_a_network_without_gates_or_grad_cam_has_every_figure(
    write_recording: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recording = write_recording(labels=[0, 1, 2, 0], predictions=[0, 1, 2, 1])
    picture = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setattr(Recording, "image", lambda self, i: picture)
    with figures.style():
        made = report.FIGURES[name](recording)
        report.render(made.figures[0], "png", 20)
    if "gate" in name or "map" in name:
        assert "no gates at all" in made.caption


def test_attention_grid_is_raw_seeded_and_of_right_answers(make_recording: Make) -> None:
    recording = make_recording()
    figure = draw("attention_grid", recording).figures[0]
    again = draw("attention_grid", recording).figures[0]
    grid = figure.axes[: 3 * 5]
    for row in range(3):
        image, first, second, cam, overlay = (ax.images[-1] for ax in grid[5 * row : 5 * row + 5])
        pixels = image.get_array()
        found = [i for i in range(60) if np.array_equal(recording.image(i), pixels)]
        assert len(found) == 1
        i = found[0]
        assert recording.labels[i] == recording.predictions[i] == row
        one = slice(i, i + 1)
        np.testing.assert_array_equal(
            first.get_array(), recording.spatial("layer1.attention.spatial", one)[0]
        )
        np.testing.assert_array_equal(
            second.get_array(), recording.spatial("layer2.attention.spatial", one)[0]
        )
        np.testing.assert_array_equal(
            cam.get_array(), np.maximum(recording.grad_cam(rows=one)[0], 0)
        )
        np.testing.assert_array_equal(overlay.get_array(), cam.get_array())
        np.testing.assert_array_equal(pixels, again.axes[5 * row].images[0].get_array())
    assert len({ax.images[-1].get_clim() for k, ax in enumerate(grid) if k % 5 in (1, 2)}) == 1
    assert len({ax.images[-1].get_clim() for k, ax in enumerate(grid) if k % 5 in (3, 4)}) == 1
    assert "seed 0" in figure.get_suptitle()


def test_a_grad_cam_without_positive_values_says_why_it_is_blank(
    make_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    negative = np.full((1, 4, 4), -1, np.float32)
    monkeypatch.setattr(Recording, "grad_cam", lambda self, rows: negative)
    picture = draw("attention_grid", make_recording())
    assert words(picture.figures[0]).count("nowhere\nabove 0") == 3
    assert "3 of 3 are nowhere above 0" in picture.caption


def test_map_agreement_draws_the_summary(make_recording: Make) -> None:
    recording = make_recording()
    axes = draw("map_agreement", recording).figures[0].axes
    whole = statistics.agreement_summary(recording).groupby("gate", sort=False).first()
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), whole["spearman"])
    np.testing.assert_allclose(axes[1].lines[1].get_ydata(), whole["null_iou"])


def test_misclassified_shows_the_most_confident_first(make_recording: Make) -> None:
    recording = make_recording()
    picture = draw("misclassified", recording)
    first = statistics.misclassified(recording).iloc[0]
    ax = picture.figures[0].axes[0]
    np.testing.assert_array_equal(ax.images[0].get_array(), recording.image(first["row"]))
    assert ax.get_title("center") == (
        f"is {first['label']}\nsaid {first['prediction']}, {100 * first['confidence']:.1f} %"
    )
    cam = np.maximum(recording.grad_cam(rows=slice(first["row"], first["row"] + 1))[0], 0)
    heats = [i for i in maps(picture.figures[0], "viridis") if i.get_array().shape == (4, 4)]
    np.testing.assert_array_equal(heats[0].get_array(), cam)
    assert len({i.get_clim() for i in heats}) == 1


def test_no_mistake_is_said(make_recording: Make) -> None:
    picture = draw("misclassified", make_recording(accuracy=2))
    assert "None of the 60 images is misclassified" in words(picture.figures[0])


def test_comparison_writes_every_figure(make_recording: Make, tmp_path: Path) -> None:
    a, b = make_recording("se", spatial=False), make_recording("cbam", seed=1)
    files = report.write_comparison(a.folder, b.folder, tmp_path / "out")
    assert files == [
        tmp_path / "out" / f"{n}.{e}" for n in report.COMPARISONS for e in ("png", "pdf")
    ]
    assert all(file.stat().st_size > 1000 for file in files)


def test_different_images_leave_nothing_behind(make_recording: Make, tmp_path: Path) -> None:
    a, b = make_recording("a", count=30), make_recording("b", count=60)
    with pytest.raises(InputError, match="not of the same images"):
        report.write_comparison(a.folder, b.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_planted_difference_is_found_and_none_is_called_none(make_recording: Make) -> None:
    good, bad = make_recording("good", accuracy=2), make_recording("bad", accuracy=0, seed=1)
    found = draw("per_class_accuracy", good, bad).caption
    assert "3 of 3 classes differ after Holm's correction: " in found
    assert "cat (100.0 % and 0.0 %, p < 0.001)" in found
    twin = make_recording("twin", accuracy=2, seed=2)
    none = draw("per_class_accuracy", good, twin).caption
    assert "No class differs: of 3 classes none has p < 0.05" in none
    assert "no difference found" in none


def test_one_class_that_differs_is_named() -> None:
    frame = pd.DataFrame(
        {
            "class": ["all", "cat", "dog", "owl"],
            "count": [300, 100, 100, 0],
            "accuracy_a": [0.7, 0.5, 0.9, np.nan],
            "accuracy_b": [0.8, 0.7, 0.9, np.nan],
            "only_a": [3, 1, 2, 0],
            "only_b": [23, 21, 2, 0],
            "p": [0.001, 0.002, 0.04, np.nan],
            "p_holm": [0.001, 0.004, 0.08, np.nan],  # without Holm the dog would differ, too
        }
    )
    sentence = accuracy_sentence(frame, "SE", "CBAM")
    assert "1 of 2 classes differs" in sentence
    assert sentence.endswith("cat (50.0 % and 70.0 %, p = 0.004).")
    assert "SE is right on 70.0 % of 300 images, CBAM on 80.0 %" in sentence


def test_gates_and_grad_cam_of_a_network_with_itself(make_recording: Make) -> None:
    a = make_recording("one")
    picture = draw("per_class_gates", a, a)
    left, right = (i.get_array() for i in maps(picture.figures[0], "cividis"))
    np.testing.assert_array_equal(left, right)
    assert "Spearman 1.00 (median over 2 gates)" in picture.caption
    assert picture.figures[0].axes[0].get_title("left") == "one (first)"
    assert "correlate with Spearman 1.00" in draw("per_class_grad_cam", a, a).caption


def test_networks_without_a_shared_gate_say_so(write_recording: Make) -> None:
    values = np.random.default_rng(0).random((6, 4))
    a, b = (
        write_recording(n, labels=[0, 1, 2] * 2, gates={f"{n}.gate": values}) for n in ("a", "b")
    )
    assert "no channel gate of the same name" in draw("per_class_gates", a, b).caption
    assert "No Grad-CAM was recorded for a and b" in draw("per_class_grad_cam", a, b).caption


def right_in(recording: Recording) -> np.ndarray:
    """What a network gets right, from what was written, without the package's own statistics."""
    return recording.logits.argmax(1) == recording.rows["label"].to_numpy()


def certain_first(a: Recording, b: Recording, rows: np.ndarray) -> np.ndarray:
    sure = [special.softmax(r.logits[rows].astype(float), axis=1).max(1) for r in (a, b)]
    return rows[np.argsort(-np.minimum(*sure), kind="stable")]


def test_disagreements_are_counted_and_shown(make_recording: Make) -> None:
    a = make_recording("se", spatial=False, accuracy=0.9)
    b = make_recording("cbam", seed=1, accuracy=0.5)
    picture = draw("disagreements", a, b)
    only_a = np.flatnonzero(right_in(a) & ~right_in(b))
    only_b = np.flatnonzero(right_in(b) & ~right_in(a))
    assert len(only_a) > 6 > len(only_b) > 0  # a full band, and one that is not
    assert picture.caption.startswith(
        f"Of 60 images se alone gets {len(only_a)} right, cbam alone {len(only_b)}. Shown are 6 "
        f"and {len(only_b)}, those first of which both networks are most certain. "
    )
    wanted = [certain_first(a, b, only_a)[:6], certain_first(a, b, only_b)]
    figure = picture.figures[0]
    axes = np.array([ax for ax in figure.axes if ax.get_label() != "<colorbar>"]).reshape(2, 4, 6)
    headings = [[ax.get_ylabel() for ax in band[:, 0]] for band in axes]
    of_maps = ["Grad-CAM\nse", "Grad-CAM\ncbam", "last spatial gate\ncbam"]
    assert headings == [["only se\nis right", *of_maps], ["only cbam\nis right", *of_maps]]
    limits: list[set] = [set(), set(), set()]
    for band, rows, wrong in zip(axes, wanted, (b, a), strict=True):
        for column, i in zip(band.T, rows, strict=False):
            image, *heats = (ax.images[-1] for ax in column)
            one = slice(i, i + 1)
            np.testing.assert_array_equal(image.get_array(), a.image(i))
            assert column[0].get_title("center") == (
                f"is {a.classes[a.labels[i]]}\ntaken for {a.classes[wrong.logits[i].argmax()]}"
            )
            for heat, recording in zip(heats, (a, b), strict=False):
                cam = np.maximum(recording.grad_cam(rows=one)[0], 0)
                np.testing.assert_array_equal(heat.get_array(), cam)
            gate = b.spatial("layer2.attention.spatial", one)[0]
            np.testing.assert_array_equal(heats[2].get_array(), gate)
            assert heats[2].get_interpolation() == "nearest"
            for found, heat in zip(limits, heats, strict=True):
                found.add(heat.get_clim())
        for ax in band[:, len(rows) :].ravel():
            assert not ax.axison
            assert not ax.images
    rows = np.concatenate(wanted)
    tops = [np.maximum(r.grad_cam()[rows], 0).max() for r in (a, b)]
    assert limits == [{(0, tops[0])}, {(0, tops[1])}, {(0, 1)}]
    assert f"se from 0 to {tops[0]:.3g}; cbam from 0 to {tops[1]:.3g}." in picture.caption
    shown = b.spatial("layer2.attention.spatial")[rows]
    assert (
        f"layer2.attention.spatial of cbam, bounds 0 to 1, here {shown.min():.3g} to "
        f"{shown.max():.3g}."
    ) in picture.caption
    note = "se has no spatial gates (its gates: 2 channel)."
    assert picture.caption.endswith(note)
    assert note in words(figure)


def test_no_disagreement_is_called_none(make_recording: Make) -> None:
    a, b = make_recording("a", accuracy=2), make_recording("b", accuracy=2, seed=1)
    picture = draw("disagreements", a, b)
    said = "Of 60 images none is right in one network alone: a and b are right in the same 60."
    assert picture.caption == words(picture.figures[0]).strip() == said
    worse = make_recording("worse", accuracy=0, seed=2)
    one_way = draw("disagreements", a, worse)
    assert "a alone gets 60 right, worse alone none. Shown are 6 and none," in one_way.caption
    headings = [ax.get_ylabel() for ax in one_way.figures[0].axes]
    assert "only a\nis right" in headings
    assert "only worse\nis right" not in headings


def test_disagreements_without_grad_cam_say_so(
    write_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = write_recording("a", labels=[0, 1, 2], predictions=[0, 1, 0])
    b = write_recording("b", labels=[0, 1, 2], predictions=[0, 2, 2], grad_cam=-np.ones((3, 2, 2)))
    monkeypatch.setattr(Recording, "image", lambda self, i: np.zeros((4, 4, 3), np.uint8))
    picture = draw("disagreements", a, b)
    for said in ("No Grad-CAM was recorded for a.", "a has no gates at all.", "b has no gates at"):
        assert said in words(picture.figures[0])
        assert said in picture.caption
    assert "Shown are 1 and 1" in picture.caption
    # One row of Grad-CAM, b's, which is nowhere above 0 and says so in both of its images.
    heats = maps(picture.figures[0], "viridis")
    assert len([i for i in heats if i.get_array().shape == (2, 2)]) == 2
    assert words(picture.figures[0]).count("nowhere above 0") == 2
    assert not maps(picture.figures[0], "cividis")


def test_seed_differences_show_the_same_disagreements(make_recording: Make) -> None:
    a, b = make_recording("a", accuracy=0.8), make_recording("b", seed=1, accuracy=0.5)
    with figures.style():
        over_seeds = seed_differences([a], [b], ("a", "b"))
    alone = draw("disagreements", a, b)
    assert over_seeds.caption.endswith(f"What follows is of the first seed. {alone.caption}")
    assert len(over_seeds.figures) == 2
    pairs = zip(over_seeds.figures[1].axes, alone.figures[0].axes, strict=True)
    for mine, theirs in pairs:
        assert mine.get_title("center") == theirs.get_title("center")
        for one, other in zip(mine.images, theirs.images, strict=True):
            np.testing.assert_array_equal(one.get_array(), other.get_array())
    assert not hasattr(usage, "_disagreements")


def planted(write_recording: Make, name: str, seed: int = 0) -> Recording:
    """Cats' last spatial gate is their Grad-CAM with noise, dogs' knows nothing, owls' is flat."""
    rng = np.random.default_rng(seed)
    labels = np.arange(90) % 3
    cams = rng.uniform(0.1, 1, (90, 4, 4)).astype(np.float16)
    last = rng.uniform(0, 1, (90, 4, 4))
    cats = labels == 0
    last[cats] = 0.5 * cams[cats] + 0.5 * last[cats]
    last[labels == 2] = 0.5
    gates = {"one.spatial": rng.uniform(0, 1, (90, 4, 4)), "two.spatial": last}
    return write_recording(name, labels=labels, gates=gates, grad_cam=cams)


def test_agreement_per_class_as_scipy(write_recording: Make) -> None:
    rng = np.random.default_rng(7)
    labels = np.arange(90) % 3
    se = write_recording(
        "se", labels=labels, gates={"one.channel": rng.random((90, 4))},
        grad_cam=rng.random((90, 4, 4)),
    )  # fmt: skip
    cbam = planted(write_recording, "cbam")
    picture = draw("per_class_agreement", se, cbam)
    ax = picture.figures[0].axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    own, null = (
        lines[f"cbam, {text}"] for text in ("95 % interval", "null: Grad-CAM of another image")
    )
    assert not any("se," in label for label in lines)
    assert own.get_color() == figures.NETWORK_COLORS[1]
    gate, cam = cbam.spatial("two.spatial"), cbam.grad_cam()
    rho = np.array(
        [
            stats.spearmanr(gate[i].ravel(), cam[i].ravel())[0] if labels[i] < 2 else np.nan
            for i in range(90)
        ]
    )
    groups = [labels < 2, labels == 0, labels == 1]
    means = [rho[inside].mean() for inside in groups]
    np.testing.assert_allclose(own.get_xdata(), [*means, np.nan], atol=1e-12)
    # Intervals as the central limit has them, which the bootstrap is near to.
    half = [1.96 * rho[inside].std(ddof=1) / np.sqrt(inside.sum()) for inside in groups]
    ends = np.array([path.vertices[:, 0] for path in ax.collections[0].get_paths()[:3]])
    np.testing.assert_allclose(
        ends, np.transpose([means, means]) + np.outer(half, [-1, 1]), atol=0.03
    )
    scores = statistics.map_agreement(cbam, "two.spatial")
    nulls = [scores["null_spearman"][inside].mean() for inside in groups]
    np.testing.assert_allclose(null.get_xdata(), [*nulls, np.nan], atol=1e-12)
    assert abs(nulls[0]) < 0.1 < means[0]
    above = 0
    for inside in groups[1:]:
        difference = (rho - scores["null_spearman"])[inside]
        above += difference.mean() > 1.96 * difference.std(ddof=1) / np.sqrt(inside.sum())
    assert above == 1
    assert "cbam, two.spatial: Spearman " in picture.caption
    assert f"{means[0]:.3f} over 60 images" in picture.caption
    assert "Of 2 classes 1 is above that null and none below it" in picture.caption
    assert f"highest cat ({means[1]:.3f})" in picture.caption
    assert f"lowest is dog ({means[2]:.3f})".replace("-", "−") in picture.caption
    assert "Not scored, since gate or Grad-CAM is constant: 30." in picture.caption
    for said in (picture.caption, words(picture.figures[0])):
        assert "se has no spatial gates (its gates: 1 channel)." in said
    assert "cbam: two.spatial, its last spatial gate" in words(picture.figures[0])
    assert "is not tested" not in picture.caption  # there is but one


def test_agreement_per_class_of_two_networks_with_spatial_gates(write_recording: Make) -> None:
    a, b = planted(write_recording, "first"), planted(write_recording, "second", seed=1)
    picture = draw("per_class_agreement", a, b)
    lines = {line.get_label(): line for line in picture.figures[0].axes[0].lines}
    for recording in (a, b):
        summary = statistics.agreement_summary(recording)
        summary = summary[summary["gate"] == "two.spatial"]
        drawn = lines[f"{recording.name}, 95 % interval"]
        np.testing.assert_array_equal(drawn.get_xdata(), summary["spearman"])
    assert "Whether the networks differ in this is not tested." in picture.caption
    assert picture.caption.index("first, two.spatial") < picture.caption.index("second, two.spat")


def test_agreement_per_class_of_nothing_says_why(write_recording: Make) -> None:
    labels = np.arange(6) % 3
    flat = write_recording(
        "flat", labels=labels, gates={"x.spatial": np.full((6, 2, 2), 0.5)},
        grad_cam=np.random.default_rng(0).random((6, 2, 2)),
    )  # fmt: skip
    bare = write_recording("bare", labels=labels)
    picture = draw("per_class_agreement", flat, bare)
    for said in (
        "flat: none of 6 images could be scored, since x.spatial or the Grad-CAM is constant",
        "bare has no gates at all.",
        "No Grad-CAM was recorded for bare.",
    ):
        assert said in picture.caption
        assert said in " ".join(words(picture.figures[0]).split())
    other = write_recording("other", labels=labels[::-1])
    for name in ("per_class_agreement", "disagreements"):
        with pytest.raises(InputError, match="not of the same images"):
            draw(name, bare, other)


class Page(HTMLParser):
    """What a page would load, and how its tables and pictures stand."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name in {"src", "href", "srcset", "data", "action"}:
                self.loads.append(value or "")
            if name == "alt":
                self.alts.append(value or "")


def test_report_is_one_file_that_asks_for_nothing(make_recording: Make, tmp_path: Path) -> None:
    a, b = make_recording("se", spatial=False), make_recording("cbam", seed=1)
    add_run_files(a)
    out = report.write_report([a.folder, b.folder], tmp_path / "deep" / "report.html")
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert all(re.match(r"data:image/png;base64,|#", load) for load in page.loads)
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "iframe", "object", "embed", "link"} & set(page.tags)
    pictures = 2 * len(report.FIGURES) - len(IN_A_RUN_ONLY) + len(report.COMPARISONS)
    assert page.tags.count("img") == pictures == len([alt for alt in page.alts if alt])
    for name in report.COMPARISONS:
        assert str(escape(draw(name, a, b).caption)) in text
    assert "made by the test" in text  # the source
    assert "Left out: training_curves" in text
    assert [p.name for p in out.parent.iterdir()] == ["report.html"]


def test_report_escapes_what_comes_from_data(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix", "gate_profiles", "map_agreement")
    evil = "<script>alert(1)</script>"
    names = [evil, '" onerror="x', "&amp; {{ 7 * 7 }}"]
    a = make_recording("<b>a</b>", names=names, spatial=False)
    b = make_recording("b", names=names, seed=1)
    out = report.write_report([a.folder, b.folder], tmp_path / "report.html")
    text = out.read_text(encoding="utf-8")
    assert evil not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    page = Page(text)
    assert "script" not in page.tags
    assert "b" not in page.tags


def test_report_of_one_run_compares_nothing(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "confusion_matrix")
    recording = make_recording(spatial=False)
    text = report.write_report([recording.folder], tmp_path / "one.html").read_text()
    right = int((recording.labels == recording.predictions).sum())
    assert f"{right} of 60" in text
    assert "class by class" not in text
    recall = statistics.class_metrics(recording)["recall"][0]
    assert f"<td>{100 * recall:.1f} %</td>" in text


def test_report_of_runs_that_cannot_be_compared_says_so(
    make_recording: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "confusion_matrix")
    a = make_recording("a", count=30, spatial=False)
    b = make_recording("b", count=33, spatial=False)
    text = report.write_report([a.folder, b.folder], tmp_path / "r.html").read_text()
    assert "cannot be compared" in text
    assert "30 against 33" in text
    assert any("no comparison of a and b" in line for line in caplog.messages)


def test_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one run"):
        report.write_report([], tmp_path / "r.html")
    with pytest.raises(InputError, match="holds no recording"):
        report.write_report([tmp_path], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_names_without_a_font_give_one_line(
    make_recording: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "confusion_matrix", "misclassified")
    names = ["\U0010ffff", "\U0010ffff\U0010fffe", "owl"]
    recording = make_recording(count=12, names=names)
    report.write_figures(recording.folder, tmp_path / "out")
    lines = [line for line in caplog.messages if "font" in line]
    assert len(lines) == 1
    assert "2 characters" in lines[0]


def test_report_needs_neither_torch_nor_pyplot() -> None:
    code = (
        "import sys, attnscope.report\n"
        "print([m for m in ('torch', 'matplotlib.pyplot', 'captum') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
