"""What is installed, what this machine has, what is missing and how to add it."""

import base64
import json
import platform
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from medseg._version import __version__
from medseg.errors import MedsegError
from medseg.workflows.machine import (
    describe_cpu,
    describe_devices,
    describe_memory,
    describe_threads,
)

SCHEMA = 1

EXTRAS = {
    "openvino": "networks on Intel processors, faster",
    "onnx": "export to ONNX, and running it",
    "natural": "2D encoders trained on natural images",
    "nnunet": "networks of imported nnU-Net folders",
    "ray": "training on several machines",
}
"""Optional extras and what each is for; `all` and `dev` are made of them."""

LISTS = ("decoders", "bundles", "missing")

REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)")
EXTRA_MARKER = re.compile(r"""extra\s*==\s*['"]([A-Za-z0-9._-]+)['"]""")


@dataclass(frozen=True)
class DoctorOptions:
    """What to look at.

    Attributes:
        output: Folder that results will be written to; it need not exist.
    """

    output: Path = Path()


@dataclass(frozen=True)
class DoctorResult:
    """What was found.

    Attributes:
        document: The JSON document.
    """

    document: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0, or 1 when a required package is missing, or something does not work."""
        required = any(item["required"] for item in self.document["missing"])
        decoders = all(item["works"] for item in self.document["decoders"])
        return int(required or not decoders or bool(self.document["problems"]))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return self.document


def doctor(
    options: DoctorOptions, *, progress: Callable[[int, int, str], None] | None = None
) -> DoctorResult:
    """Examine the installation and the machine.

    Args:
        options: What to look at.
        progress: Called with the steps done, their total, and the step.

    Returns:
        What was found.
    """
    steps: dict[str, Callable[[], Any]] = {
        "software": _software,
        "devices": describe_devices,
        "cpu": describe_cpu,
        "threads": describe_threads,
        "memory": lambda: describe_memory(options.output),
        "decoders": try_decoders,
        "bundles": _bundles,
        "missing": missing,
    }
    document: dict[str, Any] = {"schema": SCHEMA}
    problems: list[dict[str, str]] = []
    for done, (name, step) in enumerate(steps.items()):
        if progress is not None:
            progress(done, len(steps), name)
        try:
            document[name] = step()
        except Exception as error:  # noqa: BLE001 -- a broken part is what was asked about
            document[name] = [] if name in LISTS else {}
            problems.append({"step": name, "message": f"{type(error).__name__}: {error}"})
    return DoctorResult(document | {"problems": problems})


def _software() -> dict[str, str | None]:
    software: dict[str, str | None] = {
        "medseg": __version__,
        "python": platform.python_version(),
        "python_executable": sys.executable,
    }
    required, optional = _requirements()
    names = [*required, *(name for names in optional.values() for name in names)]
    return software | {name: _installed(name) for name in names}


def _requirements() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return the required packages, and those of each extra: name to name with versions."""
    required: dict[str, str] = {}
    optional: dict[str, dict[str, str]] = {extra: {} for extra in EXTRAS}
    for line in requires("medseg") or () if _installed("medseg") else ():
        match = REQUIREMENT.match(line)
        if match is None or match[1] == "medseg":
            continue
        extra = EXTRA_MARKER.search(line)
        wanted = line.partition(";")[0].strip()
        if extra is None:
            required[match[1]] = wanted
        elif extra[1] in optional:
            optional[extra[1]][match[1]] = wanted
    return required, optional


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing() -> list[dict[str, Any]]:
    """List what is not installed, each with the command that adds it.

    Returns:
        One entry a required package or extra: what, what for, command, whether it is required.
    """
    if _installed("medseg") is None:
        command = f"{sys.executable} -m pip install -e ."
        text = "medseg's own metadata: it runs from a folder without being installed"
        return [{"what": "medseg", "for": text, "command": command, "required": True}]
    required, optional = _requirements()
    entries = [
        {
            "what": name,
            "for": "needed by medseg",
            "command": f"{sys.executable} -m pip install '{wanted}'",
            "required": True,
        }
        for name, wanted in required.items()
        if _installed(name) is None
    ]
    for extra, names in optional.items():
        absent = {name: wanted for name, wanted in names.items() if _installed(name) is None}
        if absent:
            # Named one by one: an index may have another package under the name medseg.
            wanted_all = " ".join(f"'{wanted}'" for wanted in absent.values())
            entries.append(
                {
                    "what": f"{', '.join(absent)} (extra {extra})",
                    "for": EXTRAS[extra],
                    "command": f"{sys.executable} -m pip install {wanted_all}",
                    "required": False,
                }
            )
    return entries


def _bundles() -> list[dict[str, Any]]:
    from medseg.workflows.bundles import describe_bundles  # noqa: PLC0415

    return [
        {
            "name": bundle["name"],
            "root": bundle["root"],
            "has_weights": bundle.get("has_weights", False),
            "error": bundle["error"],
        }
        for bundle in describe_bundles().bundles
    ]


def try_decoders() -> list[dict[str, Any]]:
    """Decode a small image in every transfer syntax, the way `segment` would.

    Returns:
        One entry a transfer syntax: name, UID, whether it works, and what went wrong.
    """
    text = files("medseg.workflows").joinpath("decoder_samples.json").read_text(encoding="utf-8")
    document = json.loads(text)
    entries = []
    with TemporaryDirectory(prefix="medseg-") as folder:
        for sample in document["samples"]:
            expected = np.frombuffer(_unpacked(document["pictures"][str(sample["bits"])]), "<u2")
            path = Path(folder) / f"{sample['transfer_syntax_uid']}.dcm"
            path.write_bytes(_unpacked(sample["dicom"]))
            message = _decoding_error(path, expected, sample["tolerance"])
            entries.append(
                {
                    "name": sample["name"],
                    "transfer_syntax_uid": sample["transfer_syntax_uid"],
                    "works": not message,
                    "message": message,
                }
            )
    return entries


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def _decoding_error(path: Path, expected: np.ndarray[Any, Any], tolerance: int) -> str:
    from medseg.io.dicom import find_series, read_volume  # noqa: PLC0415

    try:
        scan = find_series(path)
        volumes = [volume for series in scan.series for volume in series.volumes]
        if not volumes:
            return "; ".join(item.message for item in scan.rejected) or "no image found"
        array = read_volume(volumes[0]).array
    except (MedsegError, ImportError) as error:
        return f"{error}"
    off = float(np.abs(array.ravel().astype(np.float64) - expected).max())
    return "" if off <= tolerance else f"decoded values are off by up to {off:g}"
