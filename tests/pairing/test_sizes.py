"""Which image sizes an encoder takes, and what a plan does with every other."""

from __future__ import annotations

import math
import re
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import zoo
from zoo.pairing.pairing_fields import SizePolicy
from zoo.pairing.size_plan import SizePlan, plan_sizes

PADDED = "padded on the right and at the bottom with zeros, and the logits are cropped"

lengths = st.integers(1, 300)
images = st.tuples(lengths, lengths)
policies = st.sampled_from(get_args(SizePolicy))


@st.composite
def image_sizes(draw, *, may_be_fixed=True):
    """Draw what an encoder takes; where it takes one size only, one that its own rules allow."""
    rules = {"multiple": draw(st.integers(1, 40)), "minimum": draw(st.integers(1, 100)), "square": draw(st.booleans())}
    fixed = zoo.plugin.ImageSizes(**rules).holding(draw(images)) if may_be_fixed and draw(st.booleans()) else None
    return zoo.plugin.ImageSizes(**rules, fixed=fixed, adapts=draw(st.booleans()))


def is_taken(sizes, size):
    """Say whether an encoder of these facts takes the size; written apart from the code under test."""
    if sizes.fixed is not None:
        return size == sizes.fixed
    fits = all(length % sizes.multiple == 0 and length >= sizes.minimum for length in size)
    return fits and (not sizes.square or size[0] == size[1])


def planned(sizes, size_multiple, image_size, policy):
    """Plan, where the image size that is named is not refused at once."""
    try:
        return plan_sizes(sizes, size_multiple=size_multiple, image_size=image_size, policy=policy)
    except zoo.errors.OptionError:
        assume(policy not in ("pad", "error"))
        raise


def plan(*, stride=1, image_size=None, policy="auto", **facts):
    return plan_sizes(zoo.plugin.ImageSizes(**facts), size_multiple=stride, image_size=image_size, policy=policy)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"multiple": 0}, "multiple must be a whole number of at least 1; found 0"),
        ({"multiple": 14.0}, r"multiple must be a whole number of at least 1; found 14\.0"),
        ({"multiple": True}, "multiple must be a whole number of at least 1; found True"),
        ({"minimum": -3}, "minimum must be a whole number of at least 1; found -3"),
        ({"minimum": None}, "minimum must be a whole number of at least 1; found None"),
        ({"fixed": 224}, r"fixed must be a pair \(height, width\); found 224"),
        ({"fixed": [224, 224]}, r"fixed must be a pair \(height, width\); found \[224, 224\]"),
        ({"fixed": (224,)}, r"fixed must be a pair \(height, width\); found \(224,\)"),
        ({"fixed": (224, 0)}, "fixed width must be a whole number of at least 1; found 0"),
        ({"fixed": (22.4, 224)}, r"fixed height must be a whole number of at least 1; found 22\.4"),
    ],
)
def test_facts_that_make_no_sense_are_refused_with_what_was_found(facts, message):
    with pytest.raises(zoo.errors.RegistrationError, match=message):
        zoo.plugin.ImageSizes(**facts)


def test_any_size_is_taken_by_default():
    made = SizePlan()
    assert [made.fit(*size) for size in ((1, 1), (225, 301))] == [("as is", (1, 1)), ("as is", (225, 301))]
    assert str(zoo.plugin.ImageSizes()) == "any"
    assert made.note == "Any H and W are accepted as they are."


@given(image_sizes(may_be_fixed=False), images)
def test_the_size_that_holds_an_image_is_the_smallest_that_is_taken(sizes, image):
    height, width = held = sizes.holding(image)
    assert is_taken(sizes, held)
    assert height >= image[0]
    assert width >= image[1]
    smaller = [(height - sizes.multiple, width), (height, width - sizes.multiple)]
    if sizes.square:
        smaller = [(height - sizes.multiple,) * 2]
    assert not any(a >= image[0] and b >= image[1] and is_taken(sizes, (a, b)) for a, b in smaller)
    assert sizes.holding(held) == held


@given(image_sizes(), st.integers(1, 64), st.none() | images, policies, images)
def test_what_an_encoder_sees_is_a_size_that_it_takes(sizes, size_multiple, image_size, policy, image):
    made = planned(sizes, size_multiple, image_size, policy)
    done, seen = made.fit(*image)
    assert is_taken(made.sizes, seen)
    if made.sizes.fixed is None:
        assert seen[0] % sizes.multiple == seen[1] % sizes.multiple == 0
        assert seen[0] % size_multiple == seen[1] % size_multiple == 0
        assert min(seen) >= sizes.minimum
    assert made.fit(*seen) == ("as is", seen)
    assert done in ("as is", "pad", "resize", "refuse")


@given(image_sizes(), st.integers(1, 64), st.none() | images, policies, images)
def test_an_image_is_left_as_it_is_exactly_where_the_encoder_takes_it(sizes, size_multiple, image_size, policy, image):
    made = planned(sizes, size_multiple, image_size, policy)
    done, seen = made.fit(*image)
    assert (done == "as is") == (seen == image) == is_taken(made.sizes, image)


@given(image_sizes(), st.integers(1, 64), st.none() | images, policies, images)
def test_what_is_done_follows_the_policy(sizes, size_multiple, image_size, policy, image):
    made = planned(sizes, size_multiple, image_size, policy)
    done, seen = made.fit(*image)
    assume(done != "as is")
    larger = made.sizes.fixed is not None and (image[0] > made.sizes.fixed[0] or image[1] > made.sizes.fixed[1])
    assert (
        done
        == {
            "auto": "resize" if larger else "pad",
            "pad": "refuse" if larger else "pad",
            "resize": "resize",
            "error": "refuse",
        }[policy]
    )
    if done == "pad" or made.sizes.fixed is None:
        assert seen[0] >= image[0]
        assert seen[1] >= image[1]


@given(image_sizes(), st.integers(1, 64), images, policies)
def test_an_encoder_that_adapts_is_made_for_the_smallest_size_that_holds_the_image(sizes, size_multiple, image, policy):
    made = planned(sizes, size_multiple, image, policy)
    assert made.asked == image
    if not sizes.adapts:
        assert made.image_size is None
        assert made.sizes.fixed == sizes.fixed
        return
    height, width = made.image_size
    assert height >= image[0]
    assert width >= image[1]
    assert height % sizes.multiple == width % sizes.multiple == 0
    assert min(height, width) >= sizes.minimum
    assert height == width or not sizes.square
    assert made.fit(height, width)[0] == "as is"
    assert made.fit(*image)[1] == (height, width)
    assert made.sizes.fixed == (None if sizes.fixed is None else (height, width))


@given(image_sizes(), st.integers(1, 64), policies)
def test_without_an_image_size_the_encoder_is_told_none(sizes, size_multiple, policy):
    made = planned(sizes, size_multiple, None, policy)
    assert (made.asked, made.image_size, made.sizes.fixed) == (None, None, sizes.fixed)
    if sizes.fixed is None:
        assert made.sizes.multiple == math.lcm(sizes.multiple, size_multiple)


@given(image_sizes(), st.integers(1, 64), st.none() | images, policies)
def test_a_note_is_sentences_that_name_the_policy_and_the_size_it_is_made_for(sizes, size_multiple, image_size, policy):
    made = planned(sizes, size_multiple, image_size, policy)
    assert made.note.endswith(".")
    assert made.note[0].isupper()
    assert "None" not in made.note
    if "accepted as they are" not in made.note:
        assert f"(size_policy={policy!r})" in made.note
    if made.image_size is not None:
        assert made.note.startswith(f"The encoder is made for {made.image_size[0]}x{made.image_size[1]}")
    elif made.asked is not None and made.sizes.fixed not in (None, made.asked):
        assert f"changes nothing: the encoder is made for {made.sizes.fixed[0]}x{made.sizes.fixed[1]}." in made.note
    else:
        assert "is made for" not in made.note


def test_a_note_says_how_many_more_pixels_the_size_it_is_made_for_has():
    facts = {"multiple": 16, "fixed": (224, 224), "adapts": True}
    note = plan(image_size=(40, 50), **facts).note
    assert note.startswith(
        "The encoder is made for 48x64, the smallest size for 40x50 (54% more pixels). A smaller image is padded"
    )
    assert plan(image_size=(48, 64), **facts).note.startswith("The encoder is made for 48x64. A smaller image is padded")


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (
            "auto",
            f"A smaller image is {PADDED}; a larger one is resized",
        ),
        (
            "pad",
            f"A smaller image is {PADDED}; a larger one is refused",
        ),
        ("resize", "An image that is not 224x224 is resized (bilinear), and the logits are resized back"),
        ("error", "An image that is not 224x224 is refused (size_policy='error')."),
    ],
)
def test_a_note_says_what_becomes_of_images_that_are_not_of_the_one_size(policy, text):
    note = plan(stride=32, policy=policy, fixed=(224, 224)).note
    assert note.startswith(text)
    costs = "every image costs as much as one of 224x224" in note
    assert costs == (policy in ("auto", "resize"))
    assert ("loses detail" in note) == (policy == "auto")


@pytest.mark.parametrize("policy", ["auto", "resize"])
def test_a_note_offers_an_image_size_only_where_the_encoder_adapts(policy):
    assert "build with image_size=(H, W)" in plan(policy=policy, fixed=(224, 224), adapts=True).note
    assert "build with image_size" not in plan(policy=policy, fixed=(224, 224)).note


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (
            "auto",
            "the image is padded on the right and at the bottom with zeros, and the logits are cropped (size_policy='auto')",
        ),
        (
            "pad",
            "the image is padded on the right and at the bottom with zeros, and the logits are cropped (size_policy='pad')",
        ),
        ("resize", "the image is resized (bilinear), and the logits are resized back (size_policy='resize')"),
    ],
)
def test_a_note_says_what_a_multiple_costs(policy, text):
    note = plan(stride=32, policy=policy).note
    assert note == f"If H or W is not a multiple of 32, {text}: up to 31 more rows and columns to compute."


def test_a_note_names_every_rule_that_an_image_is_brought_to():
    note = plan(stride=32, minimum=200, square=True).note
    assert note.startswith("If H or W is not a multiple of 32 or is below 224, or if they differ, the image is padded")


@pytest.mark.parametrize(("facts", "image", "more"), [({"square": True}, (32, 512), 480), ({"minimum": 256}, (32, 32), 224)])
def test_a_note_counts_no_fewer_rows_than_are_added(facts, image, more):
    made = plan(stride=32, **facts)
    assert max(seen - length for seen, length in zip(made.fit(*image)[1], image, strict=True)) == more
    counted = re.search(r"up to (\d+) more rows", made.note)
    assert counted is None or int(counted[1]) >= more


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "any"),
        ({"multiple": 32}, "multiples of 32"),
        ({"multiple": 14, "minimum": 28, "square": True}, "multiples of 14, at least 28, square"),
        ({"square": True}, "square"),
        ({"multiple": 16, "fixed": (224, 196)}, "224x196 only"),
        (
            {"multiple": 16, "fixed": (224, 224), "adapts": True},
            "224x224 only, or the size it is made for (image_size), multiples of 16",
        ),
    ],
)
def test_the_sizes_are_said_in_words(facts, text):
    assert str(zoo.plugin.ImageSizes(**facts)) == text


def test_a_plan_says_which_sizes_it_takes():
    assert "images of multiples of 32" in plan(stride=32).refusal(33, 32)
    assert "images of 224x196" in plan(stride=32, fixed=(224, 196)).refusal(1, 1)
    assert "images of up to 64x64" in plan(
        multiple=16, image_size=(50, 60), fixed=(224, 224), adapts=True, policy="pad"
    ).refusal(65, 1)


@pytest.mark.parametrize(
    ("facts", "policy"),
    [({"multiple": 32}, "error"), ({"fixed": (64, 64)}, "pad"), ({"fixed": (64, 64), "adapts": True}, "error")],
)
def test_an_image_size_that_the_policy_refuses_is_refused_at_once(facts, policy):
    with pytest.raises(zoo.errors.OptionError, match=r"image_size=65x70 is refused.*size_policy='auto'"):
        plan(image_size=(65, 70), policy=policy, **({"multiple": 32} | facts))
