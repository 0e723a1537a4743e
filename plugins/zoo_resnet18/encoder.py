"""torchvision's ResNet18 as an encoder: its own modules and state-dict keys, cut after the last map that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

import zoo
from zoo_resnet18.weights import load_state_dict

__all__ = ["ResNet18Encoder"]

_MODULES_OF = {
    "stem": ("conv1", "bn1", "relu"),
    "pool": ("maxpool",),
    "layer1": ("layer1",),
    "layer2": ("layer2",),
    "layer3": ("layer3",),
    "layer4": ("layer4",),
}


class ResNet18Encoder(nn.Module):
    """ResNet18 without its classifier (He et al. 2016, arXiv:1512.03385; torchvision's modules).

    Shapes: (N, in_channels, H, W) -> the maps asked for, of stem (64, stride 2), pool (64, 4), layer1 (64, 4),
    layer2 (128, 8), layer3 (256, 16), layer4 (512, 32).

    Args:
        maps: which of these to return, fine to coarse; no later stage is held.
        in_channels: for other than 3 the first convolution is adapted, pretrained weights included.
        weights: None, "imagenet" (torchvision's IMAGENET1K_V1), or what `zoo.read_state_dict` takes: "hf-hub:OWNER/NAME", or
            the path of a file; with torchvision's key names behind any prefix, with its classifier or another or none. All
            are taken to be trained on images normalized as ImageNet's.

    Raises:
        zoo.errors.WeightsError: weights that are not to be had or do not fit.
    """

    def __init__(self, *, maps: Sequence[str], in_channels: int = 3, weights: str | None = None) -> None:
        super().__init__()
        self.maps = tuple(maps)
        names = list(_MODULES_OF)
        self._stages = tuple(names[: 1 + max(names.index(name) for name in maps)])
        network = resnet18(weights=None)
        if in_channels != 3:
            network.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        for stage in self._stages:
            for name in _MODULES_OF[stage]:
                self.add_module(name, network.get_submodule(name))
        self.preprocessing = zoo.Preprocessing.identity(in_channels)
        if weights is not None:
            state = load_state_dict(weights)
            zoo.plugin.load_encoder_weights(self, state, source=weights, of="resnet18 (torchvision's key names)")
            self.preprocessing = zoo.Preprocessing.imagenet(in_channels)

    def match_weights(self, state: Mapping[str, Tensor]) -> zoo.plugin.MatchedWeights:
        """Return which tensors of a file are this encoder's; later stages and a classifier may be there besides."""
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            whole = resnet18(weights=None).state_dict()
        return zoo.plugin.match_weights(
            state,
            self.state_dict(),
            architecture=whole,
            left_out=lambda name: name.startswith("fc."),
            first_convs=("conv1.weight",),
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps asked for: (N, in_channels, H, W) -> [(N, C, H/stride, W/stride), ...]."""
        maps = {}
        x = image
        for stage in self._stages:
            for name in _MODULES_OF[stage]:
                x = cast("Tensor", self.get_submodule(name)(x))
            maps[stage] = x
        return [maps[name] for name in self.maps]
