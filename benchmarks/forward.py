"""Measure what a call of a model costs beyond the calls of its parts: `python benchmarks/forward.py`.

A model and a plain module that calls the same encoder, adapters, decoder and head take turns on the CPU, with one thread and
images of 32x32, in inference mode and in train mode. The script prints the median seconds of both, and the median of the
differences of calls of the same turn.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch
from torch import Tensor, nn
from turns import seconds_by_turns

import zoo
from zoo.model.model import SegmentationModel

PAIRINGS = (
    ("resnet18", "unet-basic"),
    ("timm:mobilenetv3_small_050", "unet-bilinear"),
    ("timm:test_vit", "unet-basic"),
    ("resnet18", "smp:fpn"),
)
SIDE = 32


class Plain(nn.Module):
    """Calls the parts of a model, and checks nothing."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = model.encoder, model.decoder, model.head
        self.routes = [
            (None if route.is_image else model.plan.maps.index(route.source.name), adapter if route.adapters else None)
            for route, adapter in zip(model.plan.routes, model.adapters, strict=True)
        ]

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits at the resolution of the head."""
        maps = self.encoder(image)
        inputs = [image if place is None else maps[place] for place, _ in self.routes]
        inputs = [x if adapter is None else adapter(x) for x, (_, adapter) in zip(inputs, self.routes, strict=True)]
        return self.head(self.decoder(inputs))  # type: ignore[no-any-return]


def main() -> None:
    """Print a table with a row for each pairing and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| pairing | mode | model us | parts us | difference us |\n| --- | --- | ---: | ---: | ---: |")
    for encoder, decoder in PAIRINGS:
        model = zoo.build(encoder, decoder)
        plain = Plain(model)
        for mode in ("inference", "training"):
            image = torch.rand(2, 3, SIDE, SIDE)
            model.train(mode == "training")
            with torch.inference_mode(mode == "inference"):
                own, parts = seconds_by_turns([partial(model, image), partial(plain, image)], rounds)
            difference = statistics.median(one - other for one, other in zip(own, parts, strict=True))
            cells = [f"{1e6 * value:.0f}" for value in (statistics.median(own), statistics.median(parts), difference)]
            print(f"| {encoder} x {decoder} | {mode} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
