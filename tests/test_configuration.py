"""What YAML's values are read as."""

from __future__ import annotations

import pytest

from zoo.configuration import read_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3E5", 3e5),
        ("-2e+1", -20.0),
        ("1.5", 1.5),
        ("12", 12),
        ("true", True),
        ("[96, 128]", [96, 128]),
        ("dice", "dice"),
        ("12e5abc0", "12e5abc0"),  # the beginning of a hash
        ("1e", "1e"),
        ("e5", "e5"),
        ("a: [", "a: ["),
    ],
)
def test_a_value_is_read_as_a_person_means_it(text, value):
    found = read_value(text)
    assert found == value
    assert type(found) is type(value)
