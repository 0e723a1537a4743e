"""Overlapping tiles: each pixel of the image is covered, its weights add up to 1, and a tile's edge counts for nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.model.tiles import Axis

axes = st.builds(
    lambda length, tile, share, multiple: Axis(
        length=length, tile=tile * multiple, overlap=tile * multiple // 2 * share // 4, multiple=multiple
    ),
    st.integers(1, 500),
    st.integers(1, 6),
    st.integers(0, 4),
    st.sampled_from([1, 8, 14, 32]),
)


@given(axes)
def test_every_pixel_is_covered_and_its_weights_add_up_to_one(axis):
    total = np.zeros(axis.starts[-1] + axis.tile)
    for start, weights in zip(axis.starts, axis.weights(), strict=True):
        assert (weights >= 0).all()
        total[start : start + axis.tile] += weights
    assert total[: axis.length] == pytest.approx(1, abs=1e-6)


@given(axes)
def test_tiles_begin_where_the_strides_do_and_end_with_the_image(axis):
    assert all(start % axis.multiple == 0 for start in axis.starts)
    if axis.length > axis.tile:
        end = axis.starts[-1] + axis.tile
        assert axis.length <= end < axis.length + axis.multiple
    overlaps = [one + axis.tile - other for one, other in zip(axis.starts, axis.starts[1:], strict=False)]
    assert all(found >= min(axis.overlap, axis.tile - axis.multiple) for found in overlaps)


def test_a_tiles_edge_counts_for_nothing_where_another_tile_has_the_pixel():
    _, second, _ = Axis(length=320, tile=128, overlap=32, multiple=32).weights()
    assert (second[:8] == 0).all()
    assert (second[-8:] == 0).all()
    assert (second[32:-32] == 1).all()
