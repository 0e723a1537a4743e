"""What `zoo.explain` tells a person about a plan."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import zoo

SIZE_NOTES = {
    "auto": "no multiple of 32, the image is padded right and bottom with zeros, and the logits cropped",
    "pad": "no multiple of 32, the image is padded right and bottom with zeros, and the logits cropped",
    "resize": "no multiple of 32, the image is resized up (bilinear), and the logits resized back",
    "error": "no multiple of 32, the image is refused",
}


def rows(text):
    cells = [[cell.strip() for cell in re.split(r"[│┃|]", line)[1:-1]] for line in text.splitlines()]
    return [row for row in cells if len(row) == 6]


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
    text = " ".join(zoo.explain("resnet18", "unet-basic", size_policy=policy).split())
    assert f"{SIZE_NOTES[policy]} (size_policy='{policy}')." in text


def test_what_is_explained_is_what_is_built():
    with torch.device("meta"):
        model = zoo.build("resnet18", "unet-bilinear", levels=4)
    shown = [row[1] for row in rows(zoo.explain("resnet18", "unet-bilinear", levels=4)) if row[0].isdigit()]
    assert shown == list(model.plan.maps)


def test_what_cannot_be_built_cannot_be_explained():
    with pytest.raises(zoo.NegotiationError, match="levels=6"):
        zoo.explain("resnet18", "unet-basic", levels=6)
    with pytest.raises(zoo.UnknownIdError, match="resnet18"):
        zoo.explain("resnt18", "unet-basic")
