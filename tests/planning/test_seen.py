"""The ranges of a dataset that its bundle states."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from medseg.bundle import load_bundle
from medseg.data import open_dataset
from medseg.planning import fingerprint
from medseg.planning.seen import seen_in_training
from medseg.workflows.plan import PlanOptions, plan
from tests.data.datasets import write_image
from tests.workflows.test_plan_pictures import write_micrographs

SCRIPT = Path(__file__).parents[2] / "scripts" / "training_ranges.py"
AFFINE = np.array([[0, 0, -2.0, 0], [1.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])


def _dataset(folder: Path, modality: str) -> Path:
    """Write three cases: the second structure is in two of them, in one part and in three."""
    for number in range(3):
        label = np.zeros((20, 16, 12), np.uint8)
        label[2 : 6 + number, 2:6, 2:6] = 1
        for part in range([0, 1, 3][number]):
            label[10, 4 * part : 4 * part + 2, 8] = 2
        image = (np.arange(label.size).reshape(label.shape) % 7 + 40 * number).astype(np.int16)
        write_image(folder / f"imagesTr/c{number}.nii.gz", image, AFFINE)
        write_image(folder / f"labelsTr/c{number}.nii.gz", label, AFFINE)
    names = [f"c{number}.nii.gz" for number in range(3)]
    document = {
        "name": "three", "modality": {"0": modality},
        "labels": {"0": "background", "1": "organ", "2": "spots"},
        "training": [
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names
        ],
        "numTraining": 3, "test": [],
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def test_ranges_are_those_of_the_cases(tmp_path: Path) -> None:
    found = fingerprint(open_dataset(_dataset(tmp_path, "CT")))
    seen = seen_in_training(found, absolute=True)
    assert seen["cases"] == 3
    assert seen["spacing_mm"] == {"min": [2.0, 1.0, 1.5], "max": [2.0, 1.0, 1.5]}
    assert seen["extent_mm"] == {"min": [24.0, 20.0, 24.0], "max": [24.0, 20.0, 24.0]}
    organ, spots = seen["labels"]["organ"], seen["labels"]["spots"]
    assert organ == {"cases": 3, "volume_ml": [0.192, 0.288], "components": [1, 1]}
    assert spots == {"cases": 2, "volume_ml": [0.006, 0.018], "components": [1, 3]}
    [low], [high] = seen["intensity_mean"]["min"], seen["intensity_mean"]["max"]
    assert low == pytest.approx(3, abs=0.5)
    assert high == pytest.approx(83, abs=0.5)
    assert "intensity_mean" not in seen_in_training(found, absolute=False)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_planned_bundle_states_them(tmp_path: Path, modality: str) -> None:
    dataset = _dataset(tmp_path / "data", modality)
    folder = plan(PlanOptions(dataset, tmp_path / "bundle", memory_gb=4)).bundle
    seen = load_bundle(folder).seen
    assert seen["labels"]["spots"]["components"] == [1, 3]
    assert ("intensity_mean" in seen) == (modality == "CT")


@pytest.mark.parametrize("is_solid", [True, False])
def test_the_script_states_those_of_the_cases_that_fold_0_trains_on(
    tmp_path: Path, is_solid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    dataset = _dataset(folder, "CT") if is_solid else write_micrographs(folder, silent=0)
    bundle = plan(PlanOptions(dataset, tmp_path / "bundle", memory_gb=4)).bundle
    path = bundle / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    planned = metadata["medseg"].pop("training")
    path.write_text(json.dumps(metadata))
    monkeypatch.setattr(sys, "argv", ["training_ranges.py", str(bundle), str(dataset)])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    seen = load_bundle(bundle).seen
    assert 0 < seen["cases"] < planned["cases"]
    assert seen.keys() == planned.keys()
