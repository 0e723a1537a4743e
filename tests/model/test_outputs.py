"""What an encoder, a decoder and a head return is checked: anything but the declared map is an error in words."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo

pytestmark = pytest.mark.usefixtures("fresh_registry", "one_thread")

WRONG = {
    "tuple": lambda x: (x, x),
    "list": lambda x: [x],
    "dict": lambda x: {"out": x},
    "none": lambda x: None,
    "channels": lambda x: torch.cat([x, x], dim=1),
    "channels last": lambda x: x.permute(0, 2, 3, 1),
    "tokens": lambda x: x.flatten(2),
    "one image": lambda x: x[:1],
    "whole numbers": lambda x: x.long(),
}
FOUND = {
    "tuple": r"a tuple of length 2",
    "list": r"a list of length 1",
    "dict": r"a dict of 'out'",
    "none": r"a value of type NoneType",
    "channels": r"a tensor of shape \(2, \d+, ",
    "channels last": r"a tensor of shape \(2, 32, 32, ",
    "tokens": r"a tensor of shape \(2, \d, 1024\)",
    "one image": r"a tensor of shape \(1, ",
    "whole numbers": r"a tensor of shape .* of torch.int64",
}


class Planted(nn.Module):
    """Returns the finest map's projection, after a fault where one is planted, in train mode only if asked for."""

    def __init__(self, pyramid, *, decoder="", head="", training_only=False):
        super().__init__()
        self.project = nn.Conv2d(pyramid[0].channels, 8, 1)
        self.out_channels, self.out_stride = 8, pyramid[0].stride
        self.fault, self.head_fault, self.training_only = decoder, head, training_only

    def forward(self, features):
        x = self.project(features[0])
        return WRONG[self.fault](x) if self.fault and (self.training or not self.training_only) else x

    def make_head(self, classes):
        return PlantedHead(classes, self.head_fault)


class PlantedHead(nn.Conv2d):
    def __init__(self, classes, fault):
        super().__init__(8, classes, 1)
        self.fault = fault

    def forward(self, x):
        x = super().forward(x)
        return WRONG[self.fault](x) if self.fault else x


class PlantedEncoder(nn.Module):
    PYRAMID = tuple(zoo.plugin.FeatureMap(name=f"map{stride}", channels=stride, stride=stride) for stride in (2, 4))

    def __init__(self, *, maps, in_channels, weights, fault=""):
        super().__init__()
        self.convs = nn.ModuleDict({name: nn.Conv2d(in_channels, int(name[3:]), 1, stride=int(name[3:])) for name in maps})
        self.fault = fault

    def forward(self, image):
        maps = [conv(image) for conv in self.convs.values()]
        if self.fault == "generator":
            return (x for x in maps)
        if self.fault == "dict":
            return dict(zip(self.convs, maps, strict=True))
        if self.fault == "none":
            return None
        if self.fault == "swapped":
            return maps[::-1]
        return [torch.cat([x, x]) for x in maps] if self.fault == "doubled" else maps


def built(**options):
    zoo.register_decoder("planted", Planted)
    return zoo.build("timm:test_resnet", "planted", classes=5, decoder_options=options)


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize("training", [False, True])
def test_a_decoder_that_returns_anything_but_its_declared_map_is_named(fault, training):
    model = built(decoder=fault).train(training)
    with pytest.raises(
        zoo.errors.PluginError, match=rf"decoder planted must return one .*\(2, 8, h, w\); found {FOUND[fault]}"
    ):
        model(torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize("fault", WRONG)
def test_a_head_that_returns_anything_but_a_channel_for_each_class_is_named(fault):
    model = built(head=fault).eval()
    with pytest.raises(
        zoo.errors.PluginError, match=rf"head of planted must return one .*\(2, 5, h, w\); found {FOUND[fault]}"
    ):
        model(torch.rand(2, 3, 64, 64))


def test_a_decoder_that_returns_a_tuple_in_train_mode_alone_is_named_at_the_first_step():
    model = built(decoder="tuple", training_only=True)
    assert model.eval()(torch.rand(2, 3, 64, 64)).shape == (2, 5, 64, 64)
    with pytest.raises(zoo.errors.PluginError, match=r"decoder planted must return one .*forward returns in both modes"):
        model.train()(torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize("fault", ["generator", "dict", "none", "swapped", "doubled"])
def test_an_encoder_that_returns_other_maps_than_it_declares_is_named(fault):
    zoo.register_encoder("planted", PlantedEncoder, pyramid=PlantedEncoder.PYRAMID)
    model = zoo.build("planted", "unet-basic", encoder_options={"fault": fault}).eval()
    with pytest.raises(zoo.errors.PluginError, match=r"The encoder planted"):
        model(torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize(
    ("forward_aux", "found"),
    [
        (lambda x: x, r"must return the decoder's map and a list of coarser maps; found a tensor"),
        (lambda x: (x, []), r"returned 0 coarser maps, but aux_levels requires 1"),
        (lambda x: (x, [torch.cat([x, x], dim=1)]), r"must return one .*\(2, 8, h, w\); found a tensor of shape \(2, 16, "),
    ],
)
def test_coarser_maps_that_are_not_as_declared_are_named(forward_aux, found):
    class Deep(Planted):
        aux_channels = (8,)

        def forward_aux(self, features):
            return forward_aux(self.forward(features))

    zoo.register_decoder("deep", Deep)
    model = zoo.build("resnet18", "deep", aux_levels=1)
    with pytest.raises(zoo.errors.PluginError, match=rf"forward_aux of the decoder deep .*{found}"):
        model(torch.rand(2, 3, 64, 64))


def test_the_check_holds_in_an_export_for_any_batch_and_keeps_nothing():
    model = built().eval()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model, (torch.rand(3, 3, 64, 32),), dynamic_shapes=({0: batch},), strict=False).module()
    for count in (2, 4):
        image = torch.rand(count, 3, 64, 32)
        torch.testing.assert_close(program(image), model(image))
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before
