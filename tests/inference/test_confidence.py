"""How sure the networks are of a label, against the same arithmetic on whole class maps."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from scipy import ndimage
from scipy.special import expit, softmax, xlogy

from medseg.inference import Execution, Predictor
from medseg.inference.confidence import CertaintyMap, label_confidence
from medseg.inference.maps import StreamedMaps
from medseg.inference.restore import Meaning, restore_mask
from medseg.inference.stream import Streaming
from medseg.inference.windows import windows_of
from medseg.transforms import Resample, metatensor
from medseg.volume import Label, Segmentation, Volume, make_labels, reoriented
from tests.inference.test_against_dense import Contextual
from tests.toy_bundle import THRESHOLDS, write_toy_bundle

CPU = torch.device("cpu")
BYTE = 1 / 255
"""What a probability is kept in steps of."""


def _volume(shape: tuple[int, ...], affine: np.ndarray) -> Volume:
    rng = np.random.default_rng(4)
    array = ndimage.gaussian_filter(rng.normal(size=shape), 1.5) * 8
    return Volume(array[None].astype(np.float32), affine)


def _nearest(maps: np.ndarray, image: MetaTensor, volume: Volume) -> np.ndarray:
    """Bring maps to the source by the nearest voxel."""
    matrix = np.linalg.inv(np.asarray(image.affine)) @ volume.affine
    index = np.indices(volume.shape).reshape(3, -1)
    positions = matrix[:3, :3] @ index + matrix[:3, 3:]
    full = [ndimage.map_coordinates(one, positions, order=0, mode="nearest") for one in maps]
    return np.stack(full).reshape(len(full), *volume.shape)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.3, 1.1)])
@torch.inference_mode()
def test_it_is_that_of_whole_class_maps(regions: bool, spacing: tuple[float, ...]) -> None:
    affine = np.array([[0, -1.3, 0, 4], [0.9, 0, 0, 1], [0, 0, 1.7, -8], [0, 0, 0, 1]])
    volume, network = _volume((33, 29, 22), affine), Contextual(3, 3, 4)
    image = Resample(spacing, 1, 0)(metatensor(reoriented(volume, "RAS")))
    inferer = SlidingWindowInferer((16, 20, 12), overlap=0.5, mode="gaussian")
    logits = inferer(image.as_tensor()[None], network)[0].double().numpy()
    shares = expit(logits) if regions else softmax(logits, axis=0)
    if regions:
        entropies = -(xlogy(shares, shares) + xlogy(1 - shares, 1 - shares)) / np.log(2)
    else:
        entropies = -xlogy(shares, shares).sum(axis=0, keepdims=True) / np.log(4)
        winner = shares.argmax(axis=0)[None]
        shares = shares.max(axis=0, keepdims=True)
    shares, entropies = (_nearest(maps, image, volume) for maps in (shares, entropies))
    winner = np.zeros(0) if regions else _nearest(winner, image, volume)[0]
    values = (1, 2, 3, 4) if regions else (0, 1, 2, 3)
    if regions:  # the second lies within the first
        names = ((1, (1, 2)), (2, (2,)), (3, (3,)), (4, (4,)))
        labels = tuple(Label(index, f"r{index}", (0, 0, 0), inside) for index, inside in names)
    else:
        labels = make_labels("abc")
    windows = windows_of(inferer, image.shape[1:], CPU)
    for strips in (1, 2, 5):
        own = np.asarray(image.affine, np.float64)
        certain = CertaintyMap.empty(image.shape[1:], own, values, regions=regions, logits=True)
        maps = StreamedMaps(
            image.as_tensor(), [network], windows, own, Streaming(regions=regions), watcher=certain
        )
        meaning = Meaning(values, regions)
        mask = restore_mask([maps], volume.shape, volume.affine, meaning, strips=strips)
        found = label_confidence(Segmentation(mask, affine, labels), labels, [certain])
        assert set(found) == {label.index for label in labels if np.isin(mask, label.inside).any()}
        assert len(found) > 1
        for number, label in enumerate(labels):
            if label.index in found:
                channel = number if regions else 0
                inside = np.isin(mask, label.inside)
                own = shares[channel][inside]
                if not regions:  # another class has what is left of that of the label
                    own = np.where(winner[inside] == label.index, own, np.minimum(own, 1 - own))
                probability = own.mean()
                entropy = entropies[channel][inside].mean()
                assert found[label.index]["probability"] == pytest.approx(probability, abs=BYTE)
                assert found[label.index]["entropy"] == pytest.approx(entropy, abs=2 * BYTE)


def _uniform(value: float) -> Volume:
    return Volume(np.full((1, 20, 18, 7), value, np.float32), np.diag([1.0, 1.0, 3.0, 1.0]))


def test_far_from_a_threshold_the_networks_are_sure(tmp_path) -> None:
    predictor = Predictor(write_toy_bundle(tmp_path / "toy"), execution=Execution("torch", "fp32"))
    assert predictor(_uniform(150.0)).confidence == {1: {"probability": 1.0, "entropy": 0.0}}
    assert predictor(_uniform(20.0)).confidence == {}
    near = predictor(_uniform(THRESHOLDS[0] + 0.5)).confidence
    expected = softmax([0.0, 0.5, -99.5])
    assert near[1]["probability"] == pytest.approx(expected[1], abs=BYTE)
    entropy = -xlogy(expected, expected).sum() / np.log(3)
    assert near[1]["entropy"] == pytest.approx(entropy, abs=BYTE)


def test_networks_that_disagree_are_not_sure(tmp_path) -> None:
    sure = write_toy_bundle(tmp_path / "sure")
    other = write_toy_bundle(tmp_path / "other")
    weights = torch.load(other / "models/model.pt", weights_only=True)
    weights["bias"] = torch.tensor([0.0, 0.0, 1000.0])  # sees tumour everywhere
    torch.save(weights, other / "models/model.pt")
    run = Execution("torch", "fp32")
    [row] = Predictor([sure, other], execution=run)(_uniform(150.0)).confidence.values()
    # both are sure, the one of another class
    assert row == {"probability": 0.5, "entropy": 0.0}


def test_images_in_two_dimensions_have_it() -> None:
    shares = torch.tensor([[0.2, 0.8], [0.6, 0.4]])[:, :, None].expand(2, 2, 3)
    certain = CertaintyMap.empty((2, 3), np.eye(3), (0, 1), regions=False, logits=False)
    certain.note(0, 0, shares)
    array = np.array([[1, 0, 1], [0, 1, 1]], np.uint8)
    seg = Segmentation(array, np.eye(3), make_labels(["thing"]))
    found = label_confidence(seg, seg.labels, [certain])
    # 0.2 and 0.6 are made to sum to one
    first, second = 0.6 / 0.8, 0.4 / 1.2  # background has the larger part of the second
    assert found[1]["probability"] == pytest.approx((first + second) / 2, abs=BYTE)
