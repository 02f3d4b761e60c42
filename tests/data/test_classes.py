"""The order of classes: as text, by number, or as in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnscope.data.classes import ClassOrder, advise_order, natural_key, read_class_names
from tests.data.making import load, save
from tests.making import refused


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Classes 0 to 11; the gray value of an image is 20 times its class."""
    for k in range(12):
        for split in ("train", "test"):
            for i in range(2):
                save(tmp_path / "numbers" / split / str(k) / f"{i}.png", 20 * k)
    return tmp_path / "numbers"


def test_numbers_are_sorted_as_text_or_by_value(numbered: Path) -> None:
    as_text, natural = load(numbered), load(numbered, class_order="natural")
    assert as_text.classes[:4] == ["0", "1", "10", "11"]
    assert natural.classes == [str(k) for k in range(12)]
    for data in (as_text, natural):
        for split in (data.train, data.validation, data.test):
            names = [data.classes[k] for k in split.labels.tolist()]
            assert [20 * int(name) for name in names] == split.images[:, 0, 0, 0].tolist()


def test_a_list_of_classes_decides_their_order(root: Path) -> None:
    data = load(root, classes=["owl", "bee", "ant", "cat"])
    assert data.classes == ["owl", "bee", "ant", "cat"]
    assert data.test.labels.tolist() == [2, 2, 2, 1, 1, 1]
    digits = load_digits_backwards()
    assert digits == [str(9 - k) for k in range(10)]
    with refused("AS226", names=("bee", "--classes")):
        load(root, classes=["ant", "owl"])
    with refused("AS225", names=("'ant'",)):
        load(root, classes=["ant", "bee", "ant"])
    with refused("AS225"):
        load(root, classes=[])
    with refused("AS224", names=("numeric",)):
        load(root, class_order="numeric")


def load_digits_backwards() -> list[str]:
    """The names of the labels of digits, whose source does not know the list of classes."""
    from attnscope.data.load import load_data

    plain = load_data()
    names = plain.classes[::-1]
    turned = load_data(classes=names)
    assert [names[k] for k in turned.test.labels] == [plain.classes[k] for k in plain.test.labels]
    return turned.classes


def test_class_names_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffplum\r\nrose hip\r\nMöhre\r\n\r\n".encode())
    assert read_class_names(file) == ("plum", "rose hip", "Möhre")
    file.write_text("plum\n\napple\n")
    with refused("AS225", names=("line 2", file)):
        read_class_names(file)
    with refused("AS225", names=(tmp_path / "none.txt",)):
        read_class_names(tmp_path / "none.txt")


def test_natural_order_sorts_numbers_by_value() -> None:
    names = ["b2", "b10", "b", "10", "2", "a1b10", "a1b9", "02"]
    assert sorted(names, key=natural_key) == ["02", "2", "10", "a1b9", "a1b10", "b", "b2", "b10"]


def test_only_an_order_that_could_be_another_one_is_advised() -> None:
    advice = advise_order(["0", "1", "10", "2"])
    assert advice is not None
    assert "--class-order natural" in advice
    assert advise_order(["00", "01", "02", "10"]) is None
    assert advise_order(["0", "1", "2"]) is None
    assert advise_order(["bee", "ant"]) is None, "an order that was given"
    assert ClassOrder(names=("b", "a")).arrange(["a"]) == ["b", "a"]
