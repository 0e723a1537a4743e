"""torchvision's ResNet18 as an encoder. Its modules and keys are torchvision's, up to the last requested map."""

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

    Shapes: (N, in_channels, H, W) -> the requested maps, each (N, C, H/stride, W/stride). The maps with their channels and
    strides are stem (64, stride 2), pool (64, 4), layer1 (64, 4), layer2 (128, 8), layer3 (256, 16) and layer4 (512, 32).

    Args:
        maps: the names of the maps to return, fine to coarse. Stages after the last of these maps are left out.
        in_channels: the number of image channels. If it is not 3, the first convolution and its weights are adapted.
        weights: None, "imagenet" (torchvision's IMAGENET1K_V1), "hf-hub:OWNER/NAME", or the path of a file that
            `zoo.read_state_dict` accepts. A file must have torchvision's key names, which may have any prefix, with or without
            a classifier. All weights are assumed to be trained on images with ImageNet's normalization.

    Raises:
        zoo.errors.WeightsError: the weights cannot be found or fetched, or do not fit.
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
        """Match a file's tensors to this encoder's. The file may also contain later stages and a classifier."""
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
        """Return the requested maps: (N, in_channels, H, W) -> [(N, C, H/stride, W/stride), ...]."""
        maps = {}
        x = image
        for stage in self._stages:
            for name in _MODULES_OF[stage]:
                x = cast("Tensor", self.get_submodule(name)(x))
            maps[stage] = x
        return [maps[name] for name in self.maps]
