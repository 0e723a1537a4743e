"""`deploy`: make a model faster for inference, within an error that the user accepts."""

from __future__ import annotations

import copy
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any, Self

import torch
from torch import Tensor, nn

from zoo.common.foreign_code import no_exits
from zoo.common.statistics import estimate_ratio
from zoo.errors import InputError, OptionError, ZooError
from zoo.inference.deployment.checked import Way, checked_program, describe_failure
from zoo.inference.deployment.choice import (
    ORIGINAL,
    Candidate,
    select_runtimes,
    time_programs,
    try_candidates,
)
from zoo.inference.deployment.graph import Graph, capture
from zoo.inference.deployment.passes import PassResult, apply_and_measure, check_passes
from zoo.inference.deployment.report import DeployReport
from zoo.inference.reference import reference_of, why_not_comparable
from zoo.inference.runtimes import Program, original_program
from zoo.model.model import SegmentationModel

__all__ = ["Deployed", "deploy"]

DEFAULT_SIZE = (256, 256)
SHAPES_KEPT = 8
"""The maximum number of programs (see `Deployed`) that are kept, one for each image shape.

The least recently used program is dropped first."""


class Deployed(nn.Module):
    """The result of `zoo.deploy`, a model for inference: (N, in_channels, H, W) -> (N, classes, H, W), in inference mode.

    The first image of each shape takes longer: a program (a function that runs the model) is made for that shape and compared
    with the original, which takes seconds, or minutes with `torch.compile`. Later images of the shape use the same program. If
    the program cannot be made or its error is too large, the original is run for that shape. The memory format of the logits
    may differ from that of the original's logits.

    Attributes:
        report: the runtimes that were tried on the example, with their times and errors, and the effect of each pass.
        original: a copy of the given model, in evaluation mode.
        fallbacks: the shapes for which the original is run instead of a program, each with the reason.
    """

    def __init__(self, original: nn.Module, report: DeployReport, passes: tuple[str, ...]) -> None:
        super().__init__()
        self.original = original
        self.report = report
        self.fallbacks: dict[tuple[int, ...], str] = {}
        self._passes = passes
        self._programs: OrderedDict[Any, Program] = OrderedDict()
        self._lock = threading.Lock()
        super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of each pixel as an inference tensor. If the original refuses the image, its error is raised."""
        key = _key(image)
        with self._lock:
            program = self._programs.get(key)
            if program is None:
                program = self._keep(key, self._make_program(image))
            self._programs.move_to_end(key)
        return program(image)

    def train(self, mode: bool = True) -> Self:
        """Raise a ZooError for train mode, since a deployed model runs programs that are made for inference only."""
        if mode:
            raise ZooError("A deployed model cannot be trained. Train the original model, and deploy it again.")
        return super().train(False)

    def extra_repr(self) -> str:
        """Return the chosen runtime and the tolerance."""
        return f"{self.report.chosen}, tolerance={self.report.tolerance:g}"

    def __getstate__(self) -> dict[str, Any]:
        raise ZooError("A deployed model cannot be saved, since it is specific to this machine. Save the original model.")

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        with self._lock:  # programs are made for one device and type
            self._programs.clear()
            self.fallbacks.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _keep(self, key: Any, program: Program) -> Program:
        self._programs[key] = program
        while len(self._programs) > SHAPES_KEPT:
            self._programs.popitem(last=False)
        return program

    def _make_program(self, image: Tensor) -> Program:
        """Return a function that runs the model on images of a new shape or type, with the runtime chosen for the example."""
        original, chosen = original_program(self.original), self.report.chosen
        reference = reference_of(self.original, image, self.report.tolerance)
        if chosen.runtime == ORIGINAL:
            return original
        way = Way(runtime=chosen.runtime, precision=chosen.precision, passes=self._passes)
        try:
            return checked_program(self.original, image, reference, way)
        except Exception as cause:  # noqa: BLE001 - another library's error is recorded, and the original runs instead
            self.fallbacks[tuple(image.shape)] = describe_failure(cause)
            return original


@no_exits("zoo.deploy")
def deploy(
    model: nn.Module,
    *,
    example: Tensor | None = None,
    tolerance: float = 1e-4,
    runtime: str | Sequence[str] = "auto",
    passes: Sequence[str] | None = None,
) -> Deployed:
    """Return a copy of a model for inference that runs as fast as possible on this machine within an accepted error.

    `torch.export` captures the model as a graph, and passes rewrite the graph without changing its output beyond rounding. Each
    installed runtime then runs the graph on the example, and the fastest one whose error is accepted is chosen. If no such
    runtime is faster than the original model, the original is used.

    Args:
        model: any module that accepts one image tensor and returns one tensor. It is copied, not changed.
        example: images like those to predict, (N, in_channels, H, W). For a model that `zoo.build` returned, the default is
            one random image of 256x256, or of the image size that its encoder is made for.
        tolerance: the accepted relative error max|a - b| / max|b|, where b is the model's own output in float32. If it is 1e-2
            or more, bfloat16 is also tried, provided that the processor supports it. On CUDA devices PyTorch computes
            convolutions in TF32 by default, so the original itself has an error. If three times this error is larger than
            `tolerance`, errors of up to three times this error are accepted.
        runtime: "auto", or one or more of "eager", "cudagraphs", "compile" (`torch.compile`), "onnxruntime", "openvino".
        passes: the names of the passes to apply (see `zoo.inference.deployment.PASSES`); None for all.

    Returns:
        A module for images of any size that the model accepts. `print(zoo.explain(deployed))` shows the report.

    Raises:
        OptionError: a runtime or pass is unknown, or the tolerance is not a finite number above 0.
        InputError: the model needs an example but none was passed, the example does not fit the model, or the model does
            not return one tensor.
        PluginError: code of the model tried to exit the program.
        ZooError: the model itself returns NaN or infinity for the example.

    Example:
        >>> fast = zoo.deploy(model, example=torch.randn(1, 3, 512, 512))
        >>> logits = fast(image)
    """
    if not isinstance(tolerance, int | float) or not 0 < tolerance < math.inf:
        raise OptionError(f"tolerance must be a finite relative error above 0, such as 1e-4; found {tolerance!r}.")
    names = check_passes(passes)
    original = copy.deepcopy(model).eval().requires_grad_(False)
    image = _make_example(original, example)
    runtimes = select_runtimes(runtime, image.device)
    original_run = original_program(original)
    reference = reference_of(original, image, tolerance)
    if not isinstance(reference.output, Tensor):
        raise InputError(
            f"deploy takes a model that returns one tensor; {type(model).__name__} returns {type(reference.output).__name__}."
        )
    if reason := why_not_comparable(reference.output):
        raise ZooError(f"{type(model).__name__} cannot be deployed. {reason}")
    graph, pass_results, unread = _capture(original, image, names)
    tried = [] if graph is None else try_candidates(graph, image, reference, runtimes, tolerance)
    # The original is timed as well, so that the result is never slower than the given model. All programs that are accurate
    # enough are timed in turns, so that their speeds can be compared.
    programs = [original_run, *(program for _, program in tried)]
    times = iter(time_programs([program for program in programs if program is not None], image))
    original_times = next(times)
    original_speed = estimate_ratio(original_times, original_times)
    candidates = [
        Candidate(runtime=ORIGINAL, error=reference.error, seconds=median(original_times), speed=original_speed),
    ]
    for candidate, program in tried:
        if program is None:
            candidates.append(candidate)
        else:
            own_times = next(times)
            speed = estimate_ratio(original_times, own_times)
            candidates.append(replace(candidate, seconds=median(own_times), speed=speed))
    best, run = max(
        ((candidate, program) for candidate, program in zip(candidates, programs, strict=True) if program is not None),
        key=lambda pair: _speed(pair[0]),
    )
    report = DeployReport(
        shape=tuple(image.shape),
        device=str(image.device),
        threads=torch.get_num_threads(),
        tolerance=float(tolerance),
        accepted=float(reference.accepted),
        passes=pass_results,
        candidates=tuple(candidates),
        chosen=best,
        unread=unread,
    )
    deployed = Deployed(original, report, names)
    deployed._keep(_key(image), run)
    return deployed


def _capture(
    original: nn.Module, image: Tensor, names: tuple[str, ...]
) -> tuple[Graph | None, tuple[PassResult, ...], str | None]:
    """Return the model's graph after the passes, the result of each pass, and the reason if there is no graph."""
    try:
        graph = capture(original, image)
    except InputError:
        raise
    except Exception as cause:  # noqa: BLE001 - if torch.export fails, the original is run, and the report states why
        return None, (), f"torch.export cannot capture the model: {describe_failure(cause)}"
    return graph, apply_and_measure(graph, names), None


def _make_example(model: nn.Module, example: Tensor | None) -> Tensor:
    first = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), None)
    if example is None:
        if not isinstance(model, SegmentationModel):
            raise InputError(
                f"deploy needs example= for a {type(model).__name__}: a tensor (N, channels, H, W) that the model accepts."
            )
        size = model.plan.sizes.image_size or DEFAULT_SIZE
        example = torch.rand(1, model.pairing.in_channels, *size, generator=torch.Generator().manual_seed(0))
        return example if first is None else example.to(first)
    if not isinstance(example, Tensor) or example.ndim != 4:
        description = tuple(example.shape) if isinstance(example, Tensor) else repr(example)
        raise InputError(f"example must be a tensor (N, channels, H, W); found {description}.")
    if first is not None and example.device != first.device:
        raise InputError(f"example is on {example.device}, but the model is on {first.device}. Move both to one device.")
    return example.detach()


def _key(image: Tensor) -> tuple[Any, ...]:
    """Return the shape, type and device for which a program (see `Deployed`) is made; all None if `image` is not a tensor."""
    return tuple(getattr(image, name, None) for name in ("shape", "dtype", "device"))


def _speed(candidate: Candidate) -> float:
    assert candidate.speed is not None
    return candidate.speed.median
