"""What visitors of the dashboard may do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from attnscope.dashboard.access import Access, actions_allowed, script_arguments, without_token


@pytest.mark.parametrize("allowed", [True, False])
def test_pages_know_whether_work_may_be_started(
    allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = script_arguments(Path("runs"), actions=allowed)
    assert given[0] == "runs"
    monkeypatch.setattr(sys, "argv", ["app.py", *given])
    assert actions_allowed() is allowed


def test_a_folder_cannot_be_taken_for_the_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = script_arguments(Path("runs"), actions=False)[1]
    monkeypatch.setattr(sys, "argv", ["app.py", *script_arguments(Path(folder), actions=True)])
    assert actions_allowed()


def test_tokens_and_cookies_are_random_different_and_not_shown() -> None:
    one, other = Access(8501), Access(8501)
    assert len({one.token, one.session, other.token, other.session}) == 4
    assert one.token not in repr(one)
    assert one.session not in repr(one)


def test_a_cookie_of_the_same_name_does_not_hide_the_right_one() -> None:
    access = Access(8501)
    right = access.set_cookie.partition(";")[0]
    assert right == f"attnscope_8501={access.session}"
    assert access.has_cookie([f"attnscope_8501=x; a; =; {right}"])
    assert access.has_cookie(["a=b", right])
    for wrong in ("", "attnscope_8501", right[:-1], f"{right}x", right.replace("8501", "8502")):
        assert not access.has_cookie([wrong])
    assert not access.has_cookie([])


def test_a_query_without_the_token_is_kept_as_it_is() -> None:
    assert without_token("/a b/ü", "x=%2F&token=t&y=&token&z") == "/a%20b/%C3%BC?x=%2F&y=&z"
    assert without_token("/", "token=t") == "/"
    # Browsers take two slashes, of either kind, for the beginning of another host.
    for path in ("//example.org", "/\\example.org", "\\/example.org", "///\\example.org"):
        assert without_token(path, "token=t") == "/example.org"
