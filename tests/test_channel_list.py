"""Decoders as tutorials write them, taken over untouched by `zoo.from_channels`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo

pytestmark = pytest.mark.usefixtures("fresh_registry", "one_thread")

MAPS = tuple(
    zoo.FeatureMap(name=f"map{index}", channels=channels, stride=stride)
    for index, (channels, stride) in enumerate(zip([64, 64, 64, 128, 256, 512], [2, 4, 4, 8, 16, 32], strict=True))
)


class BasicDecoder(nn.Module):
    def __init__(self, in_channels_list, out_channels):
        super().__init__()
        self.up1 = nn.ConvTranspose2d(in_channels_list[5], out_channels, kernel_size=2, stride=2)
        self.conv1 = nn.Conv2d(out_channels + in_channels_list[4], out_channels, kernel_size=3, padding=1)
        self.up2 = nn.ConvTranspose2d(out_channels, out_channels, kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(out_channels + in_channels_list[3], out_channels, kernel_size=3, padding=1)

    def forward(self, x1, x2, x3, x4, x5, x6):
        x = F.relu(self.conv1(torch.cat([self.up1(x6), x5], dim=1)))
        return F.relu(self.conv2(torch.cat([self.up2(x), x4], dim=1)))


class AnyNumber(nn.Module):
    def __init__(self, in_channels_list, out_channels=7):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels_list)

    def forward(self, *features):
        maps = [conv(x) for conv, x in zip(self.convs, features, strict=True)]
        return sum(F.interpolate(x, size=maps[0].shape[-2:]) for x in maps)


class Failing(AnyNumber):
    def forward(self, x1, x2):
        return torch.cat([x1, x2], dim=1)


class GivesTwo(BasicDecoder):
    def forward(self, x1, x2, x3, x4, x5, x6):
        return x1, x2


class GivesVector(BasicDecoder):
    def forward(self, x1, x2, x3, x4, x5, x6):
        return x6.mean(dim=(2, 3))


@pytest.fixture
def basic():
    zoo.register_decoder("basic", zoo.from_channels(BasicDecoder, out_channels=256))


@pytest.mark.parametrize("classes", [1, 19])
def test_a_tutorials_decoder_builds_and_trains_untouched(basic, classes):
    model = zoo.build("resnet18", "basic", classes=classes)
    logits = model(torch.rand(2, 3, 225, 301))
    assert logits.shape == (2, classes, 225, 301)
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.decoder.parameters())
    assert type(model.decoder.module) is BasicDecoder


def test_it_gets_every_map_in_the_order_that_the_channel_list_has(basic):
    plan = zoo.negotiate("resnet18", "basic")
    assert plan.maps == ("stem", "pool", "layer1", "layer2", "layer3", "layer4")
    assert [entry.channels for entry in plan.pyramid] == zoo.channels("resnet18")
    assert plan.unused == ()


def test_what_it_gives_is_measured_and_the_head_follows(basic):
    model = zoo.build("resnet18", "basic", classes=3)
    assert (model.decoder.out_channels, model.decoder.out_stride) == (256, 8)
    assert (model.head.in_channels, model.head.out_channels) == (256, 3)


def test_the_maps_reach_its_forward_unchanged(basic):
    model = zoo.build("resnet18", "basic").eval()
    with torch.no_grad():
        maps = model.encoder(torch.rand(1, 3, 64, 64))
        assert torch.equal(model.decoder(maps), model.decoder.module(*maps))


def test_options_of_the_pairing_override_the_defaults(basic):
    model = zoo.build("resnet18", "basic", decoder_options={"out_channels": 32})
    assert (model.decoder.out_channels, model.head.in_channels) == (32, 32)
    assert zoo.build("resnet18", "basic").decoder.out_channels == 256


def test_an_unknown_option_names_those_of_the_class(basic):
    with pytest.raises(zoo.OptionError, match=r"local:basic has no option 'width'\. Its options: out_channels"):
        zoo.build("resnet18", "basic", decoder_options={"width": 3})


def test_a_missing_default_is_the_plugins_error():
    zoo.register_decoder("basic", zoo.from_channels(BasicDecoder))
    with pytest.raises(zoo.PluginError, match=r"local:basic.*out_channels") as caught:
        zoo.build("resnet18", "basic")
    assert isinstance(caught.value.__cause__, TypeError)


def test_an_encoder_with_fewer_maps_than_it_names_is_refused(basic):
    with pytest.raises(zoo.NegotiationError, match=r"timm:resnet18 cannot serve local:basic(?s:.)*at least 6 .* 5 are left"):
        zoo.build("timm:resnet18", "basic")


def test_of_an_encoder_with_more_maps_it_gets_the_coarsest():
    class Two(AnyNumber):
        def forward(self, fine, coarse):
            return super().forward(fine, coarse)

    zoo.register_decoder("two", zoo.from_channels(Two))
    assert zoo.build("resnet18", "two").plan.maps == ("layer3", "layer4")


@pytest.mark.parametrize(("encoder", "count"), [("resnet18", 6), ("timm:resnet18", 5)])
def test_a_forward_of_any_number_of_maps_takes_all_there_are(encoder, count):
    zoo.register_decoder("any", zoo.from_channels(AnyNumber, out_channels=11))
    with torch.device("meta"):
        model = zoo.build(encoder, "any", classes=2)
        assert model(torch.rand(2, 3, 225, 301)).shape == (2, 2, 225, 301)
    assert len(model.plan.routes) == count
    assert (model.decoder.out_channels, model.decoder.out_stride) == (11, 2)


def test_a_function_that_makes_the_decoder_is_wrapped_too():
    def make(in_channels_list, out_channels=5):
        return AnyNumber(in_channels_list, out_channels)

    zoo.register_decoder("made", zoo.from_channels(make))
    assert zoo.build("resnet18", "made", levels=2).decoder.out_channels == 5


@pytest.mark.parametrize(
    ("decoder", "found"),
    [
        (Failing, r"Failing.*raised RuntimeError for meta tensors of shape \(2, 256, .*one by one, fine to coarse"),
        (GivesTwo, r"GivesTwo.*must return one tensor \(N, channels, h, w\); found tuple"),
        (GivesVector, r"GivesVector.*must return one tensor.*found \(2, 512\)"),
    ],
)
def test_a_decoder_that_gives_no_map_is_named_when_it_is_built(decoder, found):
    zoo.register_decoder("wrong", zoo.from_channels(decoder, out_channels=4))
    with pytest.raises(zoo.PluginError, match=found):
        zoo.build("resnet18", "wrong")


def test_only_what_can_be_called_is_wrapped():
    with pytest.raises(zoo.RegistrationError, match=r"zoo\.from_channels wraps a decoder class; found 5"):
        zoo.from_channels(5)


@pytest.mark.parametrize("decoder", [BasicDecoder, AnyNumber])
def test_measuring_leaves_the_random_state_as_it_was(decoder):
    torch.manual_seed(0)
    direct = decoder([entry.channels for entry in MAPS], out_channels=8)
    after_direct = torch.get_rng_state()
    torch.manual_seed(0)
    wrapped = zoo.from_channels(decoder, out_channels=8)(MAPS).module
    assert torch.equal(torch.get_rng_state(), after_direct)
    for (name, expected), found in zip(direct.state_dict().items(), wrapped.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name


def test_measuring_leaves_the_decoder_in_train_mode_on_the_device_asked_for():
    wrapped = zoo.from_channels(BasicDecoder, out_channels=8)(MAPS)
    assert all(module.training for module in wrapped.modules())
    assert {parameter.device.type for parameter in wrapped.parameters()} == {"cpu"}
    with torch.device("meta"):
        wrapped = zoo.from_channels(BasicDecoder, out_channels=8)(MAPS)
    assert {parameter.device.type for parameter in wrapped.parameters()} == {"meta"}


def test_the_same_class_and_defaults_register_again_others_do_not(basic):
    zoo.register_decoder("basic", zoo.from_channels(BasicDecoder, out_channels=256))
    with pytest.raises(zoo.RegistrationError, match=r"out_channels=256.*out_channels=128"):
        zoo.register_decoder("basic", zoo.from_channels(BasicDecoder, out_channels=128))
    with pytest.raises(zoo.RegistrationError, match=r"BasicDecoder.*AnyNumber"):
        zoo.register_decoder("basic", zoo.from_channels(AnyNumber, out_channels=256))


def test_an_input_with_a_default_is_given_where_the_encoder_has_it():
    class Optional(nn.Module):
        def __init__(self, in_channels_list, out_channels):
            super().__init__()
            self.counted = len(in_channels_list)
            self.conv = nn.Conv2d(in_channels_list[0], out_channels, 1)

        def forward(self, x1, x2=None, x3=None):
            return self.conv(x1)

    factory = zoo.from_channels(Optional, out_channels=4)
    assert (factory.needs.min_levels, factory.needs.max_levels) == (1, 3)


@pytest.mark.parametrize("thing", [dict, 3])
def test_what_is_no_decoder_class_is_refused(thing):
    with pytest.raises(zoo.RegistrationError, match=r"wraps a decoder class; found"):
        zoo.from_channels(thing)


def test_a_decoder_that_reads_a_value_while_it_is_made_is_told_that_meta_has_none(fresh_registry):
    class Reading(nn.Module):
        def __init__(self, in_channels_list):
            super().__init__()
            self.scale = torch.ones(1).item()

    zoo.register_decoder("reading", zoo.from_channels(Reading))
    with pytest.raises(zoo.PluginError, match=r"Reading.*meta device.*read no tensor's value"):
        zoo.build("resnet18", "reading")
