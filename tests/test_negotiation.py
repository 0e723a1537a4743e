"""The negotiation: a pure function from a pyramid and a decoder's needs to a plan, or to every reason why not."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import zoo
from zoo.negotiation import negotiate

STRIDES = (1, 2, 4, 7, 8, 12, 14, 16, 17.14, 32, 37.4, 64)
ENCODER, DECODER = "lab:encoder", "lab:decoder"


def pyramid_of(*strides):
    return tuple(
        zoo.FeatureMap(name=f"map{index}", channels=8 * index, stride=stride) for index, stride in enumerate(strides, start=1)
    )


LADDER = pyramid_of(2, 4, 4, 8, 16, 32)

pyramids = st.builds(
    lambda strides, channels: tuple(
        zoo.FeatureMap(name=f"map{index}", channels=width, stride=stride)
        for index, (stride, width) in enumerate(zip(sorted(strides), channels, strict=False))
    ),
    st.lists(st.sampled_from(STRIDES), min_size=1, max_size=8),
    st.lists(st.integers(1, 64), min_size=8, max_size=8),
)


@st.composite
def any_needs(draw):
    min_levels = draw(st.integers(1, 3))
    strides = draw(st.none() | st.sets(st.sampled_from((2, 4, 8, 16, 32)), min_size=1, max_size=3))
    return zoo.Needs(
        min_levels=min_levels,
        max_levels=draw(st.none() | st.integers(min_levels, 5)),
        strides=None if strides is None else tuple(sorted(strides)),
        distinct_strides=draw(st.booleans()),
        channels=draw(st.none() | st.integers(1, 64)),
        output_stride=draw(st.none() | st.sampled_from((8, 16, 32))),
    )


def plan(pyramid, needs=None, **options):
    return negotiate(pyramid, needs or zoo.Needs(), encoder=ENCODER, decoder=DECODER, **options)


def refusal(*asked, **options):
    with pytest.raises(zoo.NegotiationError) as caught:
        plan(*asked, **options)
    return str(caught.value)


def levels_of(made):
    return [route.source.level for route in made.routes]


def names_of(made):
    return [route.source.name for route in made.routes]


@given(pyramids, any_needs(), st.none() | st.integers(1, 7), st.sampled_from(["auto", "none"]))
def test_any_plan_keeps_every_promise(pyramid, needs, levels, adapters):
    try:
        made = plan(pyramid, needs, levels=levels, adapters=adapters)
    except zoo.NegotiationError:
        assume(False)
    routed = [route.source for route in made.routes]
    unused = [entry.source for entry in made.unused]

    assert routed == [entry for entry in pyramid if entry in routed]
    assert unused == [entry for entry in pyramid if entry not in routed]
    assert all(entry.reason for entry in (*made.routes, *made.unused))
    assert made.maps == tuple(entry.name for entry in routed)
    assert made.pyramid == tuple(route.output for route in made.routes)
    if needs.distinct_strides:
        assert len(set(levels_of(made))) == len(routed)
    if needs.channels is not None:
        assert {entry.channels for entry in made.pyramid} == {needs.channels}
    if needs.strides is not None and needs.max_levels is None and needs.output_stride is None:
        assert {2**level for level in levels_of(made)} == set(needs.strides)
    assert needs.min_levels <= len(routed) <= (needs.max_levels or len(routed))
    assert levels is None or len(set(levels_of(made))) <= levels
    for route in made.routes:
        assert len(route.adapters) == (route.source.channels != route.output.channels)
        assert route.output.stride == route.source.stride
    assert made.adapter_parameters == sum(
        (route.source.channels + 1) * route.output.channels for route in made.routes if route.adapters
    )
    assert adapters == "auto" or not made.adapter_parameters
    assert made == plan(pyramid, needs, levels=levels, adapters=adapters)


@given(pyramids, any_needs(), st.none() | st.integers(1, 7), st.sampled_from(["auto", "none"]))
def test_any_refusal_names_both_sides_each_level_and_a_remedy(pyramid, needs, levels, adapters):
    try:
        plan(pyramid, needs, levels=levels, adapters=adapters)
    except zoo.NegotiationError as error:
        message = str(error)
    else:
        assume(False)
    assert ENCODER in message
    assert DECODER in message
    assert all(f"{entry}: " in message for entry in pyramid)
    problems = [line for line in message.splitlines() if "Problem: " in line]
    assert problems
    assert all(any(verb in line for verb in ("choose", "ask for", "allow")) for line in problems), message


def test_needs_by_default_accept_every_pyramid():
    for stride in STRIDES:
        assert names_of(plan(pyramid_of(stride))) == ["map1"]


def test_of_maps_that_share_a_stride_the_last_is_taken_and_the_plan_says_so():
    made = plan(LADDER)
    assert names_of(made) == ["map1", "map3", "map4", "map5", "map6"]
    assert "map2" in made.routes[1].reason
    [left] = made.unused
    assert left.source.name == "map2"
    assert "shares stride 4 with map3" in left.reason


def test_all_maps_are_kept_where_strides_may_repeat():
    assert names_of(plan(LADDER, zoo.Needs(distinct_strides=False))) == [entry.name for entry in LADDER]
    assert names_of(plan(pyramid_of(14, 14, 14), zoo.Needs(distinct_strides=False))) == ["map1", "map2", "map3"]


@pytest.mark.parametrize("needs", [zoo.Needs(max_levels=2), zoo.Needs(max_levels=2, distinct_strides=False)])
def test_a_map_is_not_called_the_only_one_of_its_stride_where_another_was_left_out(needs):
    made = plan(pyramid_of(4, 4, 8), needs)
    assert names_of(made) == ["map2", "map3"]
    assert "only" not in made.routes[0].reason
    assert "the only map at stride 8" in made.routes[1].reason


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_levels_keeps_the_finest_strides(levels):
    made = plan(LADDER, levels=levels)
    assert levels_of(made) == [1, 2, 3, 4, 5][:levels]
    cut = [entry.source.level for entry in made.unused if f"levels={levels}" in entry.reason]
    assert cut == [1, 2, 3, 4, 5][levels:]


def test_levels_counts_strides_not_maps():
    assert names_of(plan(LADDER, zoo.Needs(distinct_strides=False), levels=2)) == ["map1", "map2", "map3"]


def test_more_levels_than_strides_is_refused_with_how_many_there_are():
    assert "ask for at most 5" in refusal(LADDER, levels=6)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_max_levels_keeps_the_coarsest(count):
    assert names_of(plan(LADDER, zoo.Needs(max_levels=count))) == ["map1", "map3", "map4", "map5", "map6"][-count:]


def test_exact_strides_are_taken_and_the_others_left_with_the_reason():
    made = plan(LADDER, zoo.Needs(strides=(4, 16)))
    assert names_of(made) == ["map3", "map5"]
    reasons = {entry.source.name: entry.reason for entry in made.unused}
    assert set(reasons) == {"map1", "map2", "map4", "map6"}
    assert "strides 4, 16" in reasons["map6"]


def test_exact_strides_are_matched_by_the_nearest_power_of_two():
    assert names_of(plan(pyramid_of(7, 14, 37.4), zoo.Needs(strides=(8, 16, 32)))) == ["map1", "map2", "map3"]


def test_every_missing_stride_is_named():
    message = refusal(pyramid_of(4, 8, 16), zoo.Needs(strides=(2, 4, 32)))
    assert "stride 2 is needed" in message
    assert "stride 32 is needed" in message
    assert "stride 4 is needed" not in message


@pytest.mark.parametrize(("limit", "coarsest"), [(8, "map4"), (16, "map5"), (32, "map6")])
def test_an_output_stride_leaves_out_what_is_coarser(limit, coarsest):
    made = plan(LADDER, zoo.Needs(output_stride=limit))
    assert names_of(made)[-1] == coarsest
    assert all(f"coarser than stride {limit}" in entry.reason for entry in made.unused if entry.source.level > 2)


def test_an_output_stride_is_matched_by_the_nearest_power_of_two():
    assert names_of(plan(pyramid_of(8, 17.14, 32), zoo.Needs(output_stride=16))) == ["map1", "map2"]


def test_too_few_levels_are_refused():
    message = refusal(LADDER, zoo.Needs(min_levels=3), levels=2)
    assert "at least 3 feature maps and 2 are left" in message
    assert "choose a higher levels=" in message


def test_a_width_is_met_by_a_projection_only_where_it_differs():
    made = plan(pyramid_of(4, 8, 16), zoo.Needs(channels=16))
    assert [len(route.adapters) for route in made.routes] == [1, 0, 1]
    [project] = made.routes[0].adapters
    assert (project.kind, project.in_channels, project.out_channels) == ("project", 8, 16)
    assert str(project) == "1x1 convolution 8 -> 16 (+144 parameters)"
    assert "wants 16 channels" in made.routes[0].reason
    assert made.adapter_parameters == 144 + (24 + 1) * 16


def test_with_no_adapters_allowed_every_map_that_needs_one_is_named():
    message = refusal(pyramid_of(4, 8, 16), zoo.Needs(channels=16), adapters="none")
    assert message.count("allow it with adapters='auto'") == 2
    assert "map2" not in message.partition("Problem")[2]


@pytest.mark.parametrize(
    ("strides", "multiple"), [((2, 4, 8, 16, 32), 32), ((2, 4), 4), ((14,), 14), ((12, 17.14), 32), ((37.4,), 64)]
)
def test_the_size_multiple_follows_the_coarsest_map_used(strides, multiple):
    assert plan(pyramid_of(*strides)).size_multiple == multiple


def test_resnet18_gives_a_unet_five_of_its_six_maps():
    made = zoo.negotiate("resnet18", "unet-basic")
    assert made.maps == ("stem", "layer1", "layer2", "layer3", "layer4")
    assert [entry.stride for entry in made.pyramid] == [2, 4, 8, 16, 32]
    [pool] = made.unused
    assert pool.source.name == "pool"
    assert "stride 4" in pool.reason
    assert made.adapter_parameters == 0


def test_a_channel_list_holds_every_map_that_an_encoder_can_give():
    assert zoo.channels("resnet18") == [64, 64, 64, 128, 256, 512]
    assert zoo.channels("timm:resnet18") == [64, 64, 128, 256, 512]
