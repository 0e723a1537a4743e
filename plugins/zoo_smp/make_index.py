"""Write index.json, which describes the encoders of the installed smp: `python -m zoo_smp.make_index` (about a minute)."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import torch
from segmentation_models_pytorch.encoders import encoders

import zoo
from zoo_smp.encoder import make_network
from zoo_smp.index import SHIPPED

__all__ = ["describe"]

SIZES = ((64, 96), (128, 224))


def describe(name: str) -> dict[str, Any]:
    """Measure one encoder on the meta device, and return its entry in index.json, which `zoo_smp.index` reads.

    Raises:
        ValueError: the channels of the maps differ from those that smp declares, or the strides are not 1, 2, 4, 8, 16, 32.
    """
    entry = encoders[name]
    with torch.device("meta"):
        network = make_network(name).eval()
    found = [network(torch.zeros(1, 3, *size, device="meta")) for size in SIZES]
    channels = [0 if index == 0 and tensor.shape[1] == 3 else tensor.shape[1] for index, tensor in enumerate(found[0])]
    declared = [0 if index == 0 and width == 3 else width for index, width in enumerate(network.out_channels)]
    if channels != declared:
        raise ValueError(f"{name} declares {declared} channels and returns {channels}")
    for size, tensors in zip(SIZES, found, strict=True):
        for level, tensor in enumerate(tensors):
            if tuple(tensor.shape[2:]) != (size[0] >> level, size[1] >> level):
                raise ValueError(f"{name}: map {level} of an image of {size} has the wrong size {tuple(tensor.shape[2:])}")
    with torch.enable_grad():
        unused = zoo.plugin.unused_parameters(network, network(torch.zeros(1, 3, *SIZES[0], device="meta")))
    return {
        "module": entry["encoder"].__module__.rpartition(".")[2],
        "channels": channels,
        "dilates": _dilates(name),
        "unused": bool(unused),
        "weights": list(entry["pretrained_settings"]),
    }


def _dilates(name: str) -> bool:
    try:
        with torch.device("meta"):
            network = make_network(name, output_stride=8).eval()
    except ValueError:
        return False
    return [tensor.shape[2] for tensor in network(torch.zeros(1, 3, 64, 64, device="meta"))] == [64, 32, 16, 8, 8, 8]


def main() -> None:
    """Write index.json next to this file, one encoder per line."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(describe(name))}" for name in encoders)
    smp = json.dumps(version("segmentation-models-pytorch"))
    SHIPPED.write_text(f'{{"smp": {smp},\n"encoders": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
