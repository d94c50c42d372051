"""One small case as a whole process: medseg, `monai.bundle run` and nnU-Net, in turn.

    python scripts/bench/small_case.py IMAGE [--bundle hippocampus_mri] [--rounds 3]
        [--nnunet VENV --model FOLDER]

IMAGE is a NIfTI file that the bundle segments; FOLDER a results folder of nnU-Net for such
images (`.../nnUNetTrainer__nnUNetPlans__3d_fullres`, fold 0). medseg runs once before, so that the
network is converted and its speeds are known. Also, in one process: the second of two cases
against its forward passes. Writes scripts/bench/results/small_case.json.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from inference_peers import measured
from measure import machine

from medseg.bundle.find import find_bundle

HERE = Path(__file__).parent


def commands(arguments: argparse.Namespace, work: Path) -> dict[str, list[str]]:
    """Return the command of each program; results go to folders that are removed before."""
    images = work / "imagesTs"
    images.mkdir()
    shutil.copy(arguments.image, images / "case_0000.nii.gz")
    root = find_bundle(arguments.bundle)
    outputs = ["--outputs", "nifti", "--overwrite"]
    own = [sys.executable, "-m", "medseg", "segment", str(images), "-b", arguments.bundle]
    files = [str(root / "configs" / f"{name}.yaml") for name in ("common", "inference")]
    found = {
        "medseg": [*own, "-o", str(work / "medseg"), *outputs],
        "medseg, torch alone": [*own, "-o", str(work / "torch"), *outputs, "--backend", "torch"],
        "monai.bundle run": [
            sys.executable, "-m", "monai.bundle", "run", "--config_file", str(files),
            "--bundle_root", str(root), "--dataset_dir", str(work), "--output_dir",
            str(work / "monai"),
        ],
    }  # fmt: skip
    if arguments.nnunet:
        program = str(arguments.nnunet / "bin/nnUNetv2_predict_from_modelfolder")
        base = [program, "-i", str(images), "-m", str(arguments.model), "-f", "0", "-device", "cpu"]
        base += ["-o", str(work / "nnunet")]
        found["nnU-Net"] = base
        found["nnU-Net, no mirroring, one worker"] = [
            *base, "--disable_tta", "-npp", "1", "-nps", "1",
        ]  # fmt: skip
    return found


def second_case(image: Path, bundle: str) -> dict[str, float]:
    """Segment an image twice in one process; what the second takes beyond its network."""
    code = (
        "import json, sys, time; import medseg;"
        f"predictor = medseg.Predictor({bundle!r}, device='cpu');"
        f"predictor(medseg.read({str(image)!r}));"
        "started = time.perf_counter();"
        f"result = predictor(medseg.read({str(image)!r}));"
        "total = time.perf_counter() - started;"
        "print(json.dumps({'seconds': total, 'network': result.seconds['network']}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result | {"beyond": result["seconds"] - result["network"]}


def main() -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--bundle", default="hippocampus_mri")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nnunet", type=Path, help="virtual environment with nnU-Net v2")
    parser.add_argument("--model", type=Path, help="results folder of nnU-Net")
    arguments = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        programs = commands(arguments, work)
        runs: dict[str, list[dict[str, float]]] = {key: [] for key in programs}
        for number in range(arguments.rounds + 1):
            for key, command in programs.items():
                run = measured(command, work / "log.txt")
                print(f"round {number}, {key}: {run}", file=sys.stderr)
                if number:
                    runs[key].append(run)
    for key, several in runs.items():
        result[key] = {
            "median_s": statistics.median(run["seconds"] for run in several),
            "min_s": min(run["seconds"] for run in several),
            "peak_mb": max(run["peak_mb"] for run in several),
        }
    result["second case"] = second_case(arguments.image, arguments.bundle)
    text = json.dumps(result, indent=1)
    (HERE / "results" / "small_case.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
