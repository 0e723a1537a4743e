"""smp's own encoders: its modules, without the image and the empty maps that its decoders expect among theirs."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import get_encoder, get_preprocessing_params
from torch import Tensor, nn

import zoo
from zoo_smp.index import index

__all__ = ["SmpEncoder", "make_network", "smp_encoder"]

IMAGENET = zoo.Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def smp_encoder(
    *,
    architecture: str,
    maps: Sequence[str],
    in_channels: int = 3,
    weights: str | None = None,
    output_stride: int | None = None,
) -> nn.Module:
    """Return one of smp's encoders for the maps asked for, without the parameters that none of them needs.

    Shapes: (N, in_channels, H, W) -> the maps asked for, each (N, C, H/stride, W/stride).

    Args:
        architecture: smp's name (segmentation_models_pytorch, Iakubovskii).
        maps: `stage1` to `stage5` for strides 2 to 32 (and `stage0` of VGG), fine to coarse.
        in_channels: for other than 3 smp adapts the first convolution, pretrained weights included.
        weights: None, the name of smp's pretrained weights (from the hub), or "hf-hub:OWNER/NAME" or the path of a file with
            the encoder's state dict (`.safetensors`, or `.pth` that holds tensors alone), for 3 input channels or
            `in_channels`; both are taken to be trained on images normalised as ImageNet's.
        output_stride: 8 or 16 for dilated convolutions in place of the last strides.

    Raises:
        zoo.WeightsError: weights that are not to be had or do not fit.
    """
    encoder = SmpEncoder(architecture, maps, in_channels=in_channels, weights=weights, output_stride=output_stride or 32)
    facts = index()[architecture]
    if facts.leaves_unused or encoder.depth < len(facts.channels) - 1 or len(maps) < sum(map(bool, facts.channels)):
        return zoo.pruned(encoder, in_channels)
    return encoder


class SmpEncoder(nn.Module):
    """What `smp_encoder` returns before it is pruned; shapes and arguments as there."""

    def __init__(
        self, architecture: str, maps: Sequence[str], *, in_channels: int, weights: str | None, output_stride: int
    ) -> None:
        super().__init__()
        self._levels = tuple(int(name.removeprefix("stage")) for name in maps)
        self.depth = max(1, *self._levels)
        network = make_network(architecture, depth=5, output_stride=output_stride, in_channels=in_channels, weights=weights)
        network._depth = self.depth  # built whole, so that weights load, then run as far as it is needed
        self.network = network
        self.preprocessing = zoo.Preprocessing.identity(in_channels)
        if weights in index()[architecture].weights:
            told = get_preprocessing_params(architecture, weights)
            low, high = told["input_range"]
            trained = zoo.Preprocessing(mean=tuple(told["mean"]), std=tuple(told["std"]), value_range=(low, high))
            self.preprocessing = trained.for_channels(in_channels)
        elif weights is not None:
            self.preprocessing = IMAGENET.for_channels(in_channels)  # a file does not say

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps asked for: (N, in_channels, H, W) -> [(N, C, H/stride, W/stride), ...]."""
        found = self.network(image)
        return [found[level] for level in self._levels]


def make_network(name: str, *, depth: int, output_stride: int = 32, in_channels: int = 3, weights: str | None = None) -> Any:
    """Return smp's module, which gives the image or a map of its size, then one map (perhaps without channels) a level."""
    known = index()[name].weights if weights is not None else ()
    from_hub = weights if weights in known else None

    def made() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # timm-NAME: here it is smp's own module all the same
            return get_encoder(name, in_channels=in_channels, depth=depth, weights=from_hub, output_stride=output_stride)

    try:
        network = made()
    except RuntimeError as cause:
        if "meta" not in str(cause):
            raise
        with torch.device("cpu"):  # mit_b* read numbers off a tensor
            network = made()
    except Exception as cause:
        if from_hub is None:
            raise
        raise zoo.WeightsError(
            f"The weights {weights!r} of smp:{name} could not be fetched from the hub: {type(cause).__name__}: {cause}. "
            "Give the path of a file with the encoder's state dict, or None for random weights."
        ) from cause
    if weights is not None and from_hub is None:
        _load_file(network, name, weights, known)
    return network.to("meta") if torch.get_default_device().type == "meta" else network  # smp makes some tensors elsewhere


def _load_file(network: nn.Module, name: str, weights: str, known: Sequence[str]) -> None:
    path = zoo.hub_file(weights) if weights.startswith("hf-hub:") else Path(weights)
    if not path.is_file():
        names = ", ".join(map(repr, known)) or "none by name"
        raise zoo.WeightsError(
            f"smp:{name}: {weights!r} is neither one of its weights ({names}), nor hf-hub:OWNER/NAME, nor a file."
        )
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True, map_location="cpu")
        network.load_state_dict(state)
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError, pickle.UnpicklingError) as cause:
        raise zoo.WeightsError(
            f"{weights} does not fit smp:{name}, or is no file of tensors: {type(cause).__name__}: {cause}. It must hold the "
            "state dict of the whole encoder, as smp's own `encoder.state_dict()` returns it."
        ) from cause
