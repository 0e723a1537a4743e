"""Try each runtime and precision: compare its output with the model's, and time it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.common.statistics import Estimate
from zoo.errors import OptionError
from zoo.inference.deployment.checked import describe_failure
from zoo.inference.deployment.graph import Graph
from zoo.inference.reference import Reference, relative_error
from zoo.inference.runtimes import PRECISIONS, RUNTIMES, Program, has_bfloat16, make_program, suits, why_not

__all__ = ["ORIGINAL", "Candidate", "select_runtimes", "time_programs", "try_candidates"]

ORIGINAL = "original"
COARSE = 1e-2
"""The smallest tolerance for which bfloat16 is tried. A bfloat16 number has only eight significant bits."""

MIN_ROUNDS, MAX_ROUNDS = 7, 25
MAX_SECONDS = 6.0
"""After this many seconds, no further round is started. The first `MIN_ROUNDS` rounds always run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way of running the model: a runtime and a precision.

    Attributes:
        runtime: one of `RUNTIMES`, or "original" for the unchanged model.
        precision: "float32" or "bfloat16", the type in which products are computed.
        error: max|a - b| / max|b|, where b is the original's output in float32; None if the output was not compared.
        seconds: the median time of a call; None if the candidate was not timed.
        speed: the speed relative to the original, with a 95 % interval from paired calls; None if the candidate was not
            timed.
        refused: the reason why the candidate cannot be chosen; None if it can be chosen.
    """

    runtime: str
    precision: str = "float32"
    error: float | None = None
    seconds: float | None = None
    speed: Estimate | None = None
    refused: str | None = None

    def __str__(self) -> str:
        return self.runtime if self.runtime == ORIGINAL else f"{self.runtime}, {self.precision}"


def select_runtimes(runtime: str | Sequence[str], device: torch.device) -> tuple[str, ...]:
    """Return the requested runtimes; "auto" stands for all runtimes that support this kind of device.

    Raises:
        OptionError: a name is not one of `RUNTIMES`.
    """
    if runtime == "auto":
        return tuple(name for name in RUNTIMES if suits(name, device))
    names = (runtime,) if isinstance(runtime, str) else tuple(runtime)
    if not names or any(name not in RUNTIMES for name in names):
        raise OptionError(f"runtime must be 'auto', or one or more of {', '.join(map(repr, RUNTIMES))}; found {runtime!r}.")
    return names


def try_candidates(
    graph: Graph, image: Tensor, reference: Reference, runtimes: Sequence[str], tolerance: float
) -> list[tuple[Candidate, Program | None]]:
    """Make a program (a function that runs the model) for each runtime and precision, and compare it with the reference.

    A candidate that cannot be used has the program None, and its attribute `refused` states the reason.
    """
    tried: list[tuple[Candidate, Program | None]] = []
    for runtime in runtimes:
        for precision in PRECISIONS:
            refused = why_not(runtime, precision, image.device) or _why_not_coarse(precision, tolerance, image.device)
            if refused:
                tried.append((Candidate(runtime=runtime, precision=precision, refused=refused), None))
                continue
            try:
                program = make_program(graph, image, runtime, precision)
                error = relative_error(program(image), reference.output)
            except Exception as cause:  # noqa: BLE001 - another library's error is reported; the next candidate is tried
                tried.append((Candidate(runtime=runtime, precision=precision, refused=describe_failure(cause)), None))
                continue
            if not error <= reference.accepted:  # refuses NaN as well
                refused = f"its output differs by {error:.1e}; at most {reference.accepted:.2g} is accepted"
            candidate = Candidate(runtime=runtime, precision=precision, error=error, refused=refused)
            tried.append((candidate, None if refused else program))
    return tried


def time_programs(programs: Sequence[Program], image: Tensor) -> list[list[float]]:
    """Time several programs (functions that run the model), and return the seconds of each call of each program.

    Each round calls every program once, in a shuffled order, so that a drift of the machine's speed affects all equally.
    """
    seconds: list[list[float]] = [[] for _ in programs]
    order, shuffle = list(range(len(programs))), random.Random(0)
    for program in programs:
        _time_call(program, image)
    start = time.perf_counter()
    for num_rounds in range(MAX_ROUNDS):
        if num_rounds >= MIN_ROUNDS and time.perf_counter() - start > MAX_SECONDS:
            break
        shuffle.shuffle(order)
        for index in order:
            seconds[index].append(_time_call(programs[index], image))
    return seconds


def _why_not_coarse(precision: str, tolerance: float, device: torch.device) -> str | None:
    if precision == "float32":
        return None
    if tolerance < COARSE:
        return f"bfloat16 requires a tolerance of at least {COARSE:g}; the requested tolerance is {tolerance:g}"
    return None if has_bfloat16(device) else f"the processor ({device.type}) does not support bfloat16 arithmetic"


def _time_call(program: Program, image: Tensor) -> float:
    _synchronize(image.device)
    start = time.perf_counter()
    program(image)
    _synchronize(image.device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)
