"""Which runtime is the fastest of those whose output is near enough: tried, compared and timed in turns."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.common.statistics import Estimate
from zoo.errors import OptionError
from zoo.inference.deployment.checked import told
from zoo.inference.deployment.graph import Graph
from zoo.inference.reference import Reference, relative_error
from zoo.inference.runtimes import PRECISIONS, RUNTIMES, Program, has_bfloat16, make_program, suits, why_not

__all__ = ["ORIGINAL", "Candidate", "asked_runtimes", "timed", "try_candidates"]

ORIGINAL = "original"
COARSE = 1e-2
"""From which tolerance on bfloat16, whose numbers have eight bits, is tried."""

ROUNDS = (7, 25)
SECONDS = 6.0
"""At least and at most so many rounds, and no more once they have taken so long together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A way of running the model that was thought of.

    Attributes:
        runtime: one of `RUNTIMES`, or "original" for the model as it was given.
        precision: what products are computed in.
        error: max|a - b| / max|b| to the original's output in float32, None where there is none.
        seconds: the median time of a call, None where it was not timed.
        speed: how many times as fast as the original, with a 95 % interval from paired calls; None as above.
        refused: why it cannot be chosen, None where it can.
    """

    runtime: str
    precision: str = "float32"
    error: float | None = None
    seconds: float | None = None
    speed: Estimate | None = None
    refused: str | None = None

    def __str__(self) -> str:
        return self.runtime if self.runtime == ORIGINAL else f"{self.runtime}, {self.precision}"


def asked_runtimes(runtime: str | Sequence[str], device: torch.device) -> tuple[str, ...]:
    """Return the runtimes that were asked for; for "auto" all that are for this kind of device.

    Raises:
        OptionError: a name that none has.
    """
    if runtime == "auto":
        return tuple(name for name in RUNTIMES if suits(name, device))
    names = (runtime,) if isinstance(runtime, str) else tuple(runtime)
    if not names or any(name not in RUNTIMES for name in names):
        raise OptionError(f"runtime is 'auto', one of {', '.join(map(repr, RUNTIMES))}, or some of them; found {runtime!r}.")
    return names


def try_candidates(
    graph: Graph, image: Tensor, reference: Reference, runtimes: Sequence[str], tolerance: float
) -> list[tuple[Candidate, Program | None]]:
    """Make a program for each runtime and precision, and compare its output; what cannot be used says why."""
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
            except Exception as cause:  # noqa: BLE001 - another library's refusal is told, and the others are tried
                tried.append((Candidate(runtime=runtime, precision=precision, refused=told(cause)), None))
                continue
            if not error <= reference.accepted:  # an error that is no number is refused as well
                refused = f"its output differs by {error:.1e}, and {reference.accepted:.2g} is allowed"
            made = Candidate(runtime=runtime, precision=precision, error=error, refused=refused)
            tried.append((made, None if refused else program))
    return tried


def timed(programs: Sequence[Program], image: Tensor) -> list[list[float]]:
    """Return the seconds of each program's calls, taken in turns and in a shuffled order, so that drift hits all alike."""
    seconds: list[list[float]] = [[] for _ in programs]
    order, shuffle = list(range(len(programs))), random.Random(0)
    for program in programs:
        _seconds(program, image)
    begun = time.perf_counter()
    for done in range(ROUNDS[1]):
        if done >= ROUNDS[0] and time.perf_counter() - begun > SECONDS:
            break
        shuffle.shuffle(order)
        for index in order:
            seconds[index].append(_seconds(programs[index], image))
    return seconds


def _why_not_coarse(precision: str, tolerance: float, device: torch.device) -> str | None:
    if precision == "float32":
        return None
    if tolerance < COARSE:
        return f"it needs a tolerance of {COARSE:g} or more; {tolerance:g} is allowed"
    return None if has_bfloat16(device) else f"the processor ({device.type}) has no bfloat16 arithmetic"


def _seconds(program: Program, image: Tensor) -> float:
    _wait(image.device)
    begun = time.perf_counter()
    program(image)
    _wait(image.device)
    return time.perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)
