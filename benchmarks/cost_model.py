"""Check the cost model on pairings that it was not fitted to: `python benchmarks/cost_model.py`.

The script calibrates the device, draws other pairings at random (no encoder of the calibration among them), measures them in
interleaved rounds as `zoo bench` does, and compares the medians with the estimates. The operations of these pairings are
counted on the meta device, as `zoo.estimate_cost` does. For each image size and batch size, the script prints:

- the number of pairings, of families (first words of the encoders' names) and of decoders;
- the share of the pairings that have an estimate, to which the other columns are limited;
- the median and the 90th percentile of the relative error, and the same percentile for a line in FLOPs that is fitted to the
  calibration;
- the share of the times that are within their 90 % intervals;
- the share that a search would drop by mistake: with each time as the limit, of the pairings within the limit, those whose
  interval begins above it;
- the largest relative error of the peak memory, compared with a count of the whole model.

The speed of a machine may change after the calibration: other programs run on it, or its clock changes. Such a change is not an
error of the estimates, so there are two tables: one with the times as measured, and one in which they are corrected. For the
correction, every group of pairings includes a pairing of the calibration. A corrected time is the pairing's ratio to it in the
same rounds, times its time in the calibration.

An interrupted check goes on with the same store.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from zoo.benchmark.config import PairingEntry
from zoo.benchmark.environment import format_device
from zoo.benchmark.operation import Operation, total_flops
from zoo.benchmark.running.group_pass import measure_groups
from zoo.benchmark.running.local import LocalProcesses
from zoo.benchmark.running.progress import ConsoleWatcher, Watcher
from zoo.benchmark.running.sweep import open_session
from zoo.benchmark.running.trial_passes import compute_costs
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.table import table_of
from zoo.common.choices import CALIBRATION
from zoo.common.json_cache import JsonCache
from zoo.pairing.pairing import Pairing
from zoo.search.calibration import Calibration, Setting, calibrate, family_of, find_calibration, sample_pairings
from zoo.search.counting.counter import PairingCounter, default_cache
from zoo.search.counting.missing import count_missing

SETTINGS = ((256, 1, 40e9), (512, 1, 80e9), (256, 8, 100e9), (512, 8, 100e9))
"""Image sizes, batch sizes, and the most FLOPs of a call on the CPU, which limit how long the check takes."""
OF_A_FAMILY, DRAWS = 6, 5.0
"""How many encoders of a family may be drawn, and how many encoders are considered for each pairing of a setting."""
COLUMNS = (
    "setting",
    "pairings",
    "families",
    "decoders",
    "estimated",
    "median error",
    "90 % of errors",
    "the same by FLOPs",
    "in the interval",
    "dropped by mistake",
    "largest error of the memory",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A pairing of the calibration, its image size and batch size, its seconds, and these divided by its estimate."""

    pairing: Pairing
    setting: tuple[int, int]
    seconds: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of a pairing, and what was counted.

    Attributes:
        pairing: the pairing.
        seconds: the median of its times.
        corrected_seconds: its time at the speed that the machine had during the calibration.
        live_bytes: its peak memory, counted with the whole model.
        operations, peak_bytes: its operations and its peak memory, counted in parts.
    """

    pairing: Pairing
    seconds: float
    corrected_seconds: float
    live_bytes: int | None
    operations: Mapping[Operation, int]
    peak_bytes: int


def main() -> None:
    """Calibrate, measure the other pairings, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("results/cost-model.sqlite"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pairings", type=int, default=100, help="How many pairings are measured in each setting.")
    parser.add_argument("--rounds", type=int, default=7, help="In how many rounds each pairing is measured.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--read", action="store_true", help="Measure nothing: read the latest results in the store.")
    asked = parser.parse_args()
    with ConsoleWatcher() as watcher, closing(Store(asked.store)) as store:
        has_calibration = any(run.name == CALIBRATION and run.finished for run in store.runs())
        find = find_calibration if has_calibration else partial(calibrate, watcher=watcher)
        calibration = find(store, device=asked.device)
        timed = timed_pairings(store, calibration)
        by_setting = {}
        for size, batch, most_flops in SETTINGS:
            name = f"cost model, {size}x{size}, batch {batch}"
            baseline = min(
                (each for each in timed if each.setting == (size, batch)), key=lambda each: abs(math.log(each.error))
            )
            if not asked.read:
                config = sample_pairings(
                    name,
                    [Setting(size=size, batch=batch, pairings=asked.pairings, most_flops=most_flops)],
                    device=asked.device,
                    watcher=watcher,
                    seed=asked.seed,
                    without={each.pairing.encoder for each in timed},
                    of_a_family=OF_A_FAMILY,
                    draws=DRAWS,
                )
                entry = PairingEntry.model_validate({"encoder": baseline.pairing.encoder, "decoder": baseline.pairing.decoder})
                config = config.model_copy(update={"rounds": asked.rounds, "baseline": entry})
                with open_session(config, store, watcher, LocalProcesses) as session:
                    compute_costs(session)
                    measure_groups(session)
                store.finish_run(session.run)
            run = max(each.id for each in store.runs() if each.name == name)
            by_setting[f"{size}x{size}, batch {batch}"] = read_measured(store, run, baseline, watcher)
        line = fit_flops(store, calibration)
    print(f"{format_device(calibration.run.environment)}, calibrated with {len(timed)} pairings")
    for title, fact in (
        ("At the speed that the machine had during the calibration", "corrected_seconds"),
        ("As measured", "seconds"),
    ):
        print(f"\n{title}:\n\n| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}")
        for name, measured in by_setting.items():
            seconds = np.array([getattr(each, fact) for each in measured])
            print(f"| {name} | {' | '.join(map(str, check(measured, seconds, calibration, line)))} |")


def timed_pairings(store: Store, calibration: Calibration) -> list[Timed]:
    """Return the pairings that a calibration timed."""
    trials = [stored for stored in store.trials(calibration.run.id) if stored.operation_times]
    return [
        Timed(
            pairing=stored.trial.subject,
            setting=(stored.trial.height, stored.trial.batch),
            seconds=stored.operation_times.seconds,
            error=error,
        )
        for stored, error in zip(trials, calibration.model.errors, strict=True)
        if isinstance(stored.trial.subject, Pairing) and stored.operation_times
    ]


def read_measured(store: Store, run: int, baseline: Timed, watcher: Watcher) -> list[Measured]:
    """Return the measured pairings of a run, without the baseline. Those that failed or cannot be counted are named."""
    rows = []
    for row in table_of(store, run).rows:
        if row.failure or not (row.latency and row.ratio):
            watcher.say(f"{row.name} is left out: {row.error or 'it was not measured'}.")
        elif row.role == "candidate":
            rows.append(row)
    with closing(JsonCache(default_cache(), watcher.say)) as cache:
        counter = PairingCounter(cache)
        parts = [
            counter.parts(Pairing(row.encoder, row.decoder), height=row.height, width=row.width, batch=row.batch)
            for row in rows
        ]
        count_missing(parts, "encoder", counter, watcher)
        count_missing([each for each in parts if counter.is_known(each.encoder_key)], "rest", counter, watcher)
        found = []
        for row, each in zip(rows, parts, strict=True):
            assert row.latency
            assert row.ratio
            if not counter.is_known(each.encoder_key) or not counter.is_known(each.rest_key):
                watcher.say(f"{each.pairing} cannot be counted on the meta device, and is left out.")
                continue
            cost = counter.count(each.pairing, height=row.height, width=row.width, batch=row.batch)
            found.append(
                Measured(
                    pairing=each.pairing,
                    seconds=row.latency.median,
                    corrected_seconds=row.ratio.median * baseline.seconds,
                    live_bytes=row.live_bytes,
                    operations=cost.operations,
                    peak_bytes=cost.peak_bytes,
                )
            )
    return found


def check(measured: Sequence[Measured], seconds: np.ndarray, calibration: Calibration, line: np.ndarray) -> tuple[object, ...]:
    """Return the cells of a setting, without its name. `seconds` are the pairings' times that the estimates should meet."""
    predictions = [calibration.model.predict(each.operations) for each in measured]
    estimates = [calibration.model.interval(prediction) for prediction in predictions]
    is_like = np.array([not prediction.difference for prediction in predictions])
    errors = np.abs(np.array([estimate.seconds for estimate in estimates]) / seconds - 1)[is_like]
    flops = np.array([(total_flops(each.operations), 1.0) for each in measured])
    flops_errors = np.abs(flops @ line / seconds - 1)[is_like]
    low, high = (np.array([getattr(estimate, end) for estimate in estimates]) for end in ("low", "high"))
    is_inside = ((low <= seconds) & (seconds <= high))[is_like]
    dropped, within = 0, 0
    for limit in seconds:
        fits = is_like & (seconds <= limit)
        dropped += int((fits & (low > limit)).sum())
        within += int(fits.sum())
    memory = max((abs(each.peak_bytes / each.live_bytes - 1) for each in measured if each.live_bytes), default=float("nan"))
    return (
        len(measured),
        len({family_of(each.pairing.encoder) for each in measured}),
        len({each.pairing.decoder for each in measured}),
        f"{is_like.mean():.0%}",
        f"{np.median(errors):.1%}",
        f"{np.quantile(errors, 0.9):.1%}",
        f"{np.quantile(flops_errors, 0.9):.1%}",
        f"{is_inside.mean():.0%}",
        f"{dropped / max(within, 1):.1%}",
        f"{memory:.1%}",
    )


def fit_flops(store: Store, calibration: Calibration) -> np.ndarray:
    """Return the seconds of each FLOP and of each call, by a least-squares fit of the calibration's relative errors."""
    times = [stored.operation_times for stored in store.trials(calibration.run.id) if stored.operation_times]
    amounts = np.array([(total_flops(each.calls), 1.0) for each in times])
    seconds = np.array([each.seconds for each in times])
    scale = amounts.max(axis=0)
    return np.asarray(nnls(amounts / scale / seconds[:, None], np.ones(len(seconds)))[0] / scale)


if __name__ == "__main__":
    main()
