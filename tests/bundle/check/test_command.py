"""`medseg bundle check`: text, JSON, exit codes; all faults at once; nothing of the bundle runs."""

import json
import random
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.check import check_bundle
from medseg.cli.main import call
from tests.bundle.check.broken import LONGEST_FAULT, REMOVED, bundle, change, whole
from tests.data.datasets import write_msd
from tests.whole_bundle import CONFIGS, metadata

__all__ = ["bundle", "whole"]  # fixtures


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = call([str(one) for one in arguments])
    return code, capsys.readouterr().out


def _break(bundle: Path) -> dict[str, tuple[str, str]]:
    """Break a bundle in ten ways; return the code of each fault with file and key."""
    change(bundle, "metadata", "authors", "")
    change(bundle, "metadata", "version", "3.0.0")
    change(bundle, "metadata", "medseg/labels/1", REMOVED)
    change(bundle, "train", "optimizer/lr", "@lrate")
    change(bundle, "common", "inferer/overlapp", 0.5)
    change(bundle, "train", "loss/_target_", "medseg.losses.DeepSupervisionLos")
    change(bundle, "evaluate", "validate#handlers/1/metrics", ["val_mean_dise"])
    change(bundle, "inference", "spacing_mm", [1.0, 2.0, 2.0])
    change(bundle, "inference", "keyz", ["image"])
    (bundle / "LICENSE").unlink()
    return {
        "empty-text": ("configs/metadata.json", "authors"),
        "version-not-in-changelog": ("configs/metadata.json", "version"),
        "label-missing": ("configs/metadata.json", "medseg#labels"),
        "unresolved-reference": ("configs/train.yaml", "optimizer#lr"),
        "unknown-argument": ("configs/common.yaml", "inferer#overlapp"),
        "unknown-target": ("configs/train.yaml", "loss#_target_"),
        "unknown-metric": ("configs/evaluate.yaml", "validate#handlers#1#metrics"),
        "preprocessing-differs": (
            "configs/common.yaml",
            "preprocessing_transforms#3#pixdim",
        ),
        "misspelt-key": ("configs/inference.yaml", "keyz"),
        "missing-file": ("LICENSE", ""),
    }


def test_ten_faults_are_reported_at_once_and_nothing_else(bundle: Path) -> None:
    wanted = _break(bundle)
    faults = check_bundle(bundle)
    assert {fault.code: (fault.file, fault.key) for fault in faults} == wanted
    assert len(faults) == len(wanted)


def test_a_file_that_does_not_parse_hides_no_fault_of_the_others(bundle: Path) -> None:
    (bundle / "configs" / "train.yaml").write_text("lr: [1\n")
    change(bundle, "evaluate", "validate#handlers/0", {"_target_": "NoSuchHandler"})
    change(bundle, "inference", "keyz", ["image"])
    codes = [fault.code for fault in check_bundle(bundle)]
    assert sorted(codes) == ["misspelt-key", "unknown-target", "unparsable"]


def test_json_holds_every_fault_and_the_exit_code_is_2(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = _break(bundle)
    code, text = _run(capsys, "bundle", "check", bundle, "--json")
    document = json.loads(text)
    assert code == 2
    assert (document["schema"], document["errors"], document["warnings"]) == (1, len(wanted), 0)
    assert document["error"]["code"] == "bundle-faults"
    fields = {"code", "severity", "file", "key", "value", "expected", "suggestion"}
    assert all(set(problem) == fields for problem in document["problems"])
    assert {problem["code"] for problem in document["problems"]} == set(wanted)


def test_each_fault_takes_ten_lines_at_most(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = _break(bundle)
    code, text = _run(capsys, "bundle", "check", bundle)
    *blocks, last = text.strip().split("\n\n")
    assert code == 2
    assert len(blocks) == len(wanted)
    assert last == "whole: 10 errors, 0 warnings"
    for block in blocks:
        assert len(block.splitlines()) <= LONGEST_FAULT
    for fault, (file, key) in wanted.items():
        (block,) = [one for one in blocks if f"[{fault}]" in one]
        assert f"{file}: {key}" in block if key else file in block


def test_a_whole_bundle_and_one_with_warnings_alone_end_with_0(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(capsys, "bundle", "check", bundle)[0] == 0
    (bundle / "models" / "model.pt").unlink()
    code, text = _run(capsys, "bundle", "check", bundle, "--json")
    document = json.loads(text)
    assert (code, document["error"]) == (0, None)
    assert [problem["code"] for problem in document["problems"]] == ["no-weights"]


def test_a_bundle_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = _run(capsys, "bundle", "check", "no-such-bundle", "--json")
    assert code == 2
    assert json.loads(text)["error"]["code"] == "unknown-bundle"


def test_a_check_works_offline_reads_no_data_and_changes_nothing(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a check must not use the network, and builds no dataset")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("monai.data.Dataset.__init__", refuse)
    monkeypatch.setattr("monai.engines.SupervisedTrainer.__init__", refuse)
    before = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    _break(bundle)
    before.pop(bundle / "LICENSE")
    changed = {path: path.stat().st_mtime_ns for path in bundle.rglob("*")}
    assert check_bundle(bundle)
    assert {path: path.stat().st_mtime_ns for path in bundle.rglob("*")} == changed


ODD = [None, 3, -1, 2.5, "", "x", "$", "$x", "@nope", "%", "%nope", [], [None], {}, {"a": 1}, True]


def _places(node: Any, above: str = "") -> list[str]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for name, value in pairs:
        key = f"{above}/{name}" if above else str(name)
        found += [key, *(_places(value, key) if isinstance(value, dict | list) else [])]
    return found


@pytest.mark.slow
def test_whatever_stands_somewhere_a_check_ends_with_faults_that_can_be_read(
    whole: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)
    documents = {**CONFIGS, "metadata": metadata()}
    places = [(stem, key) for stem, document in documents.items() for key in _places(document)]
    for number in range(300):
        broken = shutil.copytree(whole, tmp_path / str(number))
        (stem, key), value = draw.choice(places), draw.choice(ODD)
        change(broken, stem, key, value)
        for fault in check_bundle(broken):
            assert fault.file
            assert all((fault.value, fault.expected, fault.suggestion)), (stem, key, value)
            assert len(fault.lines()) <= LONGEST_FAULT
        shutil.rmtree(broken)


@pytest.mark.parametrize(
    ("setting", "meant"), [("learning_rate=1", "lr"), ("optimizer#weight_decai=1", "weight_decay")]
)
def test_set_with_an_unknown_key_is_wrong_usage_with_the_nearest_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, meant: str
) -> None:
    dataset = write_msd(tmp_path / "data")
    output = tmp_path / "out"
    arguments = ["--dataset", dataset, "-o", output, "--set", setting, "--json"]
    code, text = _run(capsys, "train", "spleen_ct", *arguments)
    error = json.loads(text)["error"]
    assert (code, error["code"]) == (2, "unknown-key")
    assert meant in error["message"]
    assert not output.exists()


@pytest.mark.parametrize("setting", ["epochs=2.5", "val_interval=0", "num_workers=-1"])
def test_set_with_a_value_that_cannot_be_is_wrong_usage_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    dataset = write_msd(tmp_path / "data")
    output = tmp_path / "out"
    arguments = ["--dataset", dataset, "-o", output, "--set", setting, "--json"]
    code, text = _run(capsys, "train", "spleen_ct", *arguments)
    assert (code, json.loads(text)["error"]["code"]) == (2, "bad-override")
    assert not output.exists()
