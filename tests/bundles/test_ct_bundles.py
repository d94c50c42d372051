"""The CT bundles without weights, from a dataset to a mask, on CT phantoms."""

from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.find import find_bundle
from medseg.data.phantom_msd import write_phantom_msd
from medseg.errors import BundleError
from medseg.workflows.evaluate import EvaluateOptions, evaluate
from medseg.workflows.segment import SegmentOptions, segment
from medseg.workflows.train import TrainOptions, train
from tests.bundles.small_copy import small_copy

LABELS: dict[str, Any] = {
    "spleen_ct": {"spleen": (1, 2)},
    "liver_tumour_ct": {"liver": (1,), "tumour": (2,)},
    "lung_tumour_ct": {"tumour": (2,)},
}
SHORT = ("epochs=1", "iterations_per_epoch=2", "val_interval=1", "num_workers=0")


@pytest.mark.slow
@pytest.mark.parametrize("name", LABELS)
def test_it_trains_segments_and_is_scored(name: str, tmp_path: Path) -> None:
    dataset = write_phantom_msd(tmp_path / "data", 5, labels=LABELS[name], box=(44, 40, 16))
    bundle = small_copy(find_bundle(name), tmp_path / name)  # the whole needs 10 GB to train
    result = train(
        TrainOptions(str(bundle), dataset, tmp_path / "trained", settings=SHORT, device="cpu")
    )
    assert result.folds[0].status == "done"
    images = dataset / "imagesTr"
    done = segment(
        SegmentOptions((images,), str(tmp_path / "trained"), tmp_path / "out", ("nifti",))
    )
    assert done.exit_code == 0
    assert len(done.cases) == 5
    scores = evaluate(EvaluateOptions(tmp_path / "out", dataset / "labelsTr"))
    assert scores.exit_code == 0
    assert list(scores.labels()) == list(LABELS[name])


@pytest.mark.parametrize("name", LABELS)
def test_without_weights_it_says_how_to_train(name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"medseg train {name}") as caught:
        segment(SegmentOptions((tmp_path,), name, tmp_path / "out"))
    assert caught.value.code == "no-weights"
