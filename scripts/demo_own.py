"""Segment a path of one's own: list what it holds, choose a bundle by modality, run it."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

BUNDLE_FOR = {"CT": "phantom_ct", "MR": "hippocampus_mri"}

CAUTION = {
    "phantom_ct": "phantom_ct was trained on SYNTHETIC images only. It is NOT a clinical model:"
    " its mask of a real scan means nothing. It shows that the way works.",
    "hippocampus_mri": "hippocampus_mri was trained on MRI CROPPED to the hippocampus. On any"
    " other image its mask means nothing.",
}
EVERY = "medseg is no medical device: no result may guide the care of a patient."


def medseg(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run one medseg command."""
    output = subprocess.PIPE if capture else None
    command = [sys.executable, "-m", "medseg", *arguments]
    return subprocess.run(command, stdout=output, text=True, check=False)


def choose_bundle(document: dict[str, list[dict[str, object]]]) -> str:
    """Return the bundle for the one modality that usable volumes have, or stop."""
    found = {
        str(series["modality"])
        for series in document["series"]
        for volume in series["volumes"]  # type: ignore[attr-defined]
        if volume["usable"]
    }
    names = {BUNDLE_FOR[modality] for modality in found if modality in BUNDLE_FOR}
    if len(names) == 1:
        return names.pop()
    listed = ", ".join(sorted(modality or "unknown" for modality in found)) or "none"
    print(
        f"error: usable volumes must be all CT or all MR to choose a bundle, got modalities:"
        f" {listed}.\nName a bundle: scripts/demo.sh PATH --bundle NAME"
        " (medseg bundle list shows them).",
        file=sys.stderr,
    )
    raise SystemExit(2)


def main() -> int:
    """Inspect, choose, segment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--bundle")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    inspected = medseg("inspect", options.path)
    if inspected.returncode:
        return inspected.returncode
    document = json.loads(medseg("inspect", options.path, "--json", capture=True).stdout)
    bundle = options.bundle or choose_bundle(document)
    for text in filter(None, (CAUTION.get(bundle), EVERY)):
        print(f"\n*** {text}", file=sys.stderr)
    print(f"\n== medseg segment {options.path} -b {bundle} -o {options.output}", flush=True)
    arguments = ("segment", options.path, "-b", bundle, "-o", options.output, "--overwrite")
    code = medseg(*arguments).returncode
    if code == 0:
        print(
            f"Masks, pictures and reports: one folder a case under {Path(options.output).resolve()}"
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
