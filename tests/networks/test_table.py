"""What every network of the table has to do."""

import runpy
import socket
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torchvision.models import ResNet50_Weights, VGG16_BN_Weights, VGG16_Weights, segmentation

from medseg import networks
from medseg.errors import DependencyError, UsageError
from medseg.networks import PaddedNetwork, build_network, encoder_names, network_names

CLASSES = 3
SMALL: dict[str, dict[str, Any]] = {
    "deeplabv3": {"encoder": "mobilenet_v3_large"},
    "deeplabv3plus": {"encoder": "resnet18", "decoder_channels": 16},
    "fcn16s": {"base_channels": 4, "head_channels": 16},
    "fcn32s": {"base_channels": 4, "head_channels": 16, "encoder": "vgg16"},
    "fcn8s": {"base_channels": 4, "head_channels": 16},
    "pspnet": {"encoder": "resnet18", "decoder_channels": 16},
    "segnet": {"base_channels": 4},
    "unet": {"features": [4, 4, 8, 8, 8, 4]},
    "unet_resnet": {"encoder": "resnet18", "decoder_channels": [16, 8, 8, 8, 4]},
    "unet_vgg": {"encoder": "vgg11_bn", "decoder_channels": [16, 8, 8, 8, 4]},
}


@cache  # a VGG of the library takes a second
def _built(name: str) -> PaddedNetwork:
    torch.manual_seed(0)
    return build_network(name, in_channels=3, out_channels=CLASSES, **SMALL[name])


def _file(path: Path) -> str:
    return path.name


def _small(name: str) -> PaddedNetwork:
    torch.manual_seed(0)
    return deepcopy(_built(name))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **_: object) -> None:
        msg = f"something asked for the network: {args}"
        raise AssertionError(msg)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where downloads would already lie


def test_the_contract_covers_the_whole_table() -> None:
    assert sorted(SMALL) == network_names()


@pytest.mark.parametrize("name", network_names())
class TestEveryNetwork:
    @pytest.mark.parametrize(
        ("in_channels", "size"),
        [(1, (37, 53)), (4, (15, 200))],
    )
    def test_any_number_of_channels_goes_in(
        self, name: str, in_channels: int, size: tuple[int, int]
    ) -> None:
        network = build_network(
            name, in_channels=in_channels, out_channels=CLASSES, **SMALL[name]
        ).eval()
        with torch.no_grad():
            logits = network(torch.randn(1, in_channels, *size))
        assert logits.shape == (1, CLASSES, *size)
        assert torch.isfinite(logits).all()

    @pytest.mark.parametrize("size", [(64, 64), (37, 53), (33, 2), (1, 1)])
    def test_every_size_has_its_logits(self, name: str, size: tuple[int, int]) -> None:
        with torch.no_grad():
            logits = _small(name).eval()(torch.randn(1, 3, *size))
        assert logits.shape == (1, CLASSES, *size)
        assert torch.isfinite(logits).all()

    def test_a_gradient_reaches_every_parameter(self, name: str) -> None:
        network = _small(name).eval()  # in training, the bias before a normalisation has none
        logits = network(torch.randn(1, 3, 70, 64))
        (logits * torch.randn_like(logits)).sum().backward()
        without = [
            key
            for key, parameter in network.named_parameters()
            if parameter.grad is None
            or not torch.isfinite(parameter.grad).all()
            or not parameter.grad.any()
        ]
        assert not without

    def test_logits_are_not_probabilities(self, name: str) -> None:
        network = _small(name).eval()
        biases = [p for p in network.parameters() if p.shape == (CLASSES,)]  # of the scores
        image = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            for bias in biases:
                bias.fill_(-3)
            assert network(image).min() < -1
            for bias in biases:
                bias.fill_(3)
            assert network(image).max() > 1

    def test_a_step_of_training_lowers_the_loss(self, name: str) -> None:
        network = _small(name).train()
        image = torch.randn(2, 3, 64, 70)
        label = (image.mean(dim=1) > 0).long()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        losses = []
        for _ in range(4):
            torch.manual_seed(0)  # the same dropout
            loss = torch.nn.functional.cross_entropy(network(image), label)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[-1] < losses[0]

    @pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")
    def test_it_becomes_torchscript_that_takes_any_size(self, name: str) -> None:
        network = _small(name).eval()
        scripted = torch.jit.script(network)
        for size in ((64, 64), (37, 53)):
            image = torch.randn(1, 3, *size)
            with torch.no_grad():
                assert torch.allclose(scripted(image), network(image), atol=1e-4)

    def test_saved_weights_give_the_same_network(self, name: str, tmp_path: Path) -> None:
        network = _small(name).eval()
        torch.save(network.state_dict(), tmp_path / "model.pt")
        torch.manual_seed(1)
        other = build_network(name, in_channels=3, out_channels=CLASSES, **SMALL[name]).eval()
        image = torch.randn(1, 3, 37, 53)
        with torch.no_grad():
            assert not torch.equal(other(image), network(image))
            other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
            assert torch.equal(other(image), network(image))

    def test_the_image_is_left_as_it_was(self, name: str) -> None:
        image = torch.randn(1, 3, 64, 64)
        before = image.clone()
        with torch.no_grad():
            _small(name).eval()(image)
        assert torch.equal(image, before)


@pytest.mark.parametrize("name", ["deeplabv3", "deeplabv3plus"])
def test_one_image_is_too_few_to_train_on_where_the_whole_image_is_normalised(name: str) -> None:
    with pytest.raises(ValueError, match="at least 2 images to train this network, got 1"):
        _small(name).train()(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("name", sorted({"pspnet", *SMALL} - {"deeplabv3", "deeplabv3plus"}))
def test_one_image_is_enough_to_train_the_others(name: str) -> None:
    assert _small(name).train()(torch.zeros(1, 3, 64, 64)).shape == (1, CLASSES, 64, 64)


# parameters: of one layer, and what torchvision publishes for what ends in a classifier


def _conv(before: int, after: int, side: int, *, bias: bool = True) -> int:
    return before * after * side**2 + bias * after


def _norm(channels: int) -> int:
    return 2 * channels


def _conv_norm(before: int, after: int, side: int) -> int:
    return _conv(before, after, side, bias=False) + _norm(after)


def _separable(before: int, after: int) -> int:
    return before * 9 + before * after + _norm(after)


FC = _conv(25088, 4096, 1) + _conv(4096, 4096, 1)  # VGG's two before its classes
RESNET50 = ResNet50_Weights.DEFAULT.meta["num_params"] - _conv(2048, 1000, 1)
VGG16 = VGG16_Weights.DEFAULT.meta["num_params"] - _conv(4096, 1000, 1)
VGG16_BN = VGG16_BN_Weights.DEFAULT.meta["num_params"] - _conv(4096, 1000, 1) - FC


def _parameters(name: str, in_channels: int, out_channels: int, **options: Any) -> int:
    with torch.device("meta"):  # shapes alone: nothing is allocated
        network = build_network(name, in_channels=in_channels, out_channels=out_channels, **options)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", ["fcn32s", "fcn16s", "fcn8s"])
def test_fcn_is_as_large_as_its_paper_says(name: str) -> None:
    # Long et al., CVPR 2015, table 1: FCN-VGG16, 134 M parameters, 21 classes
    assert round(_parameters(name, 3, 21, encoder="vgg16") / 1e6) == 134


def test_fcn_has_each_layer_of_its_paper() -> None:
    skips = [_conv(512, 21, 1) + 21 * 21 * 16, _conv(256, 21, 1) + 21 * 21 * 16]
    for number, name in enumerate(["fcn32s", "fcn16s", "fcn8s"]):
        expected = VGG16 + _conv(4096, 21, 1) + sum(skips[:number])
        assert _parameters(name, 3, 21, encoder="vgg16") == expected


def test_segnet_is_as_large_as_published() -> None:
    # Paszke et al., ENet, 2016, table 3: SegNet, 29.46 M parameters; 12 classes on CamVid
    assert _parameters("segnet", 3, 12) == pytest.approx(29.46e6, rel=1e-3)


def test_unet_is_that_of_its_paper_with_norms_and_a_wider_last_enlargement() -> None:
    # Ronneberger et al., MICCAI 2015, figure 1: every layer; one channel in, two classes
    widths = [64, 128, 256, 512, 1024]
    paper = _conv(64, 2, 1)
    paper += sum(
        _conv(a, b, 3) + _conv(b, b, 3) for a, b in zip([1, *widths], widths, strict=False)
    )
    paper += sum(_conv(2 * w, w, 2) + _conv(2 * w, w, 3) + _conv(w, w, 3) for w in widths[:-1])
    assert round(paper / 1e6, 2) == 31.03  # the figure in use for it
    norms = sum(2 * _norm(w) for w in [*widths, *widths[:-1]])
    wider = _conv(128, 128, 2) + _conv(192, 64, 3) - _conv(128, 64, 2) - _conv(128, 64, 3)
    assert _parameters("unet", 1, 2) == paper + norms + wider


def test_unet_on_resnet34_is_as_large_as_published() -> None:
    # the figure in use for segmentation-models-pytorch's Unet("resnet34", classes=1)
    assert _parameters("unet_resnet", 3, 1) == 24_436_369


def test_unet_on_vgg16_has_a_decoder_over_each_stage() -> None:
    blocks = [(1024, 256), (768, 128), (384, 64), (192, 32), (32, 16)]  # skips joined
    decoder = 2 * _conv_norm(512, 512, 3) + _conv(16, 1, 3)
    decoder += sum(_conv_norm(a, b, 3) + _conv_norm(b, b, 3) for a, b in blocks)
    assert _parameters("unet_vgg", 3, 1) == VGG16_BN + decoder


def test_deeplabv3_is_as_large_as_torchvision_says() -> None:
    published = segmentation.DeepLabV3_ResNet50_Weights.DEFAULT.meta["num_params"]
    auxiliary = _conv_norm(1024, 256, 3) + _conv(256, 21, 1)  # a head for training alone
    assert _parameters("deeplabv3", 3, 21) == published - auxiliary


def test_deeplabv3plus_has_each_layer_of_its_paper() -> None:
    # Chen et al., ECCV 2018, figure 2, with separable convolutions as in section 3.1
    pyramid = 2 * _conv_norm(2048, 256, 1) + 3 * _separable(2048, 256) + _conv_norm(1280, 256, 1)
    decoder = _separable(256, 256) + _conv_norm(256, 48, 1) + _separable(304, 256)
    expected = RESNET50 + pyramid + decoder + _conv(256, 21, 1)
    assert _parameters("deeplabv3plus", 3, 21) == expected


def test_pspnet_has_a_pyramid_over_the_whole_resnet() -> None:
    # Zhao et al., CVPR 2017, figure 3: four bins of a quarter of the channels each; the one of a
    # single cell is not normalised, as a batch of one has no variance there
    bins = 3 * _conv_norm(2048, 512, 1) + _conv(2048, 512, 1)
    assert _parameters("pspnet", 3, 21) == RESNET50 + bins + _conv_norm(4096, 512, 1) + _conv(
        512, 21, 3
    )


@pytest.mark.parametrize(
    ("name", "encoder"),
    [(name, encoder) for name in network_names() for encoder in encoder_names(name)],
)
def test_every_encoder_can_be_built(name: str, encoder: str) -> None:
    assert _parameters(name, 2, 5, encoder=encoder) > 1_000_000


@pytest.mark.parametrize("name", ["deeplabv3plus", "pspnet"])
def test_the_output_stride_can_be_chosen(name: str) -> None:
    for stride in (8, 16):
        network = build_network(
            name, in_channels=1, out_channels=2, encoder="resnet18", output_stride=stride
        ).eval()
        assert network.stride == stride
        with torch.no_grad():
            assert network(torch.zeros(1, 1, 40, 19)).shape == (1, 2, 40, 19)


def test_a_bundle_names_its_network_in_yaml() -> None:
    parser = ConfigParser(
        {
            "network_def": {
                "_target_": "medseg.networks.build_network",
                "name": "segnet",
                "in_channels": 1,
                "out_channels": 4,
                "base_channels": 2,
            }
        }
    )
    network = parser.get_parsed_content("network_def").eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 20, 30)).shape == (1, 4, 20, 30)


@pytest.mark.parametrize(
    ("name", "arguments", "rule"),
    [
        ("u-net", {}, "name must be a network among deeplabv3, .*, got 'u-net'"),
        ("unet", {"in_channels": 0}, "in_channels must be a whole number of at least 1, got 0"),
        ("unet", {"out_channels": 2.0}, "out_channels must be a whole number .* got 2.0"),
        ("unet", {"encoder": "resnet18"}, "encoder of unet must be left out, got 'resnet18'"),
        ("pspnet", {"encoder": "vgg16"}, "encoder of pspnet must be among resnet50, .* 'vgg16'"),
        ("segnet", {"width": 3}, r"options of segnet .* own \(base_channels\), got width"),
        ("fcn8s", {"stride": 32}, "options of fcn8s must be .*, got stride"),
        ("deeplabv3", {"pretrained": True}, r"options of deeplabv3 .* \(none\), got pretrained"),
        ("pspnet", {"output_stride": 4}, "output_stride must be 8 or 16, got 4"),
        ("unet", {"encoder_weights": "x.pt"}, "encoder_weights must be left out for unet"),
    ],
)
def test_what_there_is_not_is_refused(name: str, arguments: dict[str, Any], rule: str) -> None:
    with pytest.raises(UsageError, match=rule):
        build_network(name, **{"in_channels": 3, "out_channels": 2, **arguments})


@pytest.mark.parametrize("name", ["unet_resnet", "unet_vgg", "deeplabv3plus", "pspnet"])
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(DependencyError, match=r"pip install 'medseg\[natural\]'") as caught:
        build_network(name, in_channels=3, out_channels=2)
    assert caught.value.code == "missing-dependency"


MODULES = sorted(Path(networks.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("module", MODULES, ids=_file)
def test_no_module_imports_a_library_before_a_network_asks_for_it(
    module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("segmentation_models_pytorch", "timm", "torchvision"):
        monkeypatch.setitem(sys.modules, library, None)
    assert runpy.run_path(str(module))["__doc__"]
