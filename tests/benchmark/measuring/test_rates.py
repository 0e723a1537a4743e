"""What a device can do at best, by kernels that are really run."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.benchmark.measuring.peak_rates import best_rate, measure_rates

CPU = torch.device("cpu")
SECONDS = 0.001
"""Enough for a rate that is positive, and no test asks for more."""


class Calls(TorchDispatchMode):
    """Notes, of each convolution and matrix product, the number of threads it ran with."""

    def __init__(self):
        super().__init__()
        self.threads = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.conv2d, torch.ops.aten.convolution, torch.ops.aten.mm):
            self.threads.append(torch.get_num_threads())
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def rates():
    return tuple(measure_rates(CPU, "float32", seconds=SECONDS))


@pytest.fixture
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def test_each_kernel_has_a_name_and_a_rate(rates):
    assert {"3x3 convolution 64x128x128", "3x3 convolution 256x32x32 channels_last"} <= {rate.kernel for rate in rates}
    assert len({rate.kernel for rate in rates}) == len(rates)
    assert all(rate.dtype == "float32" and rate.flops_per_second > 0 for rate in rates)


def test_the_best_rate_is_the_highest_and_of_none_there_is_none(rates):
    best = best_rate(iter(rates))
    assert best in rates
    assert best.flops_per_second == max(rate.flops_per_second for rate in rates)
    assert best_rate([]) is None


def test_bfloat16_is_measured_as_bfloat16_or_not_at_all():
    assert all(rate.dtype == "bfloat16" for rate in itertools.islice(measure_rates(CPU, "bfloat16", seconds=SECONDS), 1))


def test_a_device_that_computes_nothing_has_no_rate():
    assert list(measure_rates(torch.device("meta"), "float32", seconds=SECONDS)) == []


@pytest.mark.usefixtures("two_threads")
def test_kernels_run_with_the_threads_that_torch_has():
    with Calls() as calls:
        next(measure_rates(CPU, "float32", seconds=SECONDS))
    assert set(calls.threads) == {2}
    assert torch.get_num_threads() == 2


def test_whoever_iterates_finds_torch_as_it_was():
    state = torch.random.get_rng_state()
    for _ in itertools.islice(measure_rates(CPU, "float32", seconds=SECONDS), 2):
        assert not torch.is_inference_mode_enabled()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator")
def test_an_accelerator_has_a_rate():
    device = torch.accelerator.current_accelerator()
    assert best_rate(measure_rates(device, "float32", seconds=SECONDS)).flops_per_second > 1e9
