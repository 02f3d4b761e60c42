"""One bar for each piece of work, or one for all stages of a command."""

from __future__ import annotations

import logging
import re

import pytest

from attnscope.progress import AS_SHARE, Bar, progress_bar, stages


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a terminal got on stderr, state by state of the bar."""
    return [text.strip() for text in re.split(r"[\r\n]", capsys.readouterr().err) if text.strip()]


def work(bar: Bar, count: int) -> None:
    for _ in range(count):
        bar.update(2)


def test_work_alone_has_a_bar_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(6, "image", description="maps") as bar:
        work(bar, 3)
    last = shown(capsys)[-1]
    assert last.startswith("maps: 100%")
    assert " 6/6 [" in last, "whole numbers are shown as such"


@pytest.mark.parametrize("options", [{"enabled": False}, {"alone": False}])
def test_a_bar_that_is_switched_off_prints_nothing(
    options: dict[str, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar(6, "image", **options) as bar:
        work(bar, 3)
    assert shown(capsys) == []


def test_what_took_no_time_is_done_and_the_sum_of_shares_never_exceeds_the_total(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_bar(1.0, "s", bar_format=AS_SHARE) as bar:
        bar.describe("replace")
        bar.skip(0.5)
        assert bar.done == 0.5
        bar.update(0.7)
        assert bar.done == 1.0
    assert shown(capsys)[-1].startswith("replace: 100%")


def test_stages_share_one_bar_that_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    with stages(2) as both:
        with both.stage("capture"), progress_bar(6, "image") as bar:
            work(bar, 1)
            with progress_bar(4, "map", description="maps") as inner:
                work(inner, 2)
            assert bar.done == 2, "the work around it goes on where it was"
            work(bar, 2)
        with both.stage("figures"), progress_bar(3, "figure", alone=False) as bar:
            bar.update(3)
    states = shown(capsys)
    ends = [re.sub(r"\|.*\|", "", state).split(" [")[0] for state in states if "100%" in state]
    assert list(dict.fromkeys(ends)) == [
        "1/2 capture, maps: 100% 4/4",
        "1/2 capture: 100% 6/6",
        "2/2 figures: 100% 3/3",
    ]
    assert "2/2 figures ..." in states
    with progress_bar(2, "image") as bar:
        work(bar, 1)
    assert "figures" not in shown(capsys)[-1], "the bar is gone after the block"


def test_lines_and_warnings_are_printed_above_the_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("attnscope.anything")
    monkeypatch.setattr(logging.getLogger("attnscope"), "propagate", False)  # pytest's own handlers
    for enabled in (True, False):
        with stages(1, enabled) as one, one.stage("figures"):
            one.say("a line")
            log.warning("a figure is %s", "left out")
            log.info("not shown")
        lines = capsys.readouterr().err
        assert re.findall(r"^(a .*)$", lines.replace("\r", "\n"), re.M) == [
            "a line",
            "a figure is left out",
        ]
    assert not logging.getLogger("attnscope").handlers


def test_a_bar_of_stages_ends_with_an_exception(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), stages(1) as one, one.stage("a"), progress_bar(2, "image"):
        raise KeyError
    capsys.readouterr()
    with progress_bar(2, "image", alone=False):
        pass
    assert shown(capsys) == []
