"""When a group's rounds end: at few looks, at a level that holds at all of them together, or when the time is spent."""

from __future__ import annotations

import random

import pytest

from zoo.benchmark import BenchConfig
from zoo.benchmark.rounds import RoundsPlan, plan_of, rounds_plan

PLAN = RoundsPlan(minimum=20, maximum=160, target=0.02, budget=60.0)


def steady(rounds, spread, factor=1.0, seed=0):
    draw = random.Random(seed)
    return [factor * draw.gauss(1, spread) for _ in range(rounds)]


def stop(plan, rounds, spread, *, seconds=1.0, baseline="base"):
    samples = {"base": [1.0] * rounds, "other": steady(rounds, spread, 1.5)}
    return plan.stop(samples, baseline, rounds=rounds, seconds=seconds)


def test_there_are_few_looks_and_their_levels_hold_together():
    assert PLAN.looks == (20, 40, 80, 160)
    assert PLAN.confidence == pytest.approx(1 - 0.05 / 4)
    assert RoundsPlan(minimum=20, maximum=50, target=0.02, budget=1).looks == (20, 40, 50)


def test_what_is_known_well_enough_stops_at_the_first_look_and_not_between_looks():
    assert stop(PLAN, 20, 0.005) == "precise"
    assert stop(PLAN, 21, 0.005) is None
    assert stop(PLAN, 19, 0.005) is None


def test_what_is_noisy_goes_on_to_the_most_rounds_and_says_so():
    assert stop(PLAN, 20, 0.5) is None
    assert stop(PLAN, 160, 0.5) == "limit"
    assert stop(PLAN, 160, 0.005) == "precise"


def test_the_budget_ends_rounds_only_beyond_the_least_number():
    assert stop(PLAN, 10, 0.5, seconds=1000) is None
    assert stop(PLAN, 20, 0.5, seconds=1000) == "budget"
    assert stop(PLAN, 33, 0.5, seconds=61) == "budget"


def test_one_noisy_trial_keeps_its_group_going():
    samples = {"base": [1.0] * 20, "calm": steady(20, 0.001), "noisy": steady(20, 0.5)}
    assert PLAN.stop(samples, "base", rounds=20, seconds=1) is None
    del samples["noisy"]
    assert PLAN.stop(samples, "base", rounds=20, seconds=1) == "precise"


def test_without_a_baseline_the_medians_own_intervals_count():
    assert PLAN.stop({"one": steady(20, 0.001)}, None, rounds=20, seconds=1) == "precise"
    assert PLAN.stop({"one": steady(20, 0.5)}, None, rounds=20, seconds=1) is None


def test_a_fixed_number_of_rounds_asks_no_interval_and_no_clock():
    fixed = RoundsPlan(minimum=40, maximum=40, target=None, budget=0.001)
    assert fixed.confidence == pytest.approx(0.95)
    assert stop(fixed, 39, 0.0001, seconds=1000) is None
    assert stop(fixed, 40, 0.5) == "fixed"


def test_the_plan_follows_from_the_configuration_and_from_what_the_store_keeps_of_it():
    facts = {"name": "n", "encoders": ["e"], "decoders": ["d"]}
    adaptive = BenchConfig.model_validate({**facts, "rounds": {"min": 20, "max": 80, "target": 0.05}, "budget": 30.0})
    assert rounds_plan(adaptive) == RoundsPlan(minimum=20, maximum=80, target=0.05, budget=30.0)
    assert plan_of(adaptive.model_dump(mode="json")) == rounds_plan(adaptive)
    fixed = BenchConfig.model_validate({**facts, "rounds": 30})
    assert (rounds_plan(fixed).looks, rounds_plan(fixed).target) == ((30,), None)
    assert plan_of({"rounds": 25}).maximum == 25


def test_stopping_early_misleads_no_more_often_than_the_level_says():
    """The true ratio is 1; the interval at which the rounds end must hold it about 19 times in 20 or more."""
    plan = RoundsPlan(minimum=20, maximum=80, target=0.03, budget=1e9)
    held = 0
    for seed in range(200):
        base, other = steady(80, 0.05, seed=2 * seed), steady(80, 0.05, seed=2 * seed + 1)
        for rounds in plan.looks:
            samples = {"base": base[:rounds], "other": other[:rounds]}
            if plan.stop(samples, "base", rounds=rounds, seconds=0):
                break
        from zoo.common.statistics import estimate_ratio

        ratio = estimate_ratio(samples["other"], samples["base"], plan.confidence)
        held += ratio.low <= 1 <= ratio.high
    assert held >= 186
