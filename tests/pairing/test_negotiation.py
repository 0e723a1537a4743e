"""The negotiation: a pure function from a pyramid and a decoder's needs to a plan, or to every reason why not."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import zoo
from zoo.pairing.negotiation import negotiate

STRIDES = (1, 2, 4, 7, 8, 12, 14, 16, 17.14, 32, 37.4, 64)
ENCODER, DECODER = "lab:encoder", "lab:decoder"


def pyramid_of(*strides):
    return tuple(
        zoo.plugin.FeatureMap(name=f"map{index}", channels=8 * index, stride=stride)
        for index, stride in enumerate(strides, start=1)
    )


LADDER = pyramid_of(2, 4, 4, 8, 16, 32)

pyramids = st.builds(
    lambda strides, channels: tuple(
        zoo.plugin.FeatureMap(name=f"map{index}", channels=width, stride=stride)
        for index, (stride, width) in enumerate(zip(sorted(strides), channels, strict=False))
    ),
    st.lists(st.sampled_from(STRIDES), min_size=1, max_size=8),
    st.lists(st.integers(1, 64), min_size=8, max_size=8),
)


@st.composite
def any_needs(draw):
    strides = draw(st.none() | st.sets(st.sampled_from((2, 4, 8, 16, 32)), min_size=1, max_size=3))
    min_levels = draw(st.integers(1, 5 if strides is None else len(strides)))
    return zoo.Needs(
        min_levels=min_levels,
        max_levels=draw(st.none() | st.integers(min_levels, 6)),
        strides=None if strides is None else tuple(sorted(strides)),
        distinct_strides=draw(st.booleans()),
        channels=draw(st.none() | st.integers(1, 64)),
        finest_stride=draw(st.sampled_from((1, 1, 1, 2) if strides else (1, 1, 2, 4))),
        output_stride=draw(st.none() | st.sampled_from([at for at in (8, 16, 32) if at >= max(strides or [1])])),
    )


def plan(pyramid, needs=None, **options):
    return negotiate(pyramid, needs or zoo.Needs(), encoder=ENCODER, decoder=DECODER, **options)


def refusal(*asked, **options):
    with pytest.raises(zoo.errors.NegotiationError) as caught:
        plan(*asked, **options)
    return str(caught.value)


def levels_of(made):
    return [route.output.level for route in made.routes]


def names_of(made):
    return [route.source.name for route in made.routes]


def kinds_of(made):
    return ["+".join(adapter.kind for adapter in route.adapters) or "as it is" for route in made.routes]


def steps_of(made):
    return [sum(adapter.steps for adapter in route.adapters) for route in made.routes]


anything = given(pyramids, any_needs(), st.none() | st.integers(1, 7))


def planned(pyramid, needs, levels, **options):
    try:
        return plan(pyramid, needs, levels=levels, **options)
    except zoo.errors.NegotiationError:
        return assume(False)


def limit_of(needs):
    return math.inf if needs.output_stride is None else round(math.log2(needs.output_stride))


def levels_wanted(needs):
    """Return the levels that a decoder of exact strides gets."""
    wanted = [round(math.log2(stride)) for stride in needs.strides if stride <= 2 ** limit_of(needs)]
    return wanted[-(needs.max_levels or len(wanted)) :]


def usable(pyramid, needs):
    return tuple(entry for entry in pyramid if 2**entry.level >= needs.finest_stride)


def takes_every_map(needs):
    return not needs.distinct_strides and needs.strides is None


@anything
def test_any_plan_meets_the_decoders_needs(pyramid, needs, levels):
    made = planned(pyramid, needs, levels)
    got = levels_of(made)

    assert needs.min_levels <= len(got) <= (needs.max_levels or len(got))
    assert max(got) <= limit_of(needs)
    if takes_every_map(needs):
        assert got == sorted(got)
    else:
        assert got == sorted(set(got))
    if needs.channels is not None:
        assert {entry.channels for entry in made.pyramid} == {needs.channels}
    if needs.strides is not None and levels is None:
        assert got == levels_wanted(needs)
    elif levels is not None:
        assert len(set(got)) <= levels


@given(pyramids, any_needs())
def test_no_encoder_is_refused_by_a_decoder_of_four_levels_or_fewer_that_takes_one_map_a_stride(pyramid, needs):
    finest = max(2, needs.finest_stride)
    up_to_limit = 4 if needs.output_stride is None else round(math.log2(needs.output_stride / finest)) + 1
    possible = min(4, up_to_limit, needs.max_levels or 4) if needs.strides is None else len(levels_wanted(needs))
    needs = dataclasses.replace(needs, distinct_strides=True, min_levels=max(1, min(needs.min_levels, possible)))
    assume(possible)
    assume(usable(pyramid, needs) and needs.finest_stride < 4)
    assert plan(pyramid, needs).routes


@anything
def test_any_plan_accounts_for_every_map_and_gives_every_reason(pyramid, needs, levels):
    made = planned(pyramid, needs, levels)
    sources = {route.source for route in made.routes}

    assert made.maps == tuple(entry.name for entry in pyramid if entry in sources)
    assert [entry.source for entry in made.unused] == [entry for entry in pyramid if entry not in sources]
    assert all(entry.reason for entry in (*made.routes, *made.unused))
    assert made.pyramid == tuple(route.output for route in made.routes)
    assert made.adapters == tuple(adapter for route in made.routes for adapter in route.adapters)
    assert made.adapter_parameters == sum(adapter.parameters for adapter in made.adapters)


@anything
def test_any_adapter_leads_from_its_source_to_its_output(pyramid, needs, levels):
    for route in planned(pyramid, needs, levels).routes:
        if not route.adapters:
            assert route.output == route.source
            continue
        [adapter] = route.adapters
        assert (adapter.in_channels, adapter.out_channels) == (route.source.channels, route.output.channels)
        assert adapter.steps == route.source.level - route.output.level
        assert route.output.stride == max(1, route.source.stride / 2**adapter.steps)
        assert adapter.parameters > 0
        assert str(adapter).endswith(f"{adapter.in_channels} -> {adapter.out_channels} (+{adapter.parameters:,} parameters)")
        if adapter.kind == "project":
            assert (adapter.steps, route.output.name) == (0, route.source.name)
            assert route.source.channels != route.output.channels == needs.channels
        elif needs.channels is None:
            assert adapter.out_channels == (route.source.channels if adapter.kind == "fill" else 256)


@anything
def test_any_map_that_the_encoder_gives_is_preferred_to_one_that_is_made(pyramid, needs, levels):
    made = planned(pyramid, needs, levels)
    pyramid = usable(pyramid, needs)
    given_levels = {entry.level for entry in pyramid}
    last = {entry.level: entry for entry in pyramid}
    kinds = kinds_of(made)

    if takes_every_map(needs):
        assert set(kinds) <= {"as it is", "project"}
        return
    if len(given_levels) == 1 and len(kinds) > 1:
        assert set(kinds) == {"synthesize"}
        assert made.maps == (pyramid[-1].name,)
        return
    for route, kind in zip(made.routes, kinds, strict=True):
        level = route.output.level
        nearest = min(given_levels, key=lambda other: (abs(other - level), other))
        assert route.source == last[nearest]
        if level in given_levels:
            assert kind in ("as it is", "project")
        elif min(given_levels) < level < max(given_levels):
            assert kind == "fill"
        else:
            assert kind == "synthesize"


@anything
def test_nothing_is_made_where_the_encoder_gives_enough(pyramid, needs, levels):
    assume(needs.strides is None)
    made = planned(pyramid, needs, levels)
    given = sorted({entry.level for entry in usable(pyramid, needs)})[:levels]
    if len([level for level in given if level <= limit_of(needs)]) >= max(needs.min_levels, levels or 1):
        assert set(kinds_of(made)) <= {"as it is", "project"}


@anything
def test_without_adapters_the_plan_is_the_same_or_refused_with_each_level_that_needs_one(pyramid, needs, levels):
    made = planned(pyramid, needs, levels)
    if not made.adapters:
        assert plan(pyramid, needs, levels=levels, adapters="none") == made
        return
    problems = refusal(pyramid, needs, levels=levels, adapters="none").split("Problem: ")[1:]
    changed = [(number, route) for number, route in enumerate(made.routes, start=1) if route.adapters]
    assert len(problems) == len(changed)
    for problem, (number, route) in zip(problems, changed, strict=True):
        assert problem.startswith(f"level {number} (stride {2**route.output.level}): ")
        assert str(route.adapters[0]) in problem
        assert route.source.name in problem
        assert "adapters='auto'" in problem


@anything
def test_one_question_always_gets_one_answer(pyramid, needs, levels):
    assert planned(pyramid, needs, levels) == plan(pyramid, needs, levels=levels)


def levels_offered(*asked, levels):
    """Return how many levels a refusal says to request at most; None if there is no such refusal."""
    try:
        plan(*asked, levels=levels)
    except zoo.errors.NegotiationError as error:
        offered = re.search(r"request at most (\d+)", str(error))
        return offered and int(offered[1])
    return None


@given(pyramids, any_needs(), st.integers(4, 9))
def test_as_many_levels_as_a_refusal_offers_are_not_too_many(pyramid, needs, levels):
    offered = levels_offered(pyramid, needs, levels=levels)
    if offered is not None:
        assert 1 <= offered < levels
        assert levels_offered(pyramid, needs, levels=offered) is None


@given(pyramids, any_needs(), st.none() | st.integers(1, 7), st.sampled_from(["auto", "none"]))
def test_any_refusal_names_both_sides_each_level_and_a_remedy(pyramid, needs, levels, adapters):
    try:
        plan(pyramid, needs, levels=levels, adapters=adapters)
    except zoo.errors.NegotiationError as error:
        message = str(error)
    else:
        assume(False)
    assert ENCODER in message
    assert DECODER in message
    assert all(f"{entry}: " in message or "maps from" in message for entry in pyramid)
    problems = [line for line in message.splitlines() if "Problem: " in line]
    assert problems
    assert all(any(verb in line for verb in ("choose", "request", "allow", "pass")) for line in problems), message


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


@pytest.mark.parametrize("needs", [zoo.Needs(distinct_strides=False), zoo.Needs(one_stride=True)])
def test_levels_counts_maps_where_an_encoder_of_one_stride_meets_a_decoder_that_takes_several_of_one(needs):
    assert names_of(plan(pyramid_of(*[16] * 12), needs, levels=3)) == ["map4", "map8", "map12"]
    assert "requests 13 maps, but the encoder has 12" in refusal(pyramid_of(*[16] * 12), needs, levels=13)
    few = zoo.Needs(min_levels=4, max_levels=4, distinct_strides=False)
    assert "at least 4 feature maps, but 3 are left; pass a larger value of levels" in refusal(
        pyramid_of(*[16] * 12), few, levels=3
    )


def test_more_levels_than_strides_is_refused_with_how_many_there_are():
    assert "request at most 5" in refusal(LADDER, levels=6)


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


def test_exact_strides_that_the_encoder_does_not_give_are_made():
    made = plan(pyramid_of(4, 8, 32), zoo.Needs(strides=(2, 4, 16, 64)))
    assert kinds_of(made) == ["synthesize", "as it is", "fill", "synthesize"]
    assert names_of(made) == ["map1", "map1", "map2", "map3"]
    assert steps_of(made) == [1, 0, -1, -1]
    assert [entry.stride for entry in made.pyramid] == [2, 4, 16, 64]
    assert made.maps == ("map1", "map2", "map3")


def test_without_adapters_every_missing_stride_is_named():
    message = refusal(pyramid_of(4, 8, 16), zoo.Needs(strides=(2, 4, 32)), adapters="none")
    assert "level 1 (stride 2): the encoder has no map at stride 2" in message
    assert "level 3 (stride 32): the encoder has no map at stride 32" in message
    assert message.count("Problem") == 2


def test_exact_strides_that_levels_leaves_out_are_refused():
    message = refusal(pyramid_of(4, 8, 16), zoo.Needs(strides=(4, 16)), levels=2)
    assert "stride 16 is needed, but levels=2 leaves it out; pass a larger value of levels" in message


@pytest.mark.parametrize(
    ("strides", "levels", "got"),
    [
        ((4, 8, 16, 32), 4, [2, 3, 4]),
        ((4, 8, 16, 32), 3, [2, 3]),
        ((4, 16), 4, [2, 4]),
        ((4, 16), 3, [2, 3]),
        ((4, 8, 16, 32), None, [2, 3, 4, 5]),
    ],
)
def test_a_decoder_that_works_with_fewer_of_its_strides_gets_the_coarsest_left_in_a_coarser_ones_place(strides, levels, got):
    made = plan(pyramid_of(2, 4, 8, 16, 32), zoo.Needs(strides=strides, min_levels=1), levels=levels)
    assert (levels_of(made), set(kinds_of(made))) == (got, {"as it is"})


def test_fewer_of_its_strides_than_a_decoder_works_with_are_refused():
    needs = zoo.Needs(strides=(4, 8, 16, 32), min_levels=3)
    assert levels_of(plan(pyramid_of(2, 4, 8, 16, 32), needs, levels=4)) == [2, 3, 4]
    assert "stride 16 is needed, but levels=3 leaves it out" in refusal(pyramid_of(2, 4, 8, 16, 32), needs, levels=3)


def test_a_map_finer_than_the_decoder_takes_is_left_out_before_levels_are_counted():
    made = plan(pyramid_of(1, 2, 4, 8, 16, 32), zoo.Needs(finest_stride=2), levels=4)
    assert levels_of(made) == [1, 2, 3, 4]
    assert made.unused[0].reason == "the decoder takes no map finer than stride 2"
    assert levels_of(plan(pyramid_of(1, 16), zoo.Needs(finest_stride=2, min_levels=2))) == [2, 3, 4, 5]


def test_an_encoder_of_finer_maps_alone_is_refused():
    message = refusal(pyramid_of(1, 2), zoo.Needs(finest_stride=4))
    assert "every map is finer than stride 4, the finest that the decoder takes; choose another encoder" in message


@pytest.mark.parametrize(("limit", "coarsest"), [(8, "map4"), (16, "map5"), (32, "map6")])
def test_an_output_stride_leaves_out_what_is_coarser(limit, coarsest):
    made = plan(LADDER, zoo.Needs(output_stride=limit))
    assert names_of(made)[-1] == coarsest
    assert all(f"coarser than stride {limit}" in entry.reason for entry in made.unused if entry.source.level > 2)


def test_an_output_stride_is_matched_by_the_nearest_power_of_two():
    assert names_of(plan(pyramid_of(8, 17.14, 32), zoo.Needs(output_stride=16))) == ["map1", "map2"]


def test_fewer_levels_than_the_decoder_needs_are_refused():
    message = refusal(LADDER, zoo.Needs(min_levels=3), levels=2)
    assert "at least 3 feature maps, but 2 are left" in message
    assert "pass a larger value of levels, or choose another encoder" in message


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
    assert message.count("allow such adapters with adapters='auto'") == 2
    assert "map2" not in message.partition("Problem")[2]


@pytest.mark.parametrize(
    ("strides", "multiple"), [((2, 4, 8, 16, 32), 32), ((2, 4), 4), ((14,), 14), ((12, 17.14), 32), ((37.4,), 64)]
)
def test_the_size_multiple_follows_the_coarsest_map_used(strides, multiple):
    assert plan(pyramid_of(*strides)).sizes.sizes.multiple == multiple


@pytest.mark.parametrize(("stride", "multiple"), [(4, 32), (8, 32), (16, 32), (32, 32)])
def test_the_size_multiple_follows_a_coarser_map_that_is_made_at_a_power_of_two(stride, multiple):
    made = plan(pyramid_of(stride), zoo.Needs(strides=(4, 8, 16, 32)))
    assert made.sizes.sizes.multiple == multiple
    assert plan(pyramid_of(stride), zoo.Needs(max_levels=1)).sizes.sizes.multiple == stride


def test_the_size_multiple_is_that_of_the_encoders_maps_where_a_coarser_map_is_made_at_no_power_of_two():
    made = plan(pyramid_of(14), zoo.Needs(min_levels=2))
    assert made.pyramid[-1].stride == 28
    assert made.sizes.sizes.multiple == 14


ONE_STRIDE = zoo.Needs(one_stride=True, min_levels=4, max_levels=4)


def test_maps_of_one_stride_are_taken_evenly_spaced():
    made = plan(pyramid_of(16, 16, 16, 16, 16, 16, 16, 16), ONE_STRIDE)
    assert made.maps == ("map2", "map4", "map6", "map8")
    assert made.adapters == ()


def test_of_a_ladder_the_stride_with_the_most_maps_is_taken():
    made = plan(pyramid_of(2, 4, 8, 8, 16, 16, 16, 16, 16, 32), ONE_STRIDE)
    assert {entry.stride for entry in made.pyramid} == {16}
    assert plan(pyramid_of(4, 4, 8, 8), zoo.Needs(one_stride=True)).maps == ("map1", "map2")
    assert plan(pyramid_of(4, 4, 8, 8), zoo.Needs(one_stride=True, strides=(8,))).maps == ("map3", "map4")
    assert [unused.reason for unused in plan(pyramid_of(4, 4, 8), zoo.Needs(one_stride=True)).unused] == [
        "the decoder takes maps of one stride, here 4"
    ]


@pytest.mark.parametrize("strides", [(2, 4, 8, 16, 32), (2, 4, 4, 8, 16, 32), (16, 16, 16)])
def test_an_encoder_with_too_few_maps_of_one_stride_is_refused(strides):
    assert "at least 4 feature maps at one stride; the encoder has" in refusal(pyramid_of(*strides), ONE_STRIDE)


def test_needs_of_one_stride_name_one_stride_at_most():
    with pytest.raises(
        zoo.errors.RegistrationError, match=r"one_stride=True, `strides` must contain only one stride; found strides=\(8, 16\)"
    ):
        zoo.Needs(one_stride=True, strides=(8, 16))
    with pytest.raises(zoo.errors.RegistrationError, match=r"image must be True or False, found 'yes'"):
        zoo.Needs(image="yes")
    assert str(zoo.Needs(one_stride=True, image=True)) == "at least 1 level, all of one stride, and the image itself"


def test_the_image_comes_first_and_counts_as_no_level():
    made = plan(pyramid_of(4, 8, 16), zoo.Needs(image=True, min_levels=3, max_levels=3), in_channels=5)
    assert made.pyramid[0] == zoo.plugin.FeatureMap(name="image", channels=5, stride=1)
    assert made.maps == ("map1", "map2", "map3")
    assert made.sizes.sizes.multiple == 16


def test_the_size_plan_heeds_both_the_maps_and_the_encoder():
    made = plan(pyramid_of(4, 8), sizes=zoo.plugin.ImageSizes(multiple=14, minimum=42, square=True), size_policy="resize")
    assert made.sizes.sizes == zoo.plugin.ImageSizes(multiple=56, minimum=42, square=True)
    assert (made.sizes.policy, made.sizes.image_size) == ("resize", None)


@pytest.mark.parametrize("stride", [7, 8, 12, 14, 16, 17.14, 32])
def test_a_single_stride_becomes_the_simple_feature_pyramid_of_strides_4_to_32(stride):
    made = plan(pyramid_of(stride, stride), zoo.Needs(min_levels=2))
    assert levels_of(made) == [2, 3, 4, 5]
    assert set(kinds_of(made)) == {"synthesize"}
    assert made.maps == ("map2",)
    exponent = made.routes[0].source.level
    assert steps_of(made) == [exponent - 2, exponent - 3, exponent - 4, exponent - 5]
    assert [entry.stride for entry in made.pyramid] == [stride / 2**steps for steps in steps_of(made)]
    assert {entry.channels for entry in made.pyramid} == {256}
    assert "the encoder's only stride" in made.routes[exponent - 2].reason


def test_a_single_stride_is_taken_as_it_is_where_one_level_is_enough():
    assert kinds_of(plan(pyramid_of(16, 16))) == ["as it is"]
    assert kinds_of(plan(pyramid_of(16), zoo.Needs(strides=(16,)))) == ["as it is"]
    assert kinds_of(plan(pyramid_of(16), adapters="none")) == ["as it is"]


@pytest.mark.parametrize(("levels", "strides"), [(2, [4, 8]), (3, [4, 8, 16]), (4, [4, 8, 16, 32])])
def test_levels_of_a_single_stride_count_the_finest_of_the_pyramid_made_from_it(levels, strides):
    made = plan(pyramid_of(16), zoo.Needs(min_levels=2), levels=levels)
    assert [entry.stride for entry in made.pyramid] == strides


def test_more_levels_than_the_pyramid_made_from_a_single_stride_has_are_refused():
    assert "request at most 4" in refusal(pyramid_of(16), levels=5)


def test_a_decoders_width_is_the_width_of_the_pyramid_that_is_made_for_it():
    made = plan(pyramid_of(16), zoo.Needs(strides=(8, 16, 32), channels=24))
    assert kinds_of(made) == ["synthesize"] * 3
    assert {adapter.out_channels for adapter in made.adapters} == {24}


def test_without_adapters_a_single_stride_is_refused_once_with_every_level():
    message = refusal(pyramid_of(16), zoo.Needs(min_levels=2, channels=8), adapters="none")
    problems = message.split("Problem: ")[1:]
    assert len(problems) == 4
    for number, (problem, stride) in enumerate(zip(problems, (4, 8, 16, 32), strict=True), start=1):
        assert problem.startswith(f"level {number} (stride {stride}): ")
        missing = "alone is not a pyramid" if stride == 16 else f"has no map at stride {stride};"
        assert missing in problem
        assert "simple feature pyramid level" in problem
        assert "8 -> 8 (+" in problem
        assert "map1" in problem


def test_a_gap_is_filled_before_anything_is_synthesized():
    made = plan(pyramid_of(4, 16), zoo.Needs(min_levels=3))
    assert kinds_of(made) == ["as it is", "fill", "as it is"]
    assert levels_of(made) == [2, 3, 4]
    made = plan(pyramid_of(4, 16), zoo.Needs(min_levels=4))
    assert kinds_of(made) == ["as it is", "fill", "as it is", "synthesize"]
    assert levels_of(made) == [2, 3, 4, 5]


def test_a_gap_is_left_where_the_decoder_has_enough_levels():
    assert levels_of(plan(pyramid_of(4, 16), zoo.Needs(min_levels=2))) == [2, 4]


@pytest.mark.parametrize(
    ("strides", "source", "steps"), [((4, 16), "map1", -1), ((2, 16), "map2", 1), ((4, 32), "map1", -1), ((2, 32), "map1", -2)]
)
def test_a_filled_stride_comes_from_the_nearest_map_of_two_the_finer(strides, source, steps):
    made = plan(pyramid_of(*strides), zoo.Needs(strides=(8,)))
    assert (names_of(made), kinds_of(made), steps_of(made)) == ([source], ["fill"], [steps])
    assert made.pyramid[0].channels == made.routes[0].source.channels
    assert "stride 8 is missing" in made.routes[0].reason


def test_finer_strides_are_synthesized_where_nothing_else_gives_enough_levels():
    made = plan(pyramid_of(4, 8, 16, 32), zoo.Needs(min_levels=6))
    assert [entry.stride for entry in made.pyramid] == [1, 2, 4, 8, 16, 32]
    assert kinds_of(made) == ["synthesize"] * 2 + ["as it is"] * 4
    assert "at least 7" in refusal(pyramid_of(4, 8, 16, 32), zoo.Needs(min_levels=7))


def test_an_output_stride_finer_than_every_map_is_synthesized():
    made = plan(pyramid_of(16, 32), zoo.Needs(output_stride=8, max_levels=1))
    assert (levels_of(made), kinds_of(made), names_of(made)) == ([3], ["synthesize"], ["map1"])


@pytest.mark.parametrize(
    ("count", "taken"), [(4, [1, 2, 3, 4]), (5, [1, 2, 3, 5]), (8, [2, 4, 6, 8]), (12, [3, 6, 9, 12]), (24, [6, 12, 18, 24])]
)
def test_four_of_the_maps_of_one_stride_are_taken_evenly_spaced(count, taken):
    made = plan(pyramid_of(*[16] * count), zoo.Needs(min_levels=4, max_levels=4, distinct_strides=False))
    assert names_of(made) == [f"map{number}" for number in taken]
    assert kinds_of(made) == ["as it is"] * 4
    assert len(made.unused) == count - 4
    assert all(f"4 of the {count} maps at this stride, evenly spaced" in entry.reason for entry in made.unused)
    if count > 4:
        assert all("chosen among the maps at stride 16" in route.reason for route in made.routes)


def test_of_maps_of_several_strides_the_last_four_are_taken():
    needs = zoo.Needs(min_levels=4, max_levels=4, distinct_strides=False)
    assert names_of(plan(LADDER, needs)) == ["map3", "map4", "map5", "map6"]


def test_too_few_maps_of_one_stride_are_refused():
    message = refusal(pyramid_of(16, 16, 16), zoo.Needs(min_levels=4, max_levels=4, distinct_strides=False))
    assert "at least 4 feature maps, but 3 are left; choose another encoder" in message


def test_more_levels_than_given_keep_the_given_and_add_the_nearest():
    made = plan(pyramid_of(16, 64), levels=4)
    assert [entry.stride for entry in made.pyramid] == [8, 16, 32, 64]
    assert made.unused == ()
    [left] = plan(pyramid_of(16, 64), zoo.Needs(), levels=1).unused
    assert left.reason == "levels=1 keeps the finest stride"


def test_levels_are_heeded_where_exact_strides_are_made():
    assert "levels=2" in refusal(pyramid_of(16), zoo.Needs(strides=(4, 8, 16, 32)), levels=2)


def test_more_levels_than_the_pyramid_has_are_refused_whatever_the_decoder_needs():
    assert "request at most 4" in refusal(pyramid_of(16), zoo.Needs(min_levels=2), levels=5)


def test_an_output_stride_of_1_is_met():
    assert levels_of(plan(pyramid_of(16), zoo.Needs(output_stride=1))) == [0]


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
