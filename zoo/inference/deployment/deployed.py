"""`deploy`: the same model, faster, within an error that the user accepts; and the module that it gives."""

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
from zoo.inference.deployment.checked import Way, checked_program, told
from zoo.inference.deployment.choice import (
    ORIGINAL,
    Candidate,
    asked_runtimes,
    timed,
    try_candidates,
)
from zoo.inference.deployment.graph import Graph, capture
from zoo.inference.deployment.passes import PassResult, apply_counted, check_passes
from zoo.inference.deployment.report import DeployReport
from zoo.inference.reference import reference_of, why_not_comparable
from zoo.inference.runtimes import Program, original_program
from zoo.model.model import SegmentationModel

__all__ = ["Deployed", "deploy"]

DEFAULT_SIZE = (256, 256)
SHAPES_KEPT = 8
"""Programs are made for one shape each; the least recently used one goes where there are more."""


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
                program = self._keep(key, self._made(image))
            self._programs.move_to_end(key)
        return program(image)

    def train(self, mode: bool = True) -> Self:
        """Refuse train mode: norms are folded and weights packed."""
        if mode:
            raise ZooError("A deployed model is for inference. Train the model that it was made from, and deploy it again.")
        return super().train(False)

    def extra_repr(self) -> str:
        """Return what was chosen."""
        return f"{self.report.chosen}, tolerance={self.report.tolerance:g}"

    def __getstate__(self) -> dict[str, Any]:
        raise ZooError("A deployed model is made for this machine and cannot be saved. Save the model that it was made from.")

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        with self._lock:  # on another device or in another type, programs are made anew
            self._programs.clear()
            self.fallbacks.clear()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _keep(self, key: Any, program: Program) -> Program:
        self._programs[key] = program
        while len(self._programs) > SHAPES_KEPT:
            self._programs.popitem(last=False)
        return program

    def _made(self, image: Tensor) -> Program:
        """Return a program for images of another shape than the example's, by what was chosen for that."""
        original, chosen = original_program(self.original), self.report.chosen
        reference = reference_of(self.original, image, self.report.tolerance)
        if chosen.runtime == ORIGINAL:
            return original
        way = Way(runtime=chosen.runtime, precision=chosen.precision, passes=self._passes)
        try:
            return checked_program(self.original, image, reference, way)
        except Exception as cause:  # noqa: BLE001 - another library's refusal is told, and the original takes its place
            self.fallbacks[tuple(image.shape)] = told(cause)
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
    """Return the same model for inference, as fast as this machine runs it within an error.

    The model is read as a graph (`torch.export`), rewritten by passes that each leave the output as it is up to rounding,
    and run by the fastest of the runtimes that are installed, measured in turns on the example. What is slower than the
    model as it was given is not chosen.

    Args:
        model: any module that takes one image tensor and gives one; it is copied and stays as it is.
        example: images such as will come, (N, in_channels, H, W); by default one of 256x256 for a model of `zoo.build`,
            or of the size that its encoder is made for.
        tolerance: the relative error max|a - b| / max|b| to the model's own output in float32 that is accepted. From 1e-2
            on, bfloat16 is tried where the processor computes in it. A model that CUDA devices run in TF32, as PyTorch lets
            them by default, has an error itself: three times that is accepted, where it is more.
        runtime: "auto", one of "eager", "cudagraphs", "compile" (`torch.compile`), "onnxruntime", "openvino", or some of
            these.
        passes: names of those to apply (`zoo.inference.deployment.PASSES`), None for all.

    Returns:
        A module for images of any size that the model takes. `print(zoo.explain(deployed))` tells what was done.

    Raises:
        OptionError: an unknown runtime or pass, or a tolerance that is no number above 0.
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
    image = _example(original, example)
    runtimes = asked_runtimes(runtime, image.device)
    as_given = original_program(original)
    reference = reference_of(original, image, tolerance)
    if not isinstance(reference.output, Tensor):
        raise InputError(
            f"deploy takes a model that returns one tensor; {type(model).__name__} returns {type(reference.output).__name__}."
        )
    if reason := why_not_comparable(reference.output):
        raise ZooError(f"{type(model).__name__} cannot be deployed. {reason}")
    graph, done, unread = _read(original, image, names)
    tried = [] if graph is None else try_candidates(graph, image, reference, runtimes, tolerance)
    usable = [(candidate, program) for candidate, program in tried if program is not None]
    seconds = timed([as_given, *(program for _, program in usable)], image)
    base = Candidate(
        runtime=ORIGINAL, error=reference.error, seconds=median(seconds[0]), speed=estimate_ratio(seconds[0], seconds[0])
    )
    timings = {
        id(candidate): replace(candidate, seconds=median(each), speed=estimate_ratio(seconds[0], each))
        for (candidate, _), each in zip(usable, seconds[1:], strict=True)
    }
    candidates = (base, *(timings.get(id(candidate), candidate) for candidate, _ in tried))
    programs = {0: as_given} | {index: program for index, (_, program) in enumerate(tried, start=1) if program is not None}
    best = max(programs, key=lambda index: _speed(candidates[index]))
    report = DeployReport(
        shape=tuple(image.shape),
        device=str(image.device),
        threads=torch.get_num_threads(),
        tolerance=float(tolerance),
        accepted=float(reference.accepted),
        passes=done,
        candidates=candidates,
        chosen=candidates[best],
        unread=unread,
    )
    deployed = Deployed(original, report, names)
    deployed._keep(_key(image), programs[best])
    return deployed


def _read(
    original: nn.Module, image: Tensor, names: tuple[str, ...]
) -> tuple[Graph | None, tuple[PassResult, ...], str | None]:
    """Return the model's graph with the passes applied and what they did, or why there is none."""
    try:
        graph = capture(original, image)
    except InputError:
        raise
    except Exception as cause:  # noqa: BLE001 - what torch.export cannot read is run as it is, and the report says so
        return None, (), f"torch.export cannot read it: {told(cause)}"
    return graph, apply_counted(graph, names), None


def _example(model: nn.Module, example: Tensor | None) -> Tensor:
    first = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), None)
    if example is None:
        if not isinstance(model, SegmentationModel):
            raise InputError(f"deploy needs example= for a {type(model).__name__}: a tensor (N, channels, H, W) as it takes.")
        size = model.plan.sizes.image_size or DEFAULT_SIZE
        example = torch.rand(1, model.pairing.in_channels, *size, generator=torch.Generator().manual_seed(0))
        return example if first is None else example.to(first)
    if not isinstance(example, Tensor) or example.ndim != 4:
        found = tuple(example.shape) if isinstance(example, Tensor) else repr(example)
        raise InputError(f"example is a tensor (N, channels, H, W); found {found}.")
    if first is not None and example.device != first.device:
        raise InputError(f"example is on {example.device} and the model on {first.device}; bring both to one device.")
    return example.detach()


def _key(image: Tensor) -> tuple[Any, ...]:
    """Return what a program is made for; of what is no tensor nothing, and the model then refuses it in its own words."""
    return tuple(getattr(image, name, None) for name in ("shape", "dtype", "device"))


def _speed(candidate: Candidate) -> float:
    assert candidate.speed is not None
    return candidate.speed.median
