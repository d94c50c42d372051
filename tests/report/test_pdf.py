"""The report as PDF: what its streams say, page by page."""

import re
import zlib
from typing import Any

import numpy as np
import pytest

from medseg.report.pdf import MOST_ROWS, draw_pdf
from medseg.volume import make_labels

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 90, 3), np.uint8)
CONTEXT = {
    "bundle": {"name": "liver_ct", "version": "4.5.6", "weights_sha256": "0123abcd"},
    "warnings": [{"code": "odd", "message": "the slices are odd"}],
    "intensity_unit": "HU",
}


def pages_of(document: bytes) -> list[str]:
    """Return the text of each page; glyphs of the built-in fonts are coded by their letters."""
    pages = []
    for found in re.finditer(rb"stream\r?\n", document):
        try:
            stream = zlib.decompressobj().decompress(document[found.end() :])
        except zlib.error:
            continue
        if b"BT\n" in stream:
            lines = []
            for block in re.findall(rb"BT\n(.*?)ET", stream, re.S):
                strings = re.findall(rb"\(((?:\\.|[^\\)])*)\)", block)
                lines.append(b"".join(strings).replace(b"\\", b"").decode("latin-1"))
            pages.append("\n".join(lines))
    return pages


def row(index: int, name: str, voxels: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "index": index, "name": name, "voxels": voxels, "volume_ml": 12.3456 if voxels else 0.0,
        "components": 2, "touches_border": False, **more,
    }  # fmt: skip


def drawn(rows: list[dict[str, Any]]) -> list[str]:
    labels = make_labels([one["name"] for one in rows])
    return pages_of(draw_pdf(PICTURE, labels, rows, CONTEXT, notice="No medical device."))


def test_the_page_says_what_was_found_and_what_made_it() -> None:
    rows = [
        row(1, "liver", intensity={"mean": 55.25, "sd": 7.5}, largest_diameter_mm=123.456),
        row(2, "spleen $x$", touches_border=True),
        row(3, "kidney", 0),
    ]
    [page] = drawn(rows)
    lines = page.split("\n")
    for text in (
        *("Segmentation report", "liver_ct, version 4.5.6", "weights 0123abcd"),
        *("volume (ml)", "mean, SD (HU)", "diameter (mm)"),
        *("liver", "12.3", "2", "55.25, 7.5", "123.5", "spleen $x$", "-"),
        *("Not found: kidney.", "Warning: the slices are odd", "No medical device.", "page 1"),
        "At the edge of the image, and perhaps cut by it: spleen $x$.",
    ):
        assert text in lines


def test_columns_without_a_value_are_left_out() -> None:
    [page] = drawn([row(1, "liver") | {"volume_ml": None}])
    assert "pixels" in page
    assert "volume" not in page
    assert "SD" not in page


@pytest.mark.parametrize("count", [100, 700])
def test_many_labels_go_on_over_pages_with_heads_and_notice_each(count: int) -> None:
    pages = drawn([row(n, f"label {n}") for n in range(1, count + 1)])
    listed = min(count, MOST_ROWS)
    assert len(pages) == -(-(listed + 19) // 54)
    text = "\n".join(pages)
    assert len(re.findall(r"^label \d+$", text, re.M)) == listed
    assert text.count("No medical device.") == text.count("volume (ml)") == len(pages)
    assert ("and 300 smaller ones" in text) is (count == 700)


def test_nothing_found_is_said() -> None:
    [page] = drawn([row(1, "liver", 0)])
    assert "Nothing was found." in page


def test_properties_hold_no_date_and_the_picture_is_there_as_it_is() -> None:
    labels = make_labels(["liver"])
    document = draw_pdf(PICTURE, labels, [row(1, "liver")], CONTEXT, notice="No.")
    assert b"Date" not in document
    assert re.search(rb"/Width 90\b", document)
    assert re.search(rb"/Height 40\b", document)
    assert draw_pdf(PICTURE, labels, [row(1, "liver")], CONTEXT, notice="No.") == document
