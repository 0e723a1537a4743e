"""Measure what a pairing costs a run besides its own measured calls: `python benchmarks/overhead.py`.

Runs of several sizes measure small pairings at 64x64, in 20 rounds on the CPU. For each run, the script prints the seconds that
were not spent on measured calls, divided by the number of pairings, and how they divide into the passes of the run: computing
costs, cold starts, and rounds (building, warming up, and all that happens between the measured calls). It also prints the peak
resident memory of the process that leads the run.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.running import sweep
from zoo.benchmark.running.session import Session
from zoo.benchmark.store.store import Store

ENCODERS = (
    "edgenext_xx_small",
    "efficientnet_b0",
    "efficientvit_b0",
    "fastvit_t8",
    "fbnetc_100",
    "ghostnet_100",
    "hardcorenas_a",
    "lcnet_100",
    "mixnet_s",
    "mnasnet_100",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobileone_s0",
    "mobilevitv2_050",
    "regnetx_002",
    "regnety_004",
    "repvgg_a0",
    "resnet18",
    "semnasnet_100",
    "tinynet_a",
)
DECODERS = ("unet-basic", "unet-bilinear", "unet-attention")
PASSES = ("compute_costs", "measure_cold_starts", "measure_groups")


class Watcher:
    """Prints what a run says, and nothing else."""

    def begin(self, total: int) -> None:
        """Ignore the beginning of a part."""

    def advance(self, what: str, count: int = 1) -> None:
        """Ignore a step."""

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, file=sys.stderr)

    def log(self, line: str) -> None:
        """Ignore a line of progress."""


def main() -> None:
    """Measure runs of each size, each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairings", type=int, nargs="+", default=[20, 100, 300, 1000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(measure(asked.one))
        return
    columns = ("pairings", "seconds", "measured calls, s", "others, s a pairing", *PASSES, "other", "peak MiB")
    print(f"| {' | '.join(columns)} |\n|{' ---: |' * len(columns)}")
    for count in asked.pairings:
        command = [sys.executable, __file__, "--one", str(count)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


def measure(count: int) -> str:
    """Measure a run of `count` pairings, and return its row of the table."""
    config = BenchConfig.model_validate(
        {"name": "overhead", "pairings": pairings(count), "modes": ["inference"], "size": [64], "device": "cpu", "rounds": 20}
    )
    seconds = dict.fromkeys(PASSES, 0.0)
    calls = 0.0

    def timed(name: str) -> None:
        original = getattr(sweep, name)

        def run(session: Session) -> None:
            nonlocal calls
            began = time.perf_counter()
            original(session)
            seconds[name] = time.perf_counter() - began
            calls = session.measured_seconds

        setattr(sweep, name, run)

    for name in PASSES:
        timed(name)
    with tempfile.TemporaryDirectory() as folder, closing(Store(Path(folder) / "zoo.sqlite")) as store:
        began = time.perf_counter()
        run = sweep.run_sweep(config, store, Watcher())
        total = time.perf_counter() - began
        if failed := [str(stored.trial) for stored in store.trials(run.id) if stored.error]:
            sys.exit(f"{len(failed)} pairings failed, such as {failed[0]}")
    seconds["measure_groups"] -= calls
    others = total - calls
    parts = [*seconds.values(), others - sum(seconds.values())]
    figures = [f"{total:.0f}", f"{calls:.0f}", f"{others / count:.2f}", *(f"{part / count:.3f}" for part in parts)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts in KiB
    return f"| {' | '.join([str(count), *figures, str(peak)])} |"


def pairings(count: int) -> list[dict[str, object]]:
    """Return different pairings of small encoders. From the 61st on, they differ in their dropout, which inference skips."""
    crossed = [(encoder, decoder) for decoder in DECODERS for encoder in ENCODERS]
    return [
        {
            "encoder": f"timm:{crossed[index % len(crossed)][0]}",
            "decoder": crossed[index % len(crossed)][1],
            "decoder_options": {"dropout": index // len(crossed) / 1000},
        }
        for index in range(count)
    ]


if __name__ == "__main__":
    main()
