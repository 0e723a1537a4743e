"""Measure the processor time that zoo and smp need to start: `python benchmarks/startup.py`.

In each round, every kind of process starts once, in random order. Each figure is the user plus system time of a process,
minus that of an empty Python process in the same round. After the rounds, the script builds zoo's and smp's U-Net repeatedly in
its own, already warm process, alternating between the two. A ratio is smp's time divided by zoo's time. Above 1, zoo is faster.
Figures are medians with 95 % intervals. The script requires Linux, since it reads the peak memory from /proc.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import segmentation_models_pytorch as smp
import torch
from turns import by_turns

import zoo
from zoo.benchmark.running.environment import describe_environment
from zoo.common.rendering import table_row
from zoo.common.statistics import estimate_median, estimate_ratio

BARE = "pass"
OURS = 'import zoo; zoo.build("resnet18", "unet-basic")'
THEIRS = 'import segmentation_models_pytorch as smp; smp.Unet("resnet18", encoder_weights=None)'
LISTING = "zoo list decoders"
CODES = {
    BARE: BARE,
    "import zoo": "import zoo",
    "import segmentation_models_pytorch": "import segmentation_models_pytorch",
    "import torch": "import torch",
    "import torchvision": "import torchvision",
    LISTING: f"import sys; sys.argv = {LISTING.split()}; from zoo.__main__ import main; main()",
    OURS: OURS,
    THEIRS: THEIRS,
}
TELL_PEAK = "import atexit, sys; atexit.register(lambda: sys.stderr.write(open('/proc/self/status').read()))"


def started(code: str) -> tuple[float, float]:
    """Run code in a fresh process, and return its processor time in milliseconds and its peak memory in MiB."""
    before = getrusage(RUSAGE_CHILDREN)
    command = [sys.executable, "-c", f"{TELL_PEAK}\n{code}"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    after = getrusage(RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{code} failed:\n{done.stderr}")
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1e3 * taken, int(done.stderr.rpartition("VmHWM:")[2].split()[0]) / 1024


def built(build: Callable[[], object]) -> float:
    """Call `build` in this process, and return the processor time in milliseconds."""
    begun = time.process_time()
    build()
    return 1e3 * (time.process_time() - begun)


def process_lines(times: Mapping[str, list[float]], peaks: Mapping[str, list[float]]) -> Iterable[str]:
    """Yield the lines of the table with the processor time and the memory of new processes."""
    yield "| fresh process | ms beyond bare Python | peak MiB |"
    yield "| --- | ---: | ---: |"
    for name, figures in times.items():
        beyond = [figure - bare for figure, bare in zip(figures, times[BARE], strict=True)]
        told = (
            f"({estimate_median(figures).format(digits=1)} in all)"
            if name == BARE
            else estimate_median(beyond).format(digits=1)
        )
        yield table_row((f"`{name}`", told, f"{statistics.median(peaks[name]):.0f}"))


def build_lines(fresh: Mapping[str, list[float]], warm: Mapping[str, list[float]]) -> Iterable[str]:
    """Yield the lines of the table that compares building with zoo and with smp."""
    yield "| U-Net on a ResNet18 | zoo ms | smp ms | smp / zoo |"
    yield "| --- | ---: | ---: | ---: |"
    for name, figures in (("built in a fresh process, imports included", fresh), ("built once more", warm)):
        each = [estimate_median(figures[code]).format(digits=1) for code in (OURS, THEIRS)]
        yield table_row((name, *each, estimate_ratio(figures[THEIRS], figures[OURS]).format(digits=2)))


def main() -> None:
    """Print both tables, and write them to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    fresh = dict(zip(CODES, by_turns([partial(started, code) for code in CODES.values()], asked.rounds), strict=True))
    times = {name: [taken for taken, _ in figures] for name, figures in fresh.items()}
    peaks = {name: [peak for _, peak in figures] for name, figures in fresh.items()}
    builds: dict[str, Callable[[], object]] = {
        OURS: lambda: zoo.build("resnet18", "unet-basic"),
        THEIRS: lambda: smp.Unet("resnet18", encoder_weights=None),
    }
    warm = dict(zip(builds, by_turns([partial(built, build) for build in builds.values()], asked.rounds), strict=True))
    place = describe_environment(torch.device("cpu"))
    lines = [
        f"**{place.processor}, {place.threads} threads, Python {place.python}, torch {torch.__version__}, "
        f"smp {smp.__version__}, {asked.rounds} rounds, processor time**",
        "",
        *process_lines(times, peaks),
        "",
        *build_lines(times, warm),
    ]
    print("\n".join(lines))
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
