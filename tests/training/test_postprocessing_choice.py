import math

from medseg.training.postprocessing_choice import (
    Candidates,
    choose_postprocessing,
    is_better,
    mean_dice,
)

KEEP = "largest_component"


def _case(
    plain: dict, label: dict | None = None, fore: dict | None = None, both=None
) -> Candidates:
    fore = fore or plain
    return Candidates(plain, label or plain, fore, both or fore)


def test_nothing_is_chosen_where_nothing_changes() -> None:
    assert choose_postprocessing([_case({"a": 0.9, "b": 0.8})] * 3) == ()
    assert choose_postprocessing([]) == ()


def test_a_label_that_gains_is_chosen_and_one_that_loses_is_not() -> None:
    case = _case({"a": 0.8, "b": 0.8}, {"a": 0.9, "b": 0.7})
    assert choose_postprocessing([case]) == ({"label": "a", "keep": KEEP},)


def test_all_foreground_is_chosen_only_where_no_label_is_worse() -> None:
    plain = {"a": 0.8, "b": 0.8}
    good = _case(plain, fore={"a": 0.9, "b": 0.8})
    bad = _case(plain, fore={"a": 0.99, "b": 0.79})
    assert choose_postprocessing([good]) == ({"labels": ["a", "b"], "keep": KEEP},)
    assert choose_postprocessing([bad]) == ()


def test_a_label_is_judged_by_what_the_foreground_step_left() -> None:
    # alone it gains; after the first step nothing is left to gain
    case = _case({"a": 0.7, "b": 0.5}, {"a": 0.8, "b": 0.5}, {"a": 0.8, "b": 0.6})
    assert choose_postprocessing([case]) == ({"labels": ["a", "b"], "keep": KEEP},)
    more = _case({"a": 0.7}, {"a": 0.8}, {"a": 0.8}, {"a": 0.85})
    first, second = choose_postprocessing([more])
    assert (first["labels"], second["label"]) == (["a"], "a")


def test_the_mean_over_cases_decides_not_a_single_one() -> None:
    gains = _case({"a": 0.5}, {"a": 0.6})
    loses = _case({"a": 0.9}, {"a": 0.85})
    assert choose_postprocessing([gains, loses])[0]["label"] == "a"
    assert choose_postprocessing([gains, loses, loses, loses]) == ()


def test_regions_are_not_looked_at_one_by_one() -> None:
    case = _case({"whole": 0.8}, {"whole": 0.9})
    assert choose_postprocessing([case], label_by_label=False) == ()


def test_rounding_is_neither_gain_nor_loss() -> None:
    assert not is_better({"a": 0.8}, {"a": 0.8 + 1e-12})
    assert is_better({"a": 0.8, "b": 0.5}, {"a": 0.8 - 1e-12, "b": 0.6})


def test_what_has_no_dice_is_left_out_of_the_mean() -> None:
    means = mean_dice([{"a": 1.0, "b": math.nan}, {"a": 0.5, "b": math.nan}])
    assert means["a"] == 0.75
    assert math.isnan(means["b"])
    assert is_better({"a": 0.5, "b": math.nan}, {"a": 0.6, "b": math.nan})
