"""The synthetic pyramids: of many kinds, and each one that the negotiation lets through."""

from __future__ import annotations

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

import zoo
from zoo.testing import pyramids
from zoo.testing.synthetic import LADDERS, features, usual_plans

NEEDS = {
    "any": zoo.Needs(),
    "two levels": zoo.Needs(min_levels=2),
    "exact strides": zoo.Needs(strides=(4, 8, 16, 32), channels=12),
    "every map": zoo.Needs(min_levels=3, max_levels=4, distinct_strides=False),
    "output stride": zoo.Needs(output_stride=16),
}


@pytest.mark.parametrize("needs", NEEDS.values(), ids=NEEDS)
def test_each_pyramid_meets_the_needs_it_was_made_for(needs):
    @given(pyramids(needs))
    def check(pyramid):
        assert isinstance(pyramid, tuple)
        assert len(pyramid) >= needs.min_levels
        assert needs.max_levels is None or len(pyramid) <= needs.max_levels
        assert needs.channels is None or {entry.channels for entry in pyramid} == {needs.channels}
        assert needs.strides is None or tuple(2**entry.level for entry in pyramid) == needs.strides
        assert needs.output_stride is None or all(2**entry.level <= needs.output_stride for entry in pyramid)

    check()


@pytest.mark.parametrize(
    "is_of_the_kind",
    [
        lambda pyramid: [entry.stride for entry in pyramid] == [2, 4, 8, 16, 32],
        lambda pyramid: pyramid[0].stride == 1,
        lambda pyramid: [entry.stride for entry in pyramid] == [7, 14, 28],
        lambda pyramid: len(pyramid) == 1,
        lambda pyramid: len(pyramid) >= 8,
        lambda pyramid: any(entry.channels == 1 for entry in pyramid),
        lambda pyramid: any(entry.channels == 64 for entry in pyramid),
    ],
)
def test_pyramids_of_many_kinds_are_drawn(is_of_the_kind):
    assert is_of_the_kind(find(pyramids(zoo.Needs()), is_of_the_kind))


def test_maps_of_one_stride_are_drawn_for_a_decoder_that_takes_them():
    found = find(
        pyramids(zoo.Needs(min_levels=4, distinct_strides=False)), lambda pyramid: len({x.stride for x in pyramid}) == 1
    )
    assert len(found) >= 4


def test_needs_that_no_synthetic_pyramid_meets_are_refused_with_the_reason():
    with pytest.raises(zoo.errors.NegotiationError, match="at least 40"):
        pyramids(zoo.Needs(min_levels=40, distinct_strides=False))


@given(st.sampled_from(list(NEEDS.values())), st.tuples(st.integers(32, 99), st.integers(32, 99)))
def test_the_tensors_are_of_the_pyramids_channels_and_never_empty(needs, size):
    for plan in usual_plans(needs):
        for entry, tensor in zip(plan.pyramid, features(plan, size), strict=True):
            assert tensor.shape[:2] == (2, entry.channels)
            assert min(tensor.shape) >= 1


def test_there_are_single_strides_irregular_ones_and_long_ladders():
    assert any(len(set(ladder)) == 1 and len(ladder) > 1 for ladder in LADDERS)
    assert any(stride != int(stride) for ladder in LADDERS for stride in ladder)
