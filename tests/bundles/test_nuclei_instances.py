"""The shipped weights of nuclei_instances on the validation images of their card."""

import json
from pathlib import Path

import pytest

from medseg.bundle import load_bundle
from medseg.inference import Execution
from medseg.inference.objects import ObjectPredictor
from medseg.io.masks import read_numbers
from medseg.io.read import read
from medseg.metrics.objects import ObjectMetrics
from medseg.objects import ObjectInstances
from tests.real_data import data_folder

BUNDLE = Path(__file__).parents[2] / "bundles" / "nuclei_instances"


def validation() -> list[str]:
    return json.loads((BUNDLE / "configs/splits.json").read_text())["folds"][0]["validation"]


def ap50_of(names: list[str]) -> float:
    folder = data_folder("dsb2018_nuclei")
    execution = Execution(backend="torch", precision="fp32")
    predictor = ObjectPredictor(BUNDLE, device="cpu", execution=execution)
    metrics = ObjectMetrics(["nucleus"])
    for name in names:
        [found] = predictor(read(folder / "images" / f"{name}.png")).candidates
        truth = read_numbers(folder / "masks" / f"{name}.png")
        metrics.add(name, found, ObjectInstances.of_label_map(truth))
    return float(metrics.scores().mean["ap50"])


def test_the_card_s_figures_are_those_of_the_metadata() -> None:
    bundle = load_bundle(BUNDLE)
    stated = bundle.metadata["eval_metrics"]
    assert stated["validation_cases"] == len(validation())
    row = next(line for line in bundle.card.splitlines() if line.startswith("| all |"))
    cells = [cell.strip() for cell in row.split("|")]
    assert [float(cells[k]) for k in (3, 5, 7, 8)] == [
        stated[name] for name in ("mask_ap50", "mask_ap", "pq", "aji")
    ]


def test_what_it_is_scored_on_was_not_trained_on() -> None:
    fold = json.loads((BUNDLE / "configs/splits.json").read_text())["folds"][0]
    assert not set(fold["training"]) & set(fold["validation"])


def test_nuclei_are_found_in_images_it_was_not_trained_on() -> None:
    """The smallest of the validation images; all of them are scored in the card."""
    folder = data_folder("dsb2018_nuclei")
    small = sorted(validation(), key=lambda n: (folder / "images" / f"{n}.png").stat().st_size)
    assert ap50_of(small[:6]) > 0.7


@pytest.mark.slow
def test_the_card_s_figure_is_what_it_reaches() -> None:
    stated = load_bundle(BUNDLE).metadata["eval_metrics"]["mask_ap50"]
    assert ap50_of(validation()) == pytest.approx(stated, abs=0.005)
