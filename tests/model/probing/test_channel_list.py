"""Decoders as tutorials write them, taken over untouched by `zoo.from_channels`."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo

pytestmark = pytest.mark.usefixtures("fresh_registry", "one_thread")

MAPS = tuple(
    zoo.plugin.FeatureMap(name=f"map{index}", channels=channels, stride=stride)
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
    logits = model(torch.rand(2, 3, 65, 97))
    assert logits.shape == (2, classes, 65, 97)
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
    with pytest.raises(zoo.errors.OptionError, match=r"local:basic has no option 'width'\. Its options: out_channels"):
        zoo.build("resnet18", "basic", decoder_options={"width": 3})


def test_a_missing_default_is_the_plugins_error():
    zoo.register_decoder("basic", zoo.from_channels(BasicDecoder))
    with pytest.raises(
        zoo.errors.PluginError, match=r"BasicDecoder\(\) requires out_channels\. Pass a value: .*out_channels="
    ) as caught:
        zoo.build("resnet18", "basic")
    assert isinstance(caught.value.__cause__, TypeError)
    assert zoo.build("resnet18", "basic", decoder_options={"out_channels": 8}).decoder.out_channels == 8


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("num_classes", lambda channels, num_classes: BasicDecoder(channels, num_classes)),
        ("classes", lambda channels, classes: BasicDecoder(channels, classes)),
    ],
)
def test_a_missing_number_of_classes_is_told_how_it_is_given(name, make):
    zoo.register_decoder("logits", zoo.from_channels(make))
    with pytest.raises(zoo.errors.PluginError, match=rf"zoo\.from_channels\(\.\.\., classes='{name}'\), .*makes_logits=True"):
        zoo.build("resnet18", "logits", classes=3)
    zoo.register_decoder("right", zoo.from_channels(make, classes=name))
    assert zoo.build("resnet18", "right", classes=3)(torch.rand(2, 3, 64, 96)).shape == (2, 3, 64, 96)


def test_an_encoder_with_fewer_maps_than_it_names_is_refused(basic):
    with pytest.raises(
        zoo.errors.NegotiationError, match=r"timm:resnet18 cannot serve local:basic(?s:.)*at least 6 .* 5 are left"
    ):
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
        (Failing, r"Failing.*raised RuntimeError for maps of shape \(2, 256, .*one by one, fine to coarse"),
        (GivesTwo, r"GivesTwo.*must return one tensor \(N, channels, h, w\); found a tuple"),
        (GivesVector, r"GivesVector.*must return one tensor.*found a tensor of shape \(2, 512\)"),
    ],
)
def test_a_decoder_that_gives_no_map_is_named_when_it_is_built(decoder, found):
    zoo.register_decoder("wrong", zoo.from_channels(decoder, out_channels=4))
    with pytest.raises(zoo.errors.PluginError, match=found):
        zoo.build("resnet18", "wrong")


def test_only_what_can_be_called_is_wrapped():
    with pytest.raises(zoo.errors.RegistrationError, match=r"zoo\.from_channels wraps a decoder class; found 5"):
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
    with pytest.raises(zoo.errors.RegistrationError, match=r"out_channels=256.*out_channels=128"):
        zoo.register_decoder("basic", zoo.from_channels(BasicDecoder, out_channels=128))
    with pytest.raises(zoo.errors.RegistrationError, match=r"BasicDecoder.*AnyNumber"):
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
    with pytest.raises(zoo.errors.RegistrationError, match=r"wraps a decoder class; found"):
        zoo.from_channels(thing)


def test_a_decoder_that_reads_a_value_while_it_is_made_is_measured_by_a_real_run():
    class Reading(AnyNumber):
        def __init__(self, in_channels_list):
            super().__init__(in_channels_list)
            self.scale = torch.ones(1).item()

    zoo.register_decoder("reading", zoo.from_channels(Reading))
    assert zoo.build("resnet18", "reading", classes=2)(torch.rand(2, 3, 33, 47)).shape == (2, 2, 33, 47)
    with torch.device("meta"), pytest.raises(zoo.errors.PluginError, match=r"local:reading raised .*meta tensors"):
        zoo.build("resnet18", "reading")


class OneWidth(nn.Module):
    """A tutorial's decoder whose second transposed convolution is right for a width of 16 alone."""

    def __init__(self, in_channels_list, out_channels):
        super().__init__()
        self.up1 = nn.ConvTranspose2d(in_channels_list[5], 16, kernel_size=2, stride=2)
        self.conv1 = nn.Conv2d(16 + in_channels_list[4], out_channels, kernel_size=3, padding=1)
        self.up2 = nn.ConvTranspose2d(16, 16, kernel_size=2, stride=2)
        self.conv2 = nn.Conv2d(16 + in_channels_list[3], out_channels, kernel_size=3, padding=1)

    def forward(self, x1, x2, x3, x4, x5, x6):
        x = self.conv1(torch.cat([self.up1(x6), x5], dim=1))
        return self.conv2(torch.cat([self.up2(x), x4], dim=1))


def test_a_width_that_the_class_gets_wrong_is_named_when_it_is_built():
    zoo.register_decoder("one-width", zoo.from_channels(OneWidth, out_channels=8))
    with pytest.raises(
        zoo.errors.PluginError, match=r"OneWidth\(out_channels=8\) raised RuntimeError .*to have 16 channels, but got 8"
    ):
        zoo.build("resnet18", "one-width")
    assert zoo.build("resnet18", "one-width", decoder_options={"out_channels": 16}).decoder.out_channels == 16


class Listed(AnyNumber):
    """Takes its maps as smp's decoders do: one argument, a list."""

    def forward(self, features):
        return super().forward(*features)


class ListedByAnnotation(AnyNumber):
    def forward(self, features: list[torch.Tensor], scale=1.0, mask=None):
        assert mask is None
        return scale * super().forward(*features)


class OneMap(nn.Module):
    def __init__(self, in_channels_list, out_channels=3):
        super().__init__()
        (channels,) = in_channels_list
        self.conv = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: torch.Tensor):
        return self.conv(x)


class OneMapUnannotated(OneMap):
    def forward(self, x):
        return self.conv(x)


def make_listed(in_channels_list):
    return Listed(in_channels_list)


@pytest.mark.parametrize("decoder", [Listed, ListedByAnnotation, make_listed])
@pytest.mark.parametrize(("encoder", "count"), [("resnet18", 6), ("timm:resnet18", 5)])
def test_a_forward_with_a_single_input_gets_the_list_of_all_maps(decoder, encoder, count):
    zoo.register_decoder("listed", zoo.from_channels(decoder))
    model = zoo.build(encoder, "listed", classes=2)
    assert model(torch.rand(2, 3, 65, 97)).shape == (2, 2, 65, 97)
    assert len(model.plan.routes) == count


def test_a_single_input_that_is_annotated_as_a_tensor_gets_the_coarsest_map():
    zoo.register_decoder("one-map", zoo.from_channels(OneMap))
    model = zoo.build("resnet18", "one-map", classes=2)
    assert model.plan.maps == ("layer4",)
    assert model(torch.rand(2, 3, 65, 97)).shape == (2, 2, 65, 97)


def test_a_single_input_that_takes_no_list_is_named_when_it_is_built():
    zoo.register_decoder("unannotated", zoo.from_channels(OneMapUnannotated, needs=zoo.Needs(max_levels=1)))
    with pytest.raises(zoo.errors.PluginError, match=r"OneMapUnannotated.*as one list.*annotate its input as torch\.Tensor"):
        zoo.build("resnet18", "unannotated")


class Masked(Listed):
    def forward(self, features, mask=None):
        assert mask is None, "a mask of another size"
        return super().forward(features)


def test_a_list_beside_an_optional_input_is_told_the_annotation():
    zoo.register_decoder("masked", zoo.from_channels(Masked))
    with pytest.raises(zoo.errors.PluginError, match=r"Masked.*one by one.*annotate its first input as list\[torch\.Tensor\]"):
        zoo.build("resnet18", "masked")


class FixedGrid(AnyNumber):
    def forward(self, *features):
        return F.interpolate(super().forward(*features), size=(56, 56))


class Transposed(AnyNumber):
    def forward(self, *features):
        return super().forward(*features).transpose(2, 3)


class FixedRatio(AnyNumber):
    def forward(self, *features):
        return F.interpolate(super().forward(*features), size=(32, 64))


class FixedHeight(AnyNumber):
    def forward(self, *features):
        return F.interpolate(super().forward(*features), size=(32, features[1].shape[-1]))


class ChannelsFollow(AnyNumber):
    def forward(self, *features):
        x = super().forward(*features)
        return x.repeat(1, x.shape[2], 1, 1)


@pytest.mark.parametrize("decoder", [FixedGrid, Transposed, FixedRatio, FixedHeight, ChannelsFollow])
def test_a_map_whose_size_does_not_follow_the_images_is_refused(decoder):
    zoo.register_decoder("wrong", zoo.from_channels(decoder))
    with pytest.raises(zoo.errors.PluginError, match=rf"{decoder.__name__}.*whose h and w are the image's height and width"):
        zoo.build("resnet18", "wrong")


@pytest.mark.parametrize("channels", [7, 128])
def test_a_map_whose_channels_come_last_is_refused_as_what_it_is(channels):
    class ChannelsLast(AnyNumber):
        def forward(self, *features):
            return super().forward(*features).permute(0, 2, 3, 1)

    zoo.register_decoder("last", zoo.from_channels(ChannelsLast, out_channels=channels))
    with pytest.raises(zoo.errors.PluginError, match=r"has its channels last, so return x\.permute\(0, 3, 1, 2\)"):
        zoo.build("resnet18", "last")


@pytest.mark.parametrize("needs", [zoo.Needs(strides=(1, 2, 4, 8, 16, 32)), zoo.Needs(min_levels=6), zoo.Needs(channels=24)])
@pytest.mark.parametrize("encoder", ["resnet18", "timm:test_resnet", "timm:test_convnext", "timm:test_vit"])
def test_with_needs_a_decoder_of_six_named_maps_works_with_any_encoder(encoder, needs):
    zoo.register_decoder("basic", zoo.from_channels(BasicDecoder, out_channels=8, needs=needs))
    model = zoo.build(encoder, "basic", classes=2)
    assert [entry.stride for entry in model.plan.pyramid] == [1, 2, 4, 8, 16, 32]
    assert model(torch.rand(2, 3, 65, 97)).shape == (2, 2, 65, 97)


def test_the_error_about_too_few_maps_offers_needs(basic):
    with pytest.raises(zoo.errors.NegotiationError, match=r"register it with needs=zoo\.Needs\(min_levels=6\)"):
        zoo.build("timm:resnet18", "basic")


@pytest.mark.parametrize(
    ("needs", "found"),
    [
        (
            zoo.Needs(strides=(4, 8, 16, 32)),
            r"forward takes 6 maps, but its needs allow 4\. Pass needs=.*\(1, 2, 4, 8, 16, 32\)",
        ),
        (zoo.Needs(max_levels=3), r"forward takes 6 maps, but its needs allow 3"),
        (6, r"`needs` must be a zoo\.Needs; found 6"),
    ],
)
def test_needs_that_do_not_fit_the_forward_are_refused(needs, found):
    with pytest.raises(zoo.errors.RegistrationError, match=rf"BasicDecoder.*{found}"):
        zoo.from_channels(BasicDecoder, out_channels=8, needs=needs)


def test_needs_given_with_the_registration_that_do_not_fit_the_forward_are_named_when_it_is_built():
    zoo.register_decoder("basic", zoo.from_channels(BasicDecoder, out_channels=8), needs=zoo.Needs(strides=(8, 16, 32)))
    with pytest.raises(zoo.errors.PluginError, match=r"BasicDecoder.*takes 6 maps, but the pyramid has 3\. Declare which maps"):
        zoo.build("resnet18", "basic")


def test_a_decoder_that_makes_the_logits_gets_the_number_of_classes_by_the_name_it_has_for_it():
    zoo.register_decoder("logits", zoo.from_channels(BasicDecoder, classes="out_channels"))
    for classes in (1, 19):
        model = zoo.build("resnet18", "logits", classes=classes)
        assert type(model.head) is nn.Identity
        assert model.decoder.module.conv2.out_channels == classes
        assert model(torch.rand(2, 3, 65, 97)).shape == (2, classes, 65, 97)
    with pytest.raises(zoo.errors.OptionError, match=r"has no option 'out_channels'"):
        zoo.build("resnet18", "logits", decoder_options={"out_channels": 3})
    with pytest.raises(zoo.errors.OptionError, match=r"'classes' is not an option of local:logits; zoo passes it itself"):
        zoo.build("resnet18", "logits", decoder_options={"classes": 3})


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"classes": 19}, r"the name of the parameter.*found 19\. Pass the number itself to zoo\.build"),
        ({"classes": "num_classes"}, r"has no parameter 'num_classes'; its parameters: out_channels"),
        ({"classes": "out_channels", "out_channels": 3}, r"zoo\.from_channels also received a value"),
    ],
)
def test_a_name_for_the_number_of_classes_that_does_not_fit_is_refused(given, found):
    with pytest.raises(zoo.errors.RegistrationError, match=rf"BasicDecoder.*{found}"):
        zoo.from_channels(BasicDecoder, **given)


class SkipsTheImage(AnyNumber):
    """Takes its maps as smp's decoders do: the image first, which it leaves out."""

    def __init__(self, in_channels_list):
        super().__init__(in_channels_list[1:])

    def forward(self, features):
        return super().forward(*features[1:])


def test_a_decoder_that_expects_the_image_first_gets_it_by_its_needs():
    needs = zoo.Needs(strides=(2, 4, 8, 16, 32), image=True)
    zoo.register_decoder("skips", zoo.from_channels(SkipsTheImage, needs=needs))
    zoo.register_decoder("six", zoo.from_channels(BasicDecoder, out_channels=8, needs=needs))
    for name in ("skips", "six"):
        model = zoo.build("resnet18", name, in_channels=4, classes=2)
        assert [entry.stride for entry in model.plan.pyramid] == [1, 2, 4, 8, 16, 32]
        assert model(torch.rand(2, 4, 65, 97)).shape == (2, 2, 65, 97)


class LargerThanTheImage(AnyNumber):
    def forward(self, *features):
        return F.interpolate(super().forward(*features), scale_factor=4)


def test_a_map_larger_than_the_image_is_refused_in_words_about_the_class():
    zoo.register_decoder("larger", zoo.from_channels(LargerThanTheImage))
    with pytest.raises(zoo.errors.PluginError, match=r"LargerThanTheImage.*a map 2 times as large as the image.*leave out an"):
        zoo.build("resnet18", "larger")
    zoo.register_decoder("logits", zoo.from_channels(LargerThanTheImage, classes="out_channels"))
    assert zoo.build("resnet18", "logits", classes=2)(torch.rand(2, 3, 64, 96)).shape == (2, 2, 64, 96)


class OwnHead(nn.Module):
    """Has all that a decoder may have beside `forward`."""

    aux_channels = (6,)

    def __init__(self, in_channels_list, width=16):
        super().__init__()
        self.fine = nn.Conv2d(in_channels_list[-2], width, 1)
        self.coarse = nn.Conv2d(in_channels_list[-1], 6, 1)
        self.checkpoints = False

    def forward(self, features):
        return self.fine(features[-2])

    def forward_aux(self, features):
        return self.forward(features), [self.coarse(features[-1])]

    def make_head(self, classes):
        return nn.Conv2d(16, classes, 3, padding=1)

    def set_grad_checkpointing(self, enable=True):
        self.checkpoints = enable


class OwnHeadOneByOne(OwnHead):
    def forward(self, fine, coarse):
        return super().forward([fine, coarse])

    def forward_aux(self, fine, coarse):
        return self.forward(fine, coarse), [self.coarse(coarse)]


@pytest.mark.parametrize("decoder", [OwnHead, OwnHeadOneByOne])
def test_what_the_class_has_beside_forward_is_used(decoder):
    zoo.register_decoder("own", zoo.from_channels(decoder))
    model = zoo.build("resnet18", "own", classes=4, aux_levels=1, gradient_checkpointing="decoder")
    assert model.head.kernel_size == (3, 3)
    assert model.decoder.module.checkpoints
    model = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert [tuple(logits.shape) for logits in model(torch.rand(2, 3, 64, 96))] == [(2, 4, 64, 96)] * 2


def test_what_the_class_has_not_is_not_there(basic):
    decoder = zoo.build("resnet18", "basic").decoder
    assert not any(hasattr(decoder, name) for name in ("make_head", "aux_channels", "forward_aux", "set_grad_checkpointing"))


class TopDown(nn.Module):
    """Adds projected maps from the coarsest to the finest."""

    def __init__(self, channels, width=8):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)

    def forward(self, *maps):
        added, *others = [project(x) for project, x in zip(self.lateral, maps, strict=True)][::-1]
        for other in others:
            added = F.interpolate(added, size=other.shape[-2:]) + other
        return added


class WidthsFirst(TopDown):
    """Its first parameter is no list of what its maps have."""

    def __init__(self, decoder_channels, encoder_channels=(64, 64, 64, 128, 256, 512)):
        super().__init__(encoder_channels, decoder_channels[0])


class WidthsByName(TopDown):
    def __init__(self, widths, in_channels):
        super().__init__(in_channels, widths[0])


RESNET18 = [64, 64, 64, 128, 256, 512]


@pytest.mark.parametrize(
    ("decoder", "defaults", "parameter"),
    [(WidthsFirst, {}, "decoder_channels"), (WidthsByName, {"in_channels": RESNET18}, "widths")],
)
def test_a_list_that_says_nothing_of_the_maps_is_refused_though_all_fits(decoder, defaults, parameter):
    zoo.register_decoder("other", zoo.from_channels(decoder, **defaults))
    with pytest.raises(
        zoo.errors.PluginError, match=f"accepts maps with the original channels.* first parameter, '{parameter}'"
    ):
        zoo.build("resnet18", "other", classes=2)


def test_a_function_gives_the_list_to_the_parameter_that_takes_it():
    zoo.register_decoder("other", zoo.from_channels(lambda channels: WidthsFirst([16], encoder_channels=channels)))
    assert zoo.build("resnet18", "other", classes=2).decoder.out_channels == 16


def test_a_function_may_make_a_decoder_of_one_encoders_widths():
    zoo.register_decoder("fixed", zoo.from_channels(lambda channels: TopDown(RESNET18)))
    assert zoo.build("resnet18", "fixed", classes=2)(torch.rand(1, 3, 64, 64)).shape == (1, 2, 64, 64)
    with pytest.raises(zoo.errors.PluginError, match="raised RuntimeError"):
        zoo.build("timm:resnet50", "fixed", classes=2)


class Reversed(TopDown):
    """Expects its maps coarse to fine."""

    def forward(self, *maps):
        added, *others = [project(x) for project, x in zip(self.lateral, maps, strict=True)]
        for other in others:
            added = F.interpolate(added, size=other.shape[-2:]) + other
        return added


class CoarsestAlone(TopDown):
    def forward(self, *maps):
        return self.lateral[-1](maps[-1])


@pytest.mark.parametrize(
    ("decoder", "needs", "is_said"),
    [
        (Reversed, None, True),
        (Reversed, zoo.Needs(min_levels=2), False),  # it may well gather all maps on the coarsest one's grid
        (TopDown, None, False),
        (CoarsestAlone, None, False),
    ],
)
def test_a_decoder_that_seems_to_expect_maps_coarse_to_fine_is_said(caplog, decoder, needs, is_said):
    zoo.register_decoder("other", zoo.from_channels(decoder, needs=needs))
    zoo.build("resnet18", "other", classes=2)
    assert ("uses its finest map, but returns a map of stride 32" in caplog.text) is is_said
