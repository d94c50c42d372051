from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Events

from medseg.errors import TrainingError, UsageError
from medseg.training import Schedule, TrainingStep
from tests.training.toy_training import make_trainer, network


def _losses(folder: Path) -> list[str]:
    return (folder / "losses.txt").read_text().splitlines()


def test_three_losses_in_a_row_that_are_not_finite_stop_and_name_the_cases(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, poisoned=tuple(range(8, 20)))  # iterations 3 to 5
    with pytest.raises(TrainingError, match=r"case_008.*case_013.*case_019") as caught:
        trainer.run()
    assert caught.value.code == "non-finite-loss"


def test_a_single_loss_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=1, length=2, poisoned=(5,))
    seen = []
    before_second = trainer.network[0].weight

    def keep(_: object) -> None:
        seen.append(before_second.detach().clone())

    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep)
    trainer.run()
    assert torch.equal(seen[0], seen[1])
    assert _losses(tmp_path)[1] == "2 nan"


def test_two_bad_losses_are_forgiven_once_a_good_one_follows(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, poisoned=(1, 5, 13, 17))  # iterations 1, 2 and 4, 5
    trainer.run()
    bad = [line.split()[0] for line in _losses(tmp_path) if line.endswith("nan")]
    assert bad == ["1", "2", "4", "5"]


def test_bf16_trains_on_a_cpu(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, amp="bf16")
    dtypes = set()
    trainer.network.register_forward_hook(lambda *arguments: dtypes.add(arguments[2].dtype))
    trainer.run()
    assert dtypes == {torch.bfloat16}
    losses = [float(line.split()[1]) for line in _losses(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]


def test_fp16_needs_a_gpu(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, amp="fp16")
    with pytest.raises(UsageError, match="amp must be bf16 or null on cpu"):
        trainer.run()


def test_an_unknown_precision_is_refused() -> None:
    schedule = Schedule(torch.optim.SGD(network().parameters()), 1)
    with pytest.raises(UsageError, match="amp must be bf16, fp16 or null"):
        TrainingStep(schedule, amp="fp8")  # type: ignore[arg-type]


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=1, length=1)
    step = trainer._process_function
    step.clip_norm = 1e-3
    trainer.run()
    squares = [float(p.grad.square().sum()) for p in trainer.network.parameters()]
    assert sum(squares) ** 0.5 == pytest.approx(1e-3, rel=1e-3)


def test_the_global_generator_is_left_as_it_was(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=1, length=1)
    step, batch = trainer._process_function, next(iter(trainer.data_loader))
    trainer.state.iteration = 1
    before = torch.get_rng_state()
    step(trainer, batch)
    assert torch.equal(before, torch.get_rng_state())


def test_channels_last_changes_the_layout_and_hardly_the_losses(tmp_path: Path) -> None:
    losses = []
    for name, innermost in (("last", True), ("first", False)):
        (tmp_path / name).mkdir()
        trainer = make_trainer(tmp_path / name)
        trainer.network[2].p = 0.0  # which values are dropped depends on the layout
        trainer._process_function.channels_last = innermost
        trainer.run()
        weight = trainer.network[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last) or not innermost
        losses.append([float(line.split()[1]) for line in _losses(tmp_path / name)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.filterwarnings("ignore:Grad strides do not match:UserWarning")  # slower, not wrong
def test_a_distributed_network_takes_the_same_steps(tmp_path: Path) -> None:
    alone, wrapped = (tmp_path / name for name in ("alone", "wrapped"))
    for folder in (alone, wrapped):
        folder.mkdir()
    make_trainer(alone, epochs=1, length=4).run()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        make_trainer(wrapped, epochs=1, length=4).run()
    finally:
        dist.destroy_process_group()
    losses = [
        [float(line.split()[1]) for line in (folder / "losses.txt").read_text().splitlines()]
        for folder in (alone, wrapped)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_compiled_network_trains_alike(tmp_path: Path) -> None:
    losses = []
    for name, compiled in (("compiled", True), ("eager", False)):
        (tmp_path / name).mkdir()
        trainer = make_trainer(tmp_path / name)
        trainer.network[2].p = 0.0  # compiled dropout draws other numbers
        trainer._process_function.compile = compiled
        trainer.run()
        losses.append([float(line.split()[1]) for line in _losses(tmp_path / name)])
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_a_network_that_cannot_be_compiled_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: torch.nn.Module) -> torch.nn.Module:
        def fail(*_: object) -> None:
            msg = "no compiler"
            raise RuntimeError(msg)

        return fail  # type: ignore[return-value]

    monkeypatch.setattr(torch, "compile", broken)
    trainer = make_trainer(tmp_path)
    trainer._process_function.compile = True
    trainer.run()
    assert "cannot be compiled and runs as it is: no compiler" in caplog.text
    assert len(_losses(tmp_path)) == 20
