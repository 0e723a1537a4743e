"""Describe the feature maps that an encoder returns, and the feature maps that a decoder needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from zoo.errors import RegistrationError

__all__ = ["FeatureMap", "Needs", "Pyramid", "check_pyramid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMap:
    """The description of one tensor (N, channels, H/stride, W/stride) that an encoder returns.

    Attributes:
        name: the encoder's name for the map. It is unique among the encoder's maps.
        channels: the size of the tensor's second axis.
        stride: the nominal number of image pixels that one pixel of the map covers along an axis. It can be fractional (17.14
            in CrossViT), so code must not compute a map's size from it.
    """

    name: str
    channels: int
    stride: float

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise RegistrationError(f"A feature map needs a name; found {self.name!r}.")
        if not isinstance(self.channels, int) or isinstance(self.channels, bool) or self.channels < 1:
            raise RegistrationError(
                f"Feature map {self.name!r}: channels must be a whole number >= 1, found {self.channels!r}."
            )
        if not isinstance(self.stride, int | float) or not math.isfinite(self.stride) or self.stride < 1:
            raise RegistrationError(f"Feature map {self.name!r}: stride must be a number >= 1, found {self.stride!r}.")

    @property
    def level(self) -> int:
        """The exponent of the power of two nearest to the stride: 0 for stride 1, 2 for stride 4, 4 for stride 14 or 17.14."""
        return round(math.log2(self.stride))

    def __str__(self) -> str:
        return f"{self.name} ({self.channels} ch, stride {self.stride:g})"


Pyramid: TypeAlias = tuple[FeatureMap, ...]
"""Feature maps, fine to coarse."""


def check_pyramid(maps: Sequence[FeatureMap], owner: str) -> Pyramid:
    """Return `maps` as a tuple, or raise an error whose message begins with `owner`.

    Raises:
        RegistrationError: `maps` is empty, contains something that is not a `FeatureMap`, has two maps of the same name, or is
            not ordered fine to coarse.
    """
    if not isinstance(maps, Sequence):
        raise RegistrationError(f"{owner}: a pyramid must be a tuple of zoo.plugin.FeatureMap objects, found {maps!r}.")
    pyramid = tuple(maps)
    if not pyramid:
        raise RegistrationError(f"{owner}: a pyramid must have at least one feature map.")
    for entry in pyramid:
        if not isinstance(entry, FeatureMap):
            raise RegistrationError(f"{owner}: a pyramid must contain only zoo.plugin.FeatureMap objects, found {entry!r}.")
    names = [entry.name for entry in pyramid]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RegistrationError(f"{owner}: feature map names must be unique, found more than once: {', '.join(twice)}.")
    strides = [entry.stride for entry in pyramid]
    if strides != sorted(strides):
        raise RegistrationError(
            f"{owner}: feature maps must be ordered from fine to coarse; found strides {_format_numbers(strides)}."
        )
    return pyramid


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a decoder requires of a pyramid. The defaults accept every pyramid.

    Attributes:
        min_levels: the smallest number of feature maps that the decoder works with. The default is the number of `strides`, or
            1 without `strides`. If `min_levels` is smaller than the number of `strides`, a pairing may leave out the coarse
            strides with its option `levels`. The coarsest map that is kept then replaces the maps that were left out.
        max_levels: the largest number of feature maps that the decoder accepts. If there are more, the decoder gets the
            coarsest maps, or evenly spaced maps if all have the same stride.
        strides: the exact strides that the decoder needs, one feature map for each: powers of two such as (4, 8, 16, 32).
        distinct_strides: whether the decoder gets only the last of several maps of the same stride (True) or all of them
            (False). By default True, or False with `one_stride`.
        one_stride: whether all maps must have the same stride, like those of a vision transformer (for MLA, DPT). If `strides`
            is given, it names that stride. Otherwise, it is the stride at which the encoder has the most maps; if several
            strides tie, the finest of them. Maps of other strides are not used, not even as the input of adapters.
        channels: the number of channels that every map must have. A 1x1 convolution converts maps with a different number.
        finest_stride: the finest stride that the decoder accepts, a power of two. Finer maps are left out first, so `levels`,
            `min_levels` and `max_levels` do not count them.
        output_stride: the coarsest stride that the decoder wants, a power of two (8 or 16 in DeepLab). If the encoder can reach
            this stride by dilation, zoo builds it with dilated convolutions.
        image: whether the decoder also gets the encoder's input image, as its first map (stride 1). The image does not count
            as a level.
    """

    min_levels: int = -1  # replaced by the default, which depends on `strides`
    max_levels: int | None = None
    strides: tuple[int, ...] | None = None
    distinct_strides: bool = None  # type: ignore[assignment]  # replaced by the default, which depends on `one_stride`
    channels: int | None = None
    finest_stride: int = 1
    output_stride: int | None = None
    one_stride: bool = False
    image: bool = False

    def __post_init__(self) -> None:
        if self.distinct_strides is None:
            object.__setattr__(self, "distinct_strides", self.one_stride is not True)  # type: ignore[unreachable]
        for name in ("distinct_strides", "one_stride", "image"):
            if not isinstance(getattr(self, name), bool):
                raise RegistrationError(f"Needs: {name} must be True or False, found {getattr(self, name)!r}.")
        if self.one_stride and self.distinct_strides:
            raise RegistrationError(
                "Needs: one_stride uses several maps of one stride, but distinct_strides uses one map of each stride. "
                "Only one of the two may be True."
            )
        if self.min_levels == -1:
            named = self.strides if isinstance(self.strides, Sequence) else ()
            object.__setattr__(self, "min_levels", max(1, len(named)))
        counts = {"min_levels": self.min_levels, "max_levels": self.max_levels, "channels": self.channels}
        for name, value in {**counts, "output_stride": self.output_stride}.items():
            if (value is not None or name == "min_levels") and (not isinstance(value, int) or isinstance(value, bool)):
                raise RegistrationError(f"Needs: {name} must be a whole number, found {value!r}.")
        if self.strides is not None:
            if not isinstance(self.strides, Sequence) or not all(type(stride) is int for stride in self.strides):
                raise RegistrationError(f"Needs: strides must be whole numbers, e.g. (4, 8, 16, 32); found {self.strides!r}.")
            object.__setattr__(self, "strides", tuple(self.strides))
            powers = bool(self.strides) and all(stride >= 1 and stride.bit_count() == 1 for stride in self.strides)
            if not powers or list(self.strides) != sorted(set(self.strides)):
                raise RegistrationError(
                    f"Needs: strides must be powers of two in ascending order, e.g. (4, 8, 16, 32); found {self.strides!r}."
                )
        if self.one_stride and self.strides is not None and len(self.strides) != 1:
            raise RegistrationError(
                f"Needs: with one_stride=True, `strides` must contain only one stride; found strides={self.strides!r}."
            )
        if self.strides is not None and not self.one_stride and self.min_levels > len(self.strides):
            raise RegistrationError(
                f"Needs: min_levels ({self.min_levels}) is above the number of strides {self.strides!r}, each of which has "
                "one map; add strides, or leave min_levels out."
            )
        if self.min_levels < 1:
            raise RegistrationError(f"Needs: min_levels must be at least 1, found {self.min_levels}.")
        if self.max_levels is not None and self.max_levels < self.min_levels:
            raise RegistrationError(f"Needs: max_levels ({self.max_levels}) is below min_levels ({self.min_levels}).")
        if self.strides is not None and self.output_stride is not None and self.strides[-1] > self.output_stride:
            raise RegistrationError(
                f"Needs: stride {self.strides[-1]} is coarser than output_stride={self.output_stride}. Remove it from strides."
            )
        for name in ("channels", "output_stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RegistrationError(f"Needs: {name} must be at least 1, found {value}.")
        finest = self.finest_stride
        if not isinstance(finest, int) or isinstance(finest, bool) or finest < 1 or finest.bit_count() != 1:
            raise RegistrationError(f"Needs: finest_stride must be a power of two, found {finest!r}.")
        if self.strides is not None and self.strides[0] < finest:
            raise RegistrationError(
                f"Needs: stride {self.strides[0]} is finer than finest_stride={finest}. Remove it from strides."
            )
        if self.output_stride is not None and self.output_stride.bit_count() != 1:
            raise RegistrationError(f"Needs: output_stride must be a power of two, found {self.output_stride}.")
        if self.output_stride is not None and self.output_stride < finest:
            raise RegistrationError(f"Needs: output_stride={self.output_stride} is finer than finest_stride={finest}.")

    def __str__(self) -> str:
        parts = [f"at least {self.min_levels} level{'s' if self.min_levels > 1 else ''}"]
        if self.max_levels is not None:
            parts.append(f"at most {self.max_levels}{'' if self.one_stride else ' (the coarsest)'}")
        if self.strides is not None:
            parts.append(f"strides {_format_numbers(self.strides)}")
        if self.one_stride:
            parts.append("all of one stride")
        else:
            parts.append("one map per stride" if self.distinct_strides else "all maps, strides may repeat")
        if self.channels is not None:
            parts.append(f"{self.channels} channels each")
        if self.finest_stride > 1:
            parts.append(f"none finer than stride {self.finest_stride}")
        if self.output_stride is not None:
            parts.append(f"output stride {self.output_stride}")
        if self.image:
            parts.append("and the image itself")
        return ", ".join(parts)


def _format_numbers(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
