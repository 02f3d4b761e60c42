"""What was changed in the images of a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attnscope.data.load import DataSettings
from attnscope.data.memory import MEMORY_VARIABLE
from tests.data.making import load, save, write_folder

WIDE = np.zeros((9, 12, 3), np.uint8)


@pytest.mark.parametrize("streamed", [False, True])
def test_changed_images_are_counted_by_split(
    tmp_path: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a validation split that is taken from the training split."""
    if streamed:
        monkeypatch.setenv(MEMORY_VARIABLE, "0")
    write_folder(tmp_path, count=20)
    for i in range(20):
        save(tmp_path / f"train/ant/wide{i}.png", WIDE)
    save(tmp_path / "test/ant/wide.png", WIDE)
    data = load(tmp_path)

    def wide(paths: list[str]) -> int:
        return sum("wide" in path for path in paths)

    counts = {"train": wide(data.train.paths), "validation": wide(data.validation.paths), "test": 1}
    assert counts["train"] + counts["validation"] == 20
    assert counts["validation"] > 0
    for split, count in counts.items():
        (note,) = data.split_notes[split]
        assert note.split()[1] == str(count)
    (note,) = data.notes
    assert note.split()[1] == "21"
    assert DataSettings(f"folder:{tmp_path}").load_test().notes == data.split_notes["test"]
