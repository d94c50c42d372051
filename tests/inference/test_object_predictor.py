"""Objects of images and volumes: on the source's grid, linked through slices."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from medseg.bundle.spec import BundleSpec
from medseg.bundle.write import write_bundle
from medseg.errors import BundleError, UsageError
from medseg.inference import Execution
from medseg.inference.objects import ObjectPredictor, link
from medseg.inference.objects.tiles import ObjectInferer
from medseg.networks import MaskRcnn
from medseg.objects import ObjectInstances, ObjectSegmentation
from medseg.volume import Volume
from tests.inference.test_object_tiles import Oracle, discs

DEFINITION = {
    "_target_": "medseg.networks.MaskRcnn",
    "in_channels": 1,
    "num_classes": "@num_classes",
    "levels": 1,
    "channels": 8,
    "box_features": 8,
    "mask_layers": 1,
    "anchor_sizes": [[8], [16]],
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a bundle with random weights, whose network sees twice as many pixels."""
    spec = BundleSpec(
        name="discs", task="discs", dataset="none", image_channels=[("grey", "OT")],
        labels=[("disc", (1,)), ("square", (2,))], spacing=(0.5, 0.5), patch_size=(96, 96),
        in_pixels=True,
        batch_size=1, network_def=DEFINITION, schemes=[{"scheme": "zscore", "nonzero": False}],
        fixed_splits=False, objects=True,
    )  # fmt: skip
    root = write_bundle(spec, tmp_path / "discs", plan={}, splits=None)
    torch.manual_seed(0)
    settings = {k: v for k, v in DEFINITION.items() if k not in ("_target_", "num_classes")}
    torch.save(MaskRcnn(num_classes=3, **settings).state_dict(), root / "models/model.pt")
    return root


class Sees:
    """A detector that knows the truth, given an image that shows the numbers of objects."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(self, batch: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        small = batch[:, :, self.scale // 2 :: self.scale, self.scale // 2 :: self.scale]
        whole = small.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3)
        return [Oracle(tile[0].numpy().astype(int))(tile[None])[0] for tile in whole]


def knowing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectPredictor:
    """Return a predictor whose network is shown the numbers of objects, and says so."""
    common = bundle / "configs/common.yaml"
    config = yaml.safe_load(common.read_text())
    steps = config["preprocessing_transforms"]
    config["preprocessing_transforms"] = [s for s in steps if "Normalize" not in s["_target_"]]
    for step in config["preprocessing_transforms"]:
        if "orders" in step:
            step["orders"] = {"image": 0, "label": 0}
    common.write_text(yaml.safe_dump(config))
    predictor = ObjectPredictor(bundle, device="cpu")
    found = ObjectInferer.find
    monkeypatch.setattr(
        ObjectInferer, "find", lambda self, image, _, onto: found(self, image, Sees(2), onto)
    )
    return predictor


def picture(labels: np.ndarray) -> Volume:
    return Volume(labels[None].astype(np.float32), np.eye(3))


@pytest.mark.parametrize("size", [(40, 46), (90, 130)])  # one tile, and several
def test_objects_lie_where_the_picture_shows_them(
    size: tuple[int, int], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = discs(size, 6, 1, (5, 9))
    result = knowing(bundle, monkeypatch)(picture(labels))
    truth = ObjectInstances.of_label_map(labels)
    iou = truth.iou(result.slices[0])
    assert result.count == len(truth) == iou.shape[1]
    assert iou.max(axis=1).min() > 0.85
    assert result.array.shape == size
    assert np.array_equal(result.array > 0, result.instance_map() > 0)
    assert np.mean((result.array > 0) == (labels > 0)) > 0.97


def test_a_volume_is_looked_at_slice_by_slice_and_objects_are_linked(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = discs((46, 40), 5, 2, (5, 9))  # first axis across, second down
    volume = np.stack([labels, labels, np.where(labels == 2, 0, labels), labels], axis=-1)
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    result = knowing(bundle, monkeypatch)(Volume(volume[None].astype(np.float32), affine))
    numbers = result.instance_map()
    assert numbers.shape == volume.shape == result.array.shape
    for number in (1, 3, 4, 5):
        inside = numbers[volume == number]
        assert np.bincount(inside).argmax() > 0
        assert np.mean(inside == np.bincount(inside).argmax()) > 0.85
    first, last = (numbers[..., k][labels == 2] for k in (0, 3))
    assert np.bincount(first).argmax() != np.bincount(last).argmax()  # it ended in between
    assert result.count == 6


def test_links_need_class_and_overlap() -> None:
    def of(*places: tuple[int, int, int]) -> ObjectInstances:
        masks = np.zeros((len(places), 10, 30), bool)
        for mask, (low, high, _) in zip(masks, places, strict=True):
            mask[2:8, low:high] = True
        return ObjectInstances.of(masks, [kind for *_, kind in places], size=(10, 30))

    slices = [
        of((0, 10, 1), (15, 25, 1)),
        of((15, 25, 2), (1, 11, 1)),  # another class; the same
        of((9, 19, 1)),  # too little overlap
        of(),
        of((9, 19, 1)),  # after a gap
    ]
    assert [numbers.tolist() for numbers in link(slices)] == [[1, 2], [3, 1], [4], [], [5]]
    assert link([]) == ()


def test_real_weights_are_run(bundle: Path) -> None:
    rng = np.random.default_rng(0)
    image = Volume(rng.random((1, 70, 50), dtype=np.float32), np.eye(3))
    predictor = ObjectPredictor(bundle, device="cpu", least_score=0.0)
    first, again = predictor(image), predictor(image)
    assert isinstance(first, ObjectSegmentation)
    assert first.slices[0].masks == again.slices[0].masks
    assert [label.name for label in first.labels] == ["disc", "square"]
    assert first.slices[0].size == (70, 50)


def test_what_it_cannot_do_is_refused(bundle: Path) -> None:
    with pytest.raises(UsageError, match="backend must be torch"):
        ObjectPredictor(bundle, execution=Execution(backend="onnx"))
    with pytest.raises(BundleError, match="must find objects") as caught:
        ObjectPredictor("phantom_ct")
    assert caught.value.code == "no-objects"


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 1.5])
def test_an_overlap_out_of_range_is_the_users(bundle: Path, overlap: float) -> None:
    with pytest.raises(UsageError, match="overlap must be at least 0 and below 1"):
        ObjectPredictor(bundle, device="cpu", overlap=overlap)


def test_a_tile_full_of_objects_is_said(bundle: Path) -> None:
    rng = np.random.default_rng(0)
    image = Volume(rng.random((1, 70, 50), dtype=np.float32), np.eye(3))
    predictor = ObjectPredictor(bundle, device="cpu", least_score=0.0)
    network = predictor._parts.network
    assert network.most_objects == network.roi_heads.detections_per_img == 300
    network.roi_heads.score_thresh = 0.0
    network.most_objects = network.roi_heads.detections_per_img = 100_000
    assert predictor(image).source.problems == ()
    network.most_objects = network.roi_heads.detections_per_img = 3
    [problem] = predictor(image).source.problems
    assert problem.code == "too-many-objects"
    assert problem.message.startswith("in 1 tile there are as many objects as the network can find")
    predictor.least_score = 0.99  # the surest are few: nothing that counts is missing
    assert predictor(image).source.problems == ()
