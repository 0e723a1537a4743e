"""Names in a message: the first ones, and how many more there are."""

from __future__ import annotations

import pytest

from zoo.common.format_names import format_names


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a, b"),
        (["a", "b", "c"], "a, b and 1 more"),
        (range(12), "0, 1 and 10 more"),
    ],
)
def test_the_first_names_are_listed_and_the_others_counted(names, text):
    assert format_names(names, 2) == text
