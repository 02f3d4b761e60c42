"""The methods paragraph: what was run and nothing else, keys that resolve, escaped text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from attnscope import __version__
from attnscope.plots import PLOTS, Note
from attnscope.plots.subjects import Comparison, Intervened
from attnscope.recording.outcomes import find_outcomes
from attnscope.recording.recording import Recording
from attnscope.report import figure_methods, files, methods, page, write_report
from attnscope.report.bibliography import bibliography, references
from attnscope.report.citing import Methods, cite
from attnscope.report.figure_methods import OF_FIGURES
from attnscope.report.methods import Run, Shown, methods_of
from tests.plots.reading import add_masks, numbers, only, with_named_experiments

Make = Callable[..., Recording]


def shown_of(name: str, subject: object) -> Shown:
    return Shown(name, PLOTS[name].result(subject))


def test_only_what_was_run_is_named(
    make_recording: Make, add_interventions: Callable[..., Path]
) -> None:
    recording = make_recording(count=90, accuracy=0.6)
    plain = methods_of([Run("toy", recording)], [])
    assert {"90", "3"} <= set(numbers(plain.plain()))
    assert {"attnscope", "selvaraju2017", "roelofs2022"} <= set(plain.keys)
    assert not {"li2024", "mcnemar1947", "fisher1936", "holm1979"} & set(plain.keys)
    add_interventions(recording)
    outcomes = find_outcomes(recording)
    assert outcomes is not None
    used = [shown_of("decodable_and_used", Intervened(recording, outcomes))]
    found = methods_of([Run("toy", recording, outcomes)], used)
    assert {"li2024", "mcnemar1947", "fisher1936", "holm1979", "hewitt2019"} <= set(found.keys)
    # No donors were matched, no class was erased, and no smallest effect was stated.
    assert not {"rosenbaum1985", "belrose2023", "schuirmann1987", "besag1991"} & set(found.keys)
    stated = {**outcomes.about, "smallest_effect": 0.015, "experiments": ["replace", "ablate"]}
    more = methods_of([Run("toy", recording, replace(outcomes, about=stated))], [])
    assert {"schuirmann1987", "besag1991"} <= set(more.keys)
    assert "1.5" in numbers(more.plain())
    assert "adebayo2018" not in more.keys


def test_a_network_without_scores_of_images_has_no_accuracy_in_its_methods(
    write_recording: Make,
) -> None:
    bare = methods_of([Run("bare", write_recording(labels=[0, 1, 2]))], [])
    assert "selvaraju2017" not in bare.keys
    assert {"3"} <= set(numbers(bare.plain()))
    note = methods_of([], [Shown("confusion_matrix", Note("nothing"))])
    assert "wilson1927" not in note.keys


def test_every_sentence_of_a_figure_cites_what_is_known(
    make_recording: Make, add_interventions: Callable[..., Path]
) -> None:
    """Each plot that has sentences is drawn, and every key that the module cites resolves."""
    a, b = (
        make_recording(name, count=90, seed=i, accuracy=0.6, attributed=9)
        for i, name in enumerate("ab")
    )
    add_interventions(a)
    add_masks(a, 60)
    outcomes = find_outcomes(a)
    assert outcomes is not None
    made = Intervened(a, with_named_experiments(outcomes, [gate.name for gate in a.gates]))
    subjects = {Recording: a, Intervened: made, Comparison: Comparison(a, b)}
    assert set(OF_FIGURES) <= set(PLOTS)
    for name in OF_FIGURES:
        if PLOTS[name].subject in subjects:
            sentences = OF_FIGURES[name](PLOTS[name].result(subjects[PLOTS[name].subject]))
            assert sentences, name
            assert set(Methods(tuple(sentences)).keys) <= set(references())
    sources = [
        Path(str(module.__file__)).read_text("utf-8") for module in (methods, figure_methods)
    ]
    cited = set(re.findall(r"['\"]([a-z]+\d{4})\b", "".join(sources)))
    assert cited == set(references()) - {"attnscope"}  # none is unknown, none is not used


def test_the_permutations_are_those_that_were_made(make_recording: Make) -> None:
    """A large recording has fewer of them (`channel_gates.permutations_for`)."""
    result = PLOTS["channel_gates"].result(make_recording())
    shown = Shown("channel_gates", replace(result, permutations=49))
    said = methods_of([], [shown]).plain()
    assert "49" in numbers(said)
    assert str(result.permutations) not in numbers(said)


def test_each_reference_is_a_complete_entry() -> None:
    for key, reference in references().items():
        assert reference.bibtex.startswith("@")
        assert f"{{{key},\n" in reference.bibtex
        assert reference.bibtex.count("{") == reference.bibtex.count("}")
        assert "author = " in reference.bibtex
        assert "title = " in reference.bibtex
        assert re.search(r"(?<!\\)[&%#_$~^]", reference.bibtex.partition(",\n")[2]) is None
        assert reference.label
    assert f"Version {__version__}" in references()["attnscope"].bibtex
    assert references()["holm1979"].label == "Holm 1979"
    assert references()["zou2008"].label == "Zou and Donner 2008"
    assert references()["walther2016"].label == "Walther et al. 2016"
    assert references()["harris2020"].label == "Harris et al. 2020"
    with pytest.raises(KeyError):
        bibliography(["nobody1900"])


def test_names_are_no_markup_and_no_citations(make_recording: Make) -> None:
    recording = make_recording(count=12)
    name = "[@holm1979] <b>$x_1$</b>\n" + cite("mcnemar1947")
    found = methods_of([Run(name, recording)], [])
    assert not {"holm1979", "mcnemar1947"} & set(found.keys)
    text = found.markdown()
    assert r"\[\@holm1979\] \<b\>\$x\_1\$\</b\> mcnemar1947" in text
    assert re.findall(r"(?<!\\)\[(@[^\]]+)(?<!\\)\]", text)
    assert "[@attnscope]" in text
    assert text.count("\n") == 1
    assert "mcnemar1947" not in found.bibtex()


def test_the_report_ends_with_the_methods_and_writes_them_on_request(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "DPI", 30)
    monkeypatch.setattr(page, "DPI", 20)
    only(monkeypatch, "confusion_matrix")
    recording = make_recording("<i>net", count=12, spatial=False)
    out = write_report([recording.folder], tmp_path / "new" / "r.html", methods=True)
    assert sorted(p.name for p in out.parent.iterdir()) == ["r-methods.md", "r.bib", "r.html"]
    text = out.read_text(encoding="utf-8")
    assert text.index('id="methods"') > text.index('id="run-1"')
    assert "(Wilson 1927)" in text
    assert "The network &lt;i&gt;net" in text
    entries = out.with_name("r.bib").read_text(encoding="utf-8")
    assert "@article{wilson1927," in entries
    assert entries.count("\n@") + 1 == len(re.findall(r"^@", entries, re.M))
    cited = re.findall(r"@(\w+)", out.with_name("r-methods.md").read_text(encoding="utf-8"))
    assert set(cited) == set(re.findall(r"^@\w+\{(\w+)", entries, re.M))


def test_the_paper_of_bonett_and_price_is_cited_as_in_the_bibliography() -> None:
    bibtex = references()["bonett2012"].bibtex
    journal = re.search(r"journal = {(.*?)}", bibtex)
    volume = re.search(r"volume = {(.*?)}", bibtex)
    assert journal
    assert volume
    package = Path(methods.__file__).parents[1]
    cited = [
        found
        for path in package.rglob("*.py")
        for found in re.findall(
            r"Bonett and Price(?:'s)? \(?2012, ([^)\d]+ \d+)", " ".join(path.read_text().split())
        )
    ]
    assert len(cited) >= 3
    assert set(cited) == {f"{journal[1]} {volume[1]}"}
