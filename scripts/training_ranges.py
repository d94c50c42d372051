"""State in a bundle's metadata what it was trained on, for a bundle that was planned before that.

    python scripts/training_ranges.py BUNDLE DATASET

The cases are those that fold 0 trains on. `medseg plan` states the ranges of its dataset by itself.
Results are held against them, see `medseg.report.plausibility`.
"""

import json
import sys
from pathlib import Path

from medseg.bundle import load_bundle
from medseg.data import open_dataset
from medseg.data.folds import folds_for
from medseg.io.atomic import write_json
from medseg.planning import fingerprint
from medseg.planning.seen import seen_in_training


def main() -> int:
    """Measure the dataset and write the metadata."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    bundle = load_bundle(sys.argv[1])
    dataset = open_dataset(Path(sys.argv[2]))
    splits = bundle.root / "configs" / "splits.json"
    folds = folds_for(dataset, splits if splits.is_file() else None)["folds"]
    training = set(folds[0]["training"])
    found = fingerprint(dataset, [case for case in dataset.cases if case.case_id in training])
    modalities = [modality for _, modality in bundle.input_rule.channel_rules]
    seen = seen_in_training(found, absolute=bool(modalities) and set(modalities) == {"CT"})
    names = {label.name.casefold(): label.name for label in bundle.labels}
    stated = seen.get("labels", {})  # none of pictures
    labels = {names.get(name.casefold(), ""): ranges for name, ranges in stated.items()}
    if "" in labels:
        print(f"labels must be {list(names.values())}, got {list(stated)}", file=sys.stderr)
        return 2
    if labels:
        seen["labels"] = labels
    path = bundle.root / "configs" / "metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata["medseg"]["training"] = seen
    write_json(path, metadata)
    print(json.dumps(seen, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
