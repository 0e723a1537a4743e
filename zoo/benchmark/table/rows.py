"""Define a row of the table, the A/A check of a group, and the results of one or more runs. Torch-free."""

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
    """One trial as the table shows it. Values that were not measured are None.

    Attributes:
        run: the number of the run in the store.
        key: the key of the trial, which is the same in every run that measures it.
        name: the name in the configuration if it sets one, otherwise the text of the pairing or reference.
        encoder: the id of the encoder; "" for a reference.
        decoder: the id of the decoder; "" for a reference.
        code: the line of Python that builds the model; "" for a reference.
        device_name: the name of the processor or accelerator.
        latency: the wall-clock time per call in seconds: median and interval.
        p90: the 90th percentile of the time per call in seconds: in nine of ten rounds, a call took less time.
        busy: the seconds per call during which the device worked (see `Timing`): median and interval.
        ratio: the latency divided by the baseline's latency in the same round: median and interval. Below 1, the row is
            faster than the baseline.
        busy_ratio: the same ratio for the `busy` time.
        rounds: the number of rounds that measured the trial.
        stopped: why the rounds ended: "fixed", "precise", "limit" or "budget" (see `StopReason`); None if they have not ended.
        live_bytes: the peak size of all live tensors during a step, which is computed and not measured; None on an accelerator.
        allocated_bytes: the peak size of the trial's tensors on an accelerator, as counted by its allocator.
        rss_bytes: the growth of a fresh process's resident memory while it built and ran the model.
        parts: a mapping from "encoder", "adapters", "decoder" and "head" to their numbers of parameters.
        flops: the FLOPs of one forward pass for one image; a multiply-add counts as two.
        flops_per_second: the FLOPs of the whole step, divided by the median latency. In training, this includes the backward
            pass.
        efficiency: `flops_per_second` divided by the device's best rate in the same run and dtype.
        build_seconds: the time to build the model and move it to the device, without importing modules.
        first_seconds: the time of the first call.
        smaller: the cold start with a smaller batch; None unless the row's batch ran out of memory.
        plan: the pairing's plan as a dictionary.
        failure: the kind of `error`; None if the trial did not fail.
        flags: warnings about the measurement, such as noise, outliers or failures in training.
        licenses: the licenses of the encoder's and the decoder's code, and of pretrained weights; "" for a reference.
        quality: the scores after training, which are the same for all rows of a model.
        quality_difference: the model's mIoU minus the baseline's: mean and interval over the seeds that succeeded for both.
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
        """The run and the values of `BLOCK_FACTS`. Rows with the same block are compared with one another."""
        return (self.run, *(getattr(self, name) for name in BLOCK_FACTS))

    @property
    def is_baseline(self) -> bool:
        """Whether the other rows of the block are compared with this row."""
        return self.role == "baseline"

    @property
    def has_failed(self) -> bool:
        """Whether the trial could not be measured, or training its model failed with every seed."""
        return self.error is not None or (self.quality is not None and self.quality.has_failed)

    @property
    def images_per_second(self) -> float | None:
        """The throughput at the median latency."""
        return self.batch / self.latency.median if self.latency else None

    @property
    def data(self) -> str:
        """The name of the data that the model was trained on; "" if it was not trained."""
        return self.quality.data if self.quality else ""

    @property
    def miou(self) -> float | None:
        """The mean intersection over union on the test split of the data, averaged over the seeds."""
        return self.quality.mean if self.quality else None

    @property
    def peak_bytes(self) -> int | None:
        """The peak memory: `allocated_bytes` if it was measured, otherwise `live_bytes`."""
        return self.live_bytes if self.allocated_bytes is None else self.allocated_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The A/A check of a group: the baseline and the control, a copy of it, are measured like two different models.

    Attributes:
        block: the `Row.block` of the group's rows.
        ratio: the control's latency divided by the baseline's; the true value is 1.
        names: the names of the candidates that were measured in this group.
    """

    block: tuple[Any, ...]
    ratio: Estimate
    names: tuple[str, ...]

    @property
    def is_off(self) -> bool:
        """Whether the interval excludes 1. If so, small differences in this group cannot be trusted."""
        return not self.ratio.low <= 1 <= self.ratio.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The results of one or more runs.

    Attributes:
        runs: the runs, with their configurations and environments.
        rows: the rows of all runs.
        checks: the A/A checks of all groups.
        rates: for each dtype, the highest number of FLOP/s that a large kernel reached on the device, as text.
        store: the path of the store.
        floors: the scores of the trivial baselines ("color look-up" and "majority class"), which every trained model should
            exceed. Only runs that trained models have them.
    """

    runs: tuple[StoredRun, ...]
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    rates: Mapping[str, str]
    store: str
    floors: tuple[Floor, ...] = ()

    @property
    def run(self) -> StoredRun:
        """The last run in `runs`."""
        return self.runs[-1]
