import csv
import time
from pathlib import Path
from typing import Any

import pytest
from ignite.engine import Events
from PIL import Image

from medseg.errors import OutputError
from medseg.training.curves import draw_curves
from tests.training.toy_training import make_trainer


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_iteration_and_every_epoch_has_a_row(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=4, interval=2)
    trainer.run()
    losses = _table(tmp_path / "logs/losses.csv")
    assert [int(row["iteration"]) for row in losses] == list(range(1, 21))
    written = [line.split()[1] for line in (tmp_path / "losses.txt").read_text().splitlines()]
    assert [row["loss"] for row in losses] == written
    metrics = _table(tmp_path / "logs/metrics.csv")
    assert [int(row["iteration"]) for row in metrics] == [5, 10, 15, 20]
    assert [bool(row["val_mean_dice"]) for row in metrics] == [False, True, False, True]
    expected = sum(float(value) for value in written[:5]) / 5
    assert float(metrics[0]["train_loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(metrics[3]["val_dice_square"]) == pytest.approx(
        trainer.evaluator.state.metrics["val_mean_dice"], rel=1e-4
    )
    assert list((tmp_path / "logs/tensorboard").glob("events*"))


def test_a_resume_drops_rows_that_are_trained_again(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=2).run()
    logs = tmp_path / "logs"
    with (logs / "losses.csv").open("a") as file:
        file.write("11,9.9,0.1\n12,9.9,0.1\n13,9.")  # a killed run was further, and cut short
    make_trainer(tmp_path, epochs=4).run()
    rows = _table(logs / "losses.csv")
    assert [int(row["iteration"]) for row in rows] == list(range(1, 21))
    assert "9.9" not in {row["loss"] for row in rows}
    assert [int(row["iteration"]) for row in _table(logs / "metrics.csv")] == [5, 10, 15, 20]


def test_a_complete_training_keeps_its_tables(tmp_path: Path) -> None:
    make_trainer(tmp_path).run()
    before = [(tmp_path / "logs" / name).read_text() for name in ("losses.csv", "metrics.csv")]
    make_trainer(tmp_path).run()
    after = [(tmp_path / "logs" / name).read_text() for name in ("losses.csv", "metrics.csv")]
    assert after == before


def test_waiting_for_data_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    dataset = trainer.data_loader.dataset
    make = type(dataset).__getitem__

    def slow(self: Any, number: int) -> Any:
        time.sleep(0.02)
        return make(self, number)

    monkeypatch.setattr(type(dataset), "__getitem__", slow)
    trainer.run()
    row = _table(tmp_path / "logs/metrics.csv")[0]
    assert float(row["seconds_waiting_for_data"]) >= 5 * 4 * 0.02
    assert float(row["share_waiting"]) > 0.3
    waited = float(row["seconds_waiting_for_data"]) / float(row["seconds"])
    assert float(row["share_waiting"]) == pytest.approx(waited, rel=1e-3)


def test_the_listener_is_told_how_far_it_is(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=2, interval=1)
    states: list[Any] = []
    trainer.log.listener = states.append
    trainer.run()
    assert [state.iteration for state in states] == list(range(1, 11))
    shares = [state.share for state in states]
    assert shares == sorted(shares)
    assert states[-1].score > 0
    assert states[-1].metric == "val_mean_dice"
    assert states[5].eta_s > 0


def test_a_row_is_there_while_training_goes_on(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=3)
    found = []

    def look(_: Any) -> None:
        found.append(len(_table(tmp_path / "logs/metrics.csv")))

    trainer.add_event_handler(Events.EPOCH_STARTED, look)
    trainer.run()
    assert found == [0, 1, 2]


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(OutputError):
        make_trainer(tmp_path).run()


def test_curves_are_a_picture_even_of_nothing(tmp_path: Path) -> None:
    rows = [
        {"iteration": i, "train_loss": 1 / i, "lr": 0.01, "share_waiting": "", "val_mean_dice": ""}
        for i in range(1, 9)
    ]
    rows[-1] |= {"val_mean_dice": "0.8", "val_dice_a": 0.7, "val_dice_b": 0.9}
    for number, table in enumerate((rows, [])):
        path = tmp_path / f"{number}.png"
        draw_curves(table, path)
        with Image.open(path) as picture:
            assert picture.size == (900, 700)
