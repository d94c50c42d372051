"""Inference stage by stage, against the peers, all in one run.

    python scripts/bench/inference.py [--rounds 3] [--only forward,restore]

Stages: `forward` one 96^3 window of a 31 M-parameter nnU-Net network by every library; `volume` a
whole 144^3 image against its windows; `restore` 8 class maps back to 512x512x400; `spline`
order-3 resampling of a 512x512x400 image; `classes` 105 classes on 512x512x600 with next to no
network, for memory and the time beside it: of `organs` that are somewhere, of `noise` everywhere.
Every method runs in a process of its own, in turn with the others. Writes
scripts/bench/results/inference.json.
"""

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.data.limits import keep_freed_memory, useful_threads
from medseg.inference.backends import Subject
from medseg.inference.backends.runners import Kind, build
from medseg.inference.backends.store import ModelStore
from medseg.inference.maps import StreamedMaps
from medseg.inference.restore import Meaning, mask_from_class_maps, restore_mask
from medseg.inference.stream import Streaming
from medseg.inference.windows import windows_of

HERE = Path(__file__).parent
CPU = torch.device("cpu")
REACH = 0.1
WINDOW = (96, 96, 96)
STORE = ModelStore(Path.home() / ".cache" / "medseg" / "bench")
WAYS = (
    "eager-fp32", "torch-fp32", "torch-bf16", "compile-fp32", "compile-bf16", "onnx-fp32",
    "openvino-fp32", "openvino-bf16",
)  # fmt: skip


def network(classes: int = 3) -> torch.nn.Module:
    """Return the network of nnU-Net's plan for a CT: 6 stages, 31.2 M parameters."""
    from monai.networks.nets import DynUNet

    torch.manual_seed(0)
    return DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=classes,
        kernel_size=[3] * 6,
        strides=[1] + [2] * 5,
        upsample_kernel_size=[2] * 5,
        filters=[32, 64, 128, 256, 320, 320],
        norm_name=("INSTANCE", {"affine": True}),
        act_name=("leakyrelu", {"negative_slope": 0.01}),
    ).eval()


def way(name: str, classes: int = 3) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the network, run in one way; `eager` without the allocator setting."""
    library, precision = name.split("-")
    if library != "eager":
        keep_freed_memory()
    torch.set_num_threads(useful_threads())
    subject = Subject(
        network(classes), (1, *WINDOW), f"bench-{classes}", STORE, threads=useful_threads()
    )
    return build(Kind(library.replace("eager", "torch"), precision), subject)


def forward(name: str) -> dict[str, float]:
    """Time one window."""
    run = way(name)
    torch.manual_seed(1)
    window = torch.randn(1, 1, *WINDOW)
    seconds = []
    with torch.inference_mode():
        for _ in range(5):
            started = time.perf_counter()
            run(window)
            seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[2:])}


def volume(name: str, classes: int) -> dict[str, float]:
    """Time a whole image to its mask, and its windows alone, in turn."""
    from monai.inferers import SlidingWindowInferer

    run = way(name, classes)
    image = torch.randn(1, 144, 144, 144)
    inferer = SlidingWindowInferer(WINDOW, overlap=0.5, mode="gaussian")
    windows = windows_of(inferer, image.shape[1:], CPU)
    window = windows.liveliest(image)[0]
    whole, bare = [], []
    meaning = Meaning(tuple(range(classes)))
    with torch.inference_mode():
        run(window)
        for _ in range(3):
            started = time.perf_counter()
            for _ in range(windows.count):
                run(window)
            bare.append(time.perf_counter() - started)
            started = time.perf_counter()
            maps = StreamedMaps(image, [run], windows, np.eye(4), Streaming())
            restore_mask([maps], tuple(image.shape[1:]), np.eye(4), meaning)
            whole.append(time.perf_counter() - started)
    return {
        "seconds": statistics.median(whole),
        "bare_seconds": statistics.median(bare),
        "ratio": statistics.median(w / b for w, b in zip(whole, bare, strict=True)),
    }


def class_maps(classes: int) -> torch.Tensor:
    """Return smooth class maps at 1.5 mm of which a tenth of the voxels is no background."""
    rng = np.random.default_rng(0)
    small = torch.from_numpy(rng.normal(size=(1, classes, 12, 12, 10)).astype(np.float32))
    small[:, 0] += 3
    size = (341, 341, 267)
    return torch.nn.functional.interpolate(small, size, mode="trilinear")[0].half()


def grids() -> tuple[np.ndarray, np.ndarray]:
    """Return the affines of the 1.5 mm grid and of its 512x512x400 source of 1 mm."""
    network_affine = np.diag([512 / 341, 512 / 341, 400 / 267, 1.0])
    network_affine[:3, 3] = (np.diag(network_affine)[:3] - 1) / 2
    return network_affine, np.eye(4)


def restore(name: str) -> dict[str, float]:
    """Time class maps back to the source grid and the decision; labels against trilinear."""
    keep_freed_memory()
    maps = class_maps(8)
    shape = (512, 512, 400)
    network_affine, source_affine = grids()
    before = resident()
    started = time.perf_counter()
    if name == "medseg":
        mask = mask_from_class_maps(maps, network_affine, shape, source_affine)
    else:
        mask = running_maximum(maps, shape).numpy()
    seconds = time.perf_counter() - started
    result = {"seconds": seconds, "added_mb": peak() - before}
    if name != "per-class-maximum":
        expected = running_maximum(maps, shape).numpy()
        result["agreement"] = float((expected == np.asarray(mask)).mean())
    return result


def running_maximum(maps: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the largest class of torch's trilinear interpolation in float32."""
    best = torch.full(shape, -torch.inf)
    labels = torch.zeros(shape, dtype=torch.uint8)
    for number, one in enumerate(maps):
        values = torch.nn.functional.interpolate(one[None, None].float(), shape, mode="trilinear")
        better = values[0, 0] > best
        labels[better] = number
        best = torch.maximum(best, values[0, 0])
    return labels


def spline(name: str) -> dict[str, float]:
    """Time order-3 resampling of a 1 mm image to 1.5 mm."""
    from monai.data import MetaTensor
    from skimage.transform import resize

    from medseg.transforms.resample import Resample

    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(1, 512, 512, 400)).astype(np.float32))
    before = resident()
    started = time.perf_counter()
    if name == "medseg":
        resample = Resample((512 / 341, 512 / 341, 400 / 267), 3, 0)
        resample(MetaTensor(image, affine=torch.eye(4)))
    else:  # what nnU-Net calls
        resize(image[0].numpy(), (341, 341, 267), 3, mode="edge", anti_aliasing=False)
    seconds = time.perf_counter() - started
    added = peak() - before
    if name != "medseg":
        return {"seconds": seconds, "added_mb": added}
    slab = image[:, :, :, :60]
    own = Resample((512 / 341, 512 / 341, 1.5), 3, 0)(MetaTensor(slab, affine=torch.eye(4)))
    shape = tuple(own.shape[1:])
    theirs = resize(slab[0].numpy(), shape, 3, mode="edge", anti_aliasing=False)
    difference = float(np.abs(own.numpy()[0] - theirs).max() / np.ptp(theirs))
    return {"seconds": seconds, "added_mb": added, "difference_of_range": difference}


class Organs(torch.nn.Module):
    """105 class maps in next to no time, all of the memory around them.

    Of `organs` each has one place, the nearest within reach wins, and half of the image is
    background; for `noise` the place of a voxel is random.
    """

    def __init__(self, classes: int = 105) -> None:
        super().__init__()
        places = torch.rand(classes - 1, 3, generator=torch.Generator().manual_seed(0))
        self.layer = torch.nn.Conv3d(4, classes, 1)
        with torch.no_grad():
            # background is the squared distance from 0 less that of reach; an organ's logit is
            # higher where its own distance is within reach
            weight = torch.zeros(classes, 4)
            weight[0, 3], weight[1:, :3] = 1, 2 * places
            bias = torch.cat([torch.tensor([-(REACH**2)]), -places.square().sum(1)])
            self.layer.weight.copy_(100 * weight.reshape(self.layer.weight.shape))
            self.layer.bias.copy_(100 * bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, classes, *spatial)."""
        return self.layer(x)


def places(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return (4, *shape): the place of each voxel in a unit cube and its squared distance."""
    if kind == "noise":
        torch.manual_seed(0)
        found = torch.rand(3, *shape)
    else:
        axes = [torch.linspace(0, 1, extent) for extent in shape]
        found = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return torch.cat([found, found.square().sum(0, keepdim=True)])


def classes(kind: str) -> dict[str, float]:
    """Time and memory of 105 classes on 512x512x600, network grid of 1.5 mm."""
    from monai.inferers import SlidingWindowInferer

    from medseg.inference.memory import Load, foresee

    keep_freed_memory()
    torch.set_num_threads(useful_threads())
    source = (512, 512, 600)
    image = places(kind, (341, 341, 400))
    run = Organs().eval()
    inferer = SlidingWindowInferer(WINDOW, overlap=0.5, mode="gaussian")
    windows = windows_of(inferer, image.shape[1:], CPU)
    affine = np.diag([512 / 341, 512 / 341, 600 / 400, 1.0])
    affine[:3, 3] = (np.diag(affine)[:3] - 1) / 2
    before = resident()
    foreseen = foresee([Load(windows, 4, 105)], source, Streaming(), budget_bytes=1 << 40)
    seconds = {"network": 0.0}
    spent = [0.0]

    def timed(window: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        output = run(window)
        spent[0] += time.perf_counter() - started
        return output

    started = time.perf_counter()
    with torch.inference_mode():
        maps = StreamedMaps(image, [timed], windows, affine, foreseen.how, seconds=seconds)
        meaning = Meaning(tuple(range(105)))
        mask = restore_mask([maps], source, np.eye(4), meaning, strips=foreseen.how.strips)
    total = time.perf_counter() - started
    return {
        "seconds": total,
        "windows": maps.work.windows,
        "strips": foreseen.how.strips,
        "network_seconds": spent[0],
        "stitch_seconds": seconds["network"] - spent[0],
        "restore_seconds": total - seconds["network"],
        "added_mb": peak() - before,
        "estimate_mb": (foreseen.needs.total - foreseen.needs.image) / 1e6,
        "found_share": float((mask > 0).mean()),
    }


def resident() -> float:
    """Return the resident memory; the peak starts anew from it."""
    import measure

    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return measure.resident_mb()


def peak() -> float:
    """Return the largest resident memory since `resident`; MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


STAGES: dict[str, tuple[Callable[..., dict[str, float]], tuple[tuple[Any, ...], ...]]] = {
    "forward": (forward, tuple((name,) for name in WAYS)),
    "volume": (volume, (("openvino-bf16", 3), ("openvino-bf16", 64), ("torch-fp32", 3))),
    "restore": (restore, (("medseg",), ("per-class-maximum",))),
    "spline": (spline, (("medseg",), ("scikit-image",))),
    "classes": (classes, (("organs",), ("noise",))),
}


def main() -> None:
    """Run every stage, or one method of one as a child."""
    import subprocess

    from measure import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(STAGES))
    parser.add_argument("--child", help="stage and arguments, as JSON")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "inference.json")
    arguments = parser.parse_args()
    if arguments.child:
        stage, *given = json.loads(arguments.child)
        print(json.dumps(STAGES[stage][0](*given)))
        return
    document: dict[str, Any] = {"machine": machine(), "stages": {}}
    if arguments.output.exists():
        earlier = json.loads(arguments.output.read_text())
        if earlier["machine"] == document["machine"]:
            document = earlier
    for stage in arguments.only.split(","):
        runs: dict[str, list[dict[str, float]]] = {}
        for number in range(arguments.rounds):
            for given in STAGES[stage][1]:
                name = " ".join(map(str, given))
                print(f"{stage} {name}, round {number + 1}", file=sys.stderr)
                child = json.dumps([stage, *given])
                command = [sys.executable, __file__, "--child", child]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(done.stderr.strip()[-400:], file=sys.stderr)
                    continue
                runs.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
        document["stages"][stage] = {
            name: {key: statistics.median(run[key] for run in several) for key in several[0]}
            for name, several in runs.items()
        }
        print(json.dumps(document["stages"][stage], indent=1), flush=True)
    arguments.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
