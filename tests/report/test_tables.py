"""Tables of labels: one name a number, nothing that a spreadsheet would run."""

import csv
from pathlib import Path

from medseg.report.tables import (
    case_rows,
    cell_text,
    flat_row,
    label_columns,
    write_label_table,
    write_table,
)

LIVER = {
    "index": 1, "name": "liver", "voxels": 9, "volume_ml": 1.5, "components": 1,
    "touches_border": False, "intensity": {"mean": -80.5, "sd": None}, "box": {"first": [4, 0, 2]},
}  # fmt: skip
ABSENT = LIVER | {"index": 2, "name": "größe", "voxels": 0, "intensity": None, "box": None}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_nested_numbers_get_one_name_and_what_has_no_value_no_cell() -> None:
    row = flat_row(LIVER)
    assert row["intensity_mean"] == -80.5
    assert row["box_first_2"] == 2
    assert "intensity_sd" not in row
    assert not any(name.startswith(("intensity", "box")) for name in flat_row(ABSENT))


def test_a_table_of_labels_has_a_row_a_label(tmp_path: Path) -> None:
    write_label_table(tmp_path / "labels.csv", [ABSENT, LIVER])
    absent, liver = read(tmp_path / "labels.csv")
    assert list(absent)[:4] == ["index", "name", "voxels", "volume_ml"]
    assert (absent["name"], absent["voxels"], absent["intensity_mean"]) == ("größe", "0", "")
    assert (liver["intensity_mean"], liver["touches_border"]) == ("-80.5", "false")


def test_what_a_spreadsheet_would_run_is_text() -> None:
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1"):
        assert cell_text(text) == f"'{text}"
    assert cell_text(-1) == "-1"
    assert cell_text("left-lung") == "left-lung"
    assert cell_text(float("nan")) == cell_text(None) == ""


def test_names_with_commas_quotes_and_lines_come_back_whole(tmp_path: Path) -> None:
    names = ['a,"b"', "two\nlines", "\udcff"]
    rows = [{"name": name} for name in names]
    write_table(tmp_path / "t.csv", ["name"], rows)
    assert [row["name"] for row in read(tmp_path / "t.csv")] == [*names[:2], "\\udcff"]


def test_a_failed_case_has_one_row_and_a_done_one_a_row_a_label() -> None:
    failed = {"case": "a", "status": "failed", "error": {"code": "truncated"}, "labels": []}
    assert list(case_rows(failed)) == [{"case": "a", "status": "failed", "error": "truncated"}]
    done = {"case": "b", "status": "done", "error": None, "labels": [LIVER, ABSENT]}
    rows = list(case_rows(done))
    assert [(row["case"], row["name"]) for row in rows] == [("b", "liver"), ("b", "größe")]
    columns = label_columns(rows, ("case",))
    assert columns[:2] == ["case", "index"]
    assert "intensity_mean" in columns
