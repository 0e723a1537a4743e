"""The kit leaves no trace: registrations of a test are gone after it, and its public names are these."""

from __future__ import annotations

import pytest
from planted_decoders import Sum, register

import zoo
import zoo.testing


@pytest.mark.usefixtures("fresh_registry")
def test_what_a_test_registers_is_there_within_it():
    assert register(Sum) in zoo.list_decoders()


def test_and_gone_after_it():
    assert [name for name in (*zoo.list_decoders(), *zoo.list_encoders()) if name.startswith("local:")] == []


def test_the_public_names_are_these():
    names = "ConformanceError Outcome Report check_decoder check_encoder parametrize_with_checks pyramids"
    assert sorted(zoo.testing.__all__) == names.split()
    assert all(getattr(zoo.testing, name).__doc__ for name in zoo.testing.__all__)
