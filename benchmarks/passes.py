"""Measure the effect of each pass of `zoo.deploy`, for several pairings: `python benchmarks/passes.py`.

A pass rewrites the graph of a model. The script runs each model as built. It also runs the model's graph in PyTorch
(channels-last, with oneDNN's fused convolutions if available): after no pass, after the first pass, after the first two passes,
and so on. Each variant runs once in each round, in random order. The outputs are compared before anything is timed. A ratio is
the time of the model as built divided by the time of the row's variant. Above 1, the variant is faster. The 95 % interval of
the ratio follows in brackets.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path

import torch
from turns import seconds_by_turns

import zoo
from zoo.benchmark.running.environment import describe_environment
from zoo.common.devices import choose_device
from zoo.common.rendering import table_row
from zoo.common.statistics import estimate_ratio
from zoo.inference.deployment.checked import Way, checked_program
from zoo.inference.deployment.passes import PASSES
from zoo.inference.reference import reference_of
from zoo.inference.runtimes import original_program

DECODERS = ("unet-basic", "unet-bilinear", "unet-attention", "smp:unet")


def main() -> None:
    """Print a table for each size, and write all tables to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--decoders", nargs="+", default=DECODERS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--runtime", default="eager")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # warnings of the plugins' libraries
    device = choose_device(asked.device)
    place = describe_environment(device)
    where = f"{place.processor}, {place.threads} threads" if device.type == "cpu" else place.device_name
    lines = [f"**{where}, torch {torch.__version__}, {asked.runtime}, {asked.rounds} rounds**"]
    ways = [Way(runtime=asked.runtime, passes=tuple(PASSES)[:count]) for count in range(len(PASSES) + 1)]
    headings = ["no pass", *(f"+ {name}" for name in PASSES)]
    for size in asked.sizes:
        lines += ["", table_row((f"{asked.encoder}, batch 1, {size}x{size}", *asked.decoders))]
        lines += [table_row(("---", *("---:" for _ in asked.decoders)))]
        columns = []
        for decoder in asked.decoders:
            torch.manual_seed(0)
            model = zoo.build(asked.encoder, decoder).eval().requires_grad_(False).to(device)
            image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
            reference = reference_of(model, image, 1e-4)
            programs = [original_program(model), *(checked_program(model, image, reference, way) for way in ways)]
            seconds = seconds_by_turns([partial(program, image) for program in programs], asked.rounds, device)
            ratios = [estimate_ratio(seconds[0], each).format(digits=2) for each in seconds[1:]]
            columns.append([f"{1e3 * sorted(seconds[0])[len(seconds[0]) // 2]:.1f} ms", *ratios])
        for heading, *cells in zip(["as it is built", *headings], *columns, strict=True):
            lines.append(table_row((heading, *cells)))
    text = "\n".join(lines) + "\n"
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
