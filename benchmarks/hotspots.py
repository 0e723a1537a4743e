"""Where a deployed model's time goes, operation by operation: `python benchmarks/hotspots.py`.

The graph that `zoo.deploy` runs in PyTorch is run node by node, each one timed, in several runs; a figure is the median. Beside
the convolutions' rates stands that of the fastest kernel that `zoo bench` knows (matrix products and large 3x3 convolutions),
measured in the same process: what all convolutions would take at that rate is what no arrangement of them goes below.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import fx

import zoo
from zoo.benchmark.environment import describe_environment
from zoo.benchmark.rates import best_rate, measure_rates
from zoo.deployment import onednn
from zoo.deployment.graph import capture, place_of
from zoo.deployment.passes import PASSES, apply_passes
from zoo.rendering import table_row

CPU = torch.device("cpu")


class Timed(fx.Interpreter):
    """Runs a graph, and keeps how long each node took and what it gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seconds: dict[fx.Node, list[float]] = defaultdict(list)
        self.flops: dict[fx.Node, int] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, node: fx.Node) -> Any:
        """Run a node."""
        begun = time.perf_counter()
        value = super().run_node(node)
        if node.op == "call_function":
            self.seconds[node].append(time.perf_counter() - begun)
            if isinstance(value, torch.Tensor):
                self.shapes[node] = tuple(value.shape)
                self.flops[node] = flops(node, [self.env.get(each) for each in node.all_input_nodes], value)
        return value


def flops(node: fx.Node, given: list[Any], value: torch.Tensor) -> int:
    """Return what a convolution multiplies and adds, two each; 0 for anything else."""
    name = str(node.target)
    weights = [each for each in given[1:] if isinstance(each, torch.Tensor) and each.ndim == 4 and "conv" in name]
    if not weights:
        return 0
    weight = weights[-1]  # the other one is a summand
    places = given[0] if "transpose" in name else value  # where each tap of the kernel is multiplied
    return 2 * places.shape[0] * places.shape[2] * places.shape[3] * weight.numel()


def main() -> None:
    """Print a table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--decoder", default="smp:unet")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--shown", type=int, default=15)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # the plugins' own
    torch.manual_seed(0)
    model = zoo.build(asked.encoder, asked.decoder).eval().requires_grad_(False)
    image = torch.rand(1, 3, asked.size, asked.size).contiguous(memory_format=torch.channels_last)
    graph = capture(model, image)
    apply_passes(graph, tuple(PASSES))
    graph.to_channels_last()
    with torch.no_grad():
        onednn.fuse_activations(graph)
    timed = Timed(graph.module)
    with torch.inference_mode():
        for _ in range(3):
            graph(image)
        for _ in range(asked.rounds):
            timed.run(image)
    best = best_rate(measure_rates(CPU, "float32"))
    taken = {node: median(seconds) for node, seconds in timed.seconds.items()}
    whole, products = sum(taken.values()), sum(timed.flops.values())
    place = describe_environment(CPU)
    convolutions = sum(seconds for node, seconds in taken.items() if timed.flops.get(node))
    lines = [
        f"**{place.processor}, {place.threads} threads, torch {torch.__version__}, {asked.rounds} runs**",
        "",
        f"{asked.encoder} x {asked.decoder}, batch 1, {asked.size}x{asked.size}: {1e3 * whole:.1f} ms in {len(taken)} "
        f"operations, {1e3 * convolutions:.1f} ms of it in convolutions,",
        f"{products / 1e9:.2f} GFLOPs at {products / convolutions / 1e9:.0f} GFLOP/s. The fastest kernel measured",
        f"({best.kernel}) runs at {best.flops_per_second / 1e9:.0f} GFLOP/s,",
        f"at which they would take {1e3 * products / best.flops_per_second:.1f} ms.",
        "",
        table_row(("operation", "output", "ms", "share", "GFLOP/s")),
        table_row(("---", "---", "---:", "---:", "---:")),
    ]
    ranked = sorted(taken, key=lambda node: taken[node], reverse=True)
    for node in ranked[: asked.shown]:
        done = timed.flops.get(node, 0)
        shape = "x".join(map(str, timed.shapes.get(node, ())))
        name = f"{place_of(node)}: {str(node.target).removeprefix('mkldnn.').removeprefix('aten.').partition('.')[0]}"
        rate = f"{done / taken[node] / 1e9:.0f}" if done else ""
        lines.append(table_row((name, shape, f"{1e3 * taken[node]:.2f}", f"{100 * taken[node] / whole:.0f} %", rate)))
    rest = sum(taken[node] for node in ranked[asked.shown :])
    lines.append(table_row((f"{len(ranked) - asked.shown} more", "", f"{1e3 * rest:.2f}", f"{100 * rest / whole:.0f} %", "")))
    text = "\n".join(lines) + "\n"
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
