"""Medians, their intervals, and when two pairings are a tie."""

from __future__ import annotations

import random
import statistics
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import quantile_test

from zoo.common.statistics import (
    SCORE_TIE,
    Estimate,
    adjust_p_values,
    estimate_difference,
    estimate_median,
    estimate_quotient,
    estimate_ratio,
    outliers,
    percentile_90,
)

SECONDS = st.floats(min_value=1e-6, max_value=1e3)


@settings(max_examples=30)
@given(st.lists(SECONDS, min_size=1, max_size=60))
def test_the_interval_holds_the_median_and_lies_within_the_samples(samples):
    estimate = estimate_median(samples)
    assert estimate.median == statistics.median(samples)
    assert min(samples) <= estimate.low <= estimate.median <= estimate.high <= max(samples)


@settings(max_examples=10)
@given(st.permutations(list(range(1, 21))))
def test_the_interval_is_the_same_every_time_and_in_any_order(samples):
    estimate = estimate_median(samples)
    assert estimate == estimate_median(sorted(samples))
    assert estimate.median == 10.5
    assert (estimate.low, estimate.high) == (6, 15)


@pytest.mark.parametrize("count", [6, 7, 20, 41, 160, 1500])
@pytest.mark.parametrize("confidence", [0.95, 0.9875])
def test_the_interval_is_that_of_scipys_test_of_the_median(count, confidence):
    samples = np.random.default_rng(count).lognormal(0, 0.1, count)
    theirs = quantile_test(samples, q=np.median(samples), p=0.5).confidence_interval(confidence)
    ours = estimate_median(samples.tolist(), confidence)
    if np.isnan(theirs.low):  # too few samples
        assert (ours.low, ours.high) == (min(samples), max(samples))
    else:
        assert (ours.low, ours.high) == (theirs.low, theirs.high)


def test_a_higher_level_gives_a_wider_interval():
    samples = [float(value) for value in range(1, 41)]
    usual, wide = estimate_median(samples), estimate_median(samples, 0.9875)
    assert wide.low < usual.low < usual.high < wide.high
    assert wide.precision > usual.precision > 0


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_too_few_samples_for_an_interval_give_their_full_range(count):
    estimate = estimate_median(range(count))
    assert (estimate.low, estimate.high) == (0, count - 1)


def test_the_interval_of_skewed_samples_covers_the_true_median_19_times_in_20():
    draw = random.Random(0)
    repeats = 600
    estimates = [estimate_median([draw.expovariate(1.0) for _ in range(30)]) for _ in range(repeats)]
    covered = sum(estimate.low <= log(2) <= estimate.high for estimate in estimates)
    assert 0.91 < covered / repeats < 0.98


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


@pytest.mark.parametrize("count", [20, 80])
def test_the_interval_of_a_quotient_covers_the_true_one_19_times_in_20(count):
    draw, covered, repeats = np.random.default_rng(3), 0, 600
    for _ in range(repeats):
        quotient = estimate_quotient(draw.lognormal(0, 0.2, count).tolist(), (2 * draw.lognormal(0, 0.1, 40)).tolist())
        assert quotient.low < quotient.median < quotient.high
        covered += quotient.low <= 0.5 <= quotient.high
    assert 0.92 < covered / repeats < 0.99


def test_a_quotient_of_few_samples_has_the_widest_interval():
    assert estimate_quotient([2.0, 3.0], [1.0, 2.0]) == Estimate(median=2.5 / 1.5, low=1.0, high=3.0)


def test_far_outliers_are_counted_and_the_ninetieth_percentile_is_not_moved_by_one():
    samples = [1 + number / 1000 for number in range(39)]
    assert outliers(samples) == 0
    assert outliers([*samples, 5.0]) == 1
    assert percentile_90([*samples, 5.0]) == pytest.approx(percentile_90(samples), rel=0.01)


def test_p_values_are_corrected_for_their_number_as_by_holm():
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_p_values([0.5, 0.9]) == [1.0, 1.0]
    assert adjust_p_values([]) == []


@given(st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=10))
def test_a_difference_is_no_tie_exactly_if_its_interval_lies_beyond_the_smallest_difference_that_matters(differences):
    difference = estimate_difference(differences)
    is_beyond = difference.low > SCORE_TIE or difference.high < -SCORE_TIE
    is_close = min(abs(abs(end) - SCORE_TIE) for end in (difference.low, difference.high)) < 1e-9
    assert is_close or difference.is_tie is not is_beyond


def test_with_many_models_that_are_alike_a_wrong_winner_is_rare():
    draw, wrong = np.random.default_rng(0), {"alone": 0, "corrected": 0}
    for _ in range(200):
        differences = [estimate_difference(list(draw.normal(SCORE_TIE, 0.02, size=5))) for _ in range(20)]
        p_values = [difference.p_value for difference in differences]
        wrong["alone"] += min(p_values) <= 0.05
        wrong["corrected"] += min(adjust_p_values(p_values)) <= 0.05
    assert wrong["corrected"] / 200 <= 0.08
    assert wrong["alone"] / 200 > 0.3
