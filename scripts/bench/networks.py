"""Networks of one bundle on one dataset: each trained for as much computing time, and scored.

    python scripts/bench/networks.py camvid_semantic DATASET OUT unet_resnet=1200 segnet=430 \\
        --spacing 2 2 --patch 176 240 --images VAL --labels VAL_LABELS

Pictures are 1 mm a pixel: a spacing of 2 trains at half their resolution, and masks are scored at
the whole. Behind a name stand the iterations it gets. Choose them so that all take the same
processor time, which is recorded; a limit in seconds would be unfair where others use the machine.
Each network starts from scratch and is validated once, at the end, so that nothing is picked by its
score. Then `medseg segment` and `medseg evaluate` do what a user does. Writes
scripts/bench/results/networks.json, network by network; those already there are kept.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import machine

from medseg.bundle.find import find_bundle
from medseg.bundle.overrides import write_scalar

HERE = Path(__file__).parent
EPOCHS = 5


def medseg(*arguments: object) -> dict[str, float]:
    """Run a command of medseg to its end; minutes of clock and of processors."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "medseg", *map(str, arguments)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "cpu_minutes": round(used / 60, 1),
    }


def trained(args: argparse.Namespace, name: str, iterations: int) -> dict[str, Any]:
    """Train a network, segment the images, and return its scores with what they cost."""
    root = args.out / name
    shutil.rmtree(root, ignore_errors=True)
    bundle = root / "bundle"
    shutil.copytree(find_bundle(args.bundle), bundle)
    write_scalar(bundle / "configs" / "common.yaml", "spacing_px", list(args.spacing))
    write_scalar(bundle / "configs" / "common.yaml", "patch_size", list(args.patch))
    settings = {
        "network": name,
        "epochs": EPOCHS,
        "iterations_per_epoch": iterations // EPOCHS,
        "val_interval": EPOCHS,
    }
    chosen = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    spent = medseg("train", bundle, "--dataset", args.dataset, "-q", *chosen)
    medseg("segment", args.images, "-b", bundle, "-o", root / "masks", "--outputs", "png", "-q")
    scores = ("-b", bundle, "--images", args.images, "-o", root / "scores", "-q")
    medseg("evaluate", root / "masks", args.labels, *scores)
    semantic = json.loads((root / "scores" / "summary.json").read_text())["semantic"]
    return {"iterations": iterations, "training": spent, "scores": semantic}


def main() -> None:
    """Train and score each network in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("networks", nargs="+", metavar="NAME=ITERATIONS")
    parser.add_argument("--spacing", type=float, nargs=2, required=True)
    parser.add_argument("--patch", type=int, nargs=2, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    args = parser.parse_args()
    path = HERE / "results" / "networks.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    for text in args.networks:
        name, iterations = text.split("=")
        row = trained(args, name, int(iterations))
        result |= {"machine": machine(), "bundle": args.bundle}
        result |= {"spacing": args.spacing, "patch": args.patch}
        result.setdefault("networks", {})[name] = row
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(name, row["training"], row["scores"].get("mean_iou"))


if __name__ == "__main__":
    main()
