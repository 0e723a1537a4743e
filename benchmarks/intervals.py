"""Measure how often the intervals of benchmark tables contain the true median: `python benchmarks/intervals.py`.

The samples are drawn from distributions whose median is known and whose shapes are typical of timings: one with a minimum and a
long tail, one with two modes, and a normal distribution. The bootstrap interval that the tables show (`zoo.common.statistics`)
is compared with an interval between two order statistics of the samples. The confidence level of the latter follows from the
binomial distribution, whatever the distribution of the samples is (Conover 1999, Practical Nonparametric Statistics, 3.2). This
script times nothing.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from zoo.common.statistics import estimate_median

DISTRIBUTIONS = {
    "exponential tail": (lambda draw, size: 1 + draw.exponential(0.05, size), 1 + 0.05 * math.log(2)),
    "normal": (lambda draw, size: draw.normal(1, 0.05, size), 1.0),
    "log-normal": (lambda draw, size: draw.lognormal(0, 0.2, size), 1.0),
    "two modes": (lambda draw, size: draw.normal(1, 0.02, size) + 0.3 * (draw.random(size) < 0.3), None),
}


def order_statistics(samples: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return an interval between two order statistics that contains the true median with at least the probability `confidence`.

    With very few samples, no interval reaches that probability, and the range of all samples is returned.
    """
    ordered, count = np.sort(samples), len(samples)
    rank, tail = 0, 0.5**count
    while tail <= (1 - confidence) / 2 and rank < count // 2:
        rank += 1
        tail += math.comb(count, rank) * 0.5**count
    rank = max(rank, 1)
    return float(ordered[rank - 1]), float(ordered[count - rank])


def main() -> None:
    """Print how often each interval contains the true median, and its mean width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    draw = np.random.default_rng(1)
    print("(holds, mean width)")
    print(f"{'samples of':18s} {'rounds':>6s} {'level':>7s}   {'bootstrap':>20s}   {'order statistics':>20s}")
    for name, (sample, known) in DISTRIBUTIONS.items():
        true = known if known is not None else float(np.median(sample(draw, 10**6)))
        for count in (20, 40, 160):
            for level in (0.95, 0.9875):
                holds, widths = np.zeros(2), np.zeros(2)
                for _ in range(repeats):
                    samples = sample(draw, count)
                    estimate = estimate_median(samples.tolist(), level)
                    for place, (low, high) in enumerate(((estimate.low, estimate.high), order_statistics(samples, level))):
                        holds[place] += low <= true <= high
                        widths[place] += high - low
                told = "   ".join(f"{h / repeats:11.1%} {w / repeats:8.4f}" for h, w in zip(holds, widths, strict=True))
                print(f"{name:18s} {count:6d} {level:7.2%}   {told}")


if __name__ == "__main__":
    main()
