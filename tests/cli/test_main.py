import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from medseg._version import __version__
from medseg.cli.main import call
from medseg.workflows.shard import Shard
from medseg.workflows.watch import Watch

COMMANDS = (
    ["segment"], ["inspect"], ["convert"], ["evaluate"], ["doctor"], ["bundle", "list"],
    ["bundle", "show"], ["bundle", "export"], ["bundle", "import-nnunet"],
)  # fmt: skip
HEAVY = ("torch", "monai", "numpy", "pydicom", "nibabel", "SimpleITK", "itk", "scipy")


@pytest.mark.parametrize("arguments", [[], *COMMANDS], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; from medseg.cli.main import call; code = call({[*arguments, '--help']!r});"
        f"assert code == 0; sys.exit(str([n for n in {HEAVY!r} if n in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert " ".join(["Usage: medseg", *arguments]) in done.stdout


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_speaks_json(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*arguments, "--no-such-option", "--json"]) == 2
    streams = capsys.readouterr()
    document = json.loads(streams.out)
    assert document["schema"] == 1
    assert document["error"]["code"] == "usage"
    assert "--no-such-option" in document["error"]["message"]
    assert streams.err.count("\n") <= 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["segment", "--json"],
        ["segment", "x", "-o", "y", "--json"],
        ["segment", "x", "-b", "b", "-o", "y", "--frame", "one", "--json"],
        ["segment", "x", "-b", "b", "-o", "y", "--frame", "-1", "--json"],
        ["convert", "x", "--json"],
        ["no-such-command", "--json"],
        ["bundle", "--json"],
        ["--json"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_a_document(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(arguments) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def test_wrong_usage_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["inspect"]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "PATH" in streams.err
    assert "--help" in streams.err
    assert "Traceback" not in streams.err


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([]) == 2
    assert "Usage: medseg" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--version"]) == 0
    assert capsys.readouterr().out == f"medseg {__version__}\n"


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "medseg", "--version"]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == (
        f"medseg {__version__}\n"
    )


@pytest.mark.parametrize("loaded", ["sys", "torch"])
def test_main_leaves_with_the_exit_code_and_all_is_said(loaded: str) -> None:
    code = (
        f"import sys, {loaded}; sys.argv = ['medseg', 'inspect', '/no/such/path', '--json'];"
        "from medseg.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "not-found"


def test_an_interrupt_while_parsing_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["medseg.cli.main"], "app", interrupted)
    assert call(["inspect", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


CASE = {
    "case": "CT_3_0a1b2c3d",
    "status": "done",
    "error": None,
    "warnings": [{"code": "slice-jitter", "message": "rounding"}],
    "outputs": {"nifti": "out/CT_3_0a1b2c3d/segmentation.nii.gz"},
    "labels": [
        {"index": 1, "name": "organ", "voxels": 10, "volume_ml": 1.25},
        {"index": 2, "name": "tumour", "voxels": 0, "volume_ml": 0.0},
    ],
}
FAILED = {
    "case": "b", "status": "failed", "error": {"code": "truncated", "message": "cut short."},
    "warnings": [], "outputs": {}, "labels": [],
}  # fmt: skip


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put a workflow in place that records its options and reports two cases."""
    seen: dict[str, Any] = {}

    def segment(options: SimpleNamespace, *, progress: Any, own_process: bool) -> SimpleNamespace:
        assert not own_process
        sys.stdout.write("a library talks")
        progress(1, 2, "segmenting")
        seen.update(vars(options))
        document = {"schema": 1, "bundle": {}, "cases": [CASE, FAILED]}
        return SimpleNamespace(as_json=lambda: document, exit_code=1)

    module = ModuleType("medseg.workflows.segment")
    module.__dict__.update(SegmentOptions=SimpleNamespace, segment=segment)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_segment_passes_every_option_on(segmented: dict[str, Any]) -> None:
    arguments = (
        "segment a b -b liver -o out --outputs nifti,seg --labels organ --device cpu"
        " --backend torch --overlap 0.25 --tta --resume --overwrite --series all --frame 3"
        " --resample --regrid --precision fp32 --memory-gb 4 --no-skip-empty --quiet"
        " --shard 2/8 --watch --settle 60 --poll 1 --watch-idle 9"
        " --deidentify --mesh-format ply --mesh-smoothing 3 --trust"
    )
    assert call(arguments.split()) == 1
    assert [str(path) for path in segmented.pop("inputs")] == ["a", "b"]
    assert str(segmented.pop("output")) == "out"
    assert segmented == {
        "bundle": ("liver",), "outputs": ("nifti", "seg"), "labels": ("organ",), "device": "cpu",
        "backend": "torch", "overlap": 0.25, "tta": True, "resume": True, "overwrite": True,
        "series": "all", "frame": 3, "resample": True, "regrid": True, "precision": "fp32",
        "memory_gb": 4.0, "skip_empty": False, "deidentify": True,
        "shard": Shard(2, 8), "watch": Watch(60.0, 1.0, 9.0),
        "mesh_format": "ply", "mesh_smoothing": 3, "trust": True,
    }  # fmt: skip


def test_segment_prints_the_document_alone(
    segmented: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["segment", "a", "-b", "liver", "-o", "out", "--json"]) == 1
    streams = capsys.readouterr()
    assert [case["case"] for case in json.loads(streams.out)["cases"]] == ["CT_3_0a1b2c3d", "b"]
    assert "a library talks" in streams.err
    assert segmented["outputs"] is None  # the workflow knows which are the defaults of a case


def test_segment_shows_masks_warnings_and_errors(
    segmented: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["segment", "a", "-b", "liver", "-o", "out"]) == 1
    assert segmented["series"] is None
    streams = capsys.readouterr()
    assert "out/CT_3_0a1b2c3d/segmentation.nii.gz\n" in streams.out
    assert "organ 1.2 ml" in streams.out
    assert "tumour" not in streams.out
    assert "CT_3_0a1b2c3d: warning: rounding" in streams.err
    assert "b: error: cut short. [truncated]" in streams.err
