"""Make programs: functions that run a model's graph with PyTorch, CUDA graphs, torch.compile, ONNX Runtime or OpenVINO."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor, nn

from zoo.common.choices import Precision
from zoo.inference.deployment import onednn
from zoo.inference.deployment.graph import Graph
from zoo.inference.deployment.resizes import spread_borders

__all__ = [
    "PRECISIONS",
    "RUNTIMES",
    "Program",
    "autocast",
    "has_bfloat16",
    "make_program",
    "onnxruntime_program",
    "openvino_program",
    "original_program",
    "quiet_exporter",
    "recorded_program",
    "suits",
    "why_not",
]

Program: TypeAlias = Callable[[Tensor], Tensor]

RUNTIMES = ("eager", "cudagraphs", "compile", "onnxruntime", "openvino")
PRECISIONS: tuple[str, ...] = get_args(Precision)

WARM_UP = 3
"""The number of calls before a CUDA graph is recorded."""

_PACKAGES = {"onnxruntime": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino", "onnx", "onnxscript")}
_DEVICES = {"cudagraphs": "cuda", "onnxruntime": "cpu", "openvino": "cpu"}
_INSTALL = "pip install 'segmentation-zoo[deploy]'"


def suits(runtime: str, device: torch.device) -> bool:
    """Return whether a runtime supports this kind of device."""
    return _DEVICES.get(runtime, device.type) == device.type


def why_not(runtime: str, precision: str, device: torch.device) -> str | None:
    """Return the reason why a runtime cannot be used here, and the remedy; None if it can be used."""
    missing = [package for package in _PACKAGES.get(runtime, ()) if find_spec(package) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: {_INSTALL}"
    if not suits(runtime, device):
        return f"it is used on {_DEVICES[runtime]} devices only; the model is on {device}"
    if runtime == "onnxruntime" and precision == "bfloat16":
        return "its convolutions do not support bfloat16 on the CPU"
    return None


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device's processor multiplies in bfloat16 without conversion to float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)


def autocast(image: Tensor, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return a context manager for running a model in a precision: autocast for bfloat16, no change for float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(image.device.type if image.device.type != "meta" else "cpu", torch.bfloat16)


def original_program(model: nn.Module, precision: str = "float32") -> Program:
    """Return a function that runs an unchanged model. For bfloat16, the model runs under autocast."""

    def program(image: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(image, precision):
            output: Tensor = model(image)
        return output

    return program


def make_program(graph: Graph, image: Tensor, runtime: str, precision: str) -> Program:
    """Return a function that runs the graph on images of this shape, type and device.

    Raises:
        Exception: any error that the runtime raises for a graph that it does not support.
    """
    if runtime in ("eager", "cudagraphs", "compile"):
        return _torch_program(graph, image, runtime, precision)
    model = _export_onnx(graph, image)
    return onnxruntime_program(model) if runtime == "onnxruntime" else openvino_program(model, precision)


def _torch_program(graph: Graph, image: Tensor, runtime: str, precision: str) -> Program:
    device = image.device
    graph = graph.copy()
    graph.to_channels_last()  # the fastest layout for oneDNN, and for cuDNN in TF32 and bfloat16
    is_cast = precision == "bfloat16" and _cast_to_bfloat16(graph, image)
    if runtime == "eager" and precision == "float32" and onednn.is_available(device):
        with torch.no_grad():
            onednn.fuse_activations(graph)
    run: Callable[..., Any] = graph.module
    if runtime == "compile":
        run = torch.compile(run, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)
    is_reused = runtime == "compile" and device.type == "cuda"  # CUDA graphs write each result into the same memory

    def program(image: Tensor) -> Tensor:
        with torch.inference_mode(), autocast(image, "float32" if is_cast else precision):
            output: Tensor = run(image.contiguous(memory_format=torch.channels_last))
        output = output.to(image.dtype)
        return output.clone() if is_reused else output

    return _Recorded(program, image.contiguous(memory_format=torch.channels_last)) if runtime == "cudagraphs" else program


def recorded_program(model: nn.Module, image: Tensor, precision: str = "float32") -> Program:
    """Return a function that replays a model's kernels as one CUDA graph. In bfloat16, the weights are cast once.

    The memory format of the model and the image is not changed.
    """
    if precision == "float32":
        return _Recorded(original_program(model), image)
    cast = copy.deepcopy(model).to(torch.bfloat16)

    def program(image: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = cast(image.to(torch.bfloat16))
        return output.to(image.dtype)

    try:
        program(image)
    except RuntimeError:  # an operation received two types; autocast is used instead, which casts its inputs
        return _Recorded(original_program(model, precision), image)
    return _Recorded(program, image)


def _cast_to_bfloat16(graph: Graph, image: Tensor) -> bool:
    """Cast the graph and its weights to bfloat16. If an operation would mix types, change nothing and return False."""
    cast = graph.copy()
    cast.to_type(torch.bfloat16)
    try:
        with torch.inference_mode():
            cast(image)
    except RuntimeError:  # an operation received two types; autocast is used instead, which casts its inputs
        return False
    graph.to_type(torch.bfloat16)
    return True


class _Recorded:
    """A program whose kernels were recorded as a CUDA graph, and are launched together.

    A CUDA graph contains the addresses of the tensors that it reads, but does not keep the tensors alive. This object
    therefore keeps a reference to the program and its weights.
    """

    def __init__(self, run: Program, image: Tensor) -> None:
        self._run = run
        self._turn = threading.Lock()  # each call reads and writes the same memory
        with torch.cuda.device(image.device):
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._image = image.clone()
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # allocations and compilations of the first calls must not be recorded
                for _ in range(WARM_UP):
                    run(self._image)
            torch.cuda.current_stream().wait_stream(side)
            self._recording = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._recording):
                self._output = run(self._image)

    def __call__(self, image: Tensor) -> Tensor:
        with self._turn, torch.cuda.device(image.device), torch.inference_mode():
            torch.cuda.current_stream().wait_event(self._done)  # the previous call may have run on another stream
            self._image.copy_(image)
            self._recording.replay()
            output = self._output.clone()
            self._done.record()
        return output


def _export_onnx(graph: Graph, image: Tensor) -> bytes:
    graph = graph.copy()
    with torch.no_grad():
        spread_borders(graph)
    with quiet_exporter():
        exported = torch.onnx.export(graph.module, (image,), dynamo=True, verbose=False)
    assert exported is not None
    serialized: bytes = exported.model_proto.SerializeToString()
    return serialized


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence PyTorch's exporters, and disable gradients."""
    silent = logging.getLogger("torch.onnx")
    level = silent.level
    silent.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        silent.setLevel(level)


def onnxruntime_program(model: bytes | str) -> Program:
    """Return a function that uses ONNX Runtime on the CPU to run an ONNX model, which is passed as bytes or as a path."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (input,) = session.get_inputs()

    def program(image: Tensor) -> Tensor:
        (output,) = session.run(None, {input.name: image.detach().contiguous().numpy()})
        return torch.from_numpy(output)

    return program


def openvino_program(model: bytes | str, precision: str = "float32") -> Program:
    """Return a function that uses OpenVINO to run an ONNX model (as bytes or as a path) or an OpenVINO file (as a path)."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    core = openvino.Core()
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    turn = threading.Lock()  # a request handles one call at a time, and writes each result into the same memory

    def program(image: Tensor) -> Tensor:
        with turn:
            outputs = request.infer([image.detach().contiguous().numpy()], share_inputs=True)
            return torch.from_numpy(next(iter(outputs.values())).copy())

    return program
