"""Three small decoders that keep the contract, and each with each of seven faults planted in it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import zoo


def resized(x, like):
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class Sum(nn.Module):
    """Every map projected and added from coarse to fine. Shapes: maps (N, C_i, h_i, w_i) -> (N, out_channels, h_0, w_0)."""

    needs = zoo.Needs(min_levels=2)
    ignored = 0

    def __init__(self, pyramid, *, widths=(8, 12)):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(entry.channels, widths[0], 1) for entry in pyramid)
        self.smooth = nn.Sequential(nn.Conv2d(widths[0], widths[1], 3, padding=1), nn.GroupNorm(2, widths[1]), nn.GELU())
        self.out_channels, self.out_stride = widths[1], pyramid[0].stride

    def forward(self, features):
        """Return the sum at the finest map's size."""
        maps = [lateral(entry) for lateral, entry in zip(self.laterals, features, strict=True)]
        x = maps[-1]
        for entry in reversed(maps[:-1]):
            x = entry + resized(x, entry)
        return self.smooth(x)


class Concat(nn.Module):
    """The coarsest map upsampled and joined with one skip after the other, as a U-Net does.

    Shapes: maps (N, C_i, h_i, w_i) -> (N, out_channels, h_0, w_0).
    """

    ignored = -1

    def __init__(self, pyramid, *, widths=(16, 8)):
        super().__init__()
        steps, width = [], pyramid[-1].channels
        for entry in reversed(pyramid[:-1]):
            steps.append(
                nn.Sequential(nn.Conv2d(width + entry.channels, widths[0], 3, padding=1), nn.BatchNorm2d(widths[0]), nn.ReLU())
            )
            width = widths[0]
        self.steps = nn.ModuleList(steps)
        self.last = nn.Conv2d(width, widths[1], 1)
        self.out_channels, self.out_stride = widths[1], pyramid[0].stride

    def forward(self, features):
        """Return the map at the finest skip's size."""
        x = features[-1]
        for step, skip in zip(self.steps, reversed(features[:-1]), strict=True):
            x = step(torch.cat([resized(x, skip), skip], dim=1))
        return self.last(x)


class Gated(nn.Module):
    """A gate of the coarser map on each finer one, of one width all through, then two steps up; it has its own head.

    Shapes: maps (N, 16, h_i, w_i) -> (N, out_channels, 2 h_0, 2 w_0).
    """

    needs = zoo.Needs(strides=(4, 8, 16), channels=16)
    ignored = 1

    def __init__(self, pyramid, *, widths=(16, 8)):
        super().__init__()
        self.gates = nn.ModuleList(nn.Conv2d(2 * entry.channels, 1, 1) for entry in pyramid[:-1])
        self.up = nn.ConvTranspose2d(widths[0], widths[1], 2, stride=2)
        self.out_channels, self.out_stride = widths[1], 2

    def forward(self, features):
        """Return the gated sum at twice the finest map's size."""
        x = features[-1]
        for gate, skip in zip(reversed(self.gates), reversed(features[:-1]), strict=True):
            up = resized(x, skip)
            x = up + skip * gate(torch.cat([up, skip], dim=1)).sigmoid()
        return self.up(x)

    def make_head(self, classes):
        """Return a 3x3 convolution: (N, out_channels, h, w) -> (N, classes, h, w)."""
        return nn.Conv2d(self.out_channels, classes, 3, padding=1)


class WrongOutChannels:
    finder = "out_channels_are_as_declared"

    def __init__(self, pyramid, **options):
        super().__init__(pyramid, **options)
        self.out_channels += 1


class WrongOutStride:
    finder = "out_stride_is_as_declared"

    def __init__(self, pyramid, **options):
        super().__init__(pyramid, **options)
        self.out_stride *= 2


class ReturnsNHWC:
    finder = "output_is_nchw"

    def forward(self, features):
        return super().forward(features).permute(0, 2, 3, 1)


class IgnoresASkip:
    finder = "every_map_matters"

    def forward(self, features):
        unseen = self.ignored % len(features)
        return super().forward([torch.zeros_like(x) if index == unseen else x for index, x in enumerate(features)])


class KeepsState:
    finder = "eval_keeps_no_state"

    def forward(self, features):
        output = super().forward(features)
        before = getattr(self, "before", 0.0)
        self.before = output.detach().mean()
        return output + before


class HardCodes224:
    finder = "odd_sizes_work"

    def forward(self, features):
        output = super().forward(features)
        side = int(224 / self.out_stride)
        return F.interpolate(output, size=(side, side))


class EditsItsOptions:
    finder = "options_are_not_edited"

    def __init__(self, pyramid, *, widths=(8, 12)):
        super().__init__(pyramid, widths=widths)
        if isinstance(widths, list):
            widths.reverse()


GOOD = (Sum, Concat, Gated)
FAULTS = (WrongOutChannels, WrongOutStride, ReturnsNHWC, IgnoresASkip, KeepsState, HardCodes224, EditsItsOptions)
FAULTY = {
    f"{fault.__name__}{good.__name__}": type(f"{fault.__name__}{good.__name__}", (fault, good), {})
    for good in GOOD
    for fault in FAULTS
}
for name, made in FAULTY.items():
    made.__module__, made.__doc__ = __name__, next(good for good in GOOD if issubclass(made, good)).__doc__
    globals()[name] = made  # as if written out, so that it can be pickled


def register(decoder, **more):
    """Register one of these, with all that a plugin should say of it; return its id."""
    options = [zoo.plugin.Option(name="widths", default=(8, 12), summary="of the inner maps and of the output")]
    if issubclass(decoder, Gated):
        options = [zoo.plugin.Option(name="widths", default=(16, 8), summary="of the maps and of the output")]
    given = {"options": options, "source": "written for a test", "license": "Apache-2.0", **more}
    zoo.register_decoder(decoder.__name__, decoder, **given)
    return f"local:{decoder.__name__}"
