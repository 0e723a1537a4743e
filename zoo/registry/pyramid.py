"""Facts about feature maps: what an encoder gives and what a decoder needs of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from zoo.errors import RegistrationError

__all__ = ["FeatureMap", "Needs", "Pyramid", "check_pyramid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMap:
    """One tensor (N, channels, H/stride, W/stride) that an encoder gives.

    Attributes:
        name: what the encoder calls the map; unique within its pyramid.
        channels: the size of the tensor's second axis.
        stride: nominally, how many input pixels one feature pixel spans along an axis. It need not be whole
            (crossvit's is 17.14), and no code may compute a size from it.
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
        """The exponent of the power of two nearest to the stride: 0 for 1, 2 for 4, 4 for 14 and 17.14."""
        return round(math.log2(self.stride))

    def __str__(self) -> str:
        return f"{self.name} ({self.channels} ch, stride {self.stride:g})"


Pyramid: TypeAlias = tuple[FeatureMap, ...]
"""Feature maps, fine to coarse."""


def check_pyramid(maps: Sequence[FeatureMap], owner: str) -> Pyramid:
    """Return `maps` as a tuple, or say what is wrong with `owner`'s pyramid.

    Raises:
        RegistrationError: no map, a name twice, something that is no `FeatureMap`, or maps not ordered fine to coarse.
    """
    if not isinstance(maps, Sequence):
        raise RegistrationError(f"{owner}: a pyramid is a tuple of zoo.plugin.FeatureMap, found {maps!r}.")
    pyramid = tuple(maps)
    if not pyramid:
        raise RegistrationError(f"{owner}: a pyramid needs at least one feature map.")
    for entry in pyramid:
        if not isinstance(entry, FeatureMap):
            raise RegistrationError(f"{owner}: a pyramid holds zoo.plugin.FeatureMap entries, found {entry!r}.")
    names = [entry.name for entry in pyramid]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RegistrationError(f"{owner}: feature map names must be unique, found more than once: {', '.join(twice)}.")
    strides = [entry.stride for entry in pyramid]
    if strides != sorted(strides):
        raise RegistrationError(f"{owner}: feature maps must run fine to coarse, found strides {_format_numbers(strides)}.")
    return pyramid


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a decoder asks of a pyramid; the defaults accept every pyramid.

    Attributes:
        min_levels: the fewest feature maps the decoder works with; by default 1, and all of `strides` where these are named.
            With `strides` and fewer `min_levels`, a pairing's `levels` may leave some out: in a coarser one's place comes the
            coarsest map that is left.
        max_levels: the most it takes; of a longer pyramid it gets the coarsest.
        strides: exact strides, powers of two such as (4, 8, 16, 32), one feature map each.
        distinct_strides: of maps that share a stride only the last is taken; False takes all of them. By default True, and
            False with `one_stride`.
        one_stride: all maps have one stride, as those of a vision transformer do (MLA, DPT): the encoder's stride with the
            most maps, of two the finer, or the one in `strides`. Nothing is made from maps of other strides.
        channels: one width for all maps; 1x1 projections are inserted where it differs.
        finest_stride: the finest stride the decoder takes, a power of two: finer maps are left out before anything is counted.
        output_stride: the coarsest stride the decoder wants, a power of two (DeepLab's 8 or 16).
        image: the decoder gets the image itself as well, as its first map: as the encoder sees it, of stride 1. It counts as
            none of the levels.
    """

    min_levels: int = -1  # stands for the default until it is made: that depends on `strides`
    max_levels: int | None = None
    strides: tuple[int, ...] | None = None
    distinct_strides: bool = None  # type: ignore[assignment]  # stands for the default likewise
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
            raise RegistrationError("Needs: one_stride takes several maps of one stride, and distinct_strides one; give one.")
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
                    f"Needs: strides must be powers of two that rise, e.g. (4, 8, 16, 32); found {self.strides!r}."
                )
        if self.one_stride and self.strides is not None and len(self.strides) != 1:
            raise RegistrationError(f"Needs: one_stride takes maps of one stride; found strides={self.strides!r}.")
        if self.strides is not None and not self.one_stride and self.min_levels > len(self.strides):
            raise RegistrationError(
                f"Needs: min_levels ({self.min_levels}) is above the number of strides {self.strides!r}, each of which is one "
                "map; name more, or leave min_levels out."
            )
        if self.min_levels < 1:
            raise RegistrationError(f"Needs: min_levels must be at least 1, found {self.min_levels}.")
        if self.max_levels is not None and self.max_levels < self.min_levels:
            raise RegistrationError(f"Needs: max_levels ({self.max_levels}) is below min_levels ({self.min_levels}).")
        if self.strides is not None and self.output_stride is not None and self.strides[-1] > self.output_stride:
            raise RegistrationError(
                f"Needs: stride {self.strides[-1]} is coarser than output_stride={self.output_stride}; name strides up to that."
            )
        for name in ("channels", "output_stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RegistrationError(f"Needs: {name} must be at least 1, found {value}.")
        finest = self.finest_stride
        if not isinstance(finest, int) or isinstance(finest, bool) or finest < 1 or finest.bit_count() != 1:
            raise RegistrationError(f"Needs: finest_stride must be a power of two, found {finest!r}.")
        if self.strides is not None and self.strides[0] < finest:
            raise RegistrationError(f"Needs: stride {self.strides[0]} is finer than finest_stride={finest}; name coarser ones.")
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
            parts.append("one map a stride" if self.distinct_strides else "all maps, strides may repeat")
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
