"""Runs share an executor if its limits and imports serve them all."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from zoo.benchmark.running.kept_executor import KeptExecutor
from zoo.benchmark.running.local import Limits

LIMITS = Limits(step_seconds=10)


@pytest.fixture
def made():
    """What happened to the executors, in order."""
    return []


@pytest.fixture
def make(made):
    @contextmanager
    def make_executor(limits, preload):
        made.append(("open", *preload))
        yield object()
        made.append(("close", *preload))

    return make_executor


def test_a_run_gets_the_executor_of_the_run_before(make, made):
    with KeptExecutor(make) as kept:
        with kept(LIMITS, ["a", "b"]) as first:
            pass
        with kept(LIMITS, ["b"]) as second:
            pass
        assert first is second
    assert made == [("open", "a", "b"), ("close", "a", "b")]


@pytest.mark.parametrize(("limits", "preload"), [(Limits(step_seconds=20), ["a"]), (LIMITS, ["a", "b"])])
def test_other_limits_or_further_imports_need_another_executor(make, made, limits, preload):
    with KeptExecutor(make) as kept:
        with kept(LIMITS, ["a"]) as first:
            pass
        with kept(limits, preload) as second:
            pass
        assert first is not second
        assert made == [("open", "a"), ("close", "a"), ("open", *preload)]
    assert made[-1] == ("close", *preload)
