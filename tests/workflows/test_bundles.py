import json
from pathlib import Path

import pytest

from medseg.cli.main import call
from tests.toy_bundle import write_toy_bundle


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put two bundles on the search path, one without weights."""
    write_toy_bundle(tmp_path / "toy")
    write_toy_bundle(tmp_path / "untrained", weights=False)
    monkeypatch.setenv("MEDSEG_BUNDLES", str(tmp_path))
    return tmp_path


def test_bundles_are_listed_with_and_without_weights(
    bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["bundle", "list", "--json"]) == 0
    listed = {item["name"]: item for item in json.loads(capsys.readouterr().out)["bundles"]}
    assert listed["toy"]["has_weights"] is True
    assert listed["untrained"]["has_weights"] is False
    assert listed["toy"]["root"] == str(bundles / "toy")
    assert [label["index"] for label in listed["toy"]["labels"]]


def test_a_broken_bundle_is_listed_with_its_error(
    bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundles / "toy" / "configs" / "metadata.json").write_text("{")
    assert call(["bundle", "list", "--json"]) == 1
    listed = {item["name"]: item for item in json.loads(capsys.readouterr().out)["bundles"]}
    assert listed["toy"]["error"]["code"] == "bad-metadata"
    assert listed["untrained"]["error"] is None
    assert call(["bundle", "list"]) == 1
    assert "bad-metadata" in capsys.readouterr().out.replace("\n", "")


def test_a_card_is_shown(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundles / "untrained" / "docs").mkdir(exist_ok=True)
    (bundles / "untrained" / "docs" / "README.md").write_text("# Untrained\n\nOf no use.\n")
    assert call(["bundle", "show", "untrained", "--json"]) == 0
    bundle = json.loads(capsys.readouterr().out)["bundle"]
    assert bundle["card"] == "# Untrained\n\nOf no use.\n"
    assert bundle["has_weights"] is False
    assert bundle["train_command"]
    assert call(["bundle", "show", str(bundles / "untrained")]) == 0
    shown = capsys.readouterr().out
    assert "Of no use." in shown
    assert "train command" in shown


def test_an_unknown_bundle_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["bundle", "show", "no-such-bundle", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "unknown-bundle"
