"""torchvision's own classes at a fraction of their usual depth and width: the same stages, in modules of the same names."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import nn
from torchvision.models import DenseNet, MobileNetV3, ResNet, SwinTransformer
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import cfgs, make_layers


def densenet():
    return DenseNet(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=8, bn_size=2, num_classes=5)


def mobilenet():
    """Return a MobileNetV3 of four blocks, each of which halves the map, with and without squeeze and excitation."""
    block = partial(InvertedResidualConfig, kernel=3, stride=2, dilation=1, width_mult=1.0)
    blocks = [
        block(input_channels=8, expanded_channels=8, out_channels=8, use_se=True, activation="RE"),
        block(input_channels=8, expanded_channels=16, out_channels=16, use_se=False, activation="RE"),
        block(input_channels=16, expanded_channels=32, out_channels=24, use_se=True, activation="HS"),
        block(input_channels=24, expanded_channels=48, out_channels=48, use_se=True, activation="HS"),
    ]
    return MobileNetV3(blocks, last_channel=64, num_classes=5)


def resnet():
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)


def swin():
    """Return a Swin transformer with blocks of both kinds (shifted or not) and stochastic depth."""
    return SwinTransformer([4, 4], 16, [2, 1, 1, 1], [1, 2, 2, 2], [7, 7], stochastic_depth_prob=0.2, num_classes=5)


def vgg():
    """Return VGG11 of narrow layers, without the 120 million parameters of its classifier."""
    narrow = [width if width == "M" else width // 16 for width in cfgs["A"]]
    classifier = nn.Linear(32 * 7 * 7, 5)
    parts = {"features": make_layers(narrow), "avgpool": nn.AdaptiveAvgPool2d(7), "flatten": nn.Flatten(1)}
    return nn.Sequential(OrderedDict(parts, classifier=classifier))


def made(make):
    """Return a network with the same weights each time."""
    torch.manual_seed(0)
    return make()
