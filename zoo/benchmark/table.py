"""From a stored run to the rows of its table: one fact a field, units in the names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoo.benchmark.statistics import Estimate, estimate_median, estimate_ratio
from zoo.benchmark.store import Store, StoredRun, StoredTrial
from zoo.benchmark.trial import GROUP_FACTS
from zoo.errors import ZooError
from zoo.licences import licences_of
from zoo.pairing import Pairing
from zoo.registry import default_registry

__all__ = ["COLUMNS", "Column", "Row", "Table", "table_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One trial as the table shows it; what was not measured is None.

    Attributes:
        ratio: the latency over the baseline's, of pairs measured in the same round: below 1 is faster.
        peak_bytes: what an accelerator's allocator held, else the peak of live tensors.
        is_device_peak: which of the two it is.
        flops: of one forward pass for one image, a multiply-add counted as two.
        licences: of the encoder's and the decoder's code, and of pretrained weights; "" for what is no pairing.
    """

    pairing: str
    mode: str
    batch: int
    height: int
    width: int
    device: str
    dtype: str
    latency: Estimate | None
    ratio: Estimate | None
    rounds: int
    peak_bytes: int | None
    is_device_peak: bool
    parameters: int | None
    flops: int | None
    error: str | None
    is_baseline: bool
    licences: str

    @property
    def group(self) -> tuple[object, ...]:
        """What the rows that are compared with one another share."""
        return tuple(getattr(self, name) for name in GROUP_FACTS)

    @property
    def images_per_second(self) -> float | None:
        """Throughput at the median latency."""
        return self.batch / self.latency.median if self.latency else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A run's rows, with where they were measured; `str()` is the table as text."""

    run: StoredRun
    rows: tuple[Row, ...]
    store: str

    def __str__(self) -> str:
        from zoo.benchmark.formats import render

        return render(self, "table")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column as a person reads it: its heading, how a row's cell is written, and what the legend says of it."""

    heading: str
    cell: Callable[[Row], str]
    is_number: bool = True
    legend: str = ""


def table_of(store: Store, run: int) -> Table:
    """Return the table of a run as far as it is measured."""
    trials = store.trials(run)
    stored = store.run(run)
    device = str(stored.environment["device"])
    baselines = {_group(trial.facts): trial for trial in trials if trial.facts["is_baseline"]}
    rows = tuple(_row(trial, baselines.get(_group(trial.facts)), device) for trial in trials)
    return Table(run=stored, rows=rows, store=str(store.path))


def _row(trial: StoredTrial, baseline: StoredTrial | None, device: str) -> Row:
    facts = trial.facts
    samples = list(trial.samples.values())
    is_measured = bool(samples) and not trial.error
    peak = trial.device_bytes if trial.device_bytes is not None else (trial.cost.live_bytes if trial.cost else None)
    return Row(
        pairing=_name(facts["subject"]),
        mode=facts["mode"],
        batch=facts["batch"],
        height=facts["height"],
        width=facts["width"],
        device=device,
        dtype=facts["dtype"],
        latency=estimate_median(samples) if is_measured else None,
        ratio=_ratio(trial, baseline) if is_measured else None,
        rounds=len(samples),
        peak_bytes=peak,
        is_device_peak=trial.device_bytes is not None,
        parameters=trial.cost.parameters if trial.cost else None,
        flops=trial.cost.flops if trial.cost else None,
        error=trial.error,
        is_baseline=facts["is_baseline"],
        licences=_licences(facts["subject"]),
    )


def _ratio(trial: StoredTrial, baseline: StoredTrial | None) -> Estimate | None:
    if baseline is None or baseline.error:
        return None
    shared = sorted(trial.samples.keys() & baseline.samples.keys())
    if not shared:
        return None
    return estimate_ratio([trial.samples[number] for number in shared], [baseline.samples[number] for number in shared])


def _group(facts: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(facts[name] for name in GROUP_FACTS)


def _name(subject: dict[str, Any]) -> str:
    return str(subject["reference"]) if "reference" in subject else str(Pairing(**subject))


def _licences(subject: dict[str, Any]) -> str:
    """Return the licences of a pairing's parts, as far as its ids are known in this process."""
    if "reference" in subject:
        return ""
    pairing, registry = Pairing(**subject), default_registry()
    try:
        return str(licences_of(registry.encoder(pairing.encoder), registry.decoder(pairing.decoder), pairing.weights))
    except ZooError:
        return ""


def _estimate(estimate: Estimate | None, scale: float = 1.0, digits: int = 1) -> str:
    if estimate is None:
        return "-"
    median, low, high = (f"{value * scale:.{digits}f}" for value in (estimate.median, estimate.low, estimate.high))
    return f"{median} [{low}, {high}]"


def _ratio_cell(row: Row) -> str:
    if row.is_baseline:
        return "-" if row.error else "1 (baseline)"
    return _estimate(row.ratio, digits=2) + (" tie" if row.ratio and row.ratio.is_tie else "")


def _optional(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{value * scale:,.{digits}f}"


COLUMNS = (
    Column(heading="pairing", cell=lambda row: row.pairing, is_number=False),
    Column(
        heading="mode",
        cell=lambda row: row.mode,
        is_number=False,
        legend="inference: forward; training: forward, loss, backward, AdamW",
    ),
    Column(heading="batch", cell=lambda row: str(row.batch)),
    Column(heading="size", cell=lambda row: f"{row.height}x{row.width}"),
    Column(heading="device", cell=lambda row: row.device, is_number=False),
    Column(heading="dtype", cell=lambda row: row.dtype, is_number=False),
    Column(
        heading="latency ms",
        cell=lambda row: _estimate(row.latency, 1e3),
        legend="median of the rounds, with its 95 % interval",
    ),
    Column(heading="images/s", cell=lambda row: _optional(row.images_per_second, 1, 1)),
    Column(
        heading="time / baseline",
        cell=_ratio_cell,
        legend="latency over the baseline's in the same round, median and 95 % interval; below 1 is faster; 'tie' unless "
        "the interval lies outside 0.98 to 1.02",
    ),
    Column(heading="peak MiB", cell=lambda row: _optional(row.peak_bytes, 2**-20, 0)),
    Column(heading="params M", cell=lambda row: _optional(row.parameters, 1e-6, 2)),
    Column(
        heading="GFLOPs",
        cell=lambda row: _optional(row.flops, 1e-9, 2),
        legend="one forward pass, one image; a multiply-add is two; interpolation, norms and activations are not counted",
    ),
    Column(
        heading="licences",
        cell=lambda row: row.licences or "-",
        is_number=False,
        legend="of the encoder's and the decoder's code, once where they are the same, and of pretrained weights",
    ),
    Column(heading="rounds", cell=lambda row: str(row.rounds), legend="interleaved; no round is dropped"),
)
