"""A decoder in ten lines: a class that takes a pyramid, registered under a name."""

import torch.nn.functional as F
from torch import nn

import zoo


@zoo.register_decoder("sum")
class SumDecoder(nn.Module):
    def __init__(self, pyramid, width=64):
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(entry.channels, width, 1) for entry in pyramid)
        self.out_channels, self.out_stride = width, pyramid[0].stride

    def forward(self, features):
        maps = [project(x) for project, x in zip(self.projections, features, strict=True)]
        return sum(F.interpolate(x, size=maps[0].shape[-2:], mode="bilinear") for x in maps)
