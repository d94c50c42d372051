"""Pictures of a data set's scores: what is drawn is what was measured."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import OutputError
from medseg.metrics.semantic import SemanticMetrics, SemanticScores
from medseg.report.semantic import (
    percent,
    write_class_bars,
    write_confusion_csv,
    write_confusion_picture,
)

BAR = (0x35, 0x73, 0xA8)


def _scores(names: list[str], confusion: np.ndarray) -> SemanticScores:
    """Count an image that has exactly this confusion matrix."""
    metrics = SemanticMetrics(names)
    truth, pred = (np.repeat(i.ravel(), confusion.ravel()) for i in np.indices(confusion.shape))
    metrics.add(pred, truth)
    return metrics.scores()


def _bar_lengths(picture: np.ndarray) -> list[int]:
    """Return the widths of the bars from top to bottom."""
    widths = (np.abs(picture.astype(int) - BAR).max(axis=2) < 3).sum(axis=1)
    starts = np.flatnonzero((widths[1:] > 0) & (widths[:-1] == 0)) + 1
    return [int(widths[start + 4]) for start in starts]


def test_bars_are_as_long_as_the_values(tmp_path: Path) -> None:
    # IoU: 1, 60 / 80, 20 / 40, absent
    confusion = np.array([[50, 0, 0, 0], [0, 60, 0, 0], [0, 20, 20, 0], [0, 0, 0, 0]])
    scores = _scores(["a", "b", "c", "d"], confusion)
    assert scores.iou[:3].tolist() == [1, 0.75, 0.5]
    write_class_bars(scores, tmp_path / "bars.png")
    lengths = _bar_lengths(np.asarray(Image.open(tmp_path / "bars.png").convert("RGB")))
    assert len(lengths) == 3
    assert np.array(lengths) / lengths[0] == pytest.approx([1, 0.75, 0.5], abs=0.02)


def test_cells_are_as_dark_as_their_share_of_the_row(tmp_path: Path) -> None:
    names = ["a", "b"]
    right, half = np.diag([100, 1000]), np.full((2, 2), 50)
    pictures = []
    for number, confusion in enumerate((right, half)):
        path = tmp_path / f"{number}.png"
        write_confusion_picture(_scores(names, confusion), path)
        pictures.append(np.asarray(Image.open(path).convert("L")).astype(int))
    dark = [(picture < 70).sum() for picture in pictures]
    assert dark[0] > 2000 > dark[1]  # only a share of 1 is that dark, beside thin letters


@pytest.mark.parametrize("count", [1, 2, 21, 60])
def test_any_number_of_classes_and_any_names_are_drawn(tmp_path: Path, count: int) -> None:
    names = [
        f"${index}_{{class}}$ with a name that is longer than a legend" for index in range(count)
    ]
    scores = _scores(names, np.random.default_rng(0).integers(0, 9, (count, count)))
    for write in (write_confusion_picture, write_class_bars):
        write(scores, tmp_path / "picture.png")
        with Image.open(tmp_path / "picture.png") as picture:
            picture.load()
            assert picture.format == "PNG"
            assert 400 < picture.width < 4000


def test_a_data_set_without_a_pixel_is_drawn_as_empty(tmp_path: Path) -> None:
    scores = SemanticMetrics(["a", "b"]).scores()
    for metric in ("iou", "boundary_f1"):
        write_class_bars(scores, tmp_path / "bars.png", metric)
        assert not _bar_lengths(np.asarray(Image.open(tmp_path / "bars.png").convert("RGB")))
    write_confusion_picture(scores, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").is_file()


def test_the_csv_is_the_matrix(tmp_path: Path) -> None:
    write_confusion_csv(_scores(["a", "b"], np.array([[1, 2], [3, 4]])), tmp_path / "confusion.csv")
    text = (tmp_path / "confusion.csv").read_text()
    assert text == "truth \\ prediction,a,b\na,1,2\nb,3,4\n"


def test_no_share_below_1_is_written_as_100() -> None:
    assert percent(0.99999) == "99.9"
    assert percent(1) == "100"
    assert percent(1e-9) == "<.1"


def test_an_unknown_metric_and_a_folder_that_cannot_be_are_refused(tmp_path: Path) -> None:
    scores = _scores(["a", "b"], np.diag([1, 2]))
    with pytest.raises(ValueError, match="metric must be one of iou"):
        write_class_bars(scores, tmp_path / "bars.png", "hd95")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_confusion_picture(scores, tmp_path / "file" / "confusion.png")
