"""One network run by several libraries, each on windows of one size."""

import copy
import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.bundle.export_network import (
    INPUT,
    OUTPUT,
    Source,
    openvino_core,
    require_packages,
    write_network,
)
from medseg.errors import DependencyError
from medseg.inference.backends.store import ModelStore

log = logging.getLogger(__name__)

Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """A way to run a network.

    Attributes:
        library: `torch`, `channels_last` (torch with that memory layout), `compile`
            (torch.compile), `openvino`, `onnx`; on a GPU `cudagraph` and `tensorrt`.
        precision: `fp32`, `bf16` or `fp16`.
    """

    library: str
    precision: str

    def __str__(self) -> str:
        return f"{self.library}-{self.precision}"


@dataclass(frozen=True)
class Subject:
    """A network with its weights, and the windows it will get.

    Attributes:
        network: In evaluation mode, float32; on the device that windows are on.
        shape: (C, *spatial) of a window; voxels.
        key: Stands for the network with its weights: equal keys, equal outputs.
        store: Where converted networks are kept; None to convert anew.
        threads: That a library may use; its own choice when None.
        traced: (C, *spatial) of the window that a copy is converted with, where that is not
            `shape`: a copy that is kept can run windows of other sizes in some libraries.
    """

    network: torch.nn.Module
    shape: tuple[int, ...]
    key: str
    store: ModelStore | None = None
    threads: int | None = None
    traced: tuple[int, ...] | None = None

    def name(self, kind: Kind) -> str:
        """Return the name under which a conversion is kept.

        Args:
            kind: The way it is run.

        Returns:
            A word that changes with weights, window and the versions of what converts.
        """
        packages = {"openvino": ("openvino",), "onnx": ("onnx", "onnxscript")}
        versions = [f"{p}-{_version(p)}" for p in ("torch", *packages.get(kind.library, ()))]
        return "_".join([self.key, "x".join(map(str, self.traced or self.shape)), *versions])


def build(kind: Kind, subject: Subject) -> Network:
    """Make a network ready to run.

    Args:
        kind: The way to run it.
        subject: The network.

    Returns:
        Maps (B, C, *window) to (B, classes, *window); what it gives is valid until its next call.

    Raises:
        DependencyError: If a library is not installed.
    """
    return _BUILDERS[kind.library](subject, kind.precision)


def _torch(subject: Subject, precision: str) -> Network:
    return _autocast(subject.network, precision)


def _channels_last(subject: Subject, precision: str) -> Network:
    return _autocast(_laid_out(subject), precision, channels_last=True)


def _compile(subject: Subject, precision: str) -> Network:
    network = torch.compile(_laid_out(subject), dynamic=False)
    return _autocast(network, precision, channels_last=True)


def _laid_out(subject: Subject) -> torch.nn.Module:
    network = copy.deepcopy(subject.network)  # that of the reference stays as it is
    network.to(memory_format=_memory_format(len(subject.shape) + 1))
    return network


def _autocast(network: Callable[..., Any], precision: str, channels_last: bool = False) -> Network:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def run(inputs: torch.Tensor) -> torch.Tensor:
        if channels_last:
            inputs = inputs.contiguous(memory_format=_memory_format(inputs.ndim))
        with torch.autocast(inputs.device.type, dtype, enabled=dtype is not None):
            result: torch.Tensor = network(inputs)
        return result

    return run


def _memory_format(ndim: int) -> torch.memory_format:
    return torch.channels_last_3d if ndim == 5 else torch.channels_last


def _openvino(subject: Subject, precision: str) -> Network:
    require_packages("openvino")
    core = openvino_core()
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision),
        "PERFORMANCE_HINT": "LATENCY",
    }
    if subject.threads is not None:
        settings["INFERENCE_NUM_THREADS"] = subject.threads
    model = _converted(subject, Kind("openvino", precision), "model.xml", core.read_model)
    model.reshape([1, *subject.shape])
    request = core.compile_model(model, "CPU", settings).create_infer_request()

    def one(window: torch.Tensor) -> torch.Tensor:
        request.infer({0: window.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data)

    return _one_by_one(one)


def _onnx(subject: Subject, precision: str) -> Network:  # noqa: ARG001  # fp32 alone
    require_packages("onnx")
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if subject.threads is not None:
        options.intra_op_num_threads = subject.threads

    def load(path: Path) -> Any:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    return _session(_converted(subject, Kind("onnx", "fp32"), "model.onnx", load))


def _tensorrt(subject: Subject, precision: str) -> Network:
    require_tensorrt()
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    device = {"device_id": _device_of(subject.network).index or 0}
    settings: dict[str, Any] = {
        **device,
        "trt_fp16_enable": precision == "fp16",
        "trt_bf16_enable": precision == "bf16",
    }
    root = None if subject.store is None else subject.store.root
    if root is not None:  # TensorRT tries kernels for minutes, once
        settings |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(root / "trt")}

    def load(path: Path) -> Any:
        providers = [("TensorrtExecutionProvider", settings), ("CUDAExecutionProvider", device)]
        return onnxruntime.InferenceSession(str(path), options, providers=providers)

    return _session(_converted(subject, Kind("onnx", "fp32"), "model.onnx", load))


def _session(session: Any) -> Network:
    """Return a network of an ONNX Runtime session that reads and writes torch's own memory."""
    outputs = int(session.get_outputs()[0].shape[1])

    def one(window: torch.Tensor) -> torch.Tensor:
        window = window.contiguous()
        result = window.new_empty((1, outputs, *window.shape[2:]))
        binding = session.io_binding()
        for bind, name, tensor in (
            (binding.bind_input, INPUT, window),
            (binding.bind_output, OUTPUT, result),
        ):
            place = tensor.device.type, tensor.device.index or 0
            bind(name, *place, np.float32, tuple(tensor.shape), tensor.data_ptr())
        if window.device.type == "cuda":  # the session has a stream of its own
            torch.cuda.current_stream(window.device).synchronize()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return result

    return _one_by_one(one)


def require_tensorrt() -> None:
    """Raise unless ONNX Runtime is installed with TensorRT.

    Raises:
        DependencyError: If it is not.
    """
    require_packages("onnx")
    onnxruntime: Any = importlib.import_module("onnxruntime")
    if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
        msg = (
            "backend tensorrt must have ONNX Runtime with TensorRT, got"
            f" {', '.join(onnxruntime.get_available_providers())}. Run: pip uninstall onnxruntime;"
            " pip install onnxruntime-gpu tensorrt"
        )
        raise DependencyError(msg)


def _cudagraph(subject: Subject, precision: str) -> Network:
    """Record the network's kernels once, for one window, and play them again for each."""
    run = _autocast(subject.network, precision)
    device = _device_of(subject.network)
    window = torch.zeros((1, *subject.shape), device=device)
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.inference_mode():
        with torch.cuda.stream(stream):
            for _ in range(3):  # libraries settle their choices before they are recorded
                run(window)
        torch.cuda.current_stream(device).wait_stream(stream)
        with torch.cuda.graph(graph):
            maps = run(window)

    def one(inputs: torch.Tensor) -> torch.Tensor:
        window.copy_(inputs)
        graph.replay()
        return maps

    return _one_by_one(one)


def _device_of(network: torch.nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _converted(subject: Subject, kind: Kind, file: str, load: Callable[[Path], Any]) -> Any:
    """Load a converted network: the one that is kept, or one made now."""

    def write(folder: Path) -> None:
        network = subject.network
        if _device_of(network).type != "cpu":
            network = copy.deepcopy(network).cpu()
        channels, *size = subject.traced or subject.shape
        source = Source(network, channels, tuple(size), single=True)
        write_network(kind.library, source, folder / file)

    store = subject.store or ModelStore(None)
    name = f"{kind.library}_{subject.name(kind)}"
    try:
        with store.folder(name, write) as folder:
            return load(folder / file)
    except Exception:
        if not store.drop(name):
            raise
        log.info("a damaged copy of a network is converted anew", exc_info=True)
    with store.folder(name, write) as folder:
        return load(folder / file)


def _one_by_one(one: Network) -> Network:
    """Return a network for batches of a network for one window at a time."""

    def run(inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) == 1:
            return one(inputs)
        return torch.cat([one(window[None]).clone() for window in inputs])

    return run


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


_BUILDERS: dict[str, Callable[[Subject, str], Network]] = {
    "torch": _torch,
    "channels_last": _channels_last,
    "compile": _compile,
    "openvino": _openvino,
    "onnx": _onnx,
    "cudagraph": _cudagraph,
    "tensorrt": _tensorrt,
}
