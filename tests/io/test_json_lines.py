"""Lines are whole or absent, whatever ends the process, and one process writes at a time."""

import json
import resource
from pathlib import Path

import pytest

from medseg.errors import OutputError, UsageError
from medseg.io.json_lines import open_json_lines, read_json_line, read_json_lines


def documents(path: Path) -> list[dict]:
    return [document for _, document in read_json_lines(path)]


def test_lines_come_back_in_order_and_from_where_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    given = [{"case": "größe", "x": float("nan")}, {"case": "two\nlines"}, {"case": "\udcff"}]
    with open_json_lines(path) as lines:
        starts = [lines.append(document) for document in given]
    assert documents(path) == [given[0] | {"x": None}, *given[1:]]
    assert [read_json_line(path, start)["case"] for start in starts] == [d["case"] for d in given]
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("torn", [b'{"case": "b', b"x" * 200_000, b'{"case": "b"}', b"\0"])
def test_a_torn_last_line_is_cut_off_before_the_next(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"case": "a"}\n' + torn)
    assert [line["case"] for line in documents(path)] == ["a"]
    with open_json_lines(path) as lines:
        lines.append({"case": "c"})
    assert [line["case"] for line in documents(path)] == ["a", "c"]
    assert path.read_bytes().startswith(b'{"case": "a"}\n{"case": "c"}')


def test_lines_that_are_no_documents_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\0\0\n[]\n\xff\n{"case": "a"}\n')
    assert [line["case"] for line in documents(path)] == ["a"]


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with open_json_lines(path) as lines:
        with pytest.raises(UsageError, match="one run at a time") as caught, open_json_lines(path):
            pass
        assert caught.value.code == "output-in-use"
        lines.append({"case": "a"})
    with open_json_lines(path) as lines:
        lines.append({"case": "b"})
    assert len(documents(path)) == 2


def test_a_line_that_does_not_fit_on_the_disk_leaves_the_others_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_json_lines(path) as lines:
        lines.append({"case": "a"})
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(OutputError):
                lines.append({"case": "b" * 500})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        lines.append({"case": "c"})
    assert [json.loads(line)["case"] for line in path.read_text().splitlines()] == ["a", "c"]
