"""The modules themselves: strided convolutions, and a sum of projected maps."""

import torch.nn.functional as F
from torch import nn

import zoo
from zoo_good import MAPS


class Steps(nn.Module):
    def __init__(self, *, maps, in_channels=3, weights=None):
        super().__init__()
        if weights is not None:
            raise zoo.errors.WeightsError(f"steps has no weights; found weights={weights!r}. Give None.")
        self.maps = tuple(maps)
        self.steps = nn.ModuleDict()
        for entry in MAPS[: 1 + max(index for index, entry in enumerate(MAPS) if entry.name in maps)]:
            self.steps[entry.name] = nn.Conv2d(in_channels, entry.channels, 3, stride=2, padding=1)
            in_channels = entry.channels

    def forward(self, image):
        found, x = [], image
        for name, step in self.steps.items():
            x = F.relu(step(x))
            if name in self.maps:
                found.append(x)
        return found


class Sum(nn.Module):
    def __init__(self, pyramid, *, width=16):
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(entry.channels, width, 1) for entry in pyramid)
        self.out_channels, self.out_stride = width, pyramid[0].stride

    def forward(self, features):
        maps = [project(x) for project, x in zip(self.projections, features, strict=True)]
        return sum(F.interpolate(x, size=maps[0].shape[-2:], mode="bilinear") for x in maps)
