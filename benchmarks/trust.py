"""Check the results of the benchmark in cases in which the true result is known: `python benchmarks/trust.py`.

1. Measure the same pairing under two names (`configs/aa.yaml`) many times, and count how often the result is a tie.
2. Measure a model that runs its whole forward pass twice, on an idle machine and while other processes keep the CPU busy. The
   true ratio of its time to that of a single pass is 2.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

import zoo
from zoo.benchmark.table.document import title_of

ROOT = Path(__file__).parents[1]


class Twice(nn.Module):
    """A model that runs its whole forward pass twice."""

    def __init__(self) -> None:
        super().__init__()
        self.model = zoo.build("resnet18", "unet-basic")

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of a second forward pass, whose input depends on the first, so that a compiler keeps both."""
        first = self.model(image)
        return self.model(image + 0 * first.mean())


@contextmanager
def busy_processes(count: int):  # noqa: ANN201 - it yields nothing
    """While the context is active, run `count` processes that keep CPU cores busy."""
    spin = "while True: sum(range(10**6))"
    others = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Print a line for each run, and a summary in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="repetitions of the A/A run")
    parser.add_argument("--output", type=Path, help="also write the summary to this file")
    arguments = parser.parse_args()
    twice = zoo.BenchConfig.model_validate(
        {
            "name": "twice",
            "baseline": {"encoder": "resnet18", "decoder": "unet-basic"},
            "pairings": [{"encoder": "resnet18", "decoder": "unet-bilinear"}],
            "references": [{"name": "twice", "factory": "trust:Twice"}],
            "modes": ["inference"],
            "rounds": 40,
        }
    )
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "trust.sqlite"
        ties, checks, ratios = 0, 0, []
        for number in range(arguments.repeats):
            table = zoo.bench(ROOT / "configs/aa.yaml", store=store)
            ratio = table.rows[1].ratio
            ties += ratio.is_tie
            checks += not table.checks[0].is_off
            ratios.append(ratio)
            print(f"A/A {number + 1}: {ratio.format()} {'tie' if ratio.is_tie else 'NO TIE'}", flush=True)
        held = sum(ratio.low <= 1 <= ratio.high for ratio in ratios)
        worst = max(abs(ratio.median - 1) for ratio in ratios)
        lines += [
            f"**{title_of(table)}**",
            "",
            f"- The same pairing under two names (`configs/aa.yaml`), {len(ratios)} runs: a tie in {ties}; the interval held 1 "
            f"in {held}; the farthest median from 1 was off by {worst:.1%}. The runs' own A/A check held in {checks}.",
        ]
        for others in (0, 1, 2):
            with busy_processes(others):
                table = zoo.bench(twice, store=store)
            row = next(row for row in table.rows if row.name == "twice")
            beside = {0: "nothing else running", 1: "a busy second process", 2: "two busy processes"}[others]
            clock, busy = row.ratio.format(), row.busy_ratio.format()
            lines.append(
                f"- A model that runs its forward pass twice, with {beside}: by the clock {clock} times as long, in CPU time "
                f"{busy}; flags: {'; '.join(row.flags) or 'none'}."
            )
            print(lines[-1], flush=True)
    summary = "\n".join(lines) + "\n"
    print(summary)
    if arguments.output:
        arguments.output.write_text(summary, encoding="utf-8")


if __name__ == "__main__":
    main()
