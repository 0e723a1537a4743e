"""The cost model recovers what made the times, knows its own error, and refuses models unlike those that were timed."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.benchmark.operation import Operation, OperationTime, OperationTimes
from zoo.search.cost_model import fit_cost_model

SECONDS = {"convolution": (2e-12, 1e-10, 1e-5), "norm": (0.0, 3e-10, 2e-5), "attention": (5e-12, 1e-10, 4e-5)}
"""The seconds of a FLOP, a byte and a call, by which the times of these tests are made."""


def random_operation(draw, kind, scale=1.0):
    width = int(2 ** draw.uniform(4, 9))
    positions = int(scale * 2 ** draw.uniform(8, 16))
    flops = 0 if kind == "norm" else 18 * positions * width**2
    return Operation(kind=kind, flops=flops, bytes=8 * positions * width, width=width, positions=positions)


def seconds_of(operation):
    flops, size, call = SECONDS[operation.kind]
    return flops * operation.flops + size * operation.bytes + call


def random_model(draw, noise=0.0, scale=1.0, kinds=tuple(SECONDS)):
    operations = [random_operation(draw, kind, scale) for kind in kinds for _ in range(12)]
    calls = [int(draw.integers(1, 4)) for _ in operations]
    total = sum(count * seconds_of(operation) for operation, count in zip(operations, calls, strict=True))
    timed = tuple(
        OperationTime(operation=operation, calls=count, seconds=seconds_of(operation) * draw.lognormal(0, 0.05))
        for operation, count in zip(operations, calls, strict=True)
    )
    return OperationTimes(trial="", seconds=total * draw.lognormal(0, noise), operations=timed)


def random_models(count, seed=0, **options):
    draw = np.random.default_rng(seed)
    return [random_model(draw, **options) for _ in range(count)]


def test_times_that_follow_from_the_operations_are_estimated_from_them():
    model = fit_cost_model(random_models(40))
    errors = [model.predict(new.calls).seconds / new.seconds - 1 for new in random_models(40, seed=1)]
    assert np.median(np.abs(errors)) < 0.05
    assert np.max(np.abs(errors)) < 0.2


def test_the_interval_holds_nine_of_ten_new_times():
    held = []
    for seed in range(8):
        model = fit_cost_model(random_models(60, seed=seed, noise=0.15))
        for new in random_models(40, seed=100 + seed, noise=0.15):
            interval = model.interval(model.predict(new.calls))
            held.append(interval.low <= new.seconds <= interval.high)
    assert 0.85 <= np.mean(held) <= 0.95


def test_a_model_like_the_timed_ones_does_not_differ_from_them():
    model = fit_cost_model(random_models(40))
    assert [model.predict(new.calls).difference for new in random_models(20, seed=1)] == [""] * 20


def test_a_kind_of_operation_that_no_timed_model_has_is_a_difference():
    model = fit_cost_model(random_models(40))
    (new,) = random_models(1, seed=1)
    wavelet = {Operation(kind="wavelet", bytes=10**7, width=8, positions=100): 50}
    assert model.predict(new.calls | wavelet).difference == "no timed model has operations of the kind 'wavelet'"


def test_operations_larger_than_all_timed_ones_are_a_difference():
    model = fit_cost_model(random_models(40, scale=0.001))
    (new,) = random_models(1, seed=1)
    assert "operations unlike all timed ones take" in model.predict(new.calls).difference


@pytest.mark.parametrize(
    ("timed", "scale", "rel"),
    [
        pytest.param(0.01, 0.0001, 0.3, id="as short as an empty call"),
        pytest.param(100.0, 10_000.0, 0.1, id="beyond the caches"),
    ],
)
def test_beyond_both_ends_of_the_sizes_operations_are_alike(timed, scale, rel):
    model = fit_cost_model(random_models(40, scale=timed))
    for new in random_models(20, seed=1, scale=scale):
        prediction = model.predict(new.calls)
        assert prediction.difference == ""
        assert prediction.seconds == pytest.approx(new.seconds, rel=rel)


def test_a_part_without_operations_takes_no_time():
    model = fit_cost_model(random_models(40))
    interval = model.interval(model.predict({}))
    assert (interval.low, interval.seconds, interval.high) == (0, 0, 0)


def test_a_small_share_of_unlike_operations_is_no_difference():
    model = fit_cost_model(random_models(40))
    (new,) = random_models(1, seed=1)
    tiny = {Operation(kind="norm", bytes=16, width=1, positions=2): 1}
    assert model.predict(new.calls | tiny).difference == ""


def test_too_few_models_are_refused():
    with pytest.raises(ValueError, match="requires the times of at least 20 models; found 19"):
        fit_cost_model(random_models(19))
