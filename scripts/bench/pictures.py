"""Pictures: what `segment` takes for each beside a bare loop of its network over the same images.

    python scripts/bench/pictures.py [--rounds 5] [--images 8] [--backend auto]

A folder of 512x512 RGB PNG and a bundle of a 2D U-Net whose window is the image: one forward pass
an image. `forward` runs the network, by the library that `segment` chose, on tensors that lie in
memory; `loop` is what one writes by hand: decode, scale, forward, largest class, palette PNG. Rows
of `segment` read, segment and write as the command does, with the outputs named. The bundle is
loaded and the library chosen before; all take turns, round by round, and medians are compared.
Writes scripts/bench/results/pictures.json.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from measure import machine
from monai.bundle import ConfigParser
from PIL import Image
from scipy import ndimage

from medseg.inference import Execution, Predictor
from medseg.inference.windows import whole_image
from medseg.io.cases import Rule, find_cases
from medseg.io.raster import write_palette_png
from medseg.io.sources import open_sources
from medseg.workflows.segment import SegmentOptions
from medseg.workflows.segment_cases import CaseRuns

HERE = Path(__file__).parent
SIDE = 512
CLASSES = 4
NETWORKS: dict[str, dict[str, Any]] = {
    "planned": {  # as `medseg plan` chooses for 512x512
        "_target_": "medseg.networks.DynUNet",
        "spatial_dims": 2,
        "in_channels": 3,
        "out_channels": CLASSES,
        "kernel_size": [[3, 3]] * 7,
        "strides": [[1, 1], *[[2, 2]] * 6],
        "upsample_kernel_size": [[2, 2]] * 6,
        "filters": [32, 64, 128, 256, 512, 512, 512],
        "norm_name": ["INSTANCE", {"affine": True}],
    },
    "small": {
        "_target_": "BasicUNet",
        "spatial_dims": 2,
        "in_channels": 3,
        "out_channels": CLASSES,
        "features": [16, 16, 32, 64, 128, 16],
        "norm": ["instance", {"affine": True}],
    },
}


def write_images(folder: Path, count: int) -> None:
    """Write smooth coloured noise as PNG."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        noise = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE, 3)), (9, 9, 0))
        array = 128 + 90 * noise / np.abs(noise).max() + rng.normal(0, 4, noise.shape)
        path = folder / f"frame_{number:04d}.png"
        Image.fromarray(array.clip(0, 255).astype(np.uint8)).save(path)


def write_bundle(folder: Path, network_def: dict[str, Any]) -> Path:
    """Write a bundle with an untrained network that finds all of its classes."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    names = ["background", *(f"class_{n}" for n in range(1, CLASSES))]
    image = {
        "num_channels": 3,
        "spatial_shape": [SIDE, SIDE],
        "channel_def": {"0": "red", "1": "green", "2": "blue"},
    }
    pred = {"channel_def": {str(n): name for n, name in enumerate(names)}}
    metadata = {
        "version": "0.0.1",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
        "medseg": {"input": {}},
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    reader = {"_target_": "medseg.transforms.ImageReader", "channels": 3}
    steps = [
        {"_target_": "LoadImaged", "keys": "image", "reader": reader},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {
            "_target_": "medseg.transforms.NormalizeChannelsd",
            "keys": "image",
            "schemes": [{"scheme": "rescale"}],
        },
    ]
    config = {
        "network_def": network_def,
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [SIDE, SIDE],
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
        },
    }
    (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    parser = ConfigParser({"network": network_def})
    torch.save(parser.get_parsed_content("network").state_dict(), folder / "models" / "model.pt")
    return folder


def scaled(array: np.ndarray) -> torch.Tensor:
    """Return an image as the preprocessing does."""
    image = torch.from_numpy(np.moveaxis(array, -1, 0).astype(np.float32))
    low, high = image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
    return ((image - low) / (high - low))[None]


class Bench:
    """The ways to segment the images of a folder with one bundle."""

    def __init__(self, folder: Path, bundle: Path, backend: str) -> None:
        self.folder = folder
        self.bundle = str(bundle)
        self.output = folder.parent / "out"
        self.files = sorted(folder.glob("*.png"))
        self.predictor = Predictor(bundle, execution=Execution(backend))
        self.inputs = [scaled(np.asarray(Image.open(file))) for file in self.files]
        self.segment(("png",))  # chooses the library, makes the folders
        [networks] = self.predictor._members
        [self.network] = networks.ready(self.inputs[0][0], whole_image((SIDE, SIDE)))
        [self.chosen] = networks.as_json()

    @torch.inference_mode()
    def forward(self) -> None:
        """Run the network and nothing else."""
        for one in self.inputs:
            self.network(one)

    @torch.inference_mode()
    def loop(self) -> None:
        """Do what one writes by hand."""
        labels = self.predictor.bundle.labels
        for file in self.files:
            with Image.open(file) as image:
                maps = self.network(scaled(np.asarray(image)))
            mask = maps[0].argmax(0).numpy().astype(np.uint8)
            write_palette_png(mask, labels, self.output / f"{file.stem}.png")

    def segment(self, outputs: tuple[str, ...] | None) -> None:
        """Do what the command does once the bundle is loaded."""
        shutil.rmtree(self.output, ignore_errors=True)
        self.output.mkdir()
        options = SegmentOptions((self.folder,), self.bundle, self.output, outputs)
        rule = Rule(lambda _: None, channels=3, file_is_case=True)
        with open_sources((self.folder,), output=self.output) as sources:
            cases = find_cases(sources, (self.folder,), rule, _choice())
            records = CaseRuns(self.predictor, options, {"name": "bench"}).records(cases, _silent)
        wrong = [record["error"] for record in records if record["status"] != "done"]
        if wrong:
            raise RuntimeError(wrong[0])


def _choice() -> Any:
    from medseg.io.cases import Choice

    return Choice()


def _silent(done: int, total: int, what: str = "") -> None:
    """Tell nothing."""


def measured(ways: dict[str, Callable[[], None]], images: int, rounds: int) -> dict[str, Any]:
    """Return seconds an image of each way, medians, and how many times `forward` that is.

    Processor seconds, of all threads, hardly depend on what else the machine does. Reading and
    writing run beside the network: where a core is free, less of them is seen on the clock.
    """
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    seconds: dict[str, dict[str, list[float]]] = {
        clock: {name: [] for name in ways} for clock in clocks
    }
    for _ in range(rounds):
        for name, work in ways.items():
            started = {clock: read() for clock, read in clocks.items()}
            work()
            for clock, read in clocks.items():
                seconds[clock][name].append((read() - started[clock]) / images)
    result: dict[str, Any] = {name: {} for name in ways}
    for clock, by_way in seconds.items():
        for name, values in by_way.items():
            pairs = zip(values, by_way["forward"], strict=True)
            result[name][f"{clock}_s"] = round(statistics.median(values), 5)
            ratio = statistics.median(value / bare for value, bare in pairs)
            result[name][f"{clock}_times_forward"] = round(ratio, 3)
    return result


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--only", default=",".join(NETWORKS))
    parser.add_argument("--no-write", action="store_true")
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_images(root / "images", asked.images)
        for name in asked.only.split(","):
            bundle = write_bundle(root / name, NETWORKS[name])
            bench = Bench(root / "images", bundle, asked.backend)
            ways: dict[str, Callable[[], None]] = {
                "forward": bench.forward,
                "loop": bench.loop,
                "segment png": lambda bench=bench: bench.segment(("png",)),
                "segment png,overlay": lambda bench=bench: bench.segment(("png", "overlay")),
                "segment default": lambda bench=bench: bench.segment(None),
            }
            results[name] = {
                "network": bench.chosen,
                "ways": measured(ways, asked.images, asked.rounds),
            }
            print(name, bench.chosen["backend"], bench.chosen["precision"])
            for way, found in results[name]["ways"].items():
                times = (
                    f"{clock} {found[f'{clock}_s']:.4f} s {found[f'{clock}_times_forward']:.3f}"
                    for clock in ("wall", "cpu")
                )
                print(f"  {way:22}", *times)
    if not asked.no_write:
        document = {"machine": machine(), "side": SIDE, **vars(asked), "networks": results}
        path = HERE / "results" / "pictures.json"
        path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
