"""Measure how often intervals contain the true median: `python benchmarks/intervals.py [STORE ...]`.

The interval between two order statistics, which the tables show (`zoo.common.statistics`), is compared with the bootstrap
interval of the median (percentile method; Efron and Tibshirani 1993, chapter 13).

The samples are drawn from distributions whose median is known and whose shapes are typical of timings: one with a minimum and a
long tail, one with two modes, and a normal and a log-normal distribution. With stores of results, such as results/atlas.sqlite,
the samples are also their A/A ratios: the time of the second copy of the baseline divided by that of the baseline, whose true
median is 1. This script times nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from zoo.benchmark.store.store import Store
from zoo.common.statistics import estimate_median

DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], float | None]] = {
    "exponential tail": (lambda draw, size: 1 + draw.exponential(0.05, size), 1 + 0.05 * math.log(2)),
    "normal": (lambda draw, size: draw.normal(1, 0.05, size), 1.0),
    "log-normal": (lambda draw, size: draw.lognormal(0, 0.2, size), 1.0),
    "two modes": (lambda draw, size: draw.normal(1, 0.02, size) + 0.3 * (draw.random(size) < 0.3), None),
}
RESAMPLES = 1999


def main() -> None:
    """Print how often each interval contains the true median, and its mean width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", type=Path, help="Stores of results.")
    parser.add_argument("--repeats", type=int, default=1000)
    asked = parser.parse_args()
    draw = np.random.default_rng(1)
    print("| samples | rounds | level | intervals | order statistics hold | mean width | bootstrap holds | mean width |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, (sample, known) in DISTRIBUTIONS.items():
        true = known if known is not None else float(np.median(sample(draw, 10**6)))
        for count in (20, 40, 160):
            for level in (0.95, 0.9875):
                samples = [sample(draw, count).tolist() for _ in range(asked.repeats)]
                print_row(name, samples, true, level, draw)
    for path in asked.stores:
        by_count: dict[int, list[Sequence[float]]] = {}
        for ratios in aa_ratios(path):
            by_count.setdefault(len(ratios), []).append(ratios)
        for _, samples in sorted(by_count.items()):
            print_row(f"A/A ratios of {path.name}", samples, 1.0, 0.95, draw)


def print_row(name: str, samples: list[Sequence[float]], true: float, level: float, draw: np.random.Generator) -> None:
    """Print how often the intervals of each list of samples contain the true median, and their mean widths."""
    cells = [name, str(len(samples[0])), f"{level:.2%}", str(len(samples))]
    for interval in (order_statistics, lambda each, level: bootstrap(each, level, draw)):
        ends = np.array([interval(each, level) for each in samples])
        holds = ((ends[:, 0] <= true) & (true <= ends[:, 1])).mean()
        cells += [f"{holds:.1%}", f"{(ends[:, 1] - ends[:, 0]).mean():.4f}"]
    print(f"| {' | '.join(cells)} |")


def order_statistics(samples: Sequence[float], level: float) -> tuple[float, float]:
    """Return the interval that the tables show."""
    estimate = estimate_median(samples, level)
    return estimate.low, estimate.high


def bootstrap(samples: Sequence[float], level: float, draw: np.random.Generator) -> tuple[float, float]:
    """Return the bootstrap interval."""
    medians = np.median(draw.choice(samples, (RESAMPLES, len(samples))), axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def aa_ratios(path: Path) -> list[Sequence[float]]:
    """Return the A/A ratios of each group of each run: one for each round."""
    found = []
    with closing(Store(path, must_exist=True)) as store:
        for run in store.runs():
            roles = {stored.key: stored.trial.role for stored in store.trials(run.id)}
            for group in store.groups(run.id):
                by_role = {roles[key]: key for key in group.trials}
                if {"baseline", "control"} <= by_role.keys():
                    found.append(group.ratios(by_role["control"], by_role["baseline"]))
    return [ratios for ratios in found if len(ratios) >= 20]


if __name__ == "__main__":
    main()
