"""One trial as the table shows it, and the rows of one run or several. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.benchmark.messages import ColdStart, FailureKind
from zoo.benchmark.quality import Floor, Quality
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.trial import BLOCK_FACTS, Role
from zoo.common.statistics import Difference, Estimate

__all__ = ["Check", "Results", "Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trial as the table shows it; what was not measured is None.

    Attributes:
        run: the run's number in the store.
        key: the trial's, the same in every run that measures it.
        name: of the configuration, else the pairing or the reference.
        encoder: its id; "" for a reference, as `decoder`.
        code: the line of Python that builds the model; "" for a reference.
        device_name: of the processor or accelerator.
        latency: seconds per call, by the clock: median and interval.
        p90: seconds that nine in ten calls stay below.
        busy: seconds per call that the device worked: CPU time of all threads, or the time between events.
        ratio: the latency over the baseline's in the same round: below 1 is faster.
        busy_ratio: the same of `busy`.
        stopped: why the rounds ended: "fixed", "precise", "limit", "budget"; None while they go on.
        live_bytes: the most that tensors hold during a step, computed on the meta device; None on an accelerator.
        allocated_bytes: the most that the trial's tensors held on an accelerator, by its allocator's counter.
        rss_bytes: by how much a fresh process's resident memory rose.
        parts: parameters of encoder, adapters, decoder and head.
        flops: of one forward pass for one image, a multiply-add counted as two.
        flops_per_second: achieved in the measured step, the backward pass counted.
        efficiency: `flops_per_second` over the device's best rate in the same run and dtype.
        build_seconds: making the model; `first_seconds`: its first call. The cold start, apart from the imports.
        smaller: the cold start at a smaller batch, where this one ran out of memory.
        plan: the pairing's plan as plain data.
        failure: the kind of error.
        flags: doubts about how it was measured: noise, outliers, the process.
        licenses: of the encoder's and the decoder's code, and of pretrained weights; "" for a reference.
        quality: the scores after training, where a run trained: the same for all rows of one model.
        quality_difference: by how much its mIoU is above the baseline's, over the seeds.
    """

    run: int
    key: str
    name: str
    encoder: str
    decoder: str
    code: str
    mode: str
    batch: int
    height: int
    width: int
    device: str
    device_name: str
    dtype: str
    memory_format: str
    runtime: str
    role: Role
    latency: Estimate | None
    p90: float | None
    busy: Estimate | None
    ratio: Estimate | None
    busy_ratio: Estimate | None
    rounds: int
    stopped: str | None
    live_bytes: int | None
    allocated_bytes: int | None
    rss_bytes: int | None
    parameters: int | None
    parts: Mapping[str, int] | None
    flops: int | None
    flops_per_second: float | None
    efficiency: float | None
    build_seconds: float | None
    first_seconds: float | None
    smaller: ColdStart | None
    plan: Mapping[str, Any] | None
    failure: FailureKind | None
    error: str | None
    flags: tuple[str, ...]
    licenses: str
    quality: Quality | None = None
    quality_difference: Difference | None = None

    @property
    def block(self) -> tuple[Any, ...]:
        """The run and the values that rows share which are compared with one another."""
        return (self.run, *(getattr(self, name) for name in BLOCK_FACTS))

    @property
    def is_baseline(self) -> bool:
        """Whether the others of its block are compared with it."""
        return self.role == "baseline"

    @property
    def has_failed(self) -> bool:
        """Whether it could not be measured, or every one of its trainings failed."""
        return self.error is not None or (self.quality is not None and self.quality.has_failed)

    @property
    def images_per_second(self) -> float | None:
        """Throughput at the median latency."""
        return self.batch / self.latency.median if self.latency else None

    @property
    def data(self) -> str:
        """The name of the data that it was trained on; "" where it was not trained."""
        return self.quality.data if self.quality else ""

    @property
    def miou(self) -> float | None:
        """Mean intersection over union on the test part, the mean over the seeds."""
        return self.quality.mean if self.quality else None

    @property
    def peak_bytes(self) -> int | None:
        """The peak that the accelerator's allocator counted, else the peak of live tensors."""
        return self.live_bytes if self.allocated_bytes is None else self.allocated_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The A/A check of a group: the baseline against itself, measured as any two models are.

    Attributes:
        block: the same as its rows have.
        ratio: its true value is 1.
        names: the rows that were measured in this group.
    """

    block: tuple[Any, ...]
    ratio: Estimate
    names: tuple[str, ...]

    @property
    def is_off(self) -> bool:
        """Whether the interval excludes 1, so that the differences of this group cannot be trusted."""
        return not self.ratio.low <= 1 <= self.ratio.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Rows of one run or several, with where they were measured."""

    runs: tuple[StoredRun, ...]
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    rates: Mapping[str, str]
    store: str
    floors: tuple[Floor, ...] = ()

    @property
    def run(self) -> StoredRun:
        """The latest run."""
        return self.runs[-1]
