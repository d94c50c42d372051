"""Settings of a training: a network that is chosen is chosen for inference too."""

import pytest
import yaml

from medseg.bundle.overrides import write_scalar
from medseg.errors import BundleError, UsageError
from medseg.workflows.train_overrides import (
    overrides_of,
    require_the_same_network,
    write_choices,
)

TEXT = """\
# a comment
network_name: unet_resnet    # any of the table
encoder: null                # its own default
lr: 0.1
network_def:
  name: '@network_name'
"""


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/common.yaml").write_text(TEXT)
    return tmp_path


def test_network_stands_for_the_name_of_one() -> None:
    config = yaml.safe_load(TEXT)
    assert overrides_of(["network=segnet", "lr=0.2"], config) == {
        "network_name": "segnet",
        "encoder": None,
        "lr": 0.2,
    }


def test_another_network_has_its_own_encoder_unless_one_is_given() -> None:
    config = {**yaml.safe_load(TEXT), "encoder": "resnet18"}
    assert overrides_of(["network=unet_vgg"], config)["encoder"] is None
    assert overrides_of(["network=unet_vgg", "encoder=vgg11"], config)["encoder"] == "vgg11"
    assert "encoder" not in overrides_of(["network=unet_resnet"], config)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (["encoder=vgg16"], r"encoder of unet_resnet must be among resnet34.*'vgg16'"),
        (["network=unet_vgg", "encoder=resnet18"], r"encoder of unet_vgg .*'resnet18'"),
        (["network=unet", "encoder=resnet18"], r"encoder of unet must be left out"),
    ],
)
def test_an_encoder_that_the_network_cannot_stand_on_is_refused(settings, match) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        overrides_of(settings, yaml.safe_load(TEXT))
    assert caught.value.code == "no-such-encoder"


def test_a_bundle_with_a_network_of_its_own_leaves_no_choice() -> None:
    with pytest.raises(UsageError, match="'network=segnet'") as caught:
        overrides_of(["network=segnet"], {"network": "$@network_def", "network_def": {}})
    assert caught.value.code == "no-choice"


def test_a_checkpoint_is_gone_on_from_with_its_own_network(bundle) -> None:
    config = yaml.safe_load(TEXT)
    require_the_same_network(config, bundle)
    for changed in ({"network_name": "fcn8s"}, {"encoder": "resnet18"}):
        with pytest.raises(UsageError, match="--overwrite") as caught:
            require_the_same_network({**config, **changed}, bundle)
        assert caught.value.code == "disagrees-with-checkpoint"


def test_without_a_table_network_is_a_key_like_any_other() -> None:
    assert overrides_of(["network=$f(1)"], {"network": "$@network_def"}) == {"network": "$f(1)"}


def test_a_network_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"deeplabv3plus.*'segnett'"):
        overrides_of(["network=segnett"], yaml.safe_load(TEXT))


def test_what_inference_agrees_on_stays() -> None:
    with pytest.raises(UsageError, match="network_def#name"):
        overrides_of(["network_def#name=segnet"], yaml.safe_load(TEXT))


def test_the_choice_is_written_and_comments_stay(bundle) -> None:
    config = {**yaml.safe_load(TEXT), "network_name": "unet_vgg", "encoder": "vgg11_bn"}
    write_choices(bundle, config, ["network=unet_vgg", "encoder=vgg11_bn"])
    text = (bundle / "configs/common.yaml").read_text()
    assert text == TEXT.replace("unet_resnet", "unet_vgg").replace("null  ", "vgg11_bn  ")


def test_nothing_is_written_without_a_choice(bundle) -> None:
    write_choices(bundle, {**yaml.safe_load(TEXT), "network_name": "segnet"}, ["lr=0.2"])
    assert (bundle / "configs/common.yaml").read_text() == TEXT


@pytest.mark.parametrize(
    ("value", "written"), [(3, "3"), (None, "null"), ("a: b", '"a: b"'), (True, "true")]
)
def test_values_are_read_back(bundle, value, written) -> None:
    path = bundle / "configs/common.yaml"
    write_scalar(path, "lr", value)
    assert f"lr: {written}\n" in path.read_text()
    assert yaml.safe_load(path.read_text())["lr"] == value


def test_a_key_that_is_not_on_one_line_is_refused(bundle) -> None:
    for key in ("network_def", "missing"):
        with pytest.raises(BundleError, match="one line"):
            write_scalar(bundle / "configs/common.yaml", key, 1)
