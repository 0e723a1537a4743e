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

An interrupted check goes on with the same store.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

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

SETTINGS = ((256, 1, 40e9), (512, 1, 80e9), (256, 8, 100e9), (512, 8, 200e9))
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
class Measured:
    """A pairing, the median of its seconds, its peak memory by counting the whole model, and its operations as estimated."""

    pairing: Pairing
    seconds: float
    live_bytes: int | None
    operations: Mapping[Operation, int]
    peak_bytes: int


def main() -> None:
    """Calibrate, measure the other pairings, and print the table."""
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
        trials = [stored.trial.subject for stored in store.trials(calibration.run.id) if stored.operation_times]
        used = {subject.encoder for subject in trials if isinstance(subject, Pairing)}
        by_setting = {}
        for size, batch, most_flops in SETTINGS:
            name = f"cost model, {size}x{size}, batch {batch}"
            if not asked.read:
                config = sample_pairings(
                    name,
                    [Setting(size=size, batch=batch, pairings=asked.pairings, most_flops=most_flops)],
                    device=asked.device,
                    watcher=watcher,
                    seed=asked.seed,
                    without=used,
                    of_a_family=OF_A_FAMILY,
                    draws=DRAWS,
                ).model_copy(update={"rounds": asked.rounds})
                with open_session(config, store, watcher, LocalProcesses) as session:
                    compute_costs(session)
                    measure_groups(session)
                store.finish_run(session.run)
            run = max(each.id for each in store.runs() if each.name == name)
            by_setting[f"{size}x{size}, batch {batch}"] = read_measured(store, run, watcher)
        line = fit_flops(store, calibration)
    print(f"{format_device(calibration.run.environment)}, calibrated with {len(trials)} pairings\n")
    print(f"| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}")
    for name, measured in by_setting.items():
        print(f"| {name} | {' | '.join(map(str, check(measured, calibration, line)))} |")


def read_measured(store: Store, run: int, watcher: Watcher) -> list[Measured]:
    """Return the measured pairings of a run that can be counted on the meta device."""
    rows = [row for row in table_of(store, run).rows if row.latency and row.failure is None]
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
            if not counter.is_known(each.encoder_key) or not counter.is_known(each.rest_key):
                watcher.say(f"{each.pairing} cannot be counted on the meta device, and is left out.")
                continue
            cost = counter.count(each.pairing, height=row.height, width=row.width, batch=row.batch)
            found.append(
                Measured(
                    pairing=each.pairing,
                    seconds=row.latency.median if row.latency else 0.0,
                    live_bytes=row.live_bytes,
                    operations=cost.operations,
                    peak_bytes=cost.peak_bytes,
                )
            )
    return found


def check(measured: Sequence[Measured], calibration: Calibration, line: np.ndarray) -> tuple[object, ...]:
    """Return the cells of a setting, without its name."""
    predictions = [calibration.model.predict(each.operations) for each in measured]
    estimates = [calibration.model.interval(prediction) for prediction in predictions]
    seconds = np.array([each.seconds for each in measured])
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
