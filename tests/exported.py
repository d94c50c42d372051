"""What an exported pipeline gives: the reference runner, with torch for ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from medseg.bundle import load_bundle
from medseg.bundle.build import build_inference
from medseg.bundle.runner.grid import Image, Network
from medseg.bundle.runner.maps import segment
from medseg.inference import Execution, Predictor
from medseg.inference.pipeline import pipeline_document
from medseg.volume import Source, Volume
from tests.phantoms import oblique_affine

CPU = torch.device("cpu")


def document_of(bundle: Path) -> dict[str, Any]:
    """Return the pipeline of a bundle whose networks are in no file."""
    loaded = load_bundle(bundle)
    stated = [{"weights": file.name, "files": {}} for file in loaded.weight_files]
    return pipeline_document(loaded, build_inference(loaded, CPU), stated)


def runner_mask(bundle: Path, volume: Volume) -> np.ndarray:
    """Segment a volume by the pipeline of a bundle."""
    loaded = load_bundle(bundle)
    networks = [
        _by_torch(build_inference(loaded, CPU, weights=file).network)
        for file in loaded.weight_files
    ]
    document = document_of(bundle)
    assert document["missing"] == []
    image = Image(volume.array.astype(np.float32), volume.affine)
    return segment(image, document, networks)


def medseg_mask(bundle: Path, volume: Volume) -> np.ndarray:
    """Segment a volume by medseg, with torch in float32."""
    execution = Execution("torch", "fp32", cache=None)
    return Predictor(bundle, device="cpu", execution=execution)(volume).array


def structures(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], codes: str = "PIR", channels: int = 1
) -> Volume:
    """Return smooth structures on an oblique grid, with a border of zeros; -1000 to 1000 or so."""
    noise = np.random.default_rng(4).normal(size=(channels, *shape))
    array = ndimage.gaussian_filter(noise, (0, 2, 2, 1.5))
    array = (600 * array / array.std()).astype(np.float32)
    array[:, :2] = array[:, :, -1:] = array[..., :1] = 0
    affine = oblique_affine(codes, spacing_mm).astype(np.float32)  # as files have it
    return Volume(array, affine.astype(np.float64))


def picture(shape: tuple[int, int], channels: int = 1) -> Volume:
    """Return smooth structures as a picture of 8 bits."""
    array = structures((*shape, 2), (1, 1, 1), channels=channels).array[..., 1]
    array = (array / 8 + 120).clip(0, 255).astype(np.uint8)
    return Volume(array, np.eye(3), Source(format="raster", has_spacing=False))


def balanced(bundle: Path) -> Path:
    """Shift the last layer of an untrained network so that it finds every class."""
    loaded = load_bundle(bundle)
    parts = build_inference(loaded, CPU)
    state = parts.network.state_dict()
    last = [name for name, one in state.items() if one.shape == (len(loaded.values),)][-1]
    shape = (1, loaded.input_rule.channels, *parts.inferer.roi_size)
    with torch.inference_mode():
        maps = parts.network(torch.randn(shape, generator=torch.manual_seed(0)))
    state[last] = state[last] - maps.mean(dim=[0, *range(2, maps.ndim)])
    torch.save(state, loaded.weights)
    return bundle


def _by_torch(network: torch.nn.Module) -> Network:
    def run(window: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(window)).numpy()

    return run
