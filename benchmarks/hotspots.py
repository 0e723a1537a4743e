"""Measure where a model's time goes on the CPU, operation by operation: `python benchmarks/hotspots.py`.

For inference, the script runs the graph of `zoo.deploy` node by node in PyTorch and times each node. For training, it runs a
step (forward, loss, backward, AdamW) under PyTorch's profiler and adds up the operations by kind. The inference time of a node
is its median over all runs. The training times are those of one step: the step with the median total time.

The rate of the convolutions (FLOPs per second) is compared with the rate of the fastest kernel that `zoo bench` knows (matrix
products and large 3x3 convolutions), which is measured in the same process. The script also prints the time that all
convolutions would take at the fastest kernel's rate. This is practically a lower bound for convolutions
with this number of FLOPs.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo.benchmark.measuring.peak_rates import best_rate, measure_rates
from zoo.benchmark.running.environment import describe_environment
from zoo.common.rendering import table_row
from zoo.inference.deployment import onednn
from zoo.inference.deployment.graph import capture, place_of
from zoo.inference.deployment.passes import PASSES, apply_passes

CPU = torch.device("cpu")
CONVOLUTIONS = ("aten::mkldnn_convolution", "aten::convolution_backward", "aten::_slow_conv2d_forward")


class Timed(fx.Interpreter):
    """Runs a graph, and records the time, the output shape and the FLOPs of each node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seconds: dict[fx.Node, list[float]] = defaultdict(list)
        self.flops: dict[fx.Node, int] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}

    def run_node(self, node: fx.Node) -> Any:
        """Run a node, record its time, output shape and FLOPs, and return its output."""
        begun = time.perf_counter()
        value = super().run_node(node)
        if node.op == "call_function":
            self.seconds[node].append(time.perf_counter() - begun)
            if isinstance(value, torch.Tensor):
                self.shapes[node] = tuple(value.shape)
                self.flops[node] = flops(node, [self.env.get(each) for each in node.all_input_nodes], value)
        return value


def flops(node: fx.Node, given: list[Any], value: torch.Tensor) -> int:
    """Return the FLOPs of a convolution, where a multiply-add counts as two. For any other operation, return 0."""
    name = str(node.target)
    weights = [each for each in given[1:] if isinstance(each, torch.Tensor) and each.ndim == 4 and "conv" in name]
    if not weights:
        return 0
    weight = weights[-1]  # the weight is the last 4D tensor; an earlier one is added to the output
    places = given[0] if "transpose" in name else value  # the map at whose pixels the kernel is applied
    return 2 * places.shape[0] * places.shape[2] * places.shape[3] * weight.numel()


def summary(whole: float, convolutions: float, products: float) -> Iterator[str]:
    """Yield lines with the total time, the convolutions' share, and the time they would take at the fastest kernel's rate."""
    best = best_rate(measure_rates(CPU, "float32"))
    assert best is not None
    yield f"{1e3 * whole:.1f} ms in all, {1e3 * convolutions:.1f} ms ({100 * convolutions / whole:.0f} %) in convolutions,"
    yield f"which are {products / 1e9:.1f} GFLOPs at {products / convolutions / 1e9:.0f} GFLOP/s. The fastest kernel measured"
    yield f"({best.kernel}) runs at {best.flops_per_second / 1e9:.0f} GFLOP/s,"
    yield f"at which they would take {1e3 * products / best.flops_per_second:.1f} ms."
    yield ""


def inference(model: torch.nn.Module, image: torch.Tensor, rounds: int, shown: int) -> Iterator[str]:
    """Yield the table of a deployed model's nodes."""
    model.eval().requires_grad_(False)
    graph = capture(model, image)
    apply_passes(graph, tuple(PASSES))
    graph.to_channels_last()
    with torch.no_grad():
        onednn.fuse_activations(graph)
    timed = Timed(graph.module)
    with torch.inference_mode():
        for _ in range(3):
            graph(image)
        for _ in range(rounds):
            timed.run(image)
    taken = {node: median(seconds) for node, seconds in timed.seconds.items()}
    whole = sum(taken.values())
    yield from summary(whole, sum(taken[node] for node, done in timed.flops.items() if done), sum(timed.flops.values()))
    yield table_row(("operation", "output", "ms", "share", "GFLOP/s"))
    yield table_row(("---", "---", "---:", "---:", "---:"))
    ranked = sorted(taken, key=lambda node: taken[node], reverse=True)
    for node in ranked[:shown]:
        done = timed.flops.get(node, 0)
        shape = "x".join(map(str, timed.shapes.get(node, ())))
        name = f"{place_of(node)}: {str(node.target).removeprefix('mkldnn.').removeprefix('aten.').partition('.')[0]}"
        rate = f"{done / taken[node] / 1e9:.0f}" if done else ""
        yield table_row((name, shape, f"{1e3 * taken[node]:.2f}", f"{100 * taken[node] / whole:.0f} %", rate))
    rest = sum(taken[node] for node in ranked[shown:])
    yield table_row((f"{len(ranked[shown:])} more", "", f"{1e3 * rest:.2f}", f"{100 * rest / whole:.0f} %", ""))


def training(model: torch.nn.Module, image: torch.Tensor, rounds: int, shown: int) -> Iterator[str]:
    """Yield the table of a training step's operations."""
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    target = torch.rand(image.shape[0], 1, *image.shape[2:])

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(model(image), target).backward()
        optimizer.step()

    step()
    with FlopCounterMode(display=False) as counter:
        step()
    runs = []
    for _ in range(rounds):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step()
        runs.append({each.key: each.self_cpu_time_total / 1e6 for each in profiler.key_averages()})
    taken = sorted(runs, key=lambda run: sum(run.values()))[len(runs) // 2]
    whole = sum(taken.values())
    convolutions = sum(taken.get(name, 0.0) for name in CONVOLUTIONS)
    yield from summary(whole, convolutions, counter.get_total_flops())
    yield table_row(("operation", "ms", "share"))
    yield table_row(("---", "---:", "---:"))
    ranked = sorted(taken, key=lambda name: taken[name], reverse=True)
    for name in ranked[:shown]:
        yield table_row((name.removeprefix("aten::"), f"{1e3 * taken[name]:.1f}", f"{100 * taken[name] / whole:.0f} %"))
    rest = sum(taken[name] for name in ranked[shown:])
    yield table_row((f"{len(ranked[shown:])} more", f"{1e3 * rest:.1f}", f"{100 * rest / whole:.0f} %"))


def main() -> None:
    """Print a table for each mode, and write all tables to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="resnet18")
    parser.add_argument("--decoder", default="smp:unet")
    parser.add_argument("--modes", nargs="+", choices=("inference", "training"), default=["inference", "training"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--shown", type=int, default=12)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # warnings of the plugins' libraries
    place = describe_environment(CPU)
    lines = [f"**{place.processor}, {place.threads} threads, torch {torch.__version__}, {asked.rounds} runs**"]
    for mode in asked.modes:
        torch.manual_seed(0)
        batch = 1 if mode == "inference" else 8
        image = torch.rand(batch, 3, asked.size, asked.size).contiguous(memory_format=torch.channels_last)
        model = zoo.build(asked.encoder, asked.decoder)
        lines += ["", f"{asked.encoder} x {asked.decoder}, {mode}, batch {batch}, {asked.size}x{asked.size}, channels-last:"]
        lines += (inference if mode == "inference" else training)(model, image, asked.rounds, asked.shown)
    text = "\n".join(lines) + "\n"
    print(text)
    if asked.output:
        asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
