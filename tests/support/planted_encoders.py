"""A small encoder that keeps the contract, others of it for one size, and each fault planted in it."""

from __future__ import annotations

import torch
from torch import nn

import zoo

PYRAMID = (
    zoo.plugin.FeatureMap(name="fine", channels=8, stride=4),
    zoo.plugin.FeatureMap(name="middle", channels=12, stride=8),
    zoo.plugin.FeatureMap(name="coarse", channels=16, stride=16),
)


class Plain(nn.Module):
    """Strided convolutions. Shapes: (N, in_channels, H, W) -> the maps asked for, (N, C, H/stride, W/stride)."""

    finder = None
    pyramid = PYRAMID

    def __init__(self, *, maps, in_channels, weights, **options):
        super().__init__()
        names = [entry.name for entry in PYRAMID]
        self.maps = tuple(maps)
        self.names = names[: 1 + max(names.index(name) for name in maps)]
        widths = [in_channels, 8, 12, 16]
        for index, name in enumerate(self.names):
            before, after, stride = widths[index], widths[index + 1], 4 if index == 0 else 2
            self.add_module(name, nn.Sequential(nn.Conv2d(before, after, 5, stride, 2), nn.BatchNorm2d(after), nn.GELU()))

    def forward(self, image):
        """Return the maps asked for."""
        found, x = {}, image
        for name in self.names:
            x = found[name] = self.get_submodule(name)(x)
        return [found[name] for name in self.maps]


class WrongChannels(Plain):
    finder = "channels_are_as_declared"
    pyramid = (*PYRAMID[:2], zoo.plugin.FeatureMap(name="coarse", channels=32, stride=16))


class WrongStride(Plain):
    finder = "strides_are_as_declared"
    pyramid = (*PYRAMID[:2], zoo.plugin.FeatureMap(name="coarse", channels=16, stride=32))


class PassesNHWC(Plain):
    finder = "maps_are_nchw"

    def forward(self, image):
        return [x.permute(0, 2, 3, 1) for x in super().forward(image)]


class HoldsWhatIsUnused(Plain):
    finder = "no_parameter_is_unused"

    def __init__(self, *, maps, **given):
        super().__init__(maps=("coarse",), **given)
        self.maps = maps


class ReturnsAnExtraMap(Plain):
    finder = "each_map_comes_alone"

    def forward(self, image):
        maps = super().forward(image)
        return [*maps, maps[-1]]


class RemembersImages(Plain):
    finder = "eval_keeps_no_state"

    def __init__(self, **given):
        super().__init__(**given)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, image):
        self.mean += image.mean()
        return super().forward(image - self.mean)


class ReturnsInAnotherOrder(Plain):
    finder = "channels_are_as_declared"

    def forward(self, image):
        return super().forward(image)[::-1]


class TakesColorAlone(Plain):
    finder = "takes_other_input_channels"

    def __init__(self, *, in_channels, **given):
        super().__init__(in_channels=3, **given)


FAULTY = (
    WrongChannels,
    WrongStride,
    PassesNHWC,
    HoldsWhatIsUnused,
    ReturnsAnExtraMap,
    RemembersImages,
    ReturnsInAnotherOrder,
    TakesColorAlone,
)
for made in FAULTY:
    made.__doc__ = Plain.__doc__


class MadeForOneSize(Plain):
    """With position embeddings. Shapes: (N, in_channels, H, W) -> (N, C, H/stride, W/stride), H and W as it is made for."""

    sizes = zoo.plugin.ImageSizes(fixed=(96, 96), adapts=True, multiple=16)

    def __init__(self, *, image_size=None, **given):
        super().__init__(**given)
        height, width = image_size or self.sizes.fixed
        self.positions = nn.Parameter(torch.zeros(1, 8, height // 4, width // 4))

    def forward(self, image):
        """Return the maps asked for."""
        found, x = {}, image
        for name in self.names:
            x = self.get_submodule(name)(x)
            if name == "fine":
                x = x + self.positions
            found[name] = x
        return [found[name] for name in self.maps]


class OfOneSize(MadeForOneSize):
    """As `MadeForOneSize`, and not to be made for another. Shapes as there."""

    sizes = zoo.plugin.ImageSizes(fixed=(96, 96))


def register(encoder, **more):
    """Register one of these, with all that a plugin should say of it; return its id."""
    given = {"pyramid": encoder.pyramid, "source": "written for a test", "license": "Apache-2.0", "options": ()}
    if hasattr(encoder, "sizes"):
        given["sizes"] = encoder.sizes
    zoo.register_encoder(encoder.__name__, encoder, **{**given, **more})
    return f"local:{encoder.__name__}"
