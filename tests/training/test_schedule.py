import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, PolynomialLR

from medseg.training import Schedule


def _optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    )


def test_poly_is_torchs_polynomial_decay() -> None:
    ours, theirs = _optimizer(0.01), _optimizer(0.01)
    schedule = Schedule(ours, 40)
    reference = PolynomialLR(theirs, total_iters=40, power=0.9)
    for iteration in range(40):
        schedule.advance(iteration)
        assert schedule.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        theirs.step()
        reference.step()


def test_cosine_is_torchs_cosine_annealing() -> None:
    ours, theirs = _optimizer(0.01), _optimizer(0.01)
    schedule = Schedule(ours, 25, shape="cosine")
    reference = CosineAnnealingLR(theirs, T_max=25)
    for iteration in range(25):
        schedule.advance(iteration)
        assert schedule.lr == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-6)
        theirs.step()
        reference.step()


def test_every_group_keeps_its_own_base_rate() -> None:
    optimizer = _optimizer(0.1, 0.001)
    Schedule(optimizer, 10).advance(5)
    factor = 0.5**0.9
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(
        [0.1 * factor, 0.001 * factor]
    )


def test_warm_up_rises_and_ends_at_the_base_rate() -> None:
    schedule = Schedule(_optimizer(1.0), 100, shape="cosine", warmup=0.1)
    rates = []
    for iteration in range(11):
        schedule.advance(iteration)
        rates.append(schedule.lr)
    assert rates[0] == pytest.approx(0.01)
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(1.0)


def test_under_a_budget_the_schedule_runs_on_the_elapsed_fraction() -> None:
    schedule = Schedule(_optimizer(1.0), 1_000_000, time_budget_s=100.0)
    schedule.advance(3, elapsed_s=25.0)
    assert schedule.share == pytest.approx(0.25)
    assert schedule.lr == pytest.approx(0.75**0.9)
    assert not schedule.finished
    schedule.advance(4, elapsed_s=100.0)
    assert schedule.finished
    assert schedule.lr == 0


def test_time_for_the_last_validation_is_kept_back() -> None:
    schedule = Schedule(_optimizer(1.0), 1_000_000, time_budget_s=100.0)
    schedule.reserve_s = 20.0
    schedule.advance(4, elapsed_s=80.0)
    assert schedule.finished


def test_iterations_end_a_training_before_its_budget() -> None:
    schedule = Schedule(_optimizer(1.0), 10, time_budget_s=1000.0)
    schedule.advance(10, elapsed_s=1.0)
    assert schedule.finished


def test_a_resumed_schedule_counts_the_earlier_time() -> None:
    first = Schedule(_optimizer(1.0), 10, time_budget_s=100.0)
    state = {**first.state_dict(), "elapsed_s": 60.0, "iteration": 5}
    second = Schedule(_optimizer(1.0), 10, time_budget_s=100.0)
    second.load_state_dict(state)
    assert second.share == pytest.approx(0.6)
    assert second.elapsed_s == pytest.approx(60.0)
    second.start()
    assert second.elapsed_s >= 60.0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"iterations": 0}, "iterations and time_budget_s"),
        ({"iterations": 1, "time_budget_s": -1.0}, "iterations and time_budget_s"),
        ({"iterations": 1, "shape": "step"}, "shape must be poly or cosine"),
        ({"iterations": 1, "warmup": 1.0}, "warmup"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Schedule(_optimizer(1.0), **settings)


def test_share_never_leaves_zero_to_one() -> None:
    schedule = Schedule(_optimizer(1.0), 3)
    schedule.advance(9)
    assert schedule.share == 1.0
    assert math.isfinite(schedule.lr)
