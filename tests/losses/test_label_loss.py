"""What holds for every loss of logits against class indices, ignored voxels above all."""

from collections.abc import Callable

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import nn

from medseg import losses
from medseg.errors import InputError
from medseg.losses import DeepSupervisionLoss

Make = Callable[..., nn.Module]

MAKERS: dict[str, Make] = {
    "cross_entropy": losses.CrossEntropyLoss,
    "weighted": lambda **k: losses.CrossEntropyLoss([0.5, 2.0, 1.0], **k),
    "smoothed": lambda **k: losses.CrossEntropyLoss(label_smoothing=0.2, **k),
    "binary": losses.BinaryCrossEntropyLoss,
    "dice": losses.DiceLoss,
    "dice_batch": lambda **k: losses.DiceLoss(include_background=False, batch=True, **k),
    "dice_weighted": lambda **k: losses.DiceLoss(weight=[1.0, 2.0, 3.0], batch=True, **k),
    "jaccard": losses.JaccardLoss,
    "dice_ce": lambda **k: losses.DiceCELoss(batch=True, weight=[1.0, 2.0, 3.0], **k),
    "focal": lambda **k: losses.FocalLoss(alpha=[0.2, 0.3, 0.5], **k),
    "lovasz": losses.LovaszSoftmaxLoss,
    "lovasz_image": lambda **k: losses.LovaszSoftmaxLoss("all", per_image=True, **k),
    "mse": losses.ProbabilityMSELoss,
    "mae": losses.ProbabilityMAELoss,
}
BY_IMAGE = {"dice", "jaccard", "lovasz_image"}
SHAPES = [(7, 6), (5, 4, 6)]
every_loss = pytest.mark.parametrize("name", MAKERS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])


def _pair(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, 3, *shape, generator=generator)
    return logits, torch.randint(0, 3, (2, 1, *shape), generator=generator)


@every_loss
@every_shape
@pytest.mark.parametrize("ignore_index", [255, -1, 1])
def test_an_ignored_region_is_as_if_it_were_cropped_away(name, shape, ignore_index) -> None:
    logits, label = _pair(shape)
    if ignore_index == 1:
        label[label == 1] = 2
    marked = label.clone()
    marked[..., -2:] = ignore_index
    expected = MAKERS[name]()(logits[..., :-2], label[..., :-2])
    assert MAKERS[name](ignore_index=ignore_index)(logits, marked).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - BY_IMAGE))
@every_shape
def test_scattered_ignored_voxels_are_as_if_the_others_were_gathered(name, shape) -> None:
    logits, label = _pair(shape)
    marked = label.clone()
    marked[torch.rand(label.shape, generator=torch.Generator().manual_seed(5)) < 0.4] = 255
    keep = marked[:, 0] != 255
    gathered = logits.movedim(1, 0)[:, keep][None], label[:, 0][keep][None, None]
    expected = MAKERS[name]()(*gathered)
    assert MAKERS[name](ignore_index=255)(logits, marked).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


@every_loss
@every_shape
def test_gradients_are_zero_exactly_where_voxels_are_ignored(name, shape) -> None:
    logits, label = _pair(shape)
    label[..., 1::2] = 255
    logits.requires_grad_()
    MAKERS[name](ignore_index=255)(logits, label).backward()
    ignored = (label == 255).expand_as(logits)
    assert (logits.grad[ignored] == 0).all()
    assert (logits.grad[~ignored] != 0).any()
    assert torch.isfinite(logits.grad).all()


@every_loss
def test_what_the_network_says_at_ignored_voxels_has_no_effect(name) -> None:
    logits, label = _pair((7, 6))
    label[..., 4:] = 255
    loss = MAKERS[name](ignore_index=255)
    expected = loss(logits, label)
    wild = logits.clone()
    wild[..., 4] = float("nan")
    wild[..., 5] = float("inf")
    wild.requires_grad_()
    got = loss(wild, label)
    got.backward()
    assert torch.equal(got.detach(), expected)
    assert torch.isfinite(wild.grad).all()


@every_loss
@every_shape
def test_a_batch_of_ignored_voxels_gives_zero_and_gradients_of_zero(name, shape) -> None:
    logits, label = _pair(shape)
    logits.requires_grad_()
    value = MAKERS[name](ignore_index=255)(logits, torch.full_like(label, 255))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", sorted(BY_IMAGE))
def test_an_image_of_ignored_voxels_leaves_the_average_of_the_others(name) -> None:
    logits, label = _pair((7, 6))
    label[1] = 255
    expected = MAKERS[name]()(logits[:1], label[:1])
    got = MAKERS[name](ignore_index=255)(logits, label)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


@every_loss
def test_an_ignore_label_that_does_not_occur_changes_nothing(name) -> None:
    logits, label = _pair((5, 4, 6))
    assert MAKERS[name](ignore_index=255)(logits, label).item() == pytest.approx(
        MAKERS[name]()(logits, label).item(), rel=1e-6
    )


@every_loss
def test_autocast_and_half_precision_logits_are_measured_in_float32(name) -> None:
    logits, label = _pair((7, 6))
    half = logits.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = MAKERS[name](ignore_index=255)(half, label)
    got.backward()
    assert got.dtype == torch.float32
    assert got.item() == MAKERS[name](ignore_index=255)(half.float(), label).item()
    assert half.grad.dtype == torch.bfloat16


@every_loss
def test_every_level_of_a_deeply_supervised_network_is_measured(name) -> None:
    logits, label = _pair((8, 8))
    label[..., 5:] = 255
    coarse = _pair((4, 4), seed=1)[0]
    loss = MAKERS[name](ignore_index=255)
    expected = (loss(logits, label) + 0.5 * loss(coarse, label[..., 1::2, 1::2])) / 1.5
    assert DeepSupervisionLoss(loss)([logits, coarse], label).item() == pytest.approx(
        expected.item()
    )


@every_loss
@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.float32])
def test_labels_of_any_type_and_monai_tensors_are_taken(name, kind) -> None:
    logits, label = _pair((7, 6))
    label[..., 4:] = 255
    loss = MAKERS[name](ignore_index=255)
    got = loss(MetaTensor(logits), MetaTensor(label.to(kind)))
    assert type(got) is torch.Tensor
    assert torch.equal(got, loss(logits, label))


@every_loss
def test_inputs_stay_as_they_were(name) -> None:
    logits, label = _pair((7, 6))
    label[..., 4:] = 255
    before = logits.clone(), label.clone()
    MAKERS[name](ignore_index=255)(logits, label)
    assert torch.equal(logits, before[0])
    assert torch.equal(label, before[1])


@every_loss
@pytest.mark.parametrize(("wrong", "ignore_index"), [(3, None), (255, None), (-1, None), (7, 255)])
def test_a_value_that_is_no_class_is_refused(name, wrong, ignore_index) -> None:
    logits, label = _pair((7, 6))
    label[1, 0, 2, 2] = wrong
    with pytest.raises(InputError, match=f"0 to 2.*got {wrong}") as caught:
        MAKERS[name](ignore_index=ignore_index)(logits, label)
    assert caught.value.code == "unknown-label"


def test_minus_one_does_not_stand_for_255_in_a_uint8_label() -> None:
    logits, label = _pair((7, 6))
    label[0, 0, 0, 0] = 255
    with pytest.raises(InputError, match="got 255"):
        losses.DiceLoss(ignore_index=-1)(logits, label.to(torch.uint8))


def test_fractions_in_a_label_are_refused() -> None:
    logits, label = _pair((7, 6))
    with pytest.raises(InputError, match="whole numbers"):
        losses.DiceLoss()(logits, label + 0.25)


@every_loss
def test_shapes_that_do_not_fit_are_refused(name) -> None:
    logits, label = _pair((7, 6))
    for wrong in (label[:, 0], label[:1], label[..., :-1], label.expand(2, 3, 7, 6)):
        with pytest.raises(ValueError, match=r"\(B, 1, \*spatial\)"):
            MAKERS[name]()(logits, wrong)


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"binary", "mse", "mae"}))
def test_one_channel_is_refused_where_the_loss_takes_a_softmax(name) -> None:
    logits, label = _pair((7, 6))
    with pytest.raises(ValueError, match="BinaryCrossEntropyLoss"):
        MAKERS[name]()(logits[:, :1], label.clamp(max=1))


@pytest.mark.parametrize("weight", [[1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [float("nan"), 1.0, 1.0]])
@pytest.mark.parametrize(
    "make",
    [losses.CrossEntropyLoss, losses.DiceLoss, losses.DiceCELoss, losses.FocalLoss],
)
def test_weights_that_cannot_be_used_are_refused(make, weight) -> None:
    key = "alpha" if make is losses.FocalLoss else "weight"
    with pytest.raises(ValueError, match="weight must be finite"):
        make(**{key: weight})
    logits, label = _pair((7, 6))
    with pytest.raises(ValueError, match=r"one a class \(3\), got 2"):
        make(**{key: [1.0, 2.0]})(logits, label)


@pytest.mark.parametrize(
    "name", [n for n in losses.__all__ if n.endswith("Loss") and n != "DeepSupervisionLoss"]
)
def test_yaml_makes_it(name) -> None:
    parser = ConfigParser({"loss": {"_target_": f"medseg.losses.{name}", "ignore_index": 255}})
    logits, label = _pair((7, 6))
    label[0] = 255
    assert torch.isfinite(parser.get_parsed_content("loss")(logits, label))
