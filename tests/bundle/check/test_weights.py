"""Weights that cannot serve, and weights that are not loaded to find out."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bundle.check.broken import bundle, change, only, whole
from tests.whole_bundle import network

__all__ = ["bundle", "whole"]  # fixtures


class _Payload:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("should-not-exist"),))


def _state(**options: Any) -> dict[str, torch.Tensor]:
    return network(**options).state_dict()


def _without_first(path: Path) -> None:
    torch.save(dict(list(_state().items())[1:]), path)


WEIGHTS = [
    ("unsafe-weights", lambda path: torch.save({"weight": _Payload()}, path), "state_dict"),
    ("bad-weights", lambda path: path.write_bytes(path.read_bytes()[:500]), "copy"),
    ("bad-weights", lambda path: torch.save([1, 2], path), "state_dict"),
    (
        "weights-not-finite",
        lambda path: torch.save({name: t * torch.nan for name, t in _state().items()}, path),
        "earlier checkpoint",
    ),
    ("weights-with-heads", lambda path: torch.save(_state(deep_supervision=True), path), "heads"),
    ("weights-shape-differs", lambda path: torch.save(_state(classes=5), path), "network_def"),
    ("weights-mismatch", _without_first, "network_def"),
    ("weights-mismatch", lambda path: torch.save(_state() | {"more": torch.ones(1)}, path), "net"),
    ("weights-mismatch", lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path), "net"),
    (
        "weights-mismatch",
        lambda path: torch.save({f"module.{n}": t for n, t in _state().items()}, path),
        "network.module.state_dict()",
    ),
]


@pytest.mark.parametrize(("code", "spoil", "suggestion"), WEIGHTS)
def test_weights_that_cannot_serve_are_errors(
    bundle: Path,
    code: str,
    spoil: Any,
    suggestion: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil(bundle / "models" / "model.pt")
    fault = only(bundle)
    assert (fault.code, fault.file, fault.severity) == (code, "models/model.pt", "error")
    assert suggestion in fault.suggestion
    assert not Path("should-not-exist").exists()


def test_a_pickle_of_the_old_kind_is_never_run(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (bundle / "models" / "model.pt").write_bytes(pickle.dumps({"weight": _Payload()}))
    assert only(bundle).code in {"unsafe-weights", "bad-weights"}
    assert not Path("should-not-exist").exists()


def test_each_member_of_an_ensemble_is_looked_at(bundle: Path) -> None:
    change(bundle, "metadata", "medseg/ensemble", ["models/a.pt", "models/b.pt"])
    torch.save(_state(), bundle / "models" / "a.pt")
    torch.save(_state(classes=5), bundle / "models" / "b.pt")
    fault = only(bundle)
    assert (fault.code, fault.file) == ("weights-shape-differs", "models/b.pt")


def test_a_network_that_keeps_its_training_heads_for_inference_is_an_error(bundle: Path) -> None:
    change(bundle, "inference", "deep_supervision", True)
    fault = only(bundle)
    assert fault.code == "weights-mismatch"
    assert "deep_supervision: false" in fault.suggestion


def test_a_network_is_built_without_weights_too(bundle: Path) -> None:
    (bundle / "models" / "model.pt").rename(bundle / "models" / "other.pt")
    change(bundle, "common", "ckpt_path", "$@bundle_root + '/models/other.pt'")
    change(bundle, "common", "network_def/kernel_size", [3, 3])
    assert only(bundle).code == "network-not-built"
