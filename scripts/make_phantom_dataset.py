"""Make CT phantoms with labels, in the layout of the Medical Segmentation Decathlon.

python scripts/make_phantom_dataset.py FOLDER --count 20 --labels organ=1 tumour=2
"""

import argparse
from pathlib import Path

from medseg.data.phantom_msd import write_phantom_msd


def main() -> None:
    """Read the command line and write the dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--labels",
        nargs="+",
        default=["organ=1", "tumour=2"],
        metavar="NAME=VALUES",
        help="values of the phantom's mask (1 organ, 2 tumour) that a label covers: liver=1,2",
    )
    arguments = parser.parse_args()
    labels = {}
    for text in arguments.labels:
        name, _, values = text.partition("=")
        labels[name] = tuple(int(value) for value in values.split(","))
    write_phantom_msd(
        arguments.folder, arguments.count, first_seed=arguments.first_seed, labels=labels
    )
    print(f"{arguments.count} cases in {arguments.folder}")


if __name__ == "__main__":
    main()
