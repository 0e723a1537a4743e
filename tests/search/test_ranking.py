"""Candidates are ranked by how close they are to the front of time and score, and spread over groups."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.search.ranking import Front, closeness, spread

POINTS = st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 9).map(float)), min_size=1, max_size=30)


@given(POINTS, st.integers(-1, 10).map(float))
def test_the_front_knows_the_shortest_time_for_a_score(points, score):
    expected = min((seconds for seconds, each in points if each >= score), default=math.inf)
    assert Front(points).seconds_for(score) == expected


@given(POINTS)
def test_a_point_is_on_the_front_unless_a_faster_one_has_its_score(points):
    for (seconds, score), share in zip(points, closeness(points), strict=True):
        is_beaten = any(other < seconds and each >= score for other, each in points)
        assert 0 < share <= 1
        assert (share == 1) is not is_beaten


def test_a_point_that_takes_twice_as_long_is_half_as_close():
    assert closeness([(1.0, 5.0), (2.0, 5.0), (4.0, 7.0)]) == [1.0, 0.5, 1.0]


@pytest.mark.parametrize(("words", "order"), [(["a1", "a2", "b1", "a3", "b2"], ["a1", "b1", "a2", "b2", "a3"]), ([], [])])
def test_each_beginning_of_a_spread_list_has_many_groups(words, order):
    assert spread(words, lambda word: word[0]) == order
