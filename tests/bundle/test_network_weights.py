"""Weights are read without running what a file may hold besides."""

from pathlib import Path

import pytest
import torch

from medseg.bundle.network_weights import load_script
from medseg.errors import BundleError

pytestmark = [
    # torch 2.9 and later announce the end of TorchScript
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
]


class Computes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


class Saves(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


class Maps(torch.nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file(self.path, True, 8)


def written(network: torch.nn.Module, path: Path) -> Path:
    torch.jit.script(network).save(str(path))
    return path


def test_torchscript_that_computes_is_loaded(tmp_path: Path) -> None:
    network = load_script(written(Computes(), tmp_path / "model.ts"), "own")
    assert network(torch.tensor([-1.0, 2.0])).tolist() == [0.0, 2.0]


@pytest.mark.parametrize(("kind", "word"), [(Saves, "save"), (Maps, "from_file")])
def test_torchscript_that_touches_files_is_refused(
    tmp_path: Path, kind: type[torch.nn.Module], word: str
) -> None:
    path = written(kind(str(tmp_path / "file")), tmp_path / "model.ts")
    with pytest.raises(BundleError, match=f"must compute alone, got '{word}'") as caught:
        load_script(path, "foreign")
    assert caught.value.code == "bad-weights"
    assert not (tmp_path / "file").exists()


def test_what_is_no_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ts"
    path.write_bytes(b"no archive")
    with pytest.raises(BundleError, match="must be TorchScript that torch can load"):
        load_script(path, "foreign")
