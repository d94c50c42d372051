"""The public names exist, and importing the package is light."""

import subprocess
import sys

import pytest

import medseg


@pytest.mark.parametrize("name", medseg.__all__)
def test_every_public_name_can_be_had(name) -> None:
    assert getattr(medseg, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = medseg.nothing


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = (
        "import sys, medseg;"
        "heavy = {'torch', 'monai', 'pydicom', 'nibabel', 'SimpleITK', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
