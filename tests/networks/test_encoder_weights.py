"""Weights of encoders come from local files, whole or not at all."""

import logging
import pickle
import shutil
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, resnet18
from torchvision.models.vgg import cfgs, make_layers

from medseg.bundle.overrides import merge_configs, write_scalar
from medseg.errors import BundleError
from medseg.networks import build_network
from medseg.networks.encoder_weights import load_encoder_weights
from medseg.networks.fcn import Fcn

BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _saved(state: object, folder: Path) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def _small(path: Path | str, name: str = "unet_resnet", in_channels: int = 3) -> nn.Module:
    return build_network(
        name,
        in_channels=in_channels,
        out_channels=2,
        encoder="resnet18",
        encoder_weights=path,
    ).network.encoder


@pytest.mark.parametrize("name", ["unet_resnet", "deeplabv3plus", "pspnet"])
def test_a_resnet_starts_as_that_of_the_file(name: str, tmp_path: Path) -> None:
    theirs = resnet18()
    encoder = _small(_saved(theirs.state_dict(), tmp_path), name)
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[key])


def test_the_classifier_of_the_file_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "medseg"):
        _small(_saved(resnet18().state_dict(), tmp_path))
    assert "without ['fc.weight', 'fc.bias']" in caplog.text


def test_a_grey_image_gives_what_it_would_have_given_in_three_channels(tmp_path: Path) -> None:
    path = _saved(resnet18().state_dict(), tmp_path)
    grey, colour = _small(path, in_channels=1).eval(), _small(path).eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        found, expected = grey(image)[-1], colour(image.expand(1, 3, 64, 64))[-1]
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_other_numbers_of_channels_are_not_guessed(tmp_path: Path) -> None:
    path = _saved(resnet18().state_dict(), tmp_path)
    with pytest.raises(BundleError, match=r"conv1.weight is 64x3x7x7 in place of 64x4x7x7"):
        _small(path, in_channels=4)


def test_weights_of_before_batches_were_counted_are_read(tmp_path: Path) -> None:
    state = {
        key: tensor
        for key, tensor in resnet18().state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    encoder = _small(_saved(state, tmp_path))
    assert torch.equal(encoder.state_dict()["layer4.1.bn2.weight"], state["layer4.1.bn2.weight"])


def test_mobilenet_starts_as_that_of_the_file(tmp_path: Path) -> None:
    theirs = mobilenet_v3_large()
    network = build_network(
        "deeplabv3",
        in_channels=3,
        out_channels=2,
        encoder="mobilenet_v3_large",
        encoder_weights=_saved(theirs.state_dict(), tmp_path),
    )
    backbone = network.network.network.backbone
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[f"features.{key}"])


def test_segnet_starts_as_torchvisions_vgg16(tmp_path: Path) -> None:
    theirs = make_layers(cfgs["D"], batch_norm=True).eval()
    state = {f"features.{key}": tensor for key, tensor in theirs.state_dict().items()}
    state["classifier.6.bias"] = torch.zeros(1000)
    network = build_network(
        "segnet", in_channels=3, out_channels=2, encoder_weights=_saved(state, tmp_path)
    ).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.network.encoder(image)[-1], theirs(image))


def test_fully_connected_layers_become_convolutions() -> None:
    with torch.device("meta"):
        names = Fcn(3, 2, 32).names()
        narrow = Fcn(3, 2, 32, head_channels=8).names()
    assert names["classifier.0.weight"] == "fc6.weight"
    assert names["classifier.3.bias"] == "fc7.bias"
    assert "classifier.6.weight" not in names
    assert not any(name.startswith("classifier") for name in narrow)


def test_a_convolution_over_its_whole_input_is_the_layer_it_was(tmp_path: Path) -> None:
    theirs, ours = nn.Linear(5 * 7 * 7, 6), nn.Conv2d(5, 6, 7, padding=3)
    path = _saved({"classifier.0." + k: v for k, v in theirs.state_dict().items()}, tmp_path)
    names = {"classifier.0.weight": "weight", "classifier.0.bias": "bias"}
    load_encoder_weights(ours, path, names)
    features = torch.randn(1, 5, 7, 7)
    with torch.no_grad():
        expected = theirs(features.flatten(1))
        assert torch.allclose(ours(features)[:, :, 3, 3], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: s.pop("bn1.weight"), "bn1.weight is missing"),
        (lambda s: s.update({"extra": torch.zeros(1)}), "extra has no place"),
        (lambda s: s.update({"bn1.bias": torch.zeros(3)}), "bn1.bias is 3 in place of 64"),
    ],
)
def test_a_mismatch_is_named_and_nothing_is_changed(
    change: object, fault: str, tmp_path: Path
) -> None:
    encoder = _small(_saved(resnet18().state_dict(), tmp_path))
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    state = dict(resnet18().state_dict())
    change(state)
    with pytest.raises(BundleError, match=fault) as caught:
        load_encoder_weights(encoder, _saved(state, tmp_path))
    assert caught.value.code == "weights-mismatch"
    assert all(torch.equal(tensor, before[key]) for key, tensor in encoder.state_dict().items())


def test_many_mismatches_are_counted(tmp_path: Path) -> None:
    path = _saved({"a": torch.zeros(1)}, tmp_path)
    with pytest.raises(BundleError, match=r"conv1.weight is missing, .* and \d+ more\. Give"):
        _small(path)


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code was run",)


def test_a_file_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BundleError, match=r"weights_only=True") as caught:
        _small(_saved({"weight": Code()}, tmp_path))
    assert caught.value.code == "bad-weights"
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ([torch.zeros(1)], "got list in"),
        ({}, "got nothing in"),
        ({"epoch": 3, "model": {}}, "got dict, int in"),
    ],
)
def test_what_is_no_state_dict_is_refused(content: object, held: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=held):
        _small(_saved(content, tmp_path))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = _saved(resnet18().state_dict(), tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BundleError, match=r"weights\.pth"):
        _small(path)
    path.write_bytes(pickle.dumps("text")[:3])
    with pytest.raises(BundleError, match=r"weights\.pth"):
        _small(path)


@pytest.mark.parametrize("place", ["no/such.pth", "https://download.pytorch.org/resnet18.pth", "."])
def test_a_place_that_is_no_local_file_is_refused(place: str) -> None:
    with pytest.raises(BundleError, match="must be a local file or imagenet, got") as caught:
        _small(place)
    assert caught.value.code == "no-weights"


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    state = resnet18().state_dict()
    state["bn1.weight"][3] = float("nan")
    with pytest.raises(BundleError, match=r"must be finite, got bn1\.weight"):
        _small(_saved(state, tmp_path))


def test_imagenet_s_weights_are_torchvision_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are where torch keeps what was downloaded; nothing else is asked for."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kept = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    kept.parent.mkdir(parents=True)
    state = resnet18().state_dict()
    torch.save(state, kept)
    network = _small("imagenet")
    key = "layer4.1.conv2.weight"
    assert torch.equal(network.state_dict()[key], state[key])


def test_without_a_network_the_address_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError(OSError("no route"))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(BundleError, match=r"https://.*resnet18.*no route.*path") as caught:
        _small("imagenet")
    assert caught.value.code == "no-weights"


def test_a_network_that_was_trained_needs_no_weights_to_start_from(tmp_path: Path) -> None:
    """What common.yaml names for the training is neither read nor downloaded for a prediction."""
    root = tmp_path / "streets"
    shutil.copytree(BUNDLES / "camvid_semantic", root)
    write_scalar(root / "configs" / "common.yaml", "encoder_weights", "imagenet")
    for parts in (("common", "inference"), ("common", "train", "evaluate")):
        files = [root / "configs" / f"{part}.yaml" for part in parts]
        assert merge_configs(files)["encoder_weights"] is None
