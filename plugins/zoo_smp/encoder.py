"""smp's own encoders. They return feature maps only, without the image and the empty maps that smp's decoders expect."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from segmentation_models_pytorch.encoders import get_encoder, get_preprocessing_params
from torch import Tensor, nn

import zoo
from zoo_smp.index import index

__all__ = ["SmpEncoder", "make_network", "smp_encoder"]

CLASSIFIERS = ("_fc.", "classifier.", "fc.", "head.", "last_linear.", "linear.")
"""The prefixes of the classifiers' tensors in the original networks. smp's encoders have no classifier."""


def smp_encoder(
    *,
    architecture: str,
    maps: Sequence[str],
    in_channels: int = 3,
    weights: str | None = None,
    output_stride: int | None = None,
) -> nn.Module:
    """Return one of smp's encoders for the requested maps, without the parameters that none of these maps needs.

    Shapes: (N, in_channels, H, W) -> the requested maps, each (N, C, H/stride, W/stride).

    Args:
        architecture: smp's name of the encoder (segmentation_models_pytorch, Iakubovskii).
        maps: the names of the maps to return, fine to coarse: `stage1` to `stage5` for strides 2 to 32. VGG also has `stage0`
            for stride 1.
        in_channels: the number of image channels. If it is not 3, smp adapts the first convolution and its weights.
        weights: None, the name of smp's pretrained weights (from the hub), "hf-hub:OWNER/NAME", or the path of a file that
            `zoo.read_state_dict` accepts. A file must have smp's key names, which may have any prefix, with or without a
            classifier. Its first convolution must have 3 or `in_channels` input channels. The weights of a file or a
            repository are assumed to be trained on images with ImageNet's normalization.
        output_stride: 8 or 16 to replace the last strides with dilated convolutions; None or 32 to keep the usual strides.

    Raises:
        zoo.errors.WeightsError: the weights cannot be found or fetched, or do not fit.
    """
    encoder = SmpEncoder(architecture, maps, in_channels=in_channels, weights=weights, output_stride=output_stride or 32)
    facts = index()[architecture]
    whole: nn.Module = encoder
    if facts.leaves_unused or encoder.depth < len(facts.channels) - 1 or len(maps) < sum(map(bool, facts.channels)):
        whole = zoo.plugin.prune_unused(encoder, in_channels)
    if weights is not None and weights not in facts.weights:
        zoo.plugin.load_encoder_weights(whole, _state(architecture, weights), source=weights, of=f"smp:{architecture}")
    return whole


class SmpEncoder(nn.Module):
    """The encoder of `smp_encoder` before it is pruned, with the same shapes and arguments."""

    def __init__(
        self, architecture: str, maps: Sequence[str], *, in_channels: int, weights: str | None, output_stride: int
    ) -> None:
        super().__init__()
        self._levels = tuple(int(name.removeprefix("stage")) for name in maps)
        self.depth = max(1, *self._levels)
        self._keywords: dict[str, Any] = {"output_stride": output_stride, "in_channels": in_channels}
        self._architecture = architecture
        named_weights = weights if weights in index()[architecture].weights else None
        network = make_network(architecture, weights=named_weights, **self._keywords)
        network._depth = self.depth  # all stages are built, so that the weights fit, but only the needed ones run
        self.network = network
        self.preprocessing = zoo.Preprocessing.identity(in_channels)
        if named_weights is not None:
            params = get_preprocessing_params(architecture, named_weights)
            low, high = params["input_range"]
            trained = zoo.Preprocessing(mean=tuple(params["mean"]), std=tuple(params["std"]), value_range=(low, high))
            self.preprocessing = trained.for_channels(in_channels)
        elif weights is not None:
            self.preprocessing = zoo.Preprocessing.imagenet(in_channels)  # a file does not state its normalization

    def match_weights(self, state: Mapping[str, Tensor]) -> zoo.plugin.MatchedWeights:
        """Match a file's tensors to this encoder's. The file may also contain later stages and a classifier."""
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            whole = make_network(self._architecture, **self._keywords).state_dict()
            trained = make_network(self._architecture, **{**self._keywords, "in_channels": 3}).state_dict()
        return zoo.plugin.match_weights(
            state,
            self.network.state_dict(),
            architecture=whole,
            left_out=lambda name: name.startswith(CLASSIFIERS),
            first_convs={name for name in whole if whole[name].shape != trained[name].shape},
            other_names={
                re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): name for name in whole
            },  # torchvision's names
        ).within("network.")

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the requested maps: (N, in_channels, H, W) -> [(N, C, H/stride, W/stride), ...]."""
        maps = self.network(image)
        return [maps[level] for level in self._levels]


def make_network(name: str, *, output_stride: int = 32, in_channels: int = 3, weights: str | None = None) -> Any:
    """Return smp's encoder.

    The encoder returns a list that begins with the image or a map of the image's size. One map for each level follows. If the
    encoder has no map for a level, that map is empty.
    """

    def make() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # smp deprecates the names timm-NAME
            return get_encoder(name, in_channels=in_channels, depth=5, weights=weights, output_stride=output_stride)

    try:
        network = make()
    except RuntimeError as cause:
        if "meta" not in str(cause):
            raise
        with torch.device("cpu"):  # mit_b* read the values of a tensor
            network = make()
    except Exception as cause:
        if weights is None:
            raise
        raise zoo.errors.WeightsError(
            f"The weights {weights!r} of smp:{name} could not be fetched from the hub: {type(cause).__name__}: {cause}. "
            "Pass the path of a file with the encoder's state dict, or None for random weights."
        ) from cause
    # smp creates some tensors on the CPU even if the default device is meta
    return network.to("meta") if torch.get_default_device().type == "meta" else network


def _state(name: str, weights: str) -> dict[str, Tensor]:
    """Return the tensors of a file or a repository."""
    if not weights.startswith("hf-hub:") and not Path(weights).expanduser().exists():
        names = ", ".join(map(repr, index()[name].weights)) or "it has none"
        raise zoo.errors.WeightsError(
            f"weights={weights!r} is neither a name of weights for smp:{name} ({names}), nor hf-hub:OWNER/NAME, nor a file."
        )
    return zoo.read_state_dict(weights)
