"""What the README tells a newcomer to type is typed here."""

import os
import re
import shlex
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest

from medseg.cli.main import call
from medseg.data.phantom_study import write_phantom_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
LINES = [line for block in SHELL for line in block.splitlines() if line]
COMMANDS = [line for line in LINES if line.startswith("medseg ")]
WHOLE_WAY = [line for line in COMMANDS if line.split()[1] in ("segment", "evaluate")]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder that the demo leaves behind."""
    folder = tmp_path_factory.mktemp("readme")
    write_phantom_study(folder / "demo" / "phantom", seed=11)
    return folder


@pytest.fixture
def inside(workplace: Path) -> Iterator[Path]:
    """Work in the folder that the demo leaves behind."""
    before = Path.cwd()
    os.chdir(workplace)
    yield workplace
    os.chdir(before)


def run(line: str) -> int:
    """Run a command line the way a shell would."""
    words = shlex.split(line)[1:]
    return call([name for word in words for name in (sorted(glob(word)) or [word])])  # noqa: PTH207


@pytest.mark.parametrize("line", [line for line in COMMANDS if line not in WHOLE_WAY])
@pytest.mark.usefixtures("inside")
def test_a_command_works(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(line)
    streams = capsys.readouterr()
    assert code == 0 or (line == "medseg doctor" and "missing" in streams.out), streams.err


@pytest.mark.slow
def test_the_whole_way_works(inside: Path) -> None:
    assert len(WHOLE_WAY) == 2
    for line in WHOLE_WAY:
        assert run(line) == 0, line
    assert list(inside.glob("results/*/segmentation.nii.gz"))
    assert (inside / "scores" / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("inside")
def test_the_python_example_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert PYTHON
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), {})
    assert "voxels" in capsys.readouterr().out


def test_the_scripts_are_there_and_can_be_run() -> None:
    names = {line.split()[0] for line in LINES if line.startswith("scripts/")}
    assert names == {"scripts/demo.sh", "scripts/test.sh"}
    assert all(os.access(ROOT / name, os.X_OK) for name in (*names, ".ci/run"))


def test_every_code_in_the_readme_is_one_that_the_package_gives() -> None:
    table = README.split("## What is refused, and why")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    codes = {code for row in rows for code in re.findall(r"`([a-z-]+)`", row)}
    assert len(codes) > 15
    sources = "".join(path.read_text() for path in (ROOT / "medseg").rglob("*.py"))
    assert [code for code in sorted(codes) if f'"{code}"' not in sources] == []


def test_every_command_stands_in_the_table() -> None:
    for name in ("segment", "inspect", "convert", "evaluate", "bundle", "doctor"):
        assert f"| `medseg {name}" in README


@pytest.mark.parametrize(
    "name", ["scripts/constraints.txt", "scripts/venv.sh", "scripts/test.sh", ".ci/run"]
)
def test_no_package_index_is_named(name: str) -> None:
    assert "://" not in (ROOT / name).read_text()
    assert "--index-url" not in (ROOT / name).read_text()


def test_every_pin_is_one_plain_version() -> None:
    lines = (ROOT / "scripts" / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin)] == []
    assert not {pin.split("==")[0] for pin in pins} & {"triton", "pylibjpeg-libjpeg"}
