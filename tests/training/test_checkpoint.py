"""Checkpoints: a resume finds everything, inference weights hold nothing superfluous."""

from contextlib import suppress

import pytest
import torch
from ignite.engine import Engine, Events
from monai.networks.nets import DynUNet

from medseg.training import BestWeightsWriter, CheckpointWriter
from medseg.training.checkpoint import save_inference_weights


def _dynunet(deep_supervision: bool) -> DynUNet:
    return DynUNet(
        3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 8, 8, 8],
        deep_supervision=deep_supervision, deep_supr_num=2,
    )  # fmt: skip


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 2e-2)])
def test_stripped_weights_load_strictly_without_deep_supervision(tmp_path, half, tolerance) -> None:
    torch.manual_seed(0)
    trained, plain = _dynunet(True).eval(), _dynunet(False).eval()
    save_inference_weights(trained, tmp_path / "model.pt", half=half)
    plain.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    inputs = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert (plain(inputs) - trained(inputs)).abs().max() <= tolerance


def test_tensors_with_two_names_are_stored_once(tmp_path) -> None:
    network = _dynunet(False)
    save_inference_weights(network, tmp_path / "model.pt")
    size = sum(p.numel() * 4 for p in network.parameters())
    assert (tmp_path / "model.pt").stat().st_size < 1.5 * size + 60_000


def _trainer(network: torch.nn.Module, optimizer: torch.optim.Optimizer, stop_after: int) -> Engine:
    def step(engine: Engine, batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        optimizer.step()
        if engine.state.epoch > stop_after:
            raise KeyboardInterrupt

    return Engine(step)


def _run(path, epochs: int, stop_after: int = 99) -> tuple[torch.nn.Module, Engine]:
    torch.manual_seed(1)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    trainer = _trainer(network, optimizer, stop_after)
    CheckpointWriter(str(path), {"network": network, "optimizer": optimizer}).attach(trainer)
    with suppress(KeyboardInterrupt):
        trainer.run([torch.ones(1, 3), torch.full((1, 3), 2.0)], max_epochs=epochs)
    return network, trainer


def test_a_killed_run_resumes_to_the_same_weights(tmp_path) -> None:
    whole, _ = _run(tmp_path / "whole.pt", epochs=6)
    _run(tmp_path / "killed.pt", epochs=6, stop_after=3)
    resumed, trainer = _run(tmp_path / "killed.pt", epochs=6)
    assert trainer.state.epoch == 6
    assert torch.equal(whole.weight, resumed.weight)


def test_only_a_better_score_rewrites_the_weights(tmp_path) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    scores = iter([0.5, 0.4, 0.6])
    evaluator = Engine(lambda engine, batch: None)  # noqa: ARG005
    writer = BestWeightsWriter(str(tmp_path / "model.pt"), network)

    @evaluator.on(Events.EPOCH_COMPLETED)
    def score(engine: Engine) -> None:
        engine.state.metrics["dice"] = next(scores)
        engine.state.key_metric_name = "dice"

    writer.attach(evaluator)
    kept = []
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            network.weight.fill_(value)
        evaluator.run([0])
        kept.append(torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item())
    assert kept == [1.0, 1.0, 3.0]
    assert writer.best == 0.6
