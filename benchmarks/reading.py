"""Time the commands that read a results store, on stores of 2,000 and 20,000 synthetic trials: `python benchmarks/reading.py`.

Each store has one run, whose trials are in groups of eight. In addition, each group has the baseline and the control (a copy of
the baseline). Each group has 20 rounds. Each command runs in a separate process, on the two stores in turn. The script prints
the median CPU seconds of each command for both stores, and the time for the larger store divided by the time for the smaller
one.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import torch

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.messages import Round, Sample, StaticCost
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import make_trials
from zoo.pairing.pairing import Pairing

ROUNDS, GROUP = 20, 8
COMMANDS = {
    "table": ("table", "--format", "csv"),
    "recommend": ("recommend",),
    "report": ("report", "--output", "report.html"),
    "export-results": ("export-results", "--output", "rows.json"),
}
CONFIG = {
    "name": "many",
    "encoders": ["resnet18"],
    "decoders": ["unet-basic"],
    "baseline": {"name": "peer", "factory": "torch.nn:Identity"},
    "modes": ["inference"],
    "size": [64],
}
COST = StaticCost(parameters=10, flops=10**9, live_bytes=10**6, step_flops=10**9)


def main() -> None:
    """Create the stores, run the commands and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs=2, default=[2000, 20000])
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = [Path(folder) / f"{count}.sqlite" for count in asked.trials]
        for store, count in zip(stores, asked.trials, strict=True):
            make_store(store, count)
        few, many = (f"{count:,} trials, s" for count in asked.trials)
        print(f"| command | {few} | {many} | times as long |\n| --- | ---: | ---: | ---: |")
        for name, arguments in COMMANDS.items():
            taken = [[cpu_seconds(arguments, store) for store in stores] for _ in range(asked.turns)]
            short, long = (statistics.median(column) for column in zip(*taken, strict=True))
            print(f"| `zoo {name}` | {short:.1f} | {long:.1f} | {long / short:.1f} |")


def make_store(path: Path, count: int) -> None:
    """Fill a store with one run of `count` trials."""
    config = BenchConfig.model_validate(CONFIG | {"rounds": ROUNDS})
    baseline, first, control = make_trials(config)
    options = ({"channels": [8 + number, 8]} for number in range(count))
    candidates = [
        dataclasses.replace(first, subject=Pairing("resnet18", "unet-basic", decoder_options=each)) for each in options
    ]
    generator = random.Random(0)
    environment = describe_environment(torch.device("cpu")).as_dict()
    with closing(Store(path)) as store:
        run = store.start_run("many", config.model_dump(mode="json"), environment, [baseline, *candidates, control]).id
        for trial in (baseline, *candidates, control):
            store.add_cost(run, trial.key, COST)
        keys = [trial.key for trial in candidates]
        groups = [[baseline.key, *keys[place : place + GROUP], control.key] for place in range(0, count, GROUP)]
        store.add_groups(run, groups)
        environment_id = store.environment_id(run, environment)
        for number, group in enumerate(groups):
            for turn in range(ROUNDS):
                samples = tuple(
                    Sample(trial=key, slot=slot, calls=3, seconds=generator.uniform(0.010, 0.011), busy_seconds=0.01)
                    for slot, key in enumerate(group)
                )
                store.add_round(run, number, environment_id, Round(number=turn, samples=samples, conditions={}))
            store.stop_group(run, number, environment_id, "fixed")
        store.finish_run(run)


def cpu_seconds(arguments: tuple[str, ...], store: Path) -> float:
    """Run a command, and return its CPU time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "zoo", *arguments, "--store", store]
    subprocess.run(command, check=True, cwd=store.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
