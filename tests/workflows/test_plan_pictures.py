"""Plans for pictures: in which unit the network's grid is."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

from medseg.data import open_dataset
from medseg.errors import InputError
from medseg.io.raster import write_png
from medseg.planning import fingerprint
from medseg.workflows.plan import PlanOptions, PlanResult, plan

PIXELS_PER_UM = 4
PIXEL_MM = 0.00025


def write_micrographs(folder: Path, *, silent: int) -> Path:
    """Write a dataset of five images with a scale, of which some come without, and PNG masks."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(5):
        mask = np.zeros((64, 80), np.uint8)
        mask[10:30, 20 + number : 50] = 1
        image = (rng.integers(0, 50, mask.shape) + 150 * mask).astype(np.uint8)
        scale = {"resolution": (PIXELS_PER_UM,) * 2, "metadata": {"unit": "um"}}
        path = folder / "images" / f"p{number}.tif"
        tifffile.imwrite(path, image, imagej=True, **({} if number < silent else scale))
        write_png(mask, folder / "masks" / f"p{number}.png")
    text = "name: cells\nimages: images\nmasks: masks\nlabels: {cell: 1}\n"
    (folder / "dataset.yaml").write_text(text)
    return folder


def planned(tmp_path: Path, silent: int, **options: bool) -> tuple[PlanResult, dict[str, object]]:
    dataset = write_micrographs(tmp_path / "cells", silent=silent)
    result = plan(PlanOptions(dataset, tmp_path / "bundle", **options))
    return result, yaml.safe_load((result.bundle / "configs/common.yaml").read_text())


def test_images_with_a_scale_are_planned_in_mm(tmp_path: Path) -> None:
    result, common = planned(tmp_path, 0)
    assert common["spacing_mm"] == pytest.approx([PIXEL_MM] * 2)
    assert "spacing_px" not in common
    entry = result.as_json()["fingerprint"]
    assert entry["spacing_mm"]["median"] == pytest.approx([PIXEL_MM] * 2, abs=1e-4)
    assert entry["structures"][0]["median_mm2"] == pytest.approx(560 * PIXEL_MM**2, abs=1e-4)
    assert "pixel-size-unused" not in {problem.code for problem in result.problems}


def test_images_without_a_scale_are_planned_in_pixels(tmp_path: Path) -> None:
    result, common = planned(tmp_path, 5)
    assert common["spacing_px"] == [1.0, 1.0]
    assert "spacing_mm" not in common
    assert result.as_json()["fingerprint"]["structures"][0]["median_px"] == 560
    assert not result.problems


def test_images_of_which_some_have_a_scale_are_planned_in_pixels_and_that_is_said(
    tmp_path: Path,
) -> None:
    result, common = planned(tmp_path, 2)
    assert common["spacing_px"] == [1.0, 1.0]
    [problem] = [one for one in result.problems if one.code == "pixel-size-unused"]
    assert problem.message.startswith("3 of 5 images state the size of their pixels")
    found = fingerprint(open_dataset(tmp_path / "cells"))
    assert {case.spacing for case in found.cases} == {(1.0, 1.0)}
    with pytest.raises(InputError, match="pixel-size-unused"):
        plan(PlanOptions(tmp_path / "cells", tmp_path / "strict", strict=True))
    assert not (tmp_path / "strict").exists()
