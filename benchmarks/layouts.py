"""What channels-last images give on this processor, pairing by pairing: `python benchmarks/layouts.py`.

A ratio is the time with a contiguous image over that with the same image channels-last, called by turns, above 1 where
channels-last is faster, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings

import torch

import zoo
from zoo.rendering import table_row
from zoo.statistics import estimate_ratio

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


def ratio(encoder: str, decoder: str, size: int, rounds: int) -> str:
    """Return how many times as fast a pairing is with a channels-last image."""
    model = zoo.build(encoder, decoder, image_size=(size, size)).eval()
    plain = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = (plain, plain.contiguous(memory_format=torch.channels_last))
    with torch.inference_mode():
        return _ratio(model, images, rounds)


def _ratio(model: torch.nn.Module, images: tuple[torch.Tensor, torch.Tensor], rounds: int) -> str:
    seconds: tuple[list[float], list[float]] = ([], [])
    for image in images:
        model(image)
    for _ in range(rounds):
        for index in random.sample((0, 1), 2):
            begun = time.perf_counter()
            model(images[index])
            seconds[index].append(time.perf_counter() - begun)
    return estimate_ratio(*seconds).told(digits=2)


def main() -> None:
    """Print a row for each pairing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=21)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # the plugins' own
    pairings = [(encoder, "unet-basic") for encoder in ENCODERS] + [("resnet18", decoder) for decoder in DECODERS[1:]]
    print(f"| batch 1, {asked.size}x{asked.size}, {torch.get_num_threads()} threads | channels-last |\n| --- | ---: |")
    for encoder, decoder in pairings:
        print(table_row((f"{encoder} x {decoder}", ratio(encoder, decoder, asked.size, asked.rounds))), flush=True)


if __name__ == "__main__":
    main()
