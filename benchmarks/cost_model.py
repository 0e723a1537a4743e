"""Check the cost model on pairings that it was not fitted to: `python benchmarks/cost_model.py`.

The script calibrates the device, draws other pairings at random (no encoder of the calibration among them), times them, and
compares the times with the estimates. The operations of these pairings are counted on the meta device, as `zoo.estimate_cost`
does. For each image size and batch size, the script prints:

- the number of pairings, of families (first words of the encoders' names) and of decoders;
- the share of the pairings that have an estimate, to which the other columns are limited;
- the median and the 90th percentile of the relative error, and the same percentile for a line in FLOPs that is fitted to the
  calibration;
- the share of the times that are within their 90 % intervals;
- the share that a search would drop by mistake: with each time as the limit, of the pairings within the limit, those whose
  interval begins above it.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from zoo.benchmark.environment import format_device
from zoo.benchmark.operation import Operation, OperationTimes, total_flops
from zoo.benchmark.running.progress import ConsoleWatcher
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Trial
from zoo.pairing.pairing import Pairing
from zoo.search.calibration import Setting, calibrate, family_of, find_calibration, sample_pairings, time_pairings
from zoo.search.counting import PairingCounter

SETTINGS = ((256, 1, 40e9), (512, 1, 80e9), (256, 8, 100e9), (512, 8, 100e9))
"""Image sizes, batch sizes, and the most FLOPs of a call on the CPU, which limit how long the check takes."""
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
)


def main() -> None:
    """Calibrate, time the other pairings, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("results/cost-model.sqlite"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pairings", type=int, default=100, help="How many pairings are timed in each setting.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--read", action="store_true", help="Time nothing: read the latest times in the store.")
    asked = parser.parse_args()
    with ConsoleWatcher() as watcher, closing(Store(asked.store)) as store:
        find = find_calibration if asked.read else partial(calibrate, watcher=watcher)
        calibration = find(store, device=asked.device)
        latest = {run.name: run.id for run in store.runs()}
        timed = timed_in(store, calibration.run.id)
        used = {pairing.encoder for trial, _ in timed if isinstance(pairing := trial.subject, Pairing)}
        by_setting: dict[str, list[tuple[Trial, OperationTimes]]] = defaultdict(list)
        for size, batch, most_flops in SETTINGS:
            setting = Setting(size=size, batch=batch, pairings=asked.pairings, most_flops=most_flops)
            name = f"cost model, {size}x{size}, batch {batch}"
            if not asked.read:
                config = sample_pairings(name, [setting], device=asked.device, watcher=watcher, seed=asked.seed, without=used)
                latest[name] = time_pairings(config, store, watcher).id
            by_setting[f"{size}x{size}, batch {batch}"] = timed_in(store, latest[name])
    print(f"{format_device(calibration.run.environment)}, calibrated with {len(timed)} pairings\n")
    print(f"| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * (len(COLUMNS) - 1)}")
    line = flops_line([times for _, times in timed])
    for name, pairs in by_setting.items():
        counted = [operations_of(trial) for trial, _ in pairs]
        predictions = [calibration.model.predict(operations) for operations in counted]
        estimates = [calibration.model.interval(prediction) for prediction in predictions]
        seconds = np.array([times.seconds for _, times in pairs])
        is_like = np.array([not prediction.difference for prediction in predictions])
        errors = np.abs(np.array([estimate.seconds for estimate in estimates]) / seconds - 1)[is_like]
        flops_errors = np.abs(np.array([line @ (flops_of(times), 1.0) for _, times in pairs]) / seconds - 1)[is_like]
        low, high = (np.array([getattr(estimate, end) for estimate in estimates]) for end in ("low", "high"))
        is_inside = ((low <= seconds) & (seconds <= high))[is_like]
        dropped, within = 0, 0
        for limit in seconds:
            fits = is_like & (seconds <= limit)
            dropped += int((fits & (low > limit)).sum())
            within += int(fits.sum())
        encoders = [trial.subject.encoder for trial, _ in pairs if isinstance(trial.subject, Pairing)]
        cells = (
            name,
            len(pairs),
            len(set(map(family_of, encoders))),
            len({trial.subject.decoder for trial, _ in pairs if isinstance(trial.subject, Pairing)}),
            f"{is_like.mean():.0%}",
            f"{np.median(errors):.1%}",
            f"{np.quantile(errors, 0.9):.1%}",
            f"{np.quantile(flops_errors, 0.9):.1%}",
            f"{is_inside.mean():.0%}",
            f"{dropped / max(within, 1):.1%}",
        )
        print(f"| {' | '.join(map(str, cells))} |")


def timed_in(store: Store, run: int) -> list[tuple[Trial, OperationTimes]]:
    """Return the trials of a run whose operations were timed, with the times."""
    return [(stored.trial, stored.operation_times) for stored in store.trials(run) if stored.operation_times]


def operations_of(trial: Trial) -> Mapping[Operation, int]:
    """Return the operations of a trial's model and the numbers of their calls, counted without running it."""
    assert isinstance(trial.subject, Pairing)
    return PairingCounter().count(trial.subject, height=trial.height, width=trial.width, batch=trial.batch).operations


def flops_of(times: OperationTimes) -> int:
    """Return the FLOPs of a call."""
    return total_flops(times.calls)


def flops_line(all_times: list[OperationTimes]) -> np.ndarray:
    """Return the seconds of each FLOP and of each call, by a least-squares fit of the relative errors."""
    amounts = np.array([(flops_of(times), 1.0) for times in all_times])
    seconds = np.array([times.seconds for times in all_times])
    scale = amounts.max(axis=0)
    return np.asarray(nnls(amounts / scale / seconds[:, None], np.ones(len(seconds)))[0] / scale)


if __name__ == "__main__":
    main()
