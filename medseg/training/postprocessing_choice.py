"""Which post-processing a cross-validation recommends."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEEP_LARGEST = "largest_component"

SLACK = 1e-9
"""Differences of mean Dice up to this are rounding."""

Dice = Mapping[str, float]
"""Label to Dice of one case; NaN where neither mask nor reference holds the label."""


@dataclass(frozen=True)
class Candidates:
    """Dice of one case with and without the largest component kept.

    Attributes:
        plain: Of the mask as predicted.
        label: Each label reduced to its largest component.
        foreground: All labels together reduced to their largest component.
        both: First the foreground, then each label.
    """

    plain: Dice
    label: Dice
    foreground: Dice
    both: Dice


def choose_postprocessing(
    cases: Sequence[Candidates], *, label_by_label: bool = True
) -> tuple[dict[str, Any], ...]:
    """Choose where only the largest component is kept.

    First for all foreground together, then for each label on what that left: accepted where the
    mean over the cases is worse for no label and better for one.

    Args:
        cases: Cross-validated: each predicted by a network that was not trained on it.
        label_by_label: Consider single labels; not where labels are regions that overlap.

    Returns:
        Steps in the order in which they apply, for `postprocessing` of the metadata.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021: post-processing is chosen by
        cross-validation, and kept where it lowers the Dice of no class.
    """
    if not cases:
        return ()
    steps: list[dict[str, Any]] = []
    before = mean_dice([case.plain for case in cases])
    single = [case.label for case in cases]
    foreground = mean_dice([case.foreground for case in cases])
    if is_better(before, foreground):
        steps.append({"labels": list(before), "keep": KEEP_LARGEST})
        before, single = foreground, [case.both for case in cases]
    if label_by_label:
        after = mean_dice(single)
        steps += [
            {"label": name, "keep": KEEP_LARGEST}
            for name in before
            if is_better({name: before[name]}, {name: after[name]})
        ]
    return tuple(steps)


def is_better(before: Dice, after: Dice) -> bool:
    """Say whether a change makes no label worse and one better.

    Args:
        before: Label to mean Dice.
        after: The same labels.

    Returns:
        Whether to accept it. A label that has no Dice on one side counts as unchanged.

    Examples:
        >>> is_better({"a": 0.8, "b": 0.7}, {"a": 0.8, "b": 0.75})
        True
        >>> is_better({"a": 0.8, "b": 0.7}, {"a": 0.79, "b": 0.95})
        False
    """
    gains = [after[name] - before[name] for name in before]
    gains = [gain for gain in gains if not math.isnan(gain)]
    return all(gain >= -SLACK for gain in gains) and any(gain > SLACK for gain in gains)


def mean_dice(cases: Sequence[Dice]) -> dict[str, float]:
    """Return the mean Dice of each label over the cases that have one.

    Args:
        cases: Of each case the Dice by label.

    Returns:
        Label to mean; NaN where no case has one.
    """
    means = {}
    for name in dict.fromkeys(name for case in cases for name in case):
        values = [case[name] for case in cases if not math.isnan(case.get(name, math.nan))]
        means[name] = math.fsum(values) / len(values) if values else math.nan
    return means
