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
"""A program is made for one shape. Of more programs than this, the least recently used one is dropped."""


class Deployed(nn.Module):
    """A model for inference that `zoo.deploy` made: (N, in_channels, H, W) -> (N, classes, H, W), under inference mode.

    A program is made for each shape of image, when the first of that shape comes (seconds; minutes with `torch.compile`),
    compared with the original, and kept; where it cannot be made or is not near enough, the original is run for that shape.
    The logits' memory format may be another than the original's.

    Attributes:
        report: what was tried for the example, its time and its error, and what each pass did.
        original: a copy of the model that was given, in evaluation mode.
        fallbacks: shapes for which the original is run, and why.
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
        """Return the logits of each pixel, an inference tensor. Raises what the original raises for such an image."""
        key = _key(image)
        with self._lock:
            program = self._programs.get(key)
            if program is None:
                program = self._keep(key, self._make_program(image))
            self._programs.move_to_end(key)
        return program(image)

    def train(self, mode: bool = True) -> Self:
        """Refuse train mode: norms are folded and weights packed."""
        if mode:
            raise ZooError("A deployed model is for inference. Train the model that it was made from, and deploy it again.")
        return super().train(False)

    def extra_repr(self) -> str:
        """Return the chosen runtime and the tolerance."""
        return f"{self.report.chosen}, tolerance={self.report.tolerance:g}"

    def __getstate__(self) -> dict[str, Any]:
        raise ZooError("A deployed model is made for this machine and cannot be saved. Save the model that it was made from.")

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
        """Return a program for images of another shape than the example's, with the runtime that was chosen for the example."""
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
    """Return the same model for inference, as fast as this machine runs it within a tolerated error.

    `torch.export` captures the model as a graph, and passes rewrite it without changing the output beyond rounding. Each
    installed runtime then runs the graph, and the fastest one on the example is chosen; none that is slower than the
    original model.

    Args:
        model: any module that takes one image tensor and gives one; it is copied and stays as it is.
        example: images like those to predict, (N, in_channels, H, W). For a model of `zoo.build` the default is one image of
            256x256, or of the size that its encoder is made for.
        tolerance: the accepted relative error max|a - b| / max|b| to the model's own output in float32. From 1e-2 on,
            bfloat16 is also tried, if the processor computes in it. On CUDA devices PyTorch computes convolutions in TF32
            by default, so that the original has an error itself; if three times that error is larger, it is accepted.
        runtime: "auto", one of "eager", "cudagraphs", "compile" (`torch.compile`), "onnxruntime", "openvino", or some of
            these.
        passes: names of those to apply (`zoo.inference.deployment.PASSES`), None for all.

    Returns:
        A module for images of any size that the model takes. `print(zoo.explain(deployed))` shows the report.

    Raises:
        OptionError: an unknown runtime or pass, or a tolerance that is not a number above 0.
        InputError: no example where one is needed, or one that the model does not take.
        PluginError: code of the model tried to end the program.
        ZooError: the model itself gives NaN or infinity.

    Example:
        >>> fast = zoo.deploy(model, example=torch.randn(1, 3, 512, 512))
        >>> logits = fast(image)
    """
    if not isinstance(tolerance, int | float) or not 0 < tolerance < math.inf:
        raise OptionError(f"tolerance is a relative error above 0, such as 1e-4; found {tolerance!r}.")
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
    # The original competes, so that the result is never slower than the model that was given. All programs that are close
    # enough are timed together, in turns, so that their speeds can be compared.
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
    """Return the model's graph after the passes, and the result of each pass; or the reason why there is no graph."""
    try:
        graph = capture(original, image)
    except InputError:
        raise
    except Exception as cause:  # noqa: BLE001 - a model that torch.export cannot read runs as it is, and the report says so
        return None, (), f"torch.export cannot read it: {describe_failure(cause)}"
    return graph, apply_and_measure(graph, names), None


def _make_example(model: nn.Module, example: Tensor | None) -> Tensor:
    first = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), None)
    if example is None:
        if not isinstance(model, SegmentationModel):
            raise InputError(f"deploy needs example= for a {type(model).__name__}: a tensor (N, channels, H, W) as it takes.")
        size = model.plan.sizes.image_size or DEFAULT_SIZE
        example = torch.rand(1, model.pairing.in_channels, *size, generator=torch.Generator().manual_seed(0))
        return example if first is None else example.to(first)
    if not isinstance(example, Tensor) or example.ndim != 4:
        description = tuple(example.shape) if isinstance(example, Tensor) else repr(example)
        raise InputError(f"example is a tensor (N, channels, H, W); found {description}.")
    if first is not None and example.device != first.device:
        raise InputError(f"example is on {example.device} and the model on {first.device}; bring both to one device.")
    return example.detach()


def _key(image: Tensor) -> tuple[Any, ...]:
    """Return what a program depends on. For an object that is not a tensor all are None, and the model itself refuses it."""
    return tuple(getattr(image, name, None) for name in ("shape", "dtype", "device"))


def _speed(candidate: Candidate) -> float:
    assert candidate.speed is not None
    return candidate.speed.median
