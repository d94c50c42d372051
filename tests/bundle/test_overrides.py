"""Settings over the configs of a bundle: taken as they are meant, or refused in a line."""

from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.overrides import apply_overrides, merge_configs, parse_overrides
from medseg.errors import BundleError, UsageError

CONFIG: dict[str, Any] = {
    "epochs": 1000,
    "iterations_per_epoch": 250,
    "batch_size": 2,
    "val_interval": 5,
    "num_workers": "$useful_workers()",
    "lr": 0.002,
    "patience": None,
    "amp": "bf16",
    "compile": False,
    "log_dir": "$@bundle_root + '/logs'",
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": "@lr", "betas": [0.9, 0.999]},
}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("epochs: {{ number }}\n", "line 1 must be YAML.* Quote the text"),
        ("names: &all [*all]\n", "names#0 must be a value that does not hold itself"),
    ],
)
def test_a_config_that_cannot_be_read_is_refused_with_the_place(
    tmp_path: Path, text: str, place: str
) -> None:
    (tmp_path / "train.yaml").write_text(text)
    with pytest.raises(BundleError, match=rf"^train\.yaml {place}") as caught:
        merge_configs([tmp_path / "train.yaml"])
    assert caught.value.code == "bad-config"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("epochs=10", 10),
        ("epochs=1e3", 1000),
        ("epochs=$2 * 5", "$2 * 5"),
        ("lr=1e-3", 0.001),
        ("lr=1", 1),
        ("num_workers=0", 0),
        ("num_workers=$1 + 1", "$1 + 1"),
        ("patience=3", 3),
        ("patience=null", None),
        ("patience=[3]", [3]),
        ("amp=null", None),
        ("amp=fp16", "fp16"),
        ("compile=true", True),
        ("log_dir=/logs", "/logs"),
        ("log_dir=null", None),
        ("optimizer#lr=0.1", 0.1),
        ("optimizer::betas=[0.5, 1]", [0.5, 1]),
        ("optimizer={_target_: torch.optim.SGD}", {"_target_": "torch.optim.SGD"}),
    ],
)
def test_a_value_of_the_same_kind_takes_the_place_of_another(text: str, value: Any) -> None:
    (found,) = parse_overrides([text], CONFIG).values()
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("epochs=0", "at least 1"),
        ("epochs=-3", "at least 1"),
        ("epochs=2.5", "a whole number as 1000 is"),
        ("epochs=[3]", "a whole number as 1000 is"),
        ("epochs=true", "a whole number as 1000 is"),
        ("epochs=null", "a whole number as 1000 is"),
        ("epochs=ten", "a whole number as 1000 is"),
        ("epochs=.inf", "a whole number as 1000 is"),
        ("iterations_per_epoch=0", "at least 1"),
        ("batch_size=2.5", "a whole number as 2 is"),
        ("batch_size=0", "at least 1"),
        ("val_interval=0", "at least 1"),
        ("num_workers=-1", "at least 0"),
        ("num_workers=2.5", "a whole number"),
        ("num_workers=many", "a whole number"),
        ("num_workers=null", "a whole number"),
        ("lr=-1", "positive and finite"),
        ("lr=0", "positive and finite"),
        ("lr=.nan", "positive and finite"),
        ("lr=.inf", "positive and finite"),
        ("lr=true", "a number as 0.002 is"),
        ("lr=", "a number as 0.002 is"),
        ("amp=16", "text as bf16 is"),
        ("amp=2026-11-21", "text as bf16 is"),
        ("compile=1", "true or false as false is"),
        ("optimizer=SGD", "a table of keys and values"),
        ("optimizer#betas=0.9", "a list"),
    ],
)
def test_a_value_of_another_kind_or_out_of_range_is_refused(text: str, rule: str) -> None:
    key = text.partition("=")[0]
    with pytest.raises(UsageError, match=rf"^--set {key} must be {rule}.*, got .*\. \w") as caught:
        parse_overrides([text], CONFIG)
    assert caught.value.code == "bad-override"
    assert "\n" not in str(caught.value)


def test_overrides_leave_the_configs_as_they_are() -> None:
    changed = apply_overrides(CONFIG, parse_overrides(["optimizer#lr=0.1"], CONFIG))
    assert changed["optimizer"]["lr"] == 0.1
    assert CONFIG["optimizer"]["lr"] == "@lr"
