"""Label tables, read the way their viewers read them."""

import json
import re
from pathlib import Path

import pytest

from medseg.errors import InputError
from medseg.io.labels import itksnap_text, read_labels, slicer_text, write_labels
from medseg.volume import Label

LABELS = (
    Label(1, "left lung", (10, 20, 30)),
    Label(2, 'the "odd" one', (255, 0, 7)),
    Label(300, "Prostata größer", (1, 2, 3)),
)


def test_labels_come_back_from_json(tmp_path: Path) -> None:
    paths = write_labels(LABELS, tmp_path)
    assert [path.name for path in paths] == [
        "labels.json",
        "labels_itksnap.txt",
        "labels_slicer.ctbl",
    ]
    assert read_labels(paths[0]) == LABELS
    assert read_labels(tmp_path) == LABELS
    assert json.loads(paths[0].read_text(encoding="utf-8"))["labels"][0] == {
        "index": 1,
        "name": "left lung",
        "color": [10, 20, 30],
    }


def test_itksnap_finds_seven_numbers_and_a_quoted_name_in_each_line() -> None:
    lines = [line for line in itksnap_text(LABELS).splitlines() if not line.startswith("#")]
    rows = [re.fullmatch(r'((?:\s*\d+\s+){7})"([^"]*)"', line) for line in lines]
    assert all(rows)
    numbers = [[int(value) for value in row[1].split()] for row in rows if row]
    names = [row[2] for row in rows if row]
    assert numbers == [
        [0, 0, 0, 0, 0, 0, 0],
        [1, 10, 20, 30, 1, 1, 1],
        [2, 255, 0, 7, 1, 1, 1],
        [300, 1, 2, 3, 1, 1, 1],
    ]
    assert names == ["Clear Label", "left lung", "the 'odd' one", "Prostata größer"]


def test_slicer_finds_six_words_in_each_line() -> None:
    lines = [line for line in slicer_text(LABELS).splitlines() if not line.startswith("#")]
    rows = [line.split() for line in lines]
    assert rows[0] == ["0", "background", "0", "0", "0", "0"]
    assert rows[1] == ["1", "left_lung", "10", "20", "30", "255"]
    assert rows[2] == ["2", 'the_"odd"_one', "255", "0", "7", "255"]
    assert [len(row) for row in rows] == [6] * 4


def test_names_with_line_ends_cannot_break_a_table() -> None:
    labels = (Label(1, "a\nb\t c", (1, 1, 1)), Label(2, " ", (1, 1, 1)))
    assert '"a b c"' in itksnap_text(labels)
    assert "1 a_b_c 1 1 1 255\n2 label_2 1 1 1 255\n" in slicer_text(labels)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"labels": 3}',
        '{"labels": [{"index": 1, "name": "a"}]}',
        '{"labels": [{"index": 0, "name": "a", "color": [0, 0, 0]}]}',
        '{"labels": [{"index": "1", "name": "a", "color": [0, 0, 0]}]}',
        '{"labels": [{"index": 1, "name": "a", "color": [0, 0, 256]}]}',
        '{"labels": [{"index": 1, "name": "a", "color": [0, 0]}]}',
    ],
)
def test_what_is_no_labels_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(InputError, match=r"labels\.json") as caught:
        read_labels(tmp_path)
    assert caught.value.code == "unreadable"


def test_an_index_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    write_labels((Label(1, "a", (0, 0, 0)), Label(1, "b", (0, 0, 0))), tmp_path)
    with pytest.raises(InputError, match="twice"):
        read_labels(tmp_path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path)
    assert caught.value.code == "not-found"
