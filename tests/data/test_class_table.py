from pathlib import Path

import pytest

from medseg.data.class_table import ClassEntry, classes_of, read_class_file
from medseg.errors import InputError

A, B = ClassEntry("tree", 0, (128, 128, 0)), ClassEntry("potted plant", 1, (0, 1, 2))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "0 tree 128 128 0\n1 potted plant 0 1 2\n"),
        ("classes.txt", "\n# of the set\ntree 128 128 0\n\npotted plant 0 1 2"),
        ("label_colors.txt", "128 128 0\ttree\r\n0 1 2\t\tpotted plant\r\n"),
        ("class_dict.csv", "name,r,g,b\ntree,128,128,0\npotted plant,0,1,2\n"),
        ("class_dict.csv", "id, name, r, g, b\n0, tree, 128, 128, 0\n1, potted plant, 0, 1, 2\n"),
    ],
)
def test_every_usual_form_gives_the_same_classes(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8-sig"))
    assert read_class_file(path) == (A, B)


def test_names_alone_count_from_zero_and_labelmes_first_line_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("__ignore__\n_background_\ncat\npotted plant\n")
    assert [(e.name, e.value) for e in read_class_file(path)] == [
        ("__ignore__", 255),
        ("_background_", 0),
        ("cat", 1),
        ("potted plant", 2),
    ]
    path.write_text("sky\nvoid\ncat")
    assert [(e.name, e.value) for e in read_class_file(path)] == [
        ("sky", 0),
        ("void", 1),
        ("cat", 2),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "none"),
        ("cat\ncat", "'cat' twice"),
        ("0 cat\n0 dog", "a value twice"),
        ("0 cat\ndog", "an index in some lines alone"),
        ("0 cat 1 2 3\n1 dog", "a colour in some lines alone"),
        ("cat 1 2 3\ndog 1 2 3", "a colour of two classes"),
        ("cat 1 2 300\ndog 1 2 3", "a colour with a number above 255"),
        ("0 cat\n70000 dog", "the value 70000"),
    ],
)
def test_a_file_that_is_not_clear_is_refused(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=f"classes.txt must name each class once, got {fault}"):
        read_class_file(path)


def test_what_is_called_void_is_left_out_under_its_value() -> None:
    found = classes_of([ClassEntry("Sky", 0), ClassEntry("Road", 3), ClassEntry("Void", 11)])
    assert (found.background_name, found.ignored, found.codes) == ("Sky", (11,), ())
    assert [(s.name, s.values) for s in found.structures] == [("Road", (3,))]


def test_values_change_where_zero_is_left_out() -> None:
    found = classes_of(
        [ClassEntry("unlabelled", 0), ClassEntry("road", 1), ClassEntry("car", 2)],
    )
    assert (found.background_name, found.background, found.ignored) == ("road", (0,), (255,))
    assert [(s.name, s.values) for s in found.structures] == [("car", (1,))]
    assert dict(found.codes) == {"0": 255, "1": 0, "2": 1}


def test_a_background_that_is_not_zero_becomes_zero() -> None:
    found = classes_of([ClassEntry("cat", 0), ClassEntry("background", 1), ClassEntry("dog", 2)])
    assert found.background_name == "background"
    assert dict(found.codes) == {"0": 1, "1": 0, "2": 2}
    assert [(s.name, s.values) for s in found.structures] == [("cat", (1,)), ("dog", (2,))]
