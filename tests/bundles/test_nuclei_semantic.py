"""The shipped weights on the validation images of their card."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from medseg.bundle import load_bundle
from medseg.inference import Execution, Predictor
from medseg.io.masks import read_numbers
from medseg.io.read import read
from tests.real_data import data_folder

BUNDLE = Path(__file__).parents[2] / "bundles" / "nuclei_semantic"


def iou_of(names: list[str]) -> list[float]:
    folder = data_folder("dsb2018_nuclei")
    predictor = Predictor(BUNDLE, device="cpu", execution=Execution(backend="torch"))
    scores = []
    for name in names:
        found = predictor(read(folder / "images" / f"{name}.png")).array > 0
        truth = read_numbers(folder / "masks" / f"{name}.png") > 0
        scores.append(float((found & truth).sum() / (found | truth).sum()))
    return scores


def validation() -> list[str]:
    return json.loads((BUNDLE / "configs/splits.json").read_text())["folds"][0]["validation"]


def test_the_card_s_figures_are_those_of_the_metadata() -> None:
    bundle = load_bundle(BUNDLE)
    assert bundle.metadata["eval_metrics"]["validation_cases"] == len(validation())
    assert f"| {bundle.metadata['eval_metrics']['mean_iou']} |" in bundle.card


def test_nuclei_are_found_in_images_it_was_not_trained_on() -> None:
    """The smallest of the validation images; all of them are scored in the card."""
    folder = data_folder("dsb2018_nuclei")
    small = sorted(validation(), key=lambda n: (folder / "images" / f"{n}.png").stat().st_size)
    assert np.mean(iou_of(small[:6])) > 0.8


@pytest.mark.slow
def test_the_card_s_figure_is_what_it_reaches() -> None:
    stated = load_bundle(BUNDLE).metadata["eval_metrics"]["mean_iou"]
    assert np.mean(iou_of(validation())) == pytest.approx(stated, abs=0.005)


def test_the_scale_that_a_file_states_changes_nothing(tmp_path: Path) -> None:
    """The bundle was made of pictures without one, in pixels."""
    folder = data_folder("dsb2018_nuclei")
    path = folder / "images" / f"{validation()[0]}.png"
    predictor = Predictor(BUNDLE, device="cpu", execution=Execution("torch", "fp32"))
    plain = read(path)
    expected = predictor(plain).array
    assert expected.any()
    for scale in (1 / 0.3, 2000.0):  # pixels a um: 300 nm and half a nanometre
        tifffile.imwrite(
            tmp_path / "a.tif", plain.array.transpose(1, 2, 0), imagej=True,
            resolution=(scale, scale), metadata={"unit": "um"},
        )  # fmt: skip
        scaled = read(tmp_path / "a.tif")
        assert scaled.spacing_mm == pytest.approx((0.001 / scale,) * 2, rel=1e-3)
        assert np.array_equal(predictor(scaled).array, expected)
