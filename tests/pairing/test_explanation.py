"""What `zoo.explain` tells a person about a plan."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
import torchvision
from torch import nn

import zoo

PADDED = "the image is padded on the right and at the bottom with zeros, and the logits are cropped"
COST = "up to 31 more rows and columns to compute"
SIZE_NOTES = {
    "auto": f"{PADDED} (size_policy='auto'): {COST}.",
    "pad": f"{PADDED} (size_policy='pad'): {COST}.",
    "resize": f"the image is resized (bilinear), and the logits are resized back (size_policy='resize'): {COST}.",
    "error": "the image is refused (size_policy='error').",
}


def given(*strides, channels=8):
    return [
        zoo.plugin.FeatureMap(name=f"map{index}", channels=channels, stride=stride)
        for index, stride in enumerate(strides, start=1)
    ]


def told(*asked, **options):
    """Return what is explained on one line, as it was before the lines were broken."""
    return " ".join(zoo.explain(*asked, **options).split())


def column(text, heading):
    """Return the cells of a column from the first level on, each put together again where it was broken."""
    first, *body = rows(text)
    index = first.index(heading)
    cells = []
    for row in body:
        if row[0]:
            cells.append(row[index])
        else:
            cells[-1] = f"{cells[-1]} {row[index]}".strip()
    return cells


def rows(text):
    """Return the cells of the table, line by line. No cell begins left of its heading."""
    heading, _, *body = itertools.dropwhile(lambda line: not line.startswith("  level "), text.splitlines())
    starts = [found.start() for found in re.finditer(r"\S+(?: \S+)*", heading)]
    body = itertools.takewhile(str.strip, body)
    return [[line[slice(*bounds)].strip() for bounds in itertools.pairwise([*starts, None])] for line in (heading, *body)]


def test_each_level_shows_source_channels_stride_adapter_and_reason():
    heading, *body = rows(zoo.explain("resnet18", "unet-basic"))
    assert heading == ["level", "source map", "channels", "stride", "adapter", "reason"]
    assert [row[:5] for row in body[:5]] == [
        ["1", "stem", "64", "2", "none"],
        ["2", "layer1", "64", "4", "none"],
        ["3", "layer2", "128", "8", "none"],
        ["4", "layer3", "256", "16", "none"],
        ["5", "layer4", "512", "32", "none"],
    ]
    assert [row[5] for row in body[:3]] == [
        "the only map at stride 2",
        "last of the maps at stride 4 (others: pool)",
        "the only map at stride 8",
    ]


def test_a_map_that_is_left_out_is_shown_with_its_reason():
    *_, last = rows(zoo.explain("resnet18", "unet-basic"))
    assert last == ["-", "pool", "64", "4", "not used", "shares stride 4 with layer1, which comes later"]
    unused = [row for row in rows(zoo.explain("resnet18", "unet-basic", levels=3)) if row[4] == "not used"]
    assert {row[1]: row[5] for row in unused if row[1] != "pool"} == dict.fromkeys(
        ("layer3", "layer4"), "levels=3 keeps the 3 finest strides"
    )


def test_the_title_joins_both_ids_with_a_plain_x():
    assert zoo.explain("timm:resnet18", "unet-attention").splitlines()[0].strip() == "timm:resnet18 x unet-attention"
    assert zoo.explain("resnet18", "unet-basic").splitlines()[0].isascii()


@pytest.mark.usefixtures("fresh_registry")
def test_an_adapter_is_shown_with_what_it_adds():
    zoo.register_decoder("narrow", nn.Identity, needs=zoo.Needs(channels=32, max_levels=1))
    text = zoo.explain("resnet18", "narrow")
    [first] = [row for row in rows(text) if row[0] == "1"]
    assert first[1:4] == ["layer4", "512", "32"]
    assert "1x1 convolution 512 -> 32" in " ".join(text.split())
    assert "Adapters add 16,416 parameters." in text


@pytest.mark.parametrize("policy", SIZE_NOTES)
def test_what_happens_to_other_image_sizes_is_said(policy):
    text = told("resnet18", "unet-basic", size_policy=policy)
    assert f"Image size: If H or W is not a multiple of 32, {SIZE_NOTES[policy]}" in text


def test_what_is_explained_is_what_is_built():
    with torch.device("meta"):
        model = zoo.build("resnet18", "unet-bilinear", levels=4)
    shown = [row[1] for row in rows(zoo.explain("resnet18", "unet-bilinear", levels=4)) if row[0].isdigit()]
    assert shown == list(model.plan.maps)


def test_what_cannot_be_built_cannot_be_explained():
    with pytest.raises(zoo.errors.NegotiationError, match="levels=6"):
        zoo.explain("resnet18", "unet-basic", levels=6)
    with pytest.raises(zoo.errors.UnknownIdError, match="resnet18"):
        zoo.explain("resnt18", "unet-basic")


@pytest.fixture
def vit(fresh_registry):
    sizes = zoo.plugin.ImageSizes(multiple=16, fixed=(224, 224), adapts=True)
    zoo.register_encoder("vit", "package.module:name", pyramid=given(*[16] * 12, channels=192), sizes=sizes)


def test_a_pyramid_made_from_one_map_is_shown_level_by_level_with_what_it_adds(vit):
    text = zoo.explain("vit", "unet-basic")
    plan = zoo.negotiate("vit", "unet-basic")
    assert column(text, "source map") == ["map12"] * 4 + ["11 maps from map1 to map11"]
    given_at = [", to stride 4", ", to stride 8", "", ", to stride 32"]
    assert column(text, "adapter") == [*(f"{one}{at}" for one, at in zip(plan.adapters, given_at, strict=True)), "not used"]
    assert [cell.partition(" 192")[0] for cell in column(text, "adapter")[:4]] == [
        "simple feature pyramid level x4",
        "simple feature pyramid level x2",
        "simple feature pyramid level",
        "simple feature pyramid level /2",
    ]
    assert column(text, "reason")[0] == "the encoder has no stride 4; the nearest map is at 16"
    assert "the encoder's only stride, 16" in column(text, "reason")[2]
    assert f"Adapters add {plan.adapter_parameters:,} parameters." in text


def test_maps_chosen_among_those_of_one_stride_are_shown_and_the_others_left_with_the_reason(fresh_registry):
    zoo.register_encoder("blocks", "package.module:name", pyramid=given(*[16] * 12))
    zoo.register_decoder("dpt", "a.b:c", needs=zoo.Needs(min_levels=4, max_levels=4, distinct_strides=False))
    text = zoo.explain("blocks", "local:dpt")
    assert column(text, "source map")[:4] == ["map3", "map6", "map9", "map12"]
    assert "evenly spaced" in column(text, "reason")[-1]
    assert "12 maps at this stride" in column(text, "reason")[-1]


def test_a_filled_stride_is_shown_with_its_source_and_why(fresh_registry):
    zoo.register_encoder("gap", "package.module:name", pyramid=given(4, 16))
    zoo.register_decoder("three", "package.module:name", needs=zoo.Needs(strides=(4, 8, 16), channels=8))
    text = zoo.explain("gap", "three")
    assert column(text, "adapter") == ["none", "learned downsampling /2 8 -> 8 (+584 parameters), to stride 8", "none"]
    assert column(text, "reason")[1] == "stride 8 is missing between the encoder's strides; the nearest map is at 4"
    assert "Adapters add 584 parameters." in text


@pytest.mark.parametrize(
    ("strides", "steps"),
    [
        ((4, 8), "(stride 4) unet-basic takes 2 learned upsampling steps more, to stride 2, 1;"),
        ((2, 4), "(stride 2) unet-basic takes 1 learned upsampling step more, to stride 1;"),
        ((8, 16), "(stride 8) unet-basic takes 3 learned upsampling steps more, to stride 4, 2, 1;"),
    ],
)
def test_what_a_decoder_learns_beyond_the_finest_map_is_said(fresh_registry, strides, steps):
    zoo.register_encoder("ladder", "package.module:name", pyramid=given(*strides))
    assert f"Output: from the finest map {steps} the logits are not interpolated." in told("ladder", "unet-basic")


def test_a_decoder_that_begins_at_the_images_resolution_ends_there(fresh_registry):
    zoo.register_encoder("ladder", "package.module:name", pyramid=given(1, 2))
    text = told("ladder", "unet-basic")
    assert "ends at the finest map (stride 1); the logits are not interpolated" in text
    assert "learned upsampling" not in text


@pytest.mark.parametrize(("out_stride", "note"), [(4, True), (8, True), (None, False)])
def test_logits_that_are_interpolated_are_said_to_be(fresh_registry, out_stride, note):
    zoo.register_decoder("coarse", nn.Identity, out_stride=out_stride)
    text = told("resnet18", "coarse")
    assert (f"Output: the logits come at stride {out_stride} and are resized (bilinear) to the image." in text) == note
    assert ("Output:" in text) == note


def test_logits_are_not_said_to_be_taken_as_they_are_where_the_strides_are_no_powers_of_two(fresh_registry):
    zoo.register_encoder("patches", "package.module:name", pyramid=given(14))
    assert "the logits are not interpolated" not in told("patches", "unet-basic")


@pytest.fixture
def dilation(fresh_registry):
    def pyramid(output_stride=32):
        return tuple(zoo.plugin.FeatureMap(name=f"s{at}", channels=8, stride=min(at, output_stride)) for at in (4, 8, 16, 32))

    zoo.register_encoder("dilating", "package.module:name", pyramid=pyramid, output_strides=(8, 16))
    for stride in (8, 16, 32):
        zoo.register_decoder(f"wants{stride}", "package.module:name", needs=zoo.Needs(output_stride=stride))


@pytest.mark.parametrize(("stride", "maps"), [(8, ["s4", "s32"]), (16, ["s4", "s8", "s32"])])
def test_an_encoder_that_is_dilated_for_the_decoder_is_said_to_be(dilation, stride, maps):
    decoder = f"wants{stride}"
    text = told("dilating", decoder)
    assert f"is built with output_stride={stride} (dilated)." in text
    assert f"{decoder} wants output stride {stride};" in text
    assert "cannot dilate" not in text
    assert column(zoo.explain("dilating", decoder), "source map")[: len(maps)] == maps


def test_an_encoder_that_cannot_dilate_is_said_not_to(dilation):
    text = told("resnet18", "wants8")
    assert "wants8 wants output stride 8; resnet18 cannot dilate to it" in text
    assert "the decoder wants no map coarser than stride 8" in text


def test_an_encoder_of_which_no_map_in_use_would_be_dilated_is_not_and_nothing_is_said_of_it(dilation):
    text = told("dilating", "wants8", levels=1)
    assert "wants output stride" not in text
    assert "forbids" not in text
    assert not zoo.negotiate("dilating", "wants8", levels=1).encoder_options


def test_an_encoder_that_may_not_be_dilated_is_said_to_be_able_to(dilation):
    text = told("dilating", "wants8", adapters="none")
    assert "could dilate to it, but adapters='none' forbids it: no coarser map is used." in text


def test_an_encoder_that_is_told_how_far_to_dilate_is_not_told_otherwise(dilation):
    text = told("dilating", "wants8", encoder_options={"output_stride": 16})
    assert "dilate" not in text
    assert "no map coarser than stride 8" in text


def test_an_encoder_that_need_not_dilate_is_not_said_to_be_unable_to(dilation):
    assert "cannot dilate" not in told("resnet18", "wants32")


def test_what_happens_to_images_of_an_encoder_of_one_size_is_said(vit):
    assert (
        "Image size: A smaller image is padded on the right and at the bottom with zeros, and the logits are cropped; a larger "
        "one is resized (bilinear), and the logits are resized back, which loses detail (size_policy='auto'). Once built, the "
        "encoder accepts no other size, so every image costs as much as one of 224x224. To keep the detail of larger images, "
        "build with image_size=(H, W)."
    ) in told("vit", "unet-basic")


def test_the_size_that_an_encoder_is_made_for_is_said_with_what_it_costs(vit):
    text = told("vit", "unet-basic", image_size=(300, 400))
    assert "Image size: The encoder is made for 304x400, the smallest size for 300x400 (1% more pixels)." in text
    text = told("vit", "unet-basic", image_size=(320, 320), size_policy="error")
    assert "The encoder is made for 320x320. An image that is not 320x320 is refused (size_policy='error')." in text


def test_random_weights_are_said_by_the_plan_and_by_the_model():
    assert "Encoder weights: random" in zoo.explain("resnet18", "unet-basic")
    assert "Encoder weights: imagenet" in zoo.explain("resnet18", "unet-basic", weights="imagenet")
    model = zoo.build("resnet18", "unet-basic")
    assert "encoder weights: random" in repr(model)
    model.load_state_dict(model.state_dict())
    assert "encoder weights: loaded" in repr(model)


def test_a_modules_own_weights_are_not_called_random():
    network = torchvision.models.resnet18()
    assert "Encoder weights: the module's own" in zoo.explain(network, "unet-basic")
    assert "encoder weights: the module's own" in repr(zoo.build(network, "unet-basic"))
