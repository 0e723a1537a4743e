"""How good is the pairing that `zoo search` chooses by training? `python benchmarks/search_quality.py`.

Twelve pairings with random weights are trained in full, with several seeds. The best of them is chosen by the mIoU of the first
seeds on the validation images. Then `zoo search` chooses among the same pairings, once for each of these seeds, and so do two
other ways that may train three pairings in full, which costs about as much as a search:

- random: three pairings chosen at random; the best of them by its validation mIoU
- largest: the three pairings with the most FLOPs; the best of them by its validation mIoU

The regret of a choice is how much lower its test mIoU is than that of the best pairing. It is measured with the other seeds.
The script prints the mean regret of each way, and the upper end of its 95 % interval, by bootstrapping choices and seeds.

    pip install ".[train]"
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import closing
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

import zoo
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import subject_key
from zoo.pairing.pairing import Pairing

ENCODERS = ["resnet18", "timm:mobilenetv3_small_100", "timm:regnety_002", "timm:vit_tiny_patch16_224"]
"""A residual network, one with depthwise convolutions, one with grouped convolutions, and a transformer."""
DECODERS = ["unet-basic", "unet-bilinear", "smp:fpn"]
TRAINED_IN_FULL = 3
RESAMPLES = 20_000

Scores = dict[str, dict[int, tuple[float, float]]]
"""For each pairing and seed, the mIoU on the validation images and on the test images."""


def main() -> None:
    """Train all pairings, search with several seeds, and print the regrets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="texture-mosaic")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, help="How many seeds choose; as many others measure the regret.")
    parser.add_argument("--store", type=Path, default=Path("results/search-quality.sqlite"))
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    quality = {"data": {"source": asked.task}, "budget": asked.steps, "stop_after": asked.steps, "seeds": 2 * asked.seeds}
    config = {"name": "search quality", "encoders": ENCODERS, "decoders": DECODERS, "modes": ["inference"], "size": [64]}
    config |= {"quality": quality, "device": asked.device, "rounds": 20}
    with closing(Store(asked.store)) as store:
        done = [run for run in store.runs() if run.name == "search quality" and run.finished]
    run = done[-1].id if done else zoo.bench(zoo.BenchConfig.model_validate(config), store=asked.store).runs[0].id
    scores, flops = read_scores(asked.store, run)
    choosing, judging = range(asked.seeds), range(asked.seeds, 2 * asked.seeds)
    best = max(scores, key=lambda name: statistics.fmean(scores[name][seed][0] for seed in choosing))
    deviations = [statistics.stdev(test for _, test in of_seeds.values()) for of_seeds in scores.values()]

    chosen: dict[str, list[str]] = {"zoo search": [], "random": [], "largest": []}
    largest = sorted(scores, key=lambda name: -flops[name])[:TRAINED_IN_FULL]
    steps = []
    for seed in choosing:
        result = zoo.search_pairings(
            data=asked.task,
            encoders=ENCODERS,
            decoders=DECODERS,
            weights="random",
            steps=asked.steps,
            seed=seed,
            minutes=600,
            output=asked.store.with_name(f"search-quality-{asked.task}-{asked.steps}-{seed}"),
            device=asked.device,
            store=asked.store,
        )
        assert result.best is not None
        chosen["zoo search"].append(f"{result.best.encoder} x {result.best.decoder}")
        steps.append(steps_of(result.trained))
        for three in combinations(scores, TRAINED_IN_FULL):
            chosen["random"].append(max(three, key=lambda name: scores[name][seed][0]))
        chosen["largest"].append(max(largest, key=lambda name: scores[name][seed][0]))

    print(f"{asked.task}, {asked.steps} steps, {len(scores)} pairings with random weights")
    print(f"standard deviation between seeds: median {statistics.median(deviations):.3f}, largest {max(deviations):.3f}")
    print(f"best pairing: {best}; steps of a search: {statistics.fmean(steps) / (asked.steps * len(scores)):.0%} of all\n")
    print("| choice | mean regret | 95 % upper bound | chosen |\n| --- | ---: | ---: | --- |")
    for way, names in chosen.items():
        regrets = np.array([[scores[best][seed][1] - scores[name][seed][1] for seed in judging] for name in names])
        often = ", ".join(dict.fromkeys(names)) if len(names) <= asked.seeds else "any"
        print(f"| {way} | {regrets.mean():.4f} | {upper_bound(regrets):.4f} | {often} |")


def read_scores(path: Path, run: int) -> tuple[Scores, dict[str, int]]:
    """Return the scores of each pairing of a run, and its FLOPs."""
    scores: Scores = {}
    flops: dict[str, int] = {}
    with closing(Store(path, must_exist=True)) as store:
        qualities = store.qualities(run)
        for stored in store.trials(run):
            if stored.trial.role == "control" or not isinstance(stored.trial.subject, Pairing):
                continue
            name = f"{stored.trial.subject.encoder} x {stored.trial.subject.decoder}"
            results = {seed: each.result for seed, each in qualities[subject_key(stored.trial.subject)].items() if each.result}
            scores[name] = {seed: (each.validation or 0.0, each.scores.miou) for seed, each in results.items()}
            flops[name] = stored.cost.flops if stored.cost else 0
    return scores, flops


def steps_of(trained: tuple[tuple[int, int], ...]) -> int:
    """Return how many steps the first seed of a search took: each candidate goes on where it stopped."""
    return sum((stop - before) * count for (before, _), (stop, count) in pairwise([(0, 0), *trained]))


def upper_bound(regrets: np.ndarray) -> float:
    """Return the upper end of the 95 % interval of the mean regret, by bootstrapping the choices and the seeds."""
    draw = np.random.default_rng(0)
    choices, seeds = regrets.shape
    means = [
        regrets[np.ix_(draw.integers(choices, size=choices), draw.integers(seeds, size=seeds))].mean() for _ in range(RESAMPLES)
    ]
    return float(np.quantile(means, 0.975))


if __name__ == "__main__":
    main()
