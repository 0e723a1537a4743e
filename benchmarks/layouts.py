"""Measure the effect of channels-last images on this processor, for several pairings: `python benchmarks/layouts.py`.

A ratio is the time with a contiguous image divided by the time with the same image in channels-last. Above 1, channels-last is
faster. The 95 % interval of the ratio follows in brackets. In each round, the model runs once with each of the two images, in
random order.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from turns import seconds_by_turns

import zoo
from zoo.benchmark.running.environment import describe_environment
from zoo.common.rendering import table_row
from zoo.common.statistics import estimate_ratio

ENCODERS = (
    "resnet18",
    "timm:resnet50",
    "timm:convnext_atto",
    "timm:mobilenetv3_small_100",
    "timm:efficientnet_b0",
    "timm:vit_tiny_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "timm:regnety_002",
    "timm:densenet121",
    "timm:hrnet_w18_small",
)
DECODERS = ("unet-basic", "unet-bilinear", "unet-attention", "smp:unet", "smp:unetplusplus", "smp:segformer")


def ratio(encoder: str, decoder: str, mode: str, batch: int, size: int, rounds: int) -> str:
    """Return, as text, the speedup of a pairing with channels-last images over contiguous images."""
    torch.manual_seed(0)
    plain = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    model = zoo.build(encoder, decoder, image_size=(size, size)).train(mode == "training")
    step = partial(train if mode == "training" else predict, model)
    images = (plain, plain.contiguous(memory_format=torch.channels_last))
    contiguous, last = seconds_by_turns([partial(step, image) for image in images], rounds)
    return estimate_ratio(contiguous, last).format(digits=2)


def predict(model: nn.Module, image: Tensor) -> None:
    """Run a model once."""
    with torch.inference_mode():
        model(image)


def train(model: nn.Module, image: Tensor) -> None:
    """Compute a model's forward and backward pass once."""
    model.zero_grad(set_to_none=True)
    model(image).square().mean().backward()


def main() -> None:
    """Print a table for each mode, batch and size, and write all tables to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--modes", nargs="+", choices=("inference", "training"), default=["inference"])
    parser.add_argument("--pairings", type=int, help="measure only this many of the pairings")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # warnings of the plugins' libraries
    place = describe_environment(torch.device("cpu"))
    lines: list[str] = []

    def tell(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    tell(f"**{place.processor}, {place.threads} threads, torch {torch.__version__}, {asked.rounds} rounds**")
    pairings = [("resnet18", decoder) for decoder in DECODERS] + [(encoder, "unet-basic") for encoder in ENCODERS[1:]]
    for mode, batch, size in product(asked.modes, asked.batches, asked.sizes):
        tell(f"\n| {mode}, batch {batch}, {size}x{size} | channels-last |\n| --- | ---: |")
        for encoder, decoder in pairings[: asked.pairings]:
            tell(table_row((f"{encoder} x {decoder}", ratio(encoder, decoder, mode, batch, size, asked.rounds))))
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
