"""What a plugin yields: an encoder or a decoder described as plain data, with a factory imported only when built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from zoo.errors import RegistrationError
from zoo.pyramid import Needs, Pyramid, check_pyramid

__all__ = ["DecoderSpec", "EncoderSpec", "Factory", "Option", "Preprocessing", "Spec"]

Factory: TypeAlias = "str | Callable[..., Any]"
"""A callable, or `package.module:name` of one, imported only when something is built."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes the tensor that the weights were trained on: `(image in value_range - mean) / std`.

    Attributes:
        mean: one value a channel, in units of `value_range`.
        std: likewise.
        value_range: the lowest and the highest value a pixel has before the mean is taken off.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise RegistrationError(f"Preprocessing: one mean and one std a channel, found {self.mean} and {self.std}.")
        if min(self.std) <= 0:
            raise RegistrationError(f"Preprocessing: std must be above 0, found {self.std}.")

    @classmethod
    def identity(cls, channels: int) -> Preprocessing:
        """Return what fits weights that were never trained: pixels in 0 to 1, taken as they are."""
        return cls(mean=(0.0,) * channels, std=(1.0,) * channels)

    def for_channels(self, channels: int) -> Preprocessing:
        """Return the same for an encoder whose first convolution was adapted to `channels` input channels.

        Adapted kernels are summed for one channel and repeated in turn for others, so mean and std follow suit.
        """
        if channels == len(self.mean):
            return self
        mean: tuple[float, ...]
        std: tuple[float, ...]
        if channels == 1:
            mean, std = (sum(self.mean) / len(self.mean),), (sum(self.std) / len(self.std),)
        else:
            mean = tuple(self.mean[index % len(self.mean)] for index in range(channels))
            std = tuple(self.std[index % len(self.std)] for index in range(channels))
        return Preprocessing(mean=mean, std=std, value_range=self.value_range)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One keyword that a factory takes beside what the contract gives it: for `zoo show` and for error messages."""

    name: str
    default: Any
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """An encoder as a plugin describes it.

    Attributes:
        name: the bare name; with the plugin's name in front it is the full id.
        factory: called as `factory(maps=(names, ...), in_channels=..., weights=..., **options)`; makes an `nn.Module`
            whose `forward(image)` takes (N, in_channels, H, W) and returns just those maps, NCHW, fine to coarse.
            It holds no stage that none of these maps needs. It may have a `preprocessing` of the weights in use.
        pyramid: every map that the encoder can give: a tuple of `FeatureMap`, or a torch-free function of its options.
        options: the keywords that the factory takes besides; None where they are not declared.
        constants: keywords that this spec always hands to its factory, so that one factory serves a family.
        weights: names that `weights=` accepts beside a file's path.
        source: paper or repository of the architecture.
        licence: of the code, as an SPDX id.
        canonical: the bare name is the project's own; honoured from this distribution only.
    """

    name: str
    factory: Factory
    pyramid: Pyramid | Callable[..., Pyramid]
    options: tuple[Option, ...] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    source: str = ""
    licence: str = ""
    canonical: bool = False

    def __post_init__(self) -> None:
        _check_name_and_factory("EncoderSpec", self.name, self.factory)
        _check_tuples("EncoderSpec", self.name, options=self.options, weights=self.weights)
        if not callable(self.pyramid):
            object.__setattr__(self, "pyramid", check_pyramid(self.pyramid, f"Encoder {self.name!r}"))

    def pyramid_for(self, options: dict[str, Any]) -> Pyramid:
        """Return the maps that the encoder gives under these options."""
        if callable(self.pyramid):
            return check_pyramid(self.pyramid(**options), f"Encoder {self.name!r}")
        return self.pyramid


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A decoder as a plugin describes it.

    Attributes:
        name: the bare name; with the plugin's name in front it is the full id.
        factory: called as `factory(pyramid, **options)`; makes an `nn.Module` with `out_channels` and `out_stride` whose
            `forward(features)` takes that pyramid's tensors as a list and returns one (N, out_channels, h, w).
            It may have `make_head(classes)`; otherwise the head is a 1x1 convolution.
        needs: a `Needs`, or a torch-free function of the decoder's options.
        options: the keywords that the factory takes besides the pyramid; None where they are not declared.
        constants: keywords that this spec always hands to its factory, so that one factory serves a family.
        source: paper or repository of the method.
        licence: of the code, as an SPDX id.
        canonical: the bare name is the project's own; honoured from this distribution only.
    """

    name: str
    factory: Factory
    needs: Needs | Callable[..., Needs] = field(default_factory=Needs)
    options: tuple[Option, ...] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    licence: str = ""
    canonical: bool = False

    def __post_init__(self) -> None:
        _check_name_and_factory("DecoderSpec", self.name, self.factory)
        _check_tuples("DecoderSpec", self.name, options=self.options)
        if not isinstance(self.needs, Needs) and not callable(self.needs):
            raise RegistrationError(f"Decoder {self.name!r}: needs must be a zoo.Needs or a function, found {self.needs!r}.")

    def needs_for(self, options: dict[str, Any]) -> Needs:
        """Return what the decoder needs under these options."""
        if isinstance(self.needs, Needs):
            return self.needs
        needs = self.needs(**options)
        if not isinstance(needs, Needs):
            raise RegistrationError(f"Decoder {self.name!r}: its needs function must return a zoo.Needs, found {needs!r}.")
        return needs


Spec: TypeAlias = EncoderSpec | DecoderSpec


def _check_name_and_factory(kind: str, name: object, factory: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistrationError(
            f"{kind}: a name has letters, digits, '_', '.', '+' and '-', and begins with a letter or digit; found {name!r}."
        )
    if isinstance(factory, str):
        if not _FACTORY.fullmatch(factory):
            raise RegistrationError(f"{kind} {name!r}: a factory is written 'package.module:name'; found {factory!r}.")
    elif not callable(factory):
        raise RegistrationError(f"{kind} {name!r}: a factory is a callable or 'package.module:name'; found {factory!r}.")


def _check_tuples(kind: str, name: str, **given: object) -> None:
    for field_name, value in given.items():
        if value is not None and not isinstance(value, tuple):
            raise RegistrationError(f"{kind} {name!r}: {field_name} must be a tuple; found {value!r}.")
