"""The image sizes that an encoder accepts. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from zoo.errors import OptionError, RegistrationError

__all__ = ["ImageSizes", "Size", "format_size", "read_size"]

Size: TypeAlias = tuple[int, int]
"""Height and width, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSizes:
    """The heights and widths that an encoder accepts. By default, it accepts every size.

    Attributes:
        multiple: H and W must be multiples of this number, such as the side of a patch or a window.
        minimum: H and W must be at least this number.
        square: whether H and W must be equal.
        fixed: the only (H, W) that the encoder accepts if it is built without an `image_size`; None if it accepts several.
        adapts: whether the encoder's factory accepts the keyword argument `image_size` and builds an encoder for that size.
    """

    multiple: int = 1
    minimum: int = 1
    square: bool = False
    fixed: Size | None = None
    adapts: bool = False

    def __post_init__(self) -> None:
        numbers = {"multiple": self.multiple, "minimum": self.minimum}
        if self.fixed is not None:
            if not isinstance(self.fixed, tuple) or len(self.fixed) != 2:
                raise RegistrationError(f"ImageSizes: fixed must be a pair (height, width); found {self.fixed!r}.")
            numbers |= {"fixed height": self.fixed[0], "fixed width": self.fixed[1]}
        for name, value in numbers.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise RegistrationError(f"ImageSizes: {name} must be a whole number of at least 1; found {value!r}.")

    @property
    def takes_any(self) -> bool:
        """Whether the encoder accepts images of every size."""
        return self.fixed is None and self.multiple == 1 and self.minimum == 1 and not self.square

    def holding(self, size: Size, larger: Callable[..., Any] = max) -> Size:
        """Return the smallest size that is at least `size` and that meets `multiple`, `minimum` and `square`.

        Args:
            size: the height and the width. During an export, they may be symbolic.
            larger: a function that returns the larger of two lengths. Symbolic lengths need `torch.sym_max`.
        """
        least = _steps(self.minimum, self.multiple)
        counts = [_steps(length, self.multiple) for length in size]
        if least > 1:
            counts = [larger(count, least) for count in counts]
        if self.square:
            counts = [larger(*counts)] * 2
        return counts[0] * self.multiple, counts[1] * self.multiple

    def __str__(self) -> str:
        parts = []
        if self.fixed is not None:
            parts.append(f"{format_size(self.fixed)} only")
            if self.adapts:
                parts.append("or the size it is made for (image_size)")
        elif self.takes_any:
            parts.append("any")
        if self.multiple > 1 and (self.fixed is None or self.adapts):
            parts.append(f"multiples of {self.multiple}")
        if self.minimum > 1:
            parts.append(f"at least {self.minimum}")
        if self.square:
            parts.append("square")
        return ", ".join(parts)


def _steps(length: int, multiple: int) -> int:
    """Return `length / multiple`, rounded up. `-(-length // multiple)` would be wrong in ONNX, which rounds toward zero."""
    return (length + multiple - 1) // multiple


def read_size(text: str, where: str) -> Size:
    """Return (H, W) for the text of a size: "256x320", or a single number such as "256" for a square.

    Raises:
        OptionError: the text is not a size. The message begins with `where`.
    """
    match = re.fullmatch(r"([0-9]{1,9})(?:\s*[xX]\s*([0-9]{1,9}))?", text.strip())
    if match is None:
        raise OptionError(
            f"{where}: a size must be HEIGHTxWIDTH, such as 256x320, or one number for a square; found {text!r:.80}."
        )
    return int(match[1]), int(match[2] or match[1])


def format_size(size: Size | None) -> str:
    """Return a size as text, such as "256x320". For None, return "any size"."""
    return "any size" if size is None else f"{size[0]}x{size[1]}"
