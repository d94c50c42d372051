"""Mask R-CNN: torchvision's own results, any channels and sizes, targets without objects."""

from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.detection import maskrcnn_resnet50_fpn

from medseg.errors import UsageError
from medseg.networks.mask_rcnn import ENCODERS, MOBILE, MaskRcnn

SMALL = {"levels": 2, "channels": 16, "box_features": 16, "mask_layers": 1}
ANCHORS = [[8], [16], [32]]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def small(**changed: object) -> MaskRcnn:
    settings = {"in_channels": 3, "num_classes": 3, "anchor_sizes": ANCHORS, **SMALL, **changed}
    return MaskRcnn(**settings)


def target(rows: int, columns: int, *boxes: tuple[int, int, int, int]) -> dict[str, torch.Tensor]:
    masks = torch.zeros(len(boxes), rows, columns, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "masks": masks,
    }


def test_of_the_paper_s_size_it_gives_what_torchvision_gives() -> None:
    theirs = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3,
        box_detections_per_img=20, box_score_thresh=0.0, min_size=96, max_size=128,
        image_mean=[0.0] * 3, image_std=[1.0] * 3,
    ).eval()  # fmt: skip
    ours = MaskRcnn(
        3, 3, encoder="resnet50", norm="frozen", most_objects=20, least_score=0.0,
    ).eval()  # fmt: skip
    state = theirs.state_dict()
    for key, tensor in state.items():
        if "running_mean" in key or key.endswith("bn1.bias"):
            tensor.uniform_(-0.2, 0.2)
    ours.load_state_dict(state)
    image = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        [a], [b] = theirs(list(image)), ours(image)
    assert len(b["boxes"]) > 0
    assert torch.equal(a["labels"], b["labels"])
    assert torch.allclose(a["scores"], b["scores"], atol=1e-4)
    assert torch.allclose(a["boxes"], b["boxes"], atol=1e-2)
    assert b["masks"].shape == (len(b["boxes"]), 1, 28, 28)


@pytest.mark.parametrize(
    ("encoder", "levels"), [*((encoder, 1) for encoder in ENCODERS), ("resnet18", 3), (MOBILE, 4)]
)
def test_every_encoder_learns_with_as_many_levels(encoder: str, levels: int) -> None:
    network = small(
        encoder=encoder, levels=levels, in_channels=2,
        anchor_sizes=[[8 * 2**level] for level in range(levels + 1)],
    )  # fmt: skip
    losses = network(torch.rand(2, 2, 64, 64), [target(64, 64, (8, 8, 24, 30)), target(64, 64)])
    sum(losses.values()).backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    without = [p for p in trained if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
    moved = sum(bool(p.grad.abs().sum() > 0) for p in trained)
    assert moved > 0.9 * len(trained)


def test_images_without_objects_have_losses_too() -> None:
    network = small()
    losses = network(torch.rand(2, 3, 40, 56), [target(40, 56), target(40, 56)])
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_mask"] == losses["loss_box_reg"] == 0
    assert losses["loss_objectness"] > 0


def test_places_keep_their_precision_under_autocast() -> None:
    """In bfloat16 numbers over 256 are even: boxes of small objects would have no width."""
    network = small(least_score=0.0).eval()
    image = torch.rand(1, 3, 64, 512)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        [found] = network(image)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32, torch.int64}
    far = found["boxes"][found["boxes"][:, 0] > 300]
    assert len(far) > 10
    assert (far != far.to(torch.bfloat16).float()).any()
    network.train()
    boxes = [(x, 20, x + 9, 29) for x in range(300, 500, 12)]
    with torch.autocast("cpu", torch.bfloat16):
        losses = network(image, [target(64, 512, *boxes)])
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("size", [(1, 1), (31, 200), (64, 64)])
def test_an_image_of_any_size_is_taken_and_objects_lie_within_it(size: tuple[int, int]) -> None:
    network = small(least_score=0.0).eval()
    with torch.no_grad():
        [found] = network(torch.rand(1, 3, *size))
    boxes = found["boxes"]
    assert (boxes >= 0).all()
    assert (boxes[:, [0, 2]] <= size[1]).all()
    assert (boxes[:, [1, 3]] <= size[0]).all()
    assert (found["scores"].diff() <= 0).all()


def test_images_of_different_sizes_are_one_batch() -> None:
    network = small(least_score=0.0).eval()
    images = [torch.rand(3, 33, 64), torch.rand(3, 64, 20)]
    with torch.no_grad():
        together = network(images)
        apart = [network([image])[0] for image in images]
    assert [len(one["boxes"]) > 0 for one in together] == [True, True]
    for one, alone in zip(together, apart, strict=True):
        assert one["boxes"][:, 2].max() <= 64
        assert len(one["boxes"]) == pytest.approx(len(alone["boxes"]), abs=60)


@pytest.mark.slow
def test_it_learns_where_objects_are() -> None:
    """Two squares, of a class each, found after some steps on that one image."""
    network = small(least_score=0.5, channels=32, box_features=64)
    image = torch.zeros(1, 3, 64, 64)
    image[:, 0, 10:26, 8:24] = 3
    image[:, 1, 36:52, 36:52] = 3
    wanted = target(64, 64, (8, 10, 24, 26), (36, 36, 52, 52))
    wanted["labels"] = torch.tensor([1, 2])
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(160):
        optimizer.zero_grad()
        sum(network(image, [wanted]).values()).backward()
        optimizer.step()
    with torch.no_grad():
        [found] = network.eval()(image)
    order = found["labels"].argsort()
    assert found["labels"][order].tolist() == [1, 2]
    assert (found["boxes"][order] - wanted["boxes"]).abs().max() < 3
    assert (found["masks"] > 0.5).float().mean() > 0.8


def test_published_weights_start_the_whole_encoder(tmp_path: Path) -> None:
    theirs = resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    network = small(norm="frozen", encoder_weights=tmp_path / "resnet18.pth")
    ours = network.backbone.body.state_dict()
    assert torch.equal(ours["layer2.1.conv2.weight"], theirs.state_dict()["layer2.1.conv2.weight"])
    assert "layer3.0.conv1.weight" not in ours
    with pytest.raises(UsageError, match="norm must be frozen"):
        small(encoder_weights=tmp_path / "resnet18.pth")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"encoder": "vgg16"}, "encoder must be among resnet18"),
        ({"norm": "batch"}, "norm must be group or frozen"),
        ({"levels": 5}, "levels must be from 1 to 4"),
        ({"anchor_sizes": [[8], [16]]}, "anchor_sizes must be 3 lists"),
        ({"anchor_sizes": [[8], [16], [32, 48]]}, "equally many"),
        ({"anchor_sizes": [[8], [0], [32]]}, "above 0"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"in_channels": 0}, "in_channels must be at least 1"),
    ],
)
def test_settings_that_make_no_network_are_refused(changed: dict[str, object], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        small(**changed)


def test_masks_made_in_parts_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small(least_score=0.0, most_objects=20).eval()
    image = torch.rand(1, 3, 64, 96)
    found = []
    with torch.no_grad():
        for most in (1000, 3):
            monkeypatch.setattr("medseg.networks.mask_rcnn.BOXES_AT_ONCE", most)
            found.append(network(image)[0]["masks"])
    assert len(found[0]) > 6
    torch.testing.assert_close(found[0], found[1])


def test_the_boxes_that_are_learnt_from_are_as_many_as_asked_for() -> None:
    network = small(training_boxes=16)
    assert network.roi_heads.fg_bg_sampler.batch_size_per_image == 16
    assert network.rpn.post_nms_top_n() == 64
    with pytest.raises(UsageError, match="training_boxes must be at least 4, got 1"):
        small(training_boxes=1)
