"""Networks as TorchScript, ONNX and OpenVINO files, and such files run again."""

import importlib
import inspect
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from monai.data.torchscript_utils import save_net_with_metadata

from medseg._version import __version__
from medseg.bundle.export_parity import Answer
from medseg.errors import DependencyError, UsageError

INPUT, OUTPUT = "image", "pred"
"""Names of input and output, those of a bundle's metadata."""

SUFFIXES = {"torchscript": ".ts", "onnx": ".onnx", "openvino": ".xml"}
"""The file of each format; OpenVINO's weights lie beside it, in a `.bin`."""

PACKAGES = {
    "torchscript": ("torch",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
}
"""What writing and checking each format needs; each format but the first is an extra."""

AXES = "ijk"
"""Names of the spatial axes."""


@dataclass(frozen=True)
class Source:
    """A network to be written.

    Attributes:
        network: With its weights, in evaluation mode, float32, on the CPU.
        channels: Of the image.
        shape: Spatial shape of the input; voxels.
        dynamic: Whether the files take other spatial shapes; axes of one voxel stay so, as in
            networks that work slice by slice.
        opset: Of ONNX; that of the installed exporter when left out.
        metadata: Of the bundle, stored in the file.
        config: Of inference, stored in the file where the format has room for it.
        single: An OpenVINO file takes one image at a time, and is converted in half the memory.
    """

    network: torch.nn.Module
    channels: int
    shape: tuple[int, ...]
    dynamic: bool = False
    opset: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    single: bool = False

    @property
    def free_axes(self) -> tuple[int, ...]:
        """Spatial axes, counted from 0, along which files take other sizes."""
        return free_axes(self.shape) if self.dynamic else ()

    def example(self) -> torch.Tensor:
        """Return a batch of two: an exporter takes a batch of one for a constant."""
        return torch.zeros((2, self.channels, *self.shape))


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        dynamic: Whether it is meant to take other spatial shapes.
        opset: Of ONNX.
        method: How TorchScript was made: `script` or `trace`.
    """

    dynamic: bool
    opset: int | None = None
    method: str | None = None


def free_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of a dynamic file that take other sizes.

    Args:
        shape: Spatial shape of the input; voxels.

    Returns:
        Those of more than one voxel, counted from 0.

    Examples:
        >>> free_axes((56, 48, 1))
        (0, 1)
    """
    return tuple(axis for axis, size in enumerate(shape) if size > 1)


def require_packages(name: str) -> None:
    """Raise unless what a format needs is installed.

    Args:
        name: Of the format.

    Raises:
        UsageError: If there is no such format.
        DependencyError: If a package is missing.
    """
    if name not in SUFFIXES:
        msg = f"format must be among {', '.join(SUFFIXES)}, got {name!r}."
        raise UsageError(msg)
    missing = [package for package in PACKAGES[name] if find_spec(package) is None]
    if missing:
        msg = (
            f"format {name} must have {', '.join(PACKAGES[name])} installed, got no"
            f" {', '.join(missing)}. Run: pip install 'medseg[{name}]'"
        )
        raise DependencyError(msg)


@cache
def openvino_core() -> Any:
    """Return OpenVINO's core, one for the process.

    Of several, those that are freed in another order than they were made leave the thread with an
    alternate signal stack that is no more: the next signal would end the process.

    Returns:
        The core.
    """
    return importlib.import_module("openvino").Core()


def versions_of(name: str) -> dict[str, str]:
    """Return the versions of what wrote and checked a file.

    Args:
        name: Of the format.

    Returns:
        Package to version.
    """
    packages = dict.fromkeys(("torch", "monai", *PACKAGES[name]))
    return {"medseg": __version__, **{package: version(package) for package in packages}}


def write_network(name: str, source: Source, path: Path) -> Written:
    """Write a network in one format.

    Args:
        name: Of the format.
        source: The network.
        path: File to write; OpenVINO writes a `.bin` beside it.

    Returns:
        What was written.
    """
    with _quiet(), torch.no_grad():
        return _WRITERS[name](source, path)


def open_network(name: str, path: Path) -> Answer:
    """Load a file that was written, to be run on the CPU in float32.

    Args:
        name: Of the format.
        path: The file.

    Returns:
        Takes (B, C, *spatial), gives (B, classes, *spatial).
    """
    with _quiet():
        return _READERS[name](path)


def _write_torchscript(source: Source, path: Path) -> Written:
    try:
        module: Any = torch.jit.script(source.network)
        method = "script"
    except Exception:  # noqa: BLE001  # whatever the compiler does not know
        module = _traced(source)
        method = "trace"
    extra = {"inference.json": json.dumps(source.config).encode()} if source.config else None
    save_net_with_metadata(
        module, str(path), include_config_vals=False, meta_values=source.metadata,
        more_extra_files=extra,
    )  # fmt: skip
    return Written(dynamic=source.dynamic or method == "script", method=method)


def _traced(source: Source) -> Any:
    return torch.jit.trace(  # type: ignore[no-untyped-call]
        source.network, source.example(), check_trace=False
    )


def _write_onnx(source: Source, path: Path) -> Written:
    onnx = importlib.import_module("onnx")
    dynamic = {0: "batch"}
    dynamic |= {2 + axis: AXES[axis] for axis in source.free_axes}
    torch.onnx.export(
        source.network,
        (source.example(),),
        str(path),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=(dynamic,),
        opset_version=source.opset,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    model = onnx.load(str(path))
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        del part.metadata_props[:]  # stack traces with paths of this machine
    entry = model.metadata_props.add()
    entry.key, entry.value = "metadata.json", json.dumps(source.metadata)
    onnx.save(model, str(path))
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return Written(dynamic=source.dynamic, opset=int(opset))


def _write_openvino(source: Source, path: Path) -> Written:
    openvino = importlib.import_module("openvino")
    frontends = importlib.import_module("openvino.frontend")
    decoders = importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    # not openvino.convert_model, which reports its use over the network (openvino_telemetry)
    manager = frontends.FrontEndManager()
    frontend = manager.load_by_framework("pytorch")
    make = decoders.TorchScriptPythonDecoder
    # whether the copy answers as the network does is seen later, not by running it twice more
    unchecked = {"trace_kwargs": {"check_trace": False}}
    options = unchecked if "trace_kwargs" in inspect.signature(make).parameters else {}
    example = source.example()[: 1 if source.single else 2]
    decoder = make(source.network, example_input=example, **options)
    model = frontend.convert(frontend.load(decoder))
    free = source.free_axes
    spatial = [-1 if axis in free else size for axis, size in enumerate(source.shape)]
    batch = 1 if source.single else -1
    model.reshape(openvino.PartialShape([batch, source.channels, *spatial]))
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    model.set_rt_info(json.dumps(source.metadata), ["metadata.json"])
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return Written(dynamic=source.dynamic)


def _read_torchscript(path: Path) -> Answer:
    module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]

    def answer(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            output: torch.Tensor = module(image)
        return output

    return answer


def _read_onnx(path: Path) -> Answer:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])


def _read_openvino(path: Path) -> Answer:
    core = openvino_core()
    # left alone, processors with bfloat16 compute in it
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(str(path)), "CPU", hint)
    return lambda image: torch.from_numpy(compiled({INPUT: image.numpy()})[OUTPUT].copy())


_WRITERS: dict[str, Callable[[Source, Path], Written]] = {
    "torchscript": _write_torchscript,
    "onnx": _write_onnx,
    "openvino": _write_openvino,
}
_READERS: dict[str, Callable[[Path], Answer]] = {
    "torchscript": _read_torchscript,
    "onnx": _read_onnx,
    "openvino": _read_openvino,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' notes from the screen: what a file is worth its parity says."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
