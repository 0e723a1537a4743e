"""Colors for drawing the classes of a mask."""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["Color", "class_colors"]

Color: TypeAlias = tuple[int, int, int]


def class_colors(count: int) -> tuple[Color, ...]:
    """Return the first `count` colors of PASCAL VOC's color map, which are distinct. Black is the first.

    The map distributes the bits of the index over the three channels.
    """

    def color(index: int) -> Color:
        red = green = blue = 0
        for shift in range(7, -1, -1):
            red |= (index & 1) << shift
            green |= (index >> 1 & 1) << shift
            blue |= (index >> 2 & 1) << shift
            index >>= 3
        return red, green, blue

    return tuple(map(color, range(count)))
