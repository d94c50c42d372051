"""Write a phantom CT study as a DICOM folder, and its true mask.

Usage: python scripts/make_phantom_study.py OUT [--seed N]
"""

import argparse
import sys
from pathlib import Path

from medseg.data.phantom_study import write_phantom_study
from medseg.errors import MedsegError


def main() -> int:
    parser = argparse.ArgumentParser(description="Write a phantom CT study as a DICOM folder.")
    parser.add_argument("out", type=Path, help="gets dicom/ and truth.nii.gz")
    parser.add_argument("--seed", type=int, default=11, help="chooses the patient (default 11)")
    arguments = parser.parse_args()
    try:
        study = write_phantom_study(arguments.out, seed=arguments.seed)
    except (MedsegError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"DICOM study: {study.dicom}")
    print(f"true mask:   {study.truth}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
