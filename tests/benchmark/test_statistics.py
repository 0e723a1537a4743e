"""Medians, their intervals, and when two pairings are a tie."""

from __future__ import annotations

import random
import statistics
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.benchmark.statistics import Estimate, estimate_median, estimate_ratio

SECONDS = st.floats(min_value=1e-6, max_value=1e3)


@given(st.lists(SECONDS, min_size=1, max_size=60))
def test_the_interval_holds_the_median_and_lies_within_the_samples(samples):
    estimate = estimate_median(samples)
    assert estimate.median == statistics.median(samples)
    assert min(samples) <= estimate.low <= estimate.median <= estimate.high <= max(samples)
    assert {estimate.low, estimate.high} <= set(samples)


@given(st.permutations(list(range(1, 21))))
def test_of_twenty_samples_the_interval_is_the_sixth_to_the_fifteenth_in_any_order(samples):
    assert estimate_median(samples) == Estimate(median=10.5, low=6, high=15)


@pytest.mark.parametrize(("count", "low"), [(6, 1), (8, 1), (9, 2), (10, 2), (40, 14), (100, 40)])
def test_the_order_statistics_are_those_of_the_published_tables(count, low):
    estimate = estimate_median(range(1, count + 1))
    assert (estimate.low, estimate.high) == (low, count + 1 - low)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_too_few_samples_for_an_interval_give_their_full_range(count):
    estimate = estimate_median(range(count))
    assert (estimate.low, estimate.high) == (0, count - 1)


def test_the_interval_of_skewed_samples_covers_the_true_median_19_times_in_20():
    draw = random.Random(0)
    repeats = 2000
    estimates = [estimate_median([draw.expovariate(1.0) for _ in range(20)]) for _ in range(repeats)]
    covered = sum(estimate.low <= log(2) <= estimate.high for estimate in estimates)
    assert 0.93 < covered / repeats < 0.98


@given(st.lists(SECONDS, min_size=1, max_size=40))
def test_the_ratio_of_identical_samples_is_one_and_a_tie(samples):
    ratio = estimate_ratio(samples, samples)
    assert ratio == Estimate(median=1.0, low=1.0, high=1.0)
    assert ratio.is_tie


@given(st.lists(SECONDS, min_size=20, max_size=40))
def test_half_as_slow_again_is_no_tie_however_the_samples_drift(baseline):
    ratio = estimate_ratio([1.5 * seconds for seconds in baseline], baseline)
    assert ratio.median == pytest.approx(1.5)
    assert not ratio.is_tie


def test_the_ratio_is_of_samples_of_the_same_round():
    assert estimate_ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == Estimate(median=2.0, low=2.0, high=2.0)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        estimate_ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("low", "high", "is_tie"),
    [
        (0.9, 0.979, False),
        (0.9, 0.98, True),
        (0.99, 1.01, True),
        (0.5, 2.0, True),
        (1.02, 1.3, True),
        (1.021, 1.3, False),
    ],
)
def test_a_ratio_is_a_tie_unless_its_interval_lies_outside_two_percent_of_one(low, high, is_tie):
    assert Estimate(median=(low + high) / 2, low=low, high=high).is_tie is is_tie
