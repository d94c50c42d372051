"""Prediction grids: colours of the table, ignored pixels white, errors where there are errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import InputError
from medseg.io.raster import voc_colors
from medseg.report.prediction_grid import (
    IGNORED_COLOR,
    WRONG_COLOR,
    GridRow,
    pictures_of,
    write_prediction_grid,
)

NAMES = ["background", "aeroplane", "bicycle"]


def _row(name: str = "one", shape: tuple[int, int] = (30, 40)) -> GridRow:
    rng = np.random.default_rng(0)
    truth = np.zeros(shape, np.uint8)
    truth[5:20, 5:20] = 1
    prediction = np.roll(truth, 4, axis=1)
    truth[25:] = 255
    return GridRow(name, rng.integers(0, 256, (*shape, 3), np.uint8), truth, prediction)


def test_masks_have_the_colours_of_the_table_and_ignored_pixels_are_white() -> None:
    row = _row()
    colors = voc_colors(3)
    image, truth, prediction, error = pictures_of(row, colors, 255)
    ignored = row.truth == 255
    wrong = (row.truth != row.prediction) & ~ignored
    assert np.array_equal(image, row.image)
    assert np.array_equal(truth[~ignored], colors[row.truth[~ignored]])
    assert np.array_equal(prediction[~ignored], colors[row.prediction[~ignored]])
    for picture in (truth, prediction, error):
        assert (picture[ignored] == IGNORED_COLOR).all()
    assert np.array_equal((error == WRONG_COLOR).all(axis=2), wrong)
    assert (error[~ignored & ~wrong].std(axis=1) == 0).all()  # grey


def test_grey_images_and_other_types_are_scaled_between_their_percentiles() -> None:
    row = _row()
    ramp = np.linspace(-1000, 3000, row.truth.size).reshape(row.truth.shape).astype(np.float32)
    ramp[0, 0] = np.nan
    image = pictures_of(GridRow("", ramp, row.truth, row.prediction), voc_colors(3), 255)[0]
    assert image.dtype == np.uint8
    assert image[-1, -1].tolist() == [255, 255, 255]
    assert image[0, 0].tolist() == [0, 0, 0]
    assert abs(int(image[15, 0, 0]) - 128) < 4


def test_the_page_shows_each_row_in_the_given_colours(tmp_path: Path) -> None:
    colors = [[10, 20, 30], [200, 100, 0], [1, 2, 3]]
    rows = [_row("one"), _row("$two$", (60, 40))]
    write_prediction_grid(rows, NAMES, tmp_path / "grid.png", ignore_index=255, colors=colors)
    page = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    for color in (*colors[:2], WRONG_COLOR):
        assert (page == color).all(axis=2).sum() > 500
    assert (page == colors[2]).all(axis=2).sum() == 0  # a class that does not occur


def test_a_mask_with_a_value_that_is_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"truth must hold 0 to 2.*255.*for one") as caught:
        write_prediction_grid([_row()], NAMES, tmp_path / "grid.png")
    assert caught.value.code == "unknown-label"
    row = _row()
    row.prediction[0, 0] = 3
    with pytest.raises(InputError, match="prediction must hold 0 to 2"):
        write_prediction_grid([row], NAMES, tmp_path / "grid.png", ignore_index=255)
    assert not (tmp_path / "grid.png").exists()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path, row = tmp_path / "grid.png", _row()
    with pytest.raises(ValueError, match="rows must be 1 to"):
        write_prediction_grid([], NAMES, path)
    with pytest.raises(ValueError, match="rows must be 1 to"):
        write_prediction_grid([row] * 41, NAMES, path, ignore_index=255)
    with pytest.raises(ValueError, match="of one size"):
        write_prediction_grid([GridRow("x", row.image, row.truth, row.truth[1:])], NAMES, path)
    with pytest.raises(ValueError, match="colors must be one a class"):
        write_prediction_grid([row], NAMES, path, ignore_index=255, colors=[[0, 0, 0]])
