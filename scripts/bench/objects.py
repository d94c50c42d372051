"""Instances of medseg against torchvision's plain loop: scores, images a second, memory.

    python scripts/bench/objects_loop.py train IMAGES MASKS SPLITS PLAIN.pt --cpu-minutes 65
    python scripts/bench/objects.py nuclei_instances IMAGES MASKS --plain PLAIN.pt --minutes 65 \\
        --large PICTURE.png --rounds 3

IMAGES are those that neither was trained on, MASKS their object numbers. *Scores* are those of each
program's own weights. *Speed* and *memory* are of one set of weights, the bundle's, in both
programs: medseg as it runs (tiles, run lengths, COCO JSON and a map of numbers left out in both)
and the loop as it is written (whole images in float32, dense masks). Memory is what a process takes
on top of its imports and weights for the picture that is given. Writes
scripts/bench/results/objects.json.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine, measure, report

from medseg.inference import Execution
from medseg.inference.objects import ObjectPredictor
from medseg.io.masks import read_numbers
from medseg.io.read import read
from medseg.metrics.objects import ObjectMetrics
from medseg.objects import ObjectInstances

HERE = Path(__file__).parent
SCORES = ("ap50", "ap75", "ap", "box_ap", "f1", "pq", "aji")


def of_loop(path: Path) -> dict[str, ObjectInstances]:
    """Return what `objects_loop.py find` wrote, by the stems of the images."""
    found = {}
    for image in json.loads(path.read_text())["images"]:
        count = len(image["counts"])
        found[Path(image["image"]).stem] = ObjectInstances(
            (image["size"][0], image["size"][1]),
            tuple(one.encode("ascii") for one in image["counts"]),
            np.ones(count, np.int32),
            np.array(image["scores"], np.float32),
            np.zeros(count, np.bool_),
        )
    return found


def scored(found: dict[str, ObjectInstances], masks: Path) -> dict[str, float]:
    """Score the objects of images against the maps of their names."""
    metrics = ObjectMetrics(["object"])
    for stem, objects in found.items():
        truth = ObjectInstances.of_label_map(read_numbers(masks / f"{stem}.png"))
        metrics.add(stem, objects, truth)
    mean = metrics.scores().mean
    return {name: round(float(mean[name]), 4) for name in SCORES}


def find_with_medseg(bundle: str, images: Path, precision: str) -> dict[str, ObjectInstances]:
    """Find the objects of a folder, or of one picture, with medseg."""
    predictor = ObjectPredictor(
        bundle, device="cpu", execution=Execution(backend="torch", precision=precision)
    )
    files = sorted(images.glob("*.png")) if images.is_dir() else [images]
    found = {}

    def work() -> None:
        for file in files:
            [found[file.stem]] = predictor(read(file)).candidates

    gc.collect()
    report(work)
    return found


def find_with_loop(weights: Path, images: Path) -> None:
    """Find the same with the plain loop."""
    import objects_loop

    model = objects_loop.network()
    model.load_state_dict({k: v.float() for k, v in _weights(weights).items()})
    model.eval()
    files = sorted(images.glob("*.png")) if images.is_dir() else [images]
    gc.collect()
    report(lambda: [objects_loop.objects_of(model, file) for file in files])


def _weights(path: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return weights


def child(*arguments: object) -> list[str]:
    """Return the command line of one measurement."""
    return [sys.executable, str(HERE / "objects.py"), *map(str, arguments)]


def main() -> None:
    """Score and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("images", type=Path)
    parser.add_argument("masks", type=Path, nargs="?")
    parser.add_argument("--plain", type=Path, help="weights that objects_loop.py trained")
    parser.add_argument("--minutes", type=float, help="processor minutes the bundle was trained")
    parser.add_argument("--large", type=Path, help="picture to measure memory on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=("bf16", "fp32", "loop"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    weights = Path(args.bundle) / "models" / "model.pt"
    if args.child == "loop":
        return find_with_loop(weights, args.images)
    if args.child:
        find_with_medseg(args.bundle, args.images, args.child)
        return None
    result: dict[str, Any] = {"machine": machine(), "images": len(list(args.images.glob("*.png")))}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, str(HERE / "objects_loop.py"), "find"]
        subprocess.run([*command, str(args.images), str(args.plain), str(file)], check=True)
        plain = json.loads(args.plain.with_suffix(".json").read_text())
        result["plain"] = {"training": plain, **scored(of_loop(file), args.masks)}
    for precision in ("fp32", "bf16"):
        found = find_with_medseg(args.bundle, args.images, precision)
        result[f"medseg_{precision}"] = scored(found, args.masks)
    result["medseg_training_cpu_minutes"] = args.minutes
    kinds = ("loop", "fp32", "bf16")
    for key, pictures in (("speed", args.images), ("memory", args.large)):
        commands = {kind: child(args.bundle, pictures, "--child", kind) for kind in kinds}
        result[key] = measure(commands, args.rounds if key == "speed" else 1)
    path = HERE / "results" / "objects.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return None


if __name__ == "__main__":
    main()
