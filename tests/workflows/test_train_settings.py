"""What a training was started with, and what a resume makes of it."""

from pathlib import Path

import pytest

from medseg.errors import OutputError
from medseg.workflows.train_settings import SETTINGS, TrainSettings


def test_settings_come_back(tmp_path: Path) -> None:
    settings = TrainSettings(("lr=0.1", "epochs=3"), "/data/set", 60.0, deterministic=True)
    settings.write(tmp_path / "logs")
    assert TrainSettings.read(tmp_path / "logs") == settings
    assert TrainSettings.read(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"settings": [], "more": 1}'])
def test_a_damaged_file_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / SETTINGS).write_text(text)
    with pytest.raises(OutputError, match="give them again") as caught:
        TrainSettings.read(tmp_path)
    assert caught.value.code == "bad-settings"


def test_nothing_given_goes_on_as_before() -> None:
    before = TrainSettings(("lr=0.1", "a#b=3"), "/data", 60.0, deterministic=True)
    assert before.changed_by(TrainSettings()) == (before, ())
    again = TrainSettings(("a::b=3",), "/data", 60.0)
    assert before.changed_by(again)[0].settings == ("lr=0.1", "a::b=3")


def test_what_is_given_anew_goes_over_it_and_is_said() -> None:
    before = TrainSettings(("lr=0.1", "epochs=3"), "/data")
    given = TrainSettings(("lr=0.2", "patience=5"), "/moved", 60.0)
    after, [problem] = before.changed_by(given)
    assert after == TrainSettings(("lr=0.2", "epochs=3", "patience=5"), "/moved", 60.0)
    assert problem.code == "changed-settings"
    for part in ("lr=0.2 in place of lr=0.1", "patience=5 in place of the configs", "60 s"):
        assert part in problem.message
    assert "epochs" not in problem.message
